"""A worker takes builds from another queue than the one it is meant for: it is connected, and idles for ever.

Since September 2024 the vendor's installer writes `builds.focal` whatever images it installs.
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import edit, settings, worker
from handlers.toolbox.settings import QUEUE, Settings

INSTALLER = "builds.focal"


@diagnosis(
    "worker listens on another queue",
    of="builds not starting",
    each=Role.WORKER,
    says="Does the worker take builds from the queue it is meant for?",
    unless=("worker.config-overridden",),
    runbook="https://docs.travis-ci.com/user/enterprise/worker-configuration/",
)
def worker_listens_on_another_queue(look: Look, machine: Target) -> Iterator[Finding]:
    if not (meant := look.site.option(f"queue.{machine.name}", "")):
        return
    look.together(worker.init_system(machine), settings.written(machine))
    every = look(settings.written(machine))
    written = settings.settings(every, look(worker.init_system(machine)))
    if not every or (now := written.value(QUEUE)) == meant:
        return
    wish = edit.Wish(_remedy(written, meant), QUEUE, meant)
    yield Finding(
        "worker.queue-mismatch",
        Severity.BROKEN,
        machine,
        f"{machine} takes builds from {now or 'no queue'}, and is meant for {meant}",
        evidence=f"{_evidence(written, now)}{f'; {wish}' if wish.edit else ''}",
        fixes=edit.edit_and_restart(look, machine, wish),
        person="" if wish.edit else f"Set {QUEUE}={meant} in {settings.MAIN} on {machine}, and restart travis-worker.",
        link="https://docs.travis-ci.com/user/enterprise/worker-configuration/",
    )


def _evidence(written: Settings, now: str) -> str:
    entry = written.winner(QUEUE)
    place = entry.place if entry else "no file sets it"
    installer = "; the installer writes builds.focal unless it is given --travis_queue_name" if now == INSTALLER else ""
    return f"{QUEUE}: {place}{installer}; the build images on the machine must be those of the queue"


def _remedy(written: Settings, meant: str) -> edit.Edit | None:
    if (entry := written.winner(QUEUE)) is not None:
        return edit.value(entry, meant)
    amqp = written.winner(settings.AMQP)
    return edit.append(amqp.file if amqp else settings.MAIN, QUEUE, meant)
