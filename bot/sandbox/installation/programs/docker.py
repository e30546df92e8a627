"""The docker client: which containers there are, what they are, programs inside them, and signals to them."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from bot.sandbox.installation.programs import Call, Reply, Usage, options, program, unsupported, with_docker
from bot.sandbox.installation.state import Container, Machine

_DENIED = (
    "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
    'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.24/containers/json": dial unix /var/run/docker.sock: '
    "connect: permission denied\n"
)
_NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"
FOREVER = 24 * 3600.0


@program("docker", where=with_docker)
def docker(call: Call) -> Reply:
    if not call.words:
        return unsupported(call, "no command")
    verb = _VERBS.get(call.words[0])
    if verb is None:
        return unsupported(call, call.words[0])
    if not call.root:
        return Reply(1, err=_DENIED)
    daemon = call.machine.units.get("docker")
    if daemon is not None and daemon.active != "active":
        return Reply(1, err=_NO_DAEMON)
    if "docker" in call.machine.wedged:
        _hang(call)  # the daemon takes the request and never answers
    call.pause(call.machine.docker.delay)
    try:
        return verb(call, call.words[1:])
    except Usage as usage:
        return unsupported(call, str(usage))


def _hang(call: Call) -> None:
    """In small steps, so that whoever waits with a time limit comes back when it is over, also where time is moved."""
    for _ in range(int(FOREVER)):
        call.pause(1)


# ---------------------------------------------------------------- ps


def _ps(call: Call, words: tuple[str, ...]) -> Reply:
    longs = {"filter": True, "format": True, "all": False, "quiet": False, "no-trunc": False}
    read = options(words, flags="aq", values="f", longs=longs)
    containers = [c for c in call.machine.containers if c.running or "a" in read or "all" in read]
    for given in read.all("f", "filter"):
        key, _, value = given.partition("=")
        if key not in _FILTERS:
            return unsupported(call, f"filter {key}")
        containers = [c for c in containers if _FILTERS[key](c, value)]
    length = None if "no-trunc" in read else 12
    if "q" in read or "quiet" in read:
        return Reply(out="".join(f"{c.id[:length]}\n" for c in containers))
    form = read.get("format")
    if form:
        return Reply(out="".join(_row(call.machine, c, form, length) + "\n" for c in containers))
    head = f"{'CONTAINER ID':<20}{'IMAGE':<32}{'STATUS':<20}NAMES\n"
    return Reply(
        out=head + "".join(f"{c.id[:12]:<20}{c.image:<32}{_status(call.machine, c):<20}{c.name}\n" for c in containers)
    )


_FILTERS: dict[str, Callable[[Container, str], bool]] = {
    "name": lambda c, value: re.search(value, f"/{c.name}") is not None or re.search(value, c.name) is not None,
    "id": lambda c, value: c.id.startswith(value),
    "status": lambda c, value: ("running" if c.running else "exited") == value,
    "ancestor": lambda c, value: c.image == value or c.image.partition(":")[0] == value,
    "label": lambda c, value: any(value in (key, f"{key}={text}") for key, text in c.labels),
}


def _row(machine: Machine, container: Container, form: str, length: int | None) -> str:
    fields = {
        "ID": container.id[:length],
        "Image": container.image,
        "Names": container.name,
        "Status": _status(machine, container),
        "State": "running" if container.running else "exited",
        "CreatedAt": machine.timeline.date(container.created).strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
        "RunningFor": f"{_age(machine.timeline.now() - container.created)} ago",
        "Command": f'"{container.command[:20]}"',
        "Labels": ",".join(f"{key}={value}" for key, value in container.labels),
    }
    form = form.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    return re.sub(r"\{\{\s*\.(\w+)\s*\}\}", lambda found: fields.get(found[1], "<no value>"), form)


def _status(machine: Machine, container: Container) -> str:
    if not container.running:
        if container.error:
            return "Created"
        return f"Exited ({container.exit}) {_age(machine.timeline.now() - container.started)} ago"
    return f"Up {_age(machine.timeline.now() - container.started)}"


def _age(seconds: float) -> str:
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return f"{int(seconds)} seconds" if seconds >= 2 else "1 second"
    if seconds < 120:
        return "About a minute"
    if seconds < 3600:
        return f"{int(seconds / 60)} minutes"
    if seconds < 7200:
        return "About an hour"
    return f"{int(seconds / 3600)} hours" if seconds < 172800 else f"{int(seconds / 86400)} days"


# ---------------------------------------------------------------- inspect


def _inspect(call: Call, words: tuple[str, ...]) -> Reply:
    read = options(words, values="f", longs={"format": True, "type": True})
    form = read.get("f", "format")
    if not form:
        return unsupported(call, "inspect without --format")
    said, missing = [], []
    for name in read.words:
        container = call.machine.container(name)
        if container is None:
            missing.append(f"Error: No such object: {name}\n")
        else:
            said.append(_inspected(call.machine, container, form) + "\n")
    return Reply(1 if missing else 0, "".join(said) or ("\n" if missing else ""), "".join(missing))


def _inspected(machine: Machine, container: Container, form: str) -> str:
    lines = re.compile(r"\{\{range \.Config\.Env\}\}\{\{println \.\}\}\{\{end\}\}")
    form = lines.sub(lambda _: "".join(f"{line}\n" for line in container.environment), form)
    fields = {
        ".Id": container.id,
        ".Name": f"/{container.name}",
        ".Created": _rfc3339(machine.timeline.date(container.created)),
        ".State.Pid": str(container.process.pid if container.process else 0),
        ".State.Status": "running" if container.running else "exited",
        ".State.Running": "true" if container.running else "false",
        ".State.StartedAt": _rfc3339(machine.timeline.date(container.started)),
        ".State.Error": container.error,
        ".State.ExitCode": str(container.exit),
        ".Config.Image": container.image,
        ".Config.Hostname": container.hostname,
        ".RestartCount": "0",
        ".NetworkSettings.IPAddress": container.address,
    }
    form = form.replace("\\t", "\t").replace("\\n", "\n")
    return re.sub(r"\{\{\s*([.\w]+)\s*\}\}", lambda found: fields.get(found[1], "<no value>"), form)


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


# ---------------------------------------------------------------- exec, kill, stop, version


def _exec(call: Call, words: tuple[str, ...]) -> Reply:
    rest = list(words)
    environment: tuple[tuple[str, str], ...] = ()
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("-t", "-it", "-ti", "--tty"):
            return Reply(1, err="the input device is not a TTY\n")
        if option in ("-e", "--env") and rest:
            environment += (_assigned(call, rest.pop(0)),)
        elif option.startswith("--env="):
            environment += (_assigned(call, option.removeprefix("--env=")),)
        elif option in ("-u", "--user", "-w", "--workdir") and rest:
            rest.pop(0)
        elif option not in ("-i", "--interactive"):
            return unsupported(call, f"exec {option}")
    if len(rest) < 2:
        return Reply(1, err='"docker exec" requires at least 2 arguments.\n')
    container = call.machine.container(rest[0])
    if container is None:
        return Reply(1, err=f"Error: No such container: {rest[0]}\n")
    if not container.running:
        return Reply(1, err=f"Error response from daemon: Container {container.id} is not running\n")
    reply = call.run(tuple(rest[1:]), inside=container, network=container, user="root", environment=environment)
    if reply.exit == 127 and reply.err.startswith("sh: 1: "):
        why = f'starting container process caused "exec: \\"{rest[1]}\\": executable file not found in $PATH"'
        return Reply(126, err=f"OCI runtime exec failed: exec failed: container_linux.go:348: {why}: unknown\n")
    return reply


def _assigned(call: Call, word: str) -> tuple[str, str]:
    """`NAME=value`, or a NAME that docker passes on from its own environment."""
    name, given, value = word.partition("=")
    return name, value if given else dict(call.context.environment).get(name, "")


def _kill(call: Call, words: tuple[str, ...]) -> Reply:
    read = options(words, values="s", longs={"signal": True})
    signal = (read.get("s", "signal") or "KILL").upper().removeprefix("SIG")
    missing = [name for name in read.words if call.machine.container(name) is None]
    if missing:
        return Reply(
            1,
            err="".join(
                f"Error response from daemon: Cannot kill container: {n}: No such container: {n}\n" for n in missing
            ),
        )
    if signal != "USR1":  # only asks the worker to write into its log
        call.changes()
    for name in read.words:
        container = call.machine.container(name)
        process = container.process if container else None
        if process is not None and process.on_signal is not None:
            process.on_signal(signal)
        elif container is not None and signal in ("KILL", "TERM", "INT"):
            call.machine.remove_container(container)
    return Reply(out="".join(f"{name}\n" for name in read.words))


def _remove(call: Call, words: tuple[str, ...]) -> Reply:
    read = options(words, flags="f", values="t", longs={"force": False, "time": True})
    found = [(name, call.machine.container(name)) for name in read.words]
    missing = "".join(f"Error: No such container: {name}\n" for name, container in found if container is None)
    if any(container is not None for _, container in found):
        call.changes()
    for _, container in found:
        if container is not None:
            if container.process and container.process.on_signal:
                container.process.on_signal("TERM")
            else:
                call.machine.remove_container(container)
    return Reply(1 if missing else 0, "".join(f"{name}\n" for name, container in found if container), missing)


def _version(call: Call, words: tuple[str, ...]) -> Reply:
    read = options(words, values="f", longs={"format": True})
    daemon = call.machine.docker
    fields = {
        "Server.Version": daemon.version,
        "Server.APIVersion": daemon.api,
        "Server.MinAPIVersion": daemon.oldest_api,
        "Client.Version": daemon.version,
    }
    form = read.get("f", "format")
    if form:
        return Reply(out=_filled(form, fields) + "\n")
    client, server = f"Client:\n Version:           {daemon.version}\n", f"  Version:          {daemon.version}\n"
    return Reply(out=f"{client}\nServer:\n Engine:\n{server}")


def _info(call: Call, words: tuple[str, ...]) -> Reply:
    read = options(words, values="f", longs={"format": True})
    running, version = sum(container.running for container in call.machine.containers), call.machine.docker.version
    form = read.get("f", "format")
    if form:
        return Reply(out=_filled(form, {"ServerVersion": version, "ContainersRunning": str(running)}) + "\n")
    return Reply(
        out=f"Containers: {running}\n Running: {running}\nServer Version: {version}\nStorage Driver: overlay2\n"
    )


def _filled(form: str, fields: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*\.([.\w]+)\s*\}\}", lambda found: fields.get(found[1], "<no value>"), form)


def _logs(call: Call, words: tuple[str, ...]) -> Reply:
    read = options(words, flags="t", values="n", longs={"tail": True, "since": True, "timestamps": False})
    if not read.words or call.machine.container(read.words[0]) is None:
        return Reply(1, err=f"Error: No such container: {' '.join(read.words)}\n")
    lines = [line.text for line in call.machine.journal if line.unit == read.words[0]]
    count = read.get("n", "tail")
    return Reply(err="".join(f"{line}\n" for line in (lines[-int(count) :] if count.isdigit() else lines)))


def _run(call: Call, words: tuple[str, ...]) -> Reply:
    """One program in an image, in a container of its own that leaves nothing behind."""
    rest, entrypoint = list(words), ""
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--entrypoint":
            entrypoint = rest.pop(0)
        elif option == "--network":
            rest.pop(0)
        elif option != "--rm":
            return unsupported(call, f"run {option}")
    image, *given = rest
    if image not in call.machine.docker.images:
        name = image.partition(":")[0]
        why = f"pull access denied for {name}, repository does not exist or may require 'docker login'."
        locally = f"Unable to find image '{image}' locally\n"
        return Reply(125, err=f"{locally}docker: Error response from daemon: {why}\nSee 'docker run --help'.\n")
    if "network" in call.machine.wedged:
        _hang(call)  # no new container gets a network
    now = call.machine.timeline.now()
    made = Container(f"{call.machine.random.getrandbits(256):064x}", "frosty_bose", image, now, now, None)
    program = (entrypoint, *given) if entrypoint else tuple(given)
    return call.run(program, inside=made, network=made, user="root")


_VERBS: dict[str, Callable[[Call, tuple[str, ...]], Reply]] = {
    "ps": _ps, "inspect": _inspect, "exec": _exec, "kill": _kill, "stop": _remove, "rm": _remove,
    "run": _run, "version": _version, "info": _info, "logs": _logs,
}  # fmt: skip
