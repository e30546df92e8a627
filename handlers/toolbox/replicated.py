"""Facts about Replicated, which runs the 2.x platform, and the fixes that go through it.

`replicatedctl` answers JSON: one object, or a list of one. It is never asked for hidden settings. Sources:
https://help.replicated.com/api/replicatedctl/ and
https://help.replicated.com/docs/native/packaging-an-application/starting-and-stopping
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Step, Wait, equals
from bot.core.question import Output
from bot.core.target import Target

READY_WITHIN = timedelta(minutes=10)  # how long Replicated itself waits for the ready state
STARTED, STOPPED = "started", "stopped"
_WORDS = {  # what versions of Replicated call a state
    "started": STARTED,
    "running": STARTED,
    "ready": STARTED,
    "stopped": STOPPED,
    "starting": "starting",
    "stopping": "stopping",
    "updating": "updating",
    "restarting": "restarting",
    "failed": "failed",
    "error": "failed",
}
_NEVER = "0001-01-01"  # how Go writes a time that is not set
# Of the license only these parts leave the machine: its id opens the vendor's registry.
_PARTS = r"(expir|hostname)[^,\\]{0,90}"
_MEMBER = re.compile(r"""(\w+)"?: *["']?([^"']*)""")


@dataclass(frozen=True)
class App:
    """The application as Replicated sees it; `since` is when that last changed, None when it does not say."""

    state: str
    desired: str
    error: str
    since: datetime | None

    @property
    def turning(self) -> bool:
        """On its way from one state to another, by itself."""
        return self.state in ("starting", "stopping", "updating", "restarting")

    def told(self, age: str = "") -> str:
        """What Replicated says of it, in words."""
        wanted = f", though it should be {self.desired}" if self.desired not in ("", self.state) else ""
        return f"{self.state}{age}{wanted}{f', error: {self.error}' if self.error else ''}"


@dataclass(frozen=True)
class License:
    """The license: the host name it was made for (empty: it names none), when it ends, and whether that stops it."""

    hostname: str
    expires: datetime | None
    expired: bool
    enforced: bool

    def allows(self, host: str) -> bool:
        """A license of 3.x may name a whole domain, `*.example.com`."""
        wanted, host = self.hostname.lower().rstrip("."), host.lower().rstrip(".")
        return host.endswith(wanted[1:]) if wanted.startswith("*.") else host == wanted


# ---------------------------------------------------------------- facts


@fact
def app(platform: Target) -> Fact[App]:
    """The state of the application, what it should be, and the last error."""
    question = sh("replicatedctl", "app", "status", "-o", "json").sudo()
    return Fact(f"Is the platform's app ready on {platform}?", platform, question, _app)


@fact
def app_state(platform: Target) -> Fact[str]:
    """The state alone, for waiting: `started`, `stopped`, `starting`."""
    question = sh("replicatedctl", "app", "status", "-o", "json").sudo()
    return Fact(f"state of the app on {platform}", platform, question, lambda said: _app(said).state)


@fact
def app_is_up(platform: Target) -> Fact[bool]:
    """Is there something to stop? Asked just before it is stopped."""
    question = sh("replicatedctl", "app", "status", "-o", "json").sudo()
    return Fact(f"the app on {platform} is not stopped", platform, question, lambda said: _app(said).state != STOPPED)


@fact
def app_is_stopped(platform: Target) -> Fact[bool]:
    """Is there something to start?"""
    question = sh("replicatedctl", "app", "status", "-o", "json").sudo()
    return Fact(f"the app on {platform} is stopped", platform, question, _needs_start)


def _needs_start(said: Output) -> bool:
    return _app(said).state in (STOPPED, "stopping", "failed")


@fact
def license(platform: Target) -> Fact[License]:
    """For which host name and until when the license is; nothing else of it is read."""
    whole = sh("replicatedctl", "license", "inspect", "-o", "json").sudo()
    question = whole | sh("grep", "-ioE", _PARTS)
    return Fact(f"What does the license on {platform} allow?", platform, question, _license)


def _app(said: Output) -> App:
    told = _only(said, "app status")
    state = _WORDS.get(_text(told, "state", "status", "appstate").lower())
    if state is None:
        raise Unknown(f"Replicated calls the app's state `{_text(told, 'state', 'status', 'appstate')[:40]}`")
    desired = _text(told, "desiredstate")
    error = _text(told, "error", "errormessage", "message")
    return App(state, _WORDS.get(desired.lower(), desired), error[:300], _moment(_text(told, "lastmodifiedat")))


def _license(said: Output) -> License:
    if not said.out.strip():
        why = said.err.strip()[:200] or "it names neither a host nor a date"
        raise Unknown(f"`replicatedctl license inspect` does not say what the license allows: {why}")
    found = [each for each in map(_MEMBER.match, said.out.splitlines()) if each]
    told = [(each[1].lower().replace("_", ""), each[2].strip()) for each in found]
    first = dict(reversed(told))
    ends = [end for name, text in told if name == "expirationtime" and (end := _moment(text))]  # its own, and the app's
    return License(
        hostname=first.get("hostname", ""),
        expires=min(ends, default=None),
        expired=first.get("expired", "").lower() == "true",
        enforced=first.get("expirationpolicy", "").lower() != "ignore",
    )


def _only(said: Output, what: str) -> Mapping[str, Any]:
    """The one object that was answered, keys in lower case without `_`; Unknown when there is none."""
    if not said.ok:
        why = (said.err or said.out).strip()[:200]
        raise Unknown(f"`replicatedctl {what}` failed: {why or f'exit {said.exit}'}")
    try:
        told = json.loads(said.out)
    except ValueError:
        raise Unknown(f"`replicatedctl {what}` did not answer JSON") from None
    if isinstance(told, list):
        if len(told) != 1:
            raise Unknown(f"`replicatedctl {what}` told of {len(told)} apps, not one")
        told = told[0]
    if not isinstance(told, dict):
        raise Unknown(f"`replicatedctl {what}` answered in a form that is not known")
    return _low(told)


def _low(told: Mapping[str, Any]) -> dict[str, Any]:
    return {key.lower().replace("_", ""): value for key, value in told.items()}


def _text(told: Mapping[str, Any], *names: str) -> str:
    return next((value for name in names if isinstance(value := told.get(name.replace("_", "")), str)), "").strip()


def _moment(text: str) -> datetime | None:
    """A time of Go's: nanoseconds, and the year 1 for none."""
    if not text or text.startswith(_NEVER):
        return None
    try:
        found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# ---------------------------------------------------------------- fixes


def restart(platform: Target) -> Fix:
    """Stops the whole platform and starts it again; the workers connect again by themselves."""
    return Fix(
        id="platform.restart-app",
        title="Restart the platform's app",
        target=platform,
        steps=(*stopping(platform), *starting(platform)),
        risk=Risk.INTERRUPTS,
        ensure=(start_app(platform),),
        undo="nothing to undo: builds that ran are queued again",
        one_at_a_time=True,
    )


def start(platform: Target) -> Fix:
    """For an app that is stopped."""
    return Fix(
        id="platform.start-app",
        title="Start the platform's app",
        target=platform,
        steps=starting(platform),
        risk=Risk.INTERRUPTS,
        undo=f"`sudo replicatedctl app stop` on {platform}",
        one_at_a_time=True,
    )


def stopping(platform: Target) -> tuple[Step, ...]:
    """Stop the app, and wait until it is."""
    command = sh("replicatedctl", "app", "stop").sudo()
    change = Change("Stop the app", command, needed=app_is_up(platform), within=timedelta(minutes=2))
    return (change, Wait(app_state(platform), equals(STOPPED), READY_WITHIN))


def starting(platform: Target) -> tuple[Step, ...]:
    """Start the app, and wait until it is ready."""
    return (start_app(platform), Wait(app_state(platform), equals(STARTED), READY_WITHIN + timedelta(minutes=2)))


def start_app(platform: Target) -> Change:
    """Only where it is stopped."""
    command = sh("replicatedctl", "app", "start").sudo()
    return Change("Start the app", command, needed=app_is_stopped(platform), within=timedelta(minutes=2))
