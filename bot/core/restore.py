"""How a backup is put back by hand: the one account of it. Plans, answers and docs/backups.md say what stands here.

Every step is text for a shell of the person who has the secret key: comments to read first, then commands to paste.
A test runs them. Words in capitals are for that person to fill in. Pure.

Sources: https://docs.travis-ci.com/user/enterprise/upgrading/ (order, owners of files) and
https://help.replicated.com/api/replicatedctl/ (settings).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bot.core import vendor
from bot.core.docker import MAIN_IMAGE
from bot.core.target import Role, Site, Target

KEY_FILE: Final = "KEY.txt"
OPSBOT: Final = f"opsbot backup decrypt {{}} --identity {KEY_FILE}"
AGE: Final = f"age -d -i {KEY_FILE} {{}}"
# Looked up anew each time: whoever saves settings starts the app, and it comes back in another container. Without its
# own standard input, sudo, which hands a terminal to what it runs, would read of what is meant for the other program.
_CONTAINER: Final = f"$(sudo docker ps </dev/null | grep {MAIN_IMAGE} | head -c 12)"
_PG_RESTORE: Final = (
    "pg_restore --clean --if-exists --no-owner --no-privileges --exit-on-error --single-transaction"
)  # fmt: skip
_USERS: Final = '-Atc "select count(*) from users"'
_ELSEWHERE: Final = "postgresql://USER@DATABASE-HOST/DATABASE"
_UNPACK: Final = {".zst": "zstd -d", ".gz": "gzip -d"}
# Whose files must not be taken from a running platform, by the kind of what is loaded instead.
_SERVERS: Final = {"databases": "postgres", "rabbitmq": "rabbitmq", "redis": "redis"}
# Given back as it was taken, to a replica: so it needs no folder, and an append-only file is written anew as well.
_REPLICATE: Final = """\
redis-server --port 6390 --bind 127.0.0.1 --dir ~ --dbfilename back.rdb --save '' > /dev/null &
until redis-cli -p 6390 ping | grep -q PONG; do kill -0 $! || break; sleep 1; done
rm ~/back.rdb
kill -0 $! || exit
redis-cli slaveof 127.0.0.1 6390
until redis-cli info replication | grep -q master_link_status:up; do kill -0 $! || break; sleep 1; done
redis-cli slaveof no one
redis-cli save
while redis-cli info persistence | grep -E 'aof_rewrite_(in_progress|scheduled):1'; do sleep 1; done
kill $!
redis-cli dbsize"""


@dataclass(frozen=True)
class Held:
    """One object of a backup. `address` is what its command reads; `live`: files of a running database are in it."""

    kind: str
    name: str
    address: str
    live: bool = False


@dataclass(frozen=True)
class Step:
    """What a person does: `beware` is read before `commands` are pasted into a shell, and written as its comments."""

    does: str
    commands: str
    beware: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join((*(f"# {line}" for line in self.beware), self.commands))


@dataclass(frozen=True)
class Way:
    """To where the objects go: an installation, the machine of it that is restored, and what decrypts an object."""

    site: Site
    machine: Target
    decrypt: str = OPSBOT

    def plain(self, held: Held) -> str:
        return self.decrypt.format(held.address)

    def option(self, name: str, default: str = "container") -> str:
        return self.site.option(name, default)

    def machine_of(self, held: Held) -> Target:
        """Files and settings belong to the machine that they are named after; all else to the one that is restored."""
        named = (each for each in self.site.of(Role.PLATFORM) if held.name.endswith(f"-{each}"))
        return next(named, self.machine)

    def on(self, machine: Target, words: str) -> str:
        return f"ssh {address(machine)} '{words}'"

    def inside(self, words: str) -> str:
        return self.on(self.machine, f"sudo docker exec -i {_CONTAINER} {words}")


def address(machine: Target) -> str:
    return machine.address or str(machine)


def script(steps: Sequence[Step]) -> str:
    """The whole of it, to be read and pasted step by step."""
    return "\n\n".join(f"# {no}. {step.does}.\n{step}" for no, step in enumerate(steps, 1))


def whole(held: Sequence[Held], way: Way) -> Iterator[Step]:
    """All that a person does without opsbot, who also looks what would be lost, and stops and starts the app."""
    if any(each.kind == "databases" for each in held):
        yield _look(way)
    yield from loading(held, way)
    stopped = f"Go on when `ssh {address(way.machine)} sudo replicatedctl app status` says that it is stopped."
    yield Step("Stop the app, so that all of it starts with what was loaded", _app(way, "stop"), (stopped,))
    yield from unpacking(held, way)
    yield Step("Start the app", _app(way, "start"))


def loading(held: Sequence[Held], way: Way) -> Iterator[Step]:
    """While the app runs. The key first: the app must never write with another one. Waiting jobs after their rows."""
    for kind, steps in _LOADS.items():
        for each in held:
            if each.kind == kind:
                yield from steps(each, way)


def unpacking(held: Sequence[Held], way: Way) -> Iterator[Step]:
    """While the app is stopped, last: what was loaded is on the disk by then, and must not be written over."""
    yield from (_unpacked(each, held, way) for each in held if each.kind == "data")


def _look(way: Way) -> Step:
    lost = "Go on only where this says 0, or where all that is there may be lost: what follows overwrites it."
    if way.option("database.via") != "container":
        return Step("See what is there", f"psql {_ELSEWHERE} {_USERS}", (lost,))
    name, user = way.option("database.name", vendor.DATABASE), way.option("database.user", vendor.USER)
    return Step("See what is there", way.inside(f"psql -h 127.0.0.1 -U {user} -d {name} {_USERS}"), (lost,))


def _app(way: Way, verb: str) -> str:
    machines = way.site.of(Role.PLATFORM) or (way.machine,)
    return "\n".join(way.on(each, f"sudo replicatedctl app {verb}") for each in machines)


# ---------------------------------------------------------------- while the app runs


def _key(held: Held, way: Way) -> Iterator[Step]:
    page = f"https://{address(way.machine)}:8800/settings"
    beware = (
        f"Type what this shows into {page}, save, and let the app start with it; nobody else should see the screen.",
        "Without this very key, what the database has encrypted is lost.",
    )
    title = f"Put the encryption key of the backup into Replicated's settings of {way.machine}"
    yield Step(title, f"{way.plain(held)} | cat; echo", beware)


def _settings(held: Held, way: Way) -> Iterator[Step]:
    yield (_app_config if held.name.startswith("app-config") else _params)(held, way)


def _app_config(held: Held, way: Way) -> Step:
    machine = way.machine_of(held)
    beware = (
        "Overwrites every setting, the host name and certificates too; it holds the same encryption key.",
        "The second command starts the app anew: go on when `replicatedctl app status` says that it is started.",
    )
    load = f"{way.plain(held)} | {way.on(machine, 'sudo replicatedctl app-config import')}"
    apply = way.on(machine, "sudo replicatedctl app apply-config")
    return Step(f"Put {held.name} of the backup into Replicated's settings of {machine}", f"{load}\n{apply}", beware)


def _params(held: Held, way: Way) -> Step:
    now = way.on(way.machine_of(held), "sudo replicatedctl params export")
    beware = ("Replicated's own parameters, the old one's and then this one's: set what has to be.",)
    return Step(f"Read {held.name} of the backup", f"{way.plain(held)} | cat; echo\n{now}", beware)


def _database(held: Held, way: Way) -> Iterator[Step]:
    section = vendor.SECTIONS.get(held.name.removeprefix("database-"), "database")
    beware: tuple[str, ...] = (
        "All of it or nothing. Where it stops at `must be owner of`, as PostgreSQL's superuser: `-U postgres`.",
    )
    if (via := way.option(f"{section}.via")) != "container":
        beware += _forwarded(way) if via == "tunnel" else ()
        into = f"{_PG_RESTORE} -d {_ELSEWHERE}"
    else:
        name, user = way.option(f"{section}.name", vendor.DATABASE), way.option(f"{section}.user", vendor.USER)
        into = way.inside(f"{_PG_RESTORE} -h 127.0.0.1 -U {user} -d {name}")
    yield Step(f"Load {held.name} into PostgreSQL", f"{way.plain(held)} | {into}", beware)


def _forwarded(way: Way) -> tuple[str, ...]:
    return (f"First, in another terminal: `ssh -N -L 5432:DATABASE-HOST:5432 {address(way.machine)}`; then localhost.",)


def _redis(held: Held, way: Way) -> Iterator[Step]:
    beware: tuple[str, ...] = (
        "Background jobs that waited then run again: leave it out where they should not.",
        "Needs the memory of a second redis for a moment. Where it is cut short: `redis-cli slaveof no one`.",
    )
    keep = "umask 077; cat > ~/back.rdb"
    if way.option("redis.via") == "container":
        file, run = way.inside(f'sh -c "{keep}"'), way.inside("sh")
    else:
        beware += ("On redis' own host. Where it wants a password: `REDISCLI_AUTH=… redis-cli` for those without -p.",)
        file, run = f"ssh REDIS-HOST '{keep}'", "ssh REDIS-HOST sh"
    commands = f"{way.plain(held)} | {file}\n{run} << 'END'\n{_REPLICATE}\nEND"
    yield Step("Give redis its copy back", commands, beware)


def _rabbitmq(held: Held, way: Way) -> Iterator[Step]:
    """From standard input, which is all that a container sees; `-` is refused, whatever rabbitmqctl's usage says."""
    load = "rabbitmqctl import_definitions"
    via = way.option("rabbitmq.via")
    into = way.inside(load) if via == "container" else way.on(way.machine, f"sudo {load}")
    if via == "http":
        header = "-H 'Content-Type: application/json'"
        into = f"curl -fsS -u USER {header} --data-binary @- https://RABBITMQ-HOST:15672/api/definitions"
    yield Step(f"Load {held.name} into RabbitMQ", f"{way.plain(held)} | {into}")


_LOADS: Final[Mapping[str, Callable[[Held, Way], Iterator[Step]]]] = {
    "key": _key,
    "settings": _settings,
    "databases": _database,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
}


# ---------------------------------------------------------------- while it is stopped


def _unpacked(held: Held, among: Sequence[Held], way: Way) -> Step:
    """Without the files of servers that ran, or that were loaded already; else in the place of what is there."""
    machine = way.machine_of(held)
    folder = vendor.data_dir(way.site, machine)
    kinds = {each.kind for each in among}
    without = [name for kind, name in _SERVERS.items() if held.live or kind in kinds]
    left_out = "".join(f' --exclude="{folder.lstrip("/")}/*{name}*"' for name in without)
    tar = f"sudo tar -xp -f - -C / --same-owner --numeric-owner --anchored{left_out}"
    aside = "" if without else f"sudo mv -T {folder} {folder}.before && "
    unpack = next((words for end, words in _UNPACK.items() if end in held.address), "cat")
    commands = f"{way.plain(held)} | {unpack} | {way.on(machine, aside + tar)}"
    does = f"Unpack {held.name}"
    does += ", without the files of running servers" if without else ", in the place of the files that are there"
    return Step(does, commands)
