"""The configuration: a YAML file and the environment, checked and frozen before anything starts."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import PrivateAttr, ValidationError

from bot.core.fix import Risk
from bot.core.target import Role, Site, Target
from bot.engine.people import Approvers
from bot.engine.policy import Policy, Rule
from bot.settings import checks, document, secrets
from bot.settings.problems import BadSettings, sentences
from bot.settings.secrets import Secrets
from bot.settings.sections import Aws, File, Installation, Machine, PolicyRule, SiteDatabase, Ssh

__all__ = [
    "EMBEDDED",
    "BadSettings",
    "DatabaseSettings",
    "HostSettings",
    "RedisSettings",
    "Secrets",
    "Settings",
    "inspect",
    "load",
    "load_file",
    "load_own",
    "state_folder",
]

EMBEDDED: Final = "embedded"


@dataclass(frozen=True)
class HostSettings:
    """How to reach one machine by SSH; `jump` is the bastion before it."""

    host: str
    port: int
    user: str
    key_file: Path
    known_hosts: Path
    jump: "HostSettings | None" = None


@dataclass(frozen=True)
class DatabaseSettings:
    """How one database of an installation is reached; its DSNs, which are secrets, are empty where there are none."""

    via: str
    name: str
    user: str
    read_dsn: str = field(default="", repr=False)
    write_dsn: str = field(default="", repr=False)


@dataclass(frozen=True)
class RedisSettings:
    """How an installation's redis is reached; its URL is a secret."""

    via: str
    url: str = field(default="", repr=False)


class Settings(File):
    """Everything that was configured, and the engine's nouns made from it."""

    _secrets: Secrets = PrivateAttr(default_factory=Secrets)

    @property
    def secrets(self) -> Secrets:
        """Tokens, keys and passwords; empty when the file alone was read."""
        return self._secrets

    @property
    def database_url(self) -> str:
        """The DSN of opsbot's database, or `embedded`."""
        return self._secrets.database_url or self.database.url

    def sites(self) -> tuple[Site, ...]:
        return tuple(_site(each) for each in self.installations)

    def policy(self) -> Policy:
        """The configured rules by their place in the file, so that a sentence can name the one that decides."""
        return Policy(tuple(_rule(number, each) for number, each in enumerate(self.rules)))

    def approvers(self) -> Approvers:
        listed = self.people.approvers
        return Approvers(listed.usergroup or "", listed.users, self.people.admins)

    def ssh_hosts(self) -> dict[str, HostSettings]:
        """How each machine is reached, by its target's key (`prod/worker-1`)."""
        return {f"{each.name}/{machine.name}": _host(each.ssh, machine) for each, machine in self._machines()}

    def databases(self) -> dict[tuple[str, str], DatabaseSettings]:
        """The databases of each installation, by its name and `main` or `logs`."""
        return {
            (each.name, name): self._database(given)
            for each in self.installations
            for name, given in (("main", each.database), ("logs", each.logs_database or each.database))
        }

    def _database(self, given: SiteDatabase) -> DatabaseSettings:
        read, write = self._named(given.read_dsn_env), self._named(given.write_dsn_env)
        return DatabaseSettings(given.via, given.name, given.user, read, write)

    def aws(self) -> dict[str, Aws]:
        """Which AWS region and security group belong to an installation, where that is configured."""
        return {each.name: each.aws for each in self.installations if each.aws is not None}

    def redis_servers(self) -> dict[str, RedisSettings]:
        """How redis of each installation is reached, by its name."""
        return {
            each.name: RedisSettings(each.redis.via, self._named(each.redis.url_env)) for each in self.installations
        }

    def broker_urls(self) -> dict[str, str]:
        """The management API of each installation that has one configured: a URL with its password, so a secret."""
        found = {each.name: self._named(each.rabbitmq.url_env) for each in self.installations}
        return {name: url for name, url in found.items() if url}

    def _named(self, variable: str | None) -> str:
        return self._secrets.named.get(variable, "") if variable else ""

    def _machines(self) -> Iterator[tuple[Installation, Machine]]:
        return ((each, machine) for each in self.installations for machine in (*each.platforms, *each.workers))


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """The settings with their secrets, for `serve`; raises BadSettings with a sentence for each problem."""
    return _load(path, environment, with_secrets=True)


def load_own(path: Path, environment: Mapping[str, str]) -> Settings:
    """With the secrets that are there, demanding none: for commands that read opsbot's own database alone."""
    return _load(path, environment, with_secrets=True, demanding=False)


def load_file(path: Path, environment: Mapping[str, str]) -> Settings:
    """The file alone, for commands that only need to find `serve`: those who use them need no secret."""
    return _load(path, environment, with_secrets=False)


def inspect(path: Path, environment: Mapping[str, str]) -> tuple[Settings | None, list[str]]:
    """What `load` would load, however wrong it is, and each of its problems; None where the file has another shape."""
    try:
        return _read(path, environment, with_secrets=True)
    except BadSettings as bad:
        return None, list(bad.problems)


def _load(path: Path, environment: Mapping[str, str], with_secrets: bool, demanding: bool = True) -> Settings:
    settings, problems = _read(path, environment, with_secrets, demanding)
    if settings is None or problems:
        raise BadSettings(problems)
    return settings


def _read(
    path: Path, environment: Mapping[str, str], with_secrets: bool, demanding: bool = True
) -> tuple[Settings | None, list[str]]:
    written = _with_defaults(document.read(path), environment)
    settings, problems = _validated(written, path)
    found, missing = Secrets(), list[str]()
    if with_secrets:
        needed = checks.needed_secrets(settings) if settings else _tokens(written)
        found, missing = secrets.read(environment, needed if demanding else ())
    if settings is not None:
        problems += checks.problems(settings, found)
        settings._secrets = found
    return settings, [*problems, *missing]


def _tokens(written: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that a file of another shape would need: none where it says that Slack is left out."""
    slack = written.get("slack")
    alone = isinstance(slack, Mapping) and slack.get("connect") is False
    return () if alone else secrets.TOKENS


def _validated(written: Mapping[str, Any], path: Path) -> tuple[Settings | None, list[str]]:
    try:
        return Settings.model_validate(written, context={"folder": path.absolute().parent}), []
    except ValidationError as error:
        return None, sentences(error, Settings)


def _with_defaults(written: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The two paths whose defaults depend on who runs this."""
    state = written.get("state_dir") or str(state_folder(environment))
    socket = "/run/opsbot/opsbot.sock" if os.geteuid() == 0 else f"{state}/opsbot.sock"
    return {"state_dir": state, "socket": socket, **written}


def state_folder(environment: Mapping[str, str]) -> Path:
    """Where whoever runs this keeps state, unless it is configured."""
    if os.geteuid() == 0:
        return Path("/var/lib/opsbot")
    return Path(environment.get("HOME", "~")) / ".local/state/opsbot"


def _site(given: Installation) -> Site:
    machines = [Target(each.name, Role.PLATFORM, given.name, each.host) for each in given.platforms]
    machines += [Target(each.name, Role.WORKER, given.name, each.host) for each in given.workers]
    return Site(given.name, given.domain, given.version, tuple(machines), tuple(_options(given)))


def _options(given: Installation) -> Iterator[tuple[str, str]]:
    """What handlers may ask a site for, by the setting's own name; a machine's has its name behind."""
    logs = given.logs_database or given.database
    yield "database.via", given.database.via
    yield "database.name", given.database.name
    yield "database.user", given.database.user
    yield "logs_database.apart", "no" if logs == given.database else "yes"
    yield "logs_database.via", logs.via
    yield "logs_database.name", logs.name
    yield "logs_database.user", logs.user
    yield "rabbitmq.via", given.rabbitmq.via
    yield "rabbitmq.vhost", given.rabbitmq.vhost
    yield "redis.via", given.redis.via
    if given.aws is not None:
        yield "aws.security_group", given.aws.security_group
        yield "aws.write", "yes" if given.aws.write else "no"
    yield from ((f"data_dir.{each.name}", each.data_dir) for each in given.platforms)
    yield from ((f"queue.{each.name}", each.queue) for each in given.workers if each.queue)


def _rule(number: int, given: PolicyRule) -> Rule:
    wanted = given.model_dump(include={"risk", "action", "installation", "role"}, exclude_none=True)
    name = " ".join((f"policy[{number}]", *(f"{key}={value}" for key, value in wanted.items())))
    return Rule(
        name,
        None if given.approvals == "forbidden" else given.approvals,
        Risk(given.risk) if given.risk else None,
        given.action or "",
        given.installation or "",
        Role(given.role) if given.role else None,
        given.max_targets,
        given.one_at_a_time,
    )


def _host(ssh: Ssh, machine: Machine) -> HostSettings:
    jump = None
    if ssh.jump is not None:
        jump = HostSettings(ssh.jump.host, ssh.jump.port, ssh.jump.user or ssh.user, ssh.key_file, ssh.known_hosts)
    return HostSettings(machine.host, machine.port, machine.user or ssh.user, ssh.key_file, ssh.known_hosts, jump)
