"""The platform's container on a test machine: a `docker` that runs this machine's own psql and redis-cli, against real
servers at other ports than the container's.

    container = Container(tmp_path, postgres_socket=server.folder, postgres_port=server.port)
    HostSpec("platform-1", programs={"docker": container.program})
    container.replace()                     # as if the platform had been started anew: another id
    container.say("psql", "exit 2")         # what runs instead of psql, as shell text
"""

import secrets
import shlex
from pathlib import Path

DOCKER = """\
#!/bin/bash
state={state}
id=$(cat "$state/id")
case $1 in
ps)
    printf '4be51c0ffee0\\tregistry.replicated.com/library/retraced:1\\treplicated\\n'
    [ -z "$id" ] || printf '%s\\tquay.io/travisci/te-main:v2.2.26\\tfocused_wozniak\\n' "$id"
    exit 0 ;;
exec) shift ;;
*) echo "docker: $1 is not known to this rig" >&2; exit 125 ;;
esac
case $1 in -i) shift ;; *) exec </dev/null ;; esac
while [ "$1" = -e ]; do export "$2"; shift 2; done
[ "$1" = "$id" ] || {{ echo "Error: No such container: $1" >&2; exit 1; }}
shift
name=$1; shift
[ ! -f "$state/$name" ] || . "$state/$name"
case $name in
psql) exec psql "$@" -h {socket} -p {port} ;;
redis-cli) exec redis-cli -p {redis} "$@" ;;
*) exec "$name" "$@" ;;
esac
"""


class Container:
    """Where docker's answers come from; `postgres_socket` is the folder of the server's Unix socket."""

    def __init__(self, folder: Path, postgres_socket: Path = Path("/"), postgres_port: int = 1, redis: int = 1) -> None:
        self._folder = folder
        folder.chmod(0o755)
        self._socket, self._port, self._redis = postgres_socket, postgres_port, redis
        self.id = ""
        self.replace()

    @property
    def program(self) -> str:
        return DOCKER.format(
            state=shlex.quote(str(self._folder)),
            socket=shlex.quote(str(self._socket)),
            port=self._port,
            redis=self._redis,
        )

    def replace(self) -> None:
        """Another container of the same image."""
        self.id = secrets.token_hex(6)
        self._write()

    def remove(self) -> None:
        self.id = ""
        self._write()

    def say(self, program: str, instead: str) -> None:
        """Run this shell text before that program, in its place when it exits; empty text ends that."""
        (self._folder / program).write_text(instead)

    def _write(self) -> None:
        (self._folder / "id").write_text(self.id)
