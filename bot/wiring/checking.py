"""What is checked before opsbot works: the configuration (`config check`) and what it names (`doctor`)."""

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from bot.adapters import embedded
from bot.adapters.router import Router
from bot.adapters.ssh import Ssh, unusable
from bot.adapters.store import versions
from bot.adapters.stream import OpenSsh
from bot.core.command import refuse_secrets, sh
from bot.core.errors import NotUnderstood, OpsbotError, Permanent
from bot.core.handler import Catalogue
from bot.core.number import counted
from bot.core.question import (
    Answer,
    HttpGet,
    Output,
    Question,
    RedisRead,
    Response,
    Unanswered,
)
from bot.core.request import Vocabulary
from bot.core.sql import Query
from bot.core.target import Role, Site, Target
from bot.engine.desk import vocabulary_of
from bot.engine.discovery import discover, fixes
from bot.engine.policy import Policy, bound
from bot.settings import EMBEDDED, Settings
from bot.slack import words
from bot.slack.app import client
from bot.slack.presence import presence
from bot.wiring import rights
from bot.wiring.foundation import standing
from bot.wiring.reaching import _aws, hosts_of, router_of, vault_of

NO_CHANNELS = "slack.channels.commands: no channel is listed, so in Slack opsbot can be asked nowhere"


def policy_of(settings: Settings, catalogue: Catalogue) -> Policy:
    """The configured rules; raises Permanent with the path of each that nothing could ever meet."""
    return bound(settings.policy(), catalogue, partial(fixes, settings.handlers))


def check(settings: Settings) -> None:
    """Raises Permanent with every sentence of `faults`."""
    if wrong := faults(settings):
        raise Permanent("\n".join(wrong))


def faults(settings: Settings) -> list[str]:
    """All that can be wrong with the configuration without asking anybody, a sentence each."""
    return [*_logins(settings), *_raised(partial(_aws, settings)), *_named(settings)]


def _logins(settings: Settings) -> Iterator[str]:
    """Keys and pins, as the first login would find them."""
    hosts = hosts_of(settings)
    for no, site in enumerate(settings.sites()):
        for name, why in unusable(hosts[target.key] for target in site):
            yield f"installations[{no}].ssh.{name}: {why}"


def _named(settings: Settings) -> Iterator[str]:
    """Names of handlers in the policy and in schedules."""
    try:
        catalogue = discover(settings.handlers)
    except OpsbotError as why:
        names = settings.rules or settings.schedules
        yield f"handlers: {str(why).rstrip('.')}" + (
            ". What `policy` and `schedules` name can be checked after that." if names else ""
        )
        return
    machines = machines_of({each.name: each for each in settings.sites()})
    vocabulary = vocabulary_of(catalogue, settings.slack.command, machines)
    yield from _raised(partial(policy_of, settings, catalogue))
    yield from _raised(partial(check_schedules, settings, vocabulary))


def _raised(look: Callable[[], object]) -> Iterator[str]:
    try:
        look()
    except OpsbotError as why:
        yield str(why)


def check_schedules(settings: Settings, vocabulary: Vocabulary) -> None:
    """Refuse to start with a schedule that nobody could say; raises Permanent with its path."""
    for no, each in enumerate(settings.schedules):
        try:
            words.read(f"{each.run} on {each.on}" if each.on else each.run, vocabulary)
        except NotUnderstood as why:
            raise Permanent(f"schedules[{no}].run: {why}") from why


def machines_of(sites: Mapping[str, Site]) -> dict[str, tuple[tuple[str, str], ...]]:
    return {name: tuple((target.name, target.role.value) for target in site) for name, site in sites.items()}


def doctor(settings: Settings) -> list[tuple[bool, str]]:
    """What works and what does not, one sentence each; changes nothing."""
    return [_checked(what, check, settings) for what, check in CHECKS.items()]


def _checked(what: str, check: Any, settings: Settings) -> tuple[bool, str]:
    try:
        return True, f"{what}: {check(settings)}"
    except OpsbotError as error:
        return False, f"{what}: {error}"


def _check_database(settings: Settings) -> str:
    if settings.database_url == EMBEDDED and not embedded.is_made(settings.state_dir / "database"):
        return f"`opsbot serve` will make one in {settings.state_dir / 'database'}"
    version, newest = versions(standing(settings))
    if version > newest:
        raise Permanent(f"its schema is version {version}, this opsbot knows {newest}: run a newer opsbot")
    return f"schema version {version}" + (f"; `opsbot serve` will bring it to {newest}" if version < newest else "")


def _check_configuration(settings: Settings) -> str:
    check(settings)
    return f"fine, with {len(discover(settings.handlers).files)} handlers"


def _check_machines(settings: Settings) -> str:
    ssh = Ssh(hosts_of(settings), refuse_secrets)
    try:
        silent = [why.rstrip(".") for site in settings.sites() for target in site if (why := _greet(ssh, target))]
    finally:
        ssh.close()
    if silent:
        raise Permanent("; ".join(dict.fromkeys(silent)))  # one key may be wrong for all of them
    return f"all {len(settings.ssh_hosts())} answer"


def _greet(ssh: Ssh, target: Target) -> str:
    (answer,) = ssh.ask(target, [sh("true")], threading.Event())
    return answer.why if isinstance(answer, Unanswered) else ""


def _check_services(settings: Settings) -> str:
    """Asks each service of the installations that is set up to be asked, as a diagnosis would."""
    ssh = Ssh(hosts_of(settings), refuse_secrets)
    try:
        router = router_of(settings, ssh)
        answers = [
            (what, _asked(router, site, question)) for site in settings.sites() for what, question in _services(site)
        ]
    finally:
        ssh.close()
    said = [(what, answer) for what, answer in answers if getattr(answer, "cause", "") != "not-configured"]
    if wrong := [why for what, answer in said if (why := _wrong(what, answer))]:
        raise Permanent("; ".join(dict.fromkeys(wrong)))
    return f"all answer: {', '.join(dict.fromkeys(what for what, _ in said)) or 'none is configured'}"


def _asked(router: Router, site: Site, question: Question) -> Answer | Unanswered:
    (answer,) = router.ask(site.of(Role.PLATFORM)[0], [question], threading.Event())
    return answer


def _wrong(what: str, answer: Answer | Unanswered) -> str:
    if isinstance(answer, Unanswered):
        return answer.why.rstrip(".")
    if isinstance(answer, Output):
        return "" if answer.ok else f"{what} says {(answer.err or answer.out).strip()[:200]}"
    if isinstance(answer, Response):
        return "" if answer.status == 200 else f"{what} answers with HTTP status {answer.status}"
    return ""


def _services(site: Site) -> tuple[tuple[str, Question], ...]:
    """The management API tells of nodes and of a vhost's queues only who has a right to each."""
    vhost = quote(site.option("rabbitmq.vhost", "travis"), safe="")
    return (
        ("database", Query("SELECT 1 AS one")),
        ("logs' database", Query("SELECT 1 AS one", database="logs")),
        ("redis", RedisRead(("PING",))),
        ("RabbitMQ's management API", HttpGet("rabbitmq:/api/nodes?columns=name")),
        ("RabbitMQ's management API", HttpGet(f"rabbitmq:/api/queues/{vhost}?columns=name", most=8 << 20)),
    )


def _check_slack(settings: Settings) -> str:
    if not settings.slack.connect:
        return "none, as configured: the command line does it all"
    if not settings.secrets.slack_bot_token:
        raise Permanent("there is no SLACK_BOT_TOKEN, so opsbot works from the command line only")
    if not settings.slack.channels.commands:
        raise Permanent(NO_CHANNELS)
    given = settings.slack.channels
    channels = dict.fromkeys(filter(None, (*given.commands, given.approvals)))
    home = settings.slack.enterprise_id or ""
    return presence(client(settings.secrets.slack_bot_token), settings.slack.team_id, channels, home)


def _check_backups(settings: Settings) -> str:
    """Whether the store can be reached, read and written."""
    if (given := settings.backups) is None:
        return "none are configured"
    vault = vault_of(given, OpenSsh(hosts_of(settings)))
    count = sum(len(vault.manifests(site.name)) for site in settings.sites())
    rights.try_store(settings, given)
    return f"{vault.where} can be read and written, and has {counted(count, 'set')} of backups"


CHECKS = {
    "configuration": _check_configuration,
    "database": _check_database,
    "machines": _check_machines,
    "their services": _check_services,
    "backups": _check_backups,
    "their sources": rights.try_sources,
    "Slack": _check_slack,
}
