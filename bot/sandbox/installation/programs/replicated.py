"""Replicated on the platform machine: `replicatedctl`, and `replicated admin` as the vendor's way into te-main."""

import json
from collections.abc import Callable, Mapping, Sequence

from bot.sandbox.installation.platform import App, exported
from bot.sandbox.installation.programs import Call, Reply, Usage, options, program, unsupported
from bot.sandbox.installation.state import Container, Machine

_ROOT = (
    "Error: Get http://unix/v1/apps: dial unix /var/run/replicated/replicated-cli.sock: connect: permission denied\n"
)
_GONE = "Error: Get http://unix/v1/apps: dial unix /var/run/replicated/replicated-cli.sock: connect: no such file\n"
_NO_CONTAINER = "Error: no running container found for component te-main\n"
_TTY = ("--no-tty", "-i", "--interactive", "--interactive=0", "-t", "--tty", "--tty=0")


def on_platform(machine: Machine, inside: Container | None) -> bool:
    """On the machine of the platform, or in Replicated's own container."""
    return machine.container("replicated") is not None and (inside is None or inside.name == "replicated")


@program("replicatedctl", where=on_platform)
def replicatedctl(call: Call) -> Reply:
    try:
        read = options(call.words, values="o", longs={"output": True, "hidden": False, "sync": False, "force": False})
    except Usage as usage:
        return unsupported(call, str(usage))
    does = _VERBS.get(tuple(read.words))
    if does is None:
        return unsupported(call, " ".join(call.words))
    if refused := _refused(call):
        return refused
    app = call.context.installation.app
    if read.words[0] in _ASKS and read.get("o", "output") not in ("json", ""):
        return unsupported(call, read.get("o", "output"))
    return does(call, app, "hidden" in read)


def _refused(call: Call) -> Reply | None:
    if not call.root:
        return Reply(1, err=_ROOT)
    container = call.machine.container("replicated")
    return None if container is not None and container.running else Reply(1, err=_GONE)


def _json(said: Mapping[str, object] | Sequence[object]) -> Reply:
    return Reply(out=json.dumps(said, indent=4) + "\n")


def _turn(call: Call, turn: Callable[[], None]) -> Reply:
    """The order is taken, and carried out afterwards."""
    call.changes()
    turn()
    return Reply()


def _inspect(app: App) -> Mapping[str, object]:
    return {"ID": app.status()["AppID"], "Name": "Travis CI Enterprise", "VersionLabel": "2.2.19", "State": app.state}


_ASKS = ("app-config", "license", "params", "version")
_VERBS: dict[tuple[str, ...], Callable[[Call, App, bool], Reply]] = {
    ("app", "status"): lambda _call, app, _hidden: _json([app.status()]),
    ("app", "inspect"): lambda _call, app, _hidden: _json([_inspect(app)]),
    ("app", "stop"): lambda call, app, _hidden: _turn(call, app.stop),
    ("app", "start"): lambda call, app, _hidden: _turn(call, app.start),
    ("app-config", "export"): lambda _call, app, hidden: Reply(out=exported(app, hidden)),
    ("license", "inspect"): lambda call, app, _hidden: _json(app.license.said(call.machine.timeline.date())),
    ("params", "export"): lambda _call, app, _hidden: _json(
        {"TlsHostname": app.settings["hostname"], "LogLevel": "info", "ReleaseChannel": "stable"}
    ),
    ("version",): lambda _call, _app, _hidden: Reply(out="2.53.7\n"),
}


@program("replicated", where=on_platform)
def replicated(call: Call) -> Reply:
    """`replicated admin --no-tty COMMAND …`: the admin commands of the app, run inside te-main."""
    words = [word for word in call.words if word not in _TTY]
    if words[:1] != ["admin"] or len(words) < 2 or words[1] not in _ADMIN:
        return unsupported(call, " ".join(call.words))
    if refused := _refused(call):
        return refused
    app = call.context.installation.app
    if not app.up:
        return Reply(1, err=_NO_CONTAINER)
    return _ADMIN[words[1]](call, app, tuple(words[2:]))


def _bash(call: Call, app: App, words: tuple[str, ...]) -> Reply:
    return call.run(("bash", *words), inside=app.container, network=app.container)


def _sync_users(call: Call, app: App, words: tuple[str, ...]) -> Reply:
    """Without `--logins=` it is everybody, as the vendor's page warns."""
    given = [word.removeprefix("--logins=") for word in words if word.startswith("--logins=")]
    logins = tuple(login for text in given for login in text.split(",") if login)
    call.changes()
    app.sync_users(logins)
    return Reply(out="".join(f"Scheduling sync for {login}\n" for login in logins) or "Scheduling sync for all users\n")


def _users(call: Call, _app: App, _words: tuple[str, ...]) -> Reply:
    database = call.context.installation.database
    rows = database.run("SELECT login, name, email, suspended FROM users ORDER BY login") if database else []
    head = "login,name,email,suspended\n"
    return Reply(out=head + "".join(f"{','.join(str(value) for value in row.values())}\n" for row in rows))


def _suspend(call: Call, _app: App, words: tuple[str, ...], suspended: bool) -> Reply:
    database = call.context.installation.database
    call.changes()
    text = (
        "UPDATE users SET suspended = %s, suspended_at = CASE WHEN %s THEN now() END WHERE login = %s RETURNING login"
    )
    rows = database.run(text, suspended, suspended, words[0]) if database else []
    return Reply(out=f"{words[0]}\n") if rows else Reply(1, err=f"No user with the login {words[0]}\n")


_ADMIN: dict[str, Callable[[Call, App, tuple[str, ...]], Reply]] = {
    "bash": _bash,
    "sync_users": _sync_users,
    "users": _users,
    "suspend": lambda call, app, words: _suspend(call, app, words, True),
    "unsuspend": lambda call, app, words: _suspend(call, app, words, False),
}
