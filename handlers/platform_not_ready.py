"""The platform's app is not ready: Replicated gave it ten minutes, and its health page did not answer in time.

That alone names no cause (`Ready state command canceled: context deadline exceeded`), so what else was looked at is
said too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, Risk, readable
from bot.core.handler import action, diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform, replicated
from handlers.toolbox.platform import Container
from handlers.toolbox.replicated import READY_WITHIN, STARTED, STOPPED, App

LINK = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/"
ANSWERS = (200, 401, 403)  # where everything needs a token the API says so itself; one that ended cannot
FULL = 95  # percent of a disk; below it, a disk keeps nothing from starting
CAUSES = (
    "platform.disk-full@BROKEN",
    "platform.rabbitmq-cert-directory",
    "platform.license-host",
    "platform.license-expired",
    "platform.oauth-mismatch",
)


@dataclass(frozen=True)
class Seen:
    """What Replicated and docker say, and for how long Replicated has said so (None: not known)."""

    app: App
    containers: tuple[Container, ...]
    lasted: timedelta | None

    @property
    def up(self) -> bool:
        return any(each.up for each in self.containers)

    @property
    def ready(self) -> bool:
        return self.app.state == STARTED and self.up

    @property
    def age(self) -> str:
        return f" for {readable(self.lasted)}" if self.lasted is not None else ""


@diagnosis(
    "platform app not ready",
    of="builds not starting",
    also=("platform not ready",),
    each=Role.PLATFORM,
    says="Is the platform's app ready?",
    unless=CAUSES,
    runbook=LINK,
)
def platform_not_ready(look: Look, machine: Target) -> Iterator[Finding]:
    folder = platform.data_dir(look, machine)
    look.together(replicated.app(machine), platform.containers(machine), platform.clock(machine))
    seen = _seen(look, machine)
    if seen.ready:
        return
    _refuse_to_judge_early(seen)
    look.together(platform.disks(machine, folder), replicated.license(machine), platform.certificate_kind(machine))
    yield Finding(
        "platform.not-ready",
        Severity.BROKEN,
        machine,
        _title(machine, seen),
        evidence=f"Replicated says: {seen.app.told(seen.age)}; {_containers(seen)}. "
        f"{_ruled_out(look, machine, folder)}",
        fixes=_fixes(machine, seen),
        person=_person(look, seen),
        link=LINK,
    )


@diagnosis(
    "platform does not answer",
    of="builds not starting",
    also=("platform not ready",),
    each=Role.PLATFORM,
    says="Does the platform's API answer?",
    unless=("platform.not-ready", *CAUSES, "database.*", "postgres.*", "db.*"),
    runbook="https://docs.travis-ci.com/user/enterprise/platform-tips/",
)
def platform_does_not_answer(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(
        platform.uptime(machine), replicated.app(machine), platform.containers(machine), platform.clock(machine)
    )
    answer = look(platform.uptime(machine))
    if answer.status in ANSWERS:
        return
    if 0 < answer.status < 500:
        raise Unknown(f"{platform.UPTIME} on {machine} answers {answer.status}, which is no word of the API's own")
    seen = _seen_if_told(look, machine)
    if seen is not None:
        _refuse_to_judge_early(seen)
    yield Finding(
        "platform.uptime-failed",
        Severity.BROKEN,
        machine,
        f"{platform.UPTIME} on {machine} {_answered(answer)}",
        evidence=f"it asks the web service and the database, and nothing else; Replicated {_told(seen)}",
        fixes=(replicated.restart(machine),) if seen is not None and seen.ready else (),
        person=f"Read the end of {platform.data_dir(look, machine)}/log/travis.log on {machine}: it says whether the "
        "web service or the database fails.",
        link="https://docs.travis-ci.com/user/enterprise/platform-tips/",
    )


def _seen_if_told(look: Look, machine: Target) -> Seen | None:
    """What fails is known without Replicated; it only helps to tell why."""
    try:
        return _seen(look, machine)
    except Unknown:
        return None


def _told(seen: Seen | None) -> str:
    return f"says: {seen.app.state}{seen.age}" if seen is not None else "cannot be asked"


def _answered(answer: platform.Answer) -> str:
    return f"answers {answer.status}, not 200" if answer.status else f"does not answer: {answer.why}"


def _seen(look: Look, machine: Target) -> Seen:
    app = look(replicated.app(machine))
    now: datetime = look(platform.clock(machine))
    return Seen(app, look(platform.containers(machine)), platform.lasted(app.since, now))


def _refuse_to_judge_early(seen: Seen) -> None:
    """What only just began may end well by itself: a start takes minutes, and one who stops it mostly starts it."""
    begun = seen.app.turning or seen.app.state in (STARTED, STOPPED)
    if not begun or seen.app.error or (seen.lasted is not None and seen.lasted >= _patience(seen.app)):
        return
    if seen.lasted is None and not seen.app.turning:
        return
    since = f"for only {readable(seen.lasted)}" if seen.lasted is not None else "since nobody knows when"
    raise Unknown(
        f"the platform's app has been {seen.app.state} {since}; look again in {readable(_patience(seen.app))}"
    )


def _patience(app: App) -> timedelta:
    return READY_WITHIN if app.turning else timedelta(minutes=2)


def _title(machine: Target, seen: Seen) -> str:
    if seen.app.state == STARTED:
        return f"Replicated calls the platform's app on {machine} started, but its container does not run"
    if seen.app.state == STOPPED and seen.app.desired == STOPPED and not seen.app.error:
        return f"the platform's app on {machine} is stopped, and somebody wanted it so"
    return f"the platform's app on {machine} does not get ready: it is {seen.app.state}"


def _containers(seen: Seen) -> str:
    if not seen.containers:
        return f"docker has no container of an image called {platform.MAIN_IMAGE}"
    shown = next((each for each in seen.containers if each.up), seen.containers[0])
    return f"docker says of the platform's container: {shown.status}"


def _ruled_out(look: Look, machine: Target, folder: str) -> str:
    """What else could have explained it, and does not; what could not be looked at is said as that."""
    checks: Mapping[str, Callable[[], bool]] = {
        "a full disk": lambda: all(each.used < FULL for each in look(platform.disks(machine, folder))),
        "a license for another host": lambda: look(replicated.license(machine)).allows(look.site.domain),
        "a directory instead of RabbitMQ's certificate": lambda: (
            look(platform.certificate_kind(machine)) != "directory"
        ),
    }
    out, unknown = [], []
    for name, holds in checks.items():
        try:
            out += [name] if holds() else []
        except Unknown:
            unknown.append(name)
    said = [f"ruled out: {', '.join(out)}"] if out else []
    said += [f"not known: {', '.join(unknown)}"] if unknown else []
    return "; ".join(said)


def _fixes(machine: Target, seen: Seen) -> tuple[Fix, ...]:
    return (replicated.start(machine),) if seen.app.state == STOPPED else (replicated.restart(machine),)


def _person(look: Look, seen: Seen) -> str:
    host = look.site.domain
    oauth = (
        f"opsbot cannot see GitHub's side: at its OAuth app, `Homepage URL` must be https://{host} and `Authorization "
        f"callback URL` https://{host}/api."
    )
    if seen.app.state == STOPPED and seen.app.desired == STOPPED:
        return f"Ask first who stopped it: a cold backup or a new certificate needs that. {oauth}"
    return oauth


@action(
    "restart platform",
    each=Role.PLATFORM,
    says="Restart the platform's app: stop, wait, start, wait until it is ready",
    risk=Risk.INTERRUPTS,
    makes="platform.restart-app",
    proof="platform app not ready",
)
def restart_platform(_look: Look, machine: Target) -> Fix:
    return replicated.restart(machine)
