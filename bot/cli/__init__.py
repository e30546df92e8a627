"""The `opsbot` command. Everything heavy is imported by the verb that needs it, so that `--help` is there at once."""

import json as jsonlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn, cast

import typer

from bot.cli.backup import Identity
from bot.cli.backup import app as backup_app
from bot.core.errors import OpsbotError, Permanent

if TYPE_CHECKING:
    from bot.cli.client import Client, Line
    from bot.cli.screen import Screen
    from bot.settings import Settings

USAGE: Final = 2
TROUBLE: Final = 1
FAILED: Final = 3
INTERRUPTED: Final = 130  # as shells count: 128 and the signal
UNREAD: Final = 141
# UsageError, of click or of typer's own copy of it.
WRONG_USAGE: Final = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])

app = typer.Typer(
    help="An on-call engineer's helper for Travis CI Enterprise: diagnoses, asks a second person, repairs, proves it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
audit_app = typer.Typer(help="The audit trail.", no_args_is_help=True)
config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
manifest_app = typer.Typer(help="What others have to allow: the Slack app's manifest, and sudo on the machines.")
app.add_typer(audit_app, name="audit")
app.add_typer(backup_app, name="backup")
app.add_typer(config_app, name="config")
app.add_typer(manifest_app, name="manifest")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="The configuration; else $OPSBOT_CONFIG, ./opsbot.yaml, /etc/opsbot/opsbot.yaml."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines, one object for each event.")]
As = Annotated[str | None, typer.Option("--as", help="Act as this user id; only where cli.impersonate is true.")]
RunNumber = Annotated[int, typer.Argument(metavar="RUN", min=1, help="The run's number.")]
Words = Annotated[list[str], typer.Argument(metavar="TEXT…", help="What to do, in the words of the chat.")]


def main() -> NoReturn:
    """Run the command line; whatever goes wrong is a sentence and an exit status."""
    try:
        status = app(prog_name="opsbot", standalone_mode=False)
    except WRONG_USAGE as error:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)
        _tell(error.format_message(), USAGE)
        sys.exit(USAGE)
    except typer.Abort:
        sys.exit(TROUBLE)
    except OpsbotError as error:
        _complain(str(error), _status(error))
        sys.exit(_status(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get("OPSBOT_TRACEBACK"):
            raise
        _complain(f"opsbot failed: {type(error).__name__}: {error}. OPSBOT_TRACEBACK=1 shows where.", FAILED)
        sys.exit(FAILED)
    sys.exit(status or 0)


@app.callback(invoke_without_command=True)
def _opsbot(
    context: typer.Context,
    config: Config = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"opsbot {_version()}")
        raise typer.Exit
    if config is not None:
        context.obj = config


# ---------------------------------------------------------------- through `serve`


@app.command()
def run(
    context: typer.Context,
    text: Words,
    json: Json = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    played: As = None,
    config: Config = None,
) -> None:
    """Diagnose, act or start a job: opsbot run "diagnose builds not starting" on prod."""
    _say(context, config, " ".join(text), json, played, detach)


@app.command()
def status(
    context: typer.Context,
    site: Annotated[list[str] | None, typer.Argument(metavar="[on SITE]")] = None,
    json: Json = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    played: As = None,
    config: Config = None,
) -> None:
    """Look at everything; nothing is offered."""
    _say(context, config, " ".join(("status", *(site or ()))), json, played, detach)


@app.command()
def runs(context: typer.Context, json: Json = False, config: Config = None) -> None:
    """The latest runs."""
    _say(context, config, "runs", json)


@app.command()
def show(context: typer.Context, number: RunNumber, json: Json = False, config: Config = None) -> None:
    """Everything that a run found and did."""
    _say(context, config, f"show {number}", json)


@app.command()
def watch(context: typer.Context, number: RunNumber, json: Json = False, config: Config = None) -> None:
    """Follow a run until its outcome."""
    _follow(_screen(json, _folders(context, config)), _client(context, config).watch(number))


@app.command()
def approve(
    context: typer.Context,
    number: RunNumber,
    plan: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="Its first characters, where the run has put several.")
    ] = "",
    json: Json = False,
    played: As = None,
    config: Config = None,
) -> None:
    """Approve the plan that a run waits with; whoever asked cannot."""
    _say(context, config, f"approve {number} {plan}".rstrip(), json, played)


@app.command()
def answer(
    context: typer.Context,
    number: RunNumber,
    what: Annotated[Literal["done", "again", "stop"], typer.Argument(help="it happened; send it once more; leave it.")],
    json: Json = False,
    played: As = None,
    config: Config = None,
) -> None:
    """Answer a run that does not know whether a change happened: done, again or stop."""
    _say(context, config, f"{what} {number}", json, played)


@app.command()
def decline(
    context: typer.Context,
    number: RunNumber,
    because: Annotated[str, typer.Option("--because", help="Why, for the person who asked.")],
    json: Json = False,
    played: As = None,
    config: Config = None,
) -> None:
    """Decline the plan that a run waits with."""
    _say(context, config, f"decline {number} because {because}", json, played)


@app.command()
def cancel(
    context: typer.Context, number: RunNumber, json: Json = False, played: As = None, config: Config = None
) -> None:
    """Stop a run; it leaves the machines as they should be."""
    _say(context, config, f"cancel {number}", json, played)


@app.command()
def can(
    context: typer.Context,
    who: Annotated[str, typer.Argument(metavar="WHO", help="A Slack user id.")],
    text: Words,
    json: Json = False,
    played: As = None,
    config: Config = None,
) -> None:
    """Whether somebody may do something, and which rule says so."""
    _say(context, config, f"can {who} {' '.join(text)}", json, played)


@app.command(name="help")
def help_with(
    context: typer.Context,
    text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT…]", help="What about.")] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """What can be asked of the opsbot that serves, in the words of the chat."""
    _say(context, config, " ".join(("help", *(text or ()))), json)


# ---------------------------------------------------------------- without `serve`


@app.command()
def serve(
    context: typer.Context,
    config: Config = None,
    simulator: Annotated[
        str | None, typer.Option("--simulator", metavar="URL", help="A Slack-compatible server on loopback.")
    ] = None,
    attached: Annotated[
        bool, typer.Option("--attached", hidden=True, help="End when standard input does; `try` starts it so.")
    ] = False,
) -> None:
    """Serve: Slack, the command line and schedules, until a signal ends it."""
    from bot import wiring
    from bot.settings import load

    raise typer.Exit(wiring.serve(load(_config(context, config), os.environ), simulator, attached))


@app.command(name="try")
def try_it(
    tour: Annotated[bool, typer.Option("--tour", help="Play one incident without a browser.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes any that is free.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps runs and backups for the next try; else a new one, removed after.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=1000, help="How much faster the machines' clocks go.")] = 20.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(help='What is broken at the start: "platform-1 has no RabbitMQ", or "nothing"; repeatable.'),
    ] = None,
    list_faults: Annotated[bool, typer.Option("--list-faults", help="What can be broken, and end.")] = False,
) -> None:
    """Try opsbot on this machine: a local Slack, a broken installation, nothing real."""
    from bot import tryout
    from bot.cli.ending import end_cleanly
    from bot.sandbox import breaking

    if list_faults:
        typer.echo(breaking.listing())
        raise typer.Exit(0)
    end_cleanly()
    raise typer.Exit(tryout.run(tour, port, folder, speed, fault or ()))


@app.command()
def causes(context: typer.Context, json: Json = False, config: Config = None) -> None:
    """Every cause that opsbot can name."""
    from dataclasses import asdict

    from bot.cli.causes import causes as all_causes

    screen, file = _screen(json), _found(context, config, os.environ)
    known = all_causes(_settings(context, config).handlers if file else ())
    if json:
        for each in known:
            screen.data(asdict(each))
    else:
        rows = ((each.id, each.severity, each.diagnosis, each.situation) for each in known)
        screen.table(("cause", "severity", "diagnosis", "situation"), rows)


@app.command()
def doctor(context: typer.Context, json: Json = False, config: Config = None) -> None:
    """What works and what does not: handlers, database, machines, backups, Slack."""
    from bot import wiring
    from bot.settings import load

    screen = _screen(json)
    checks = wiring.doctor(load(_config(context, config), os.environ))
    for fine, sentence in checks:
        if json:
            screen.data({"ok": fine, "text": sentence})
        else:
            screen.say(f"{'ok ' if fine else 'NOT'}  {sentence}", "" if fine else "bold red")
    raise typer.Exit(0 if all(fine for fine, _ in checks) else TROUBLE)


@backup_app.command(name="drill")
def backup_drill(
    context: typer.Context,
    identity: Identity,
    which: Annotated[
        str | None, typer.Argument(metavar="[N]", help="A number; else the newest. With --store: SITE or SITE/FOLDER.")
    ] = None,
    on: Annotated[str, typer.Option("--on", metavar="SITE", help="Which installation's, when there are more.")] = "",
    store: Annotated[
        str,
        typer.Option("--store", metavar="URL", help="Use only this store: no configuration, no database, no record."),
    ] = "",
    unpack: Annotated[
        bool | None, typer.Option("--extract/--no-extract", help="Unpack files, too; else where there is room.")
    ] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Restore a backup for real, on this machine, with your own secret key; nothing of it stays."""
    from bot import drilling
    from bot.cli.backup import keys_of
    from bot.cli.drill import play
    from bot.cli.ending import end_cleanly
    from bot.settings import load_own

    end_cleanly()
    keys = keys_of(identity)
    if store:
        opened = drilling.unrecorded(store, which or on, keys, unpack, os.environ)
    else:
        opened = drilling.recorded(load_own(_config(context, config), os.environ), which, on, keys, unpack)
    with opened as drill:
        raise typer.Exit(play(drill, _screen(json)))


@audit_app.command(name="verify")
def audit_verify(
    context: typer.Context,
    head: Annotated[
        str | None, typer.Option("--head", help="A head that was posted in Slack, daily: all up to it must be there.")
    ] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Whether every record fits the one before it; names the first that does not."""
    from bot import wiring
    from bot.settings import load_own

    fits, said = wiring.audit_verify(load_own(_config(context, config), os.environ), head)
    _screen(json).verdict(fits, said)
    raise typer.Exit(0 if fits else TROUBLE)


@audit_app.command(name="export")
def audit_export(context: typer.Context, config: Config = None) -> None:
    """Every record as a JSON line."""
    from bot import wiring
    from bot.settings import load_own

    screen = _screen(True)
    for record in wiring.audit_export(load_own(_config(context, config), os.environ)):
        screen.data(record)


@config_app.command(name="check")
def config_check(context: typer.Context, json: Json = False, config: Config = None) -> None:
    """Whether the configuration and the secrets can be used, as `serve` would; says everything that is wrong."""
    from bot import wiring
    from bot.settings import inspect

    path, screen = _config(context, config), _screen(json)
    settings, wrong = inspect(path, os.environ)
    wrong += wiring.faults(settings) if settings else []
    for each in wrong:
        screen.verdict(False, each)
    if settings is None and not json:
        screen.complain("What the file names (keys, handlers, schedules) can be checked after that.")
    if settings is None or wrong:
        raise typer.Exit(USAGE)
    if settings.slack.connect and not settings.slack.channels.commands:
        screen.complain(f"Beware: {wiring.NO_CHANNELS}.")
    machines = len(settings.ssh_hosts())
    screen.verdict(
        True, f"{path} is fine: {_count(len(settings.installations), 'installation')}, {_count(machines, 'machine')}."
    )


@manifest_app.callback(invoke_without_command=True)
def manifest(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Option("--command", help="The slash command; else the configured one.")
    ] = None,
    config: Config = None,
) -> None:
    """The Slack app's manifest, to be pasted at https://api.slack.com/apps?new_app=1."""
    if context.invoked_subcommand is not None:
        context.obj = config or context.obj
        return
    from bot.slack import manifest as slack

    if command is None and _found(context, config, os.environ):
        command = _settings(context, config).slack.command
    sys.stdout.write(slack.manifest(command or slack.COMMAND))


@manifest_app.command(name="sudoers")
def manifest_sudoers(context: typer.Context, config: Config = None) -> None:
    """The least that sudo has to allow opsbot on the machines of the configuration."""
    from bot.adapters.database import Location
    from bot.cli.sudoers import Broker, sudoers

    settings = _settings(context, config)
    databases = settings.databases().items()
    inside = [(key[0], Location(name=at.name, user=at.user)) for key, at in databases if at.via == "container"]
    brokers = {
        Broker(
            each.rabbitmq.via,
            each.rabbitmq.vhost,
            tuple(sorted({machine.data_dir.rstrip("/") for machine in each.platforms})),
            each.domain,
            tuple(sorted({worker.queue for worker in each.workers if worker.queue})),
            tuple(dict.fromkeys(location for name, location in inside if name == each.name)),
            each.redis.via == "container",
            settings.backups is not None,
        )
        for each in settings.installations
    }
    users = sorted({host.user for host in settings.ssh_hosts().values()})
    sys.stdout.write(sudoers(users, sorted(brokers, key=str), settings.handlers))


# ---------------------------------------------------------------- what the verbs share


def _say(
    context: typer.Context,
    config: Path | None,
    text: str,
    json: bool,
    played: str | None = None,
    detach: bool = False,
) -> NoReturn:
    """Say it to `serve`, print the answer, exit with what it means."""
    _follow(_screen(json, _folders(context, config)), _client(context, config).say(text, played, detach))


def _follow(screen: "Screen", lines: Iterator["Line"]) -> NoReturn:
    """Print the answer. Who stops reading stops nothing: the run is theirs to follow or to cancel."""
    try:
        raise typer.Exit(screen.follow(lines))
    except KeyboardInterrupt:
        if screen.run:
            going_on = f"\nRun {screen.run} goes on: `opsbot watch {screen.run}` or `opsbot cancel {screen.run}`."
            _complain(going_on, INTERRUPTED)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at its end
        sys.exit(UNREAD)


def _client(context: typer.Context, config: Path | None) -> "Client":
    from bot.cli.client import Client

    return Client(_settings(context, config).socket)


def _settings(context: typer.Context, config: Path | None) -> "Settings":
    """The file alone: whoever only speaks to `serve` needs no secret."""
    from bot.settings import load_file

    return load_file(_config(context, config), os.environ)


def _config(context: typer.Context, config: Path | None) -> Path:
    if path := _found(context, config, os.environ):
        return path
    tried = ", ".join(map(str, _places(os.environ)))
    raise Permanent(
        f"there is no configuration (looked for {tried}); name one with --config, or start with `opsbot try`"
    )


def _found(context: typer.Context, config: Path | None, environment: Mapping[str, str]) -> Path | None:
    """The configuration that was named, before or after the verb, else the first that is there."""
    if named := config or context.obj:
        return Path(named)
    return next((path for path in _places(environment) if path.exists()), None)


def _places(environment: Mapping[str, str]) -> tuple[Path, ...]:
    if named := environment.get("OPSBOT_CONFIG"):
        return (Path(named),)
    return Path("opsbot.yaml"), Path("/etc/opsbot/opsbot.yaml")


def _screen(as_json: bool = False, folders: Sequence[Path] = ()) -> "Screen":
    from bot.cli.screen import Screen

    return Screen(as_json, folders)


def _folders(context: typer.Context, config: Path | None) -> tuple[Path, ...]:
    """Where archives are kept: beside what `serve` keeps, and here for one who may not write there."""
    return (_settings(context, config).state_dir / "files", Path.cwd())


def _complain(text: str, status: int) -> None:
    """On standard error for people; a script that reads JSON lines finds it among them, too."""
    sys.stderr.write(f"{text}\n")
    _tell(text, status)


def _tell(text: str, status: int) -> None:
    """What went wrong, to a script; the status is what the process ends with."""
    if "--json" in sys.argv[1:]:
        sys.stdout.write(jsonlib.dumps({"event": "error", "text": text, "exit": status}) + "\n")


def _status(error: OpsbotError) -> int:
    """Nobody who serves is nobody who could look: no fault of the words or of the configuration."""
    from bot.cli.client import Lost, NotServing

    return FAILED if isinstance(error, NotServing | Lost) else USAGE


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _version() -> str:
    try:
        return metadata.version("opsbot")
    except metadata.PackageNotFoundError:
        return "of an uninstalled checkout"
