"""The platform's container on a test machine: a `docker` that runs this machine's own psql and redis-cli, against real
servers at other ports than the container's.

    container = Container(tmp_path, postgres_socket=server.folder, postgres_port=server.port)
    HostSpec("platform-1", programs={"docker": container.program})
    container.replace()                     # as if the platform had been started anew: another id
    container.say("psql", "exit 2")         # what runs instead of psql, as shell text
    HostSpec("platform-1", programs={"docker": container.program, "pg_dump": container.wrapped("/usr/bin/pg_dump")})
    container.say("pg_dump", "sleep 1")     # what runs before it, also when psql starts it
    container.detach()                      # what runs inside belongs to docker's daemon, as it does on real machines
"""

import secrets
import shlex
import sys
from pathlib import Path

# Docker's client passes on bytes, and no signal; when it is gone, its daemon closes the program's input, and reads
# what the program says until that ends by itself.
DAEMON = r"""
import os, subprocess, sys, threading
def copy(source, sink):
    while data := os.read(source, 65536):
        if sink is not None:
            try:
                sink = os.write(sink, data) and sink
            except OSError:
                sink = None
pipes = [os.pipe() for _ in range(4)]
(in_r, in_w), (out_r, out_w), (err_r, err_w), (end_r, end_w) = pipes
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    kept = {in_r, out_w, err_w, end_w}
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for number in range(3, 256):
        if number not in kept:
            try:
                os.close(number)
            except OSError:
                pass
    pipe = subprocess.PIPE
    child = subprocess.Popen(sys.argv[1:], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    def feed():
        copy(in_r, child.stdin.fileno())
        child.stdin.close()
    threading.Thread(target=feed, daemon=True).start()
    heard = [threading.Thread(target=copy, args=pair) for pair in
             ((child.stdout.fileno(), out_w), (child.stderr.fileno(), err_w))]
    for thread in heard:
        thread.start()
    for thread in heard:
        thread.join()
    status = child.wait()
    try:
        os.write(end_w, bytes([status if status >= 0 else 128 - status]))
    except OSError:
        pass
    os._exit(0)
for number in (in_r, out_w, err_w, end_w):
    os.close(number)
def feed():
    copy(0, in_w)
    os.close(in_w)
threading.Thread(target=feed, daemon=True).start()
complaints = threading.Thread(target=copy, args=(err_r, 2))
complaints.start()
copy(out_r, 1)
complaints.join()
os._exit((os.read(end_r, 1) or b"}")[0])
"""

DOCKER = """\
#!/bin/bash
state={state}
id=$(cat "$state/id")
case $1 in
ps)
    cat >/dev/null  # as sudo does, which hands a terminal to what it runs: what stands on its standard input is gone
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
export PGPORT={port} PGPASSWORD=only-for-tests  # for what psql starts: the container's own asks for neither
case $name in
psql) set -- psql "$@" -h {socket} -p {port} ;;
redis-cli) set -- redis-cli -p {redis} "$@" ;;
*) set -- "$name" "$@" ;;
esac
[ ! -f "$state/detached" ] || exec {python} -c {daemon} "$@"
exec "$@"
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
            python=shlex.quote(sys.executable),
            daemon=shlex.quote(DAEMON),
        )

    def wrapped(self, program: Path | str) -> str:
        """A program of the machine that `say` reaches wherever it is started."""
        name, state = shlex.quote(Path(program).name), shlex.quote(str(self._folder))
        return f'#!/bin/bash\n[ ! -f {state}/{name} ] || . {state}/{name}\nexec {shlex.quote(str(program))} "$@"\n'

    def detach(self) -> None:
        (self._folder / "detached").touch()

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
