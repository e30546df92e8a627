"""A worker looks for the platform under another name, or does not know where build scripts come from."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import address, edit, settings, worker
from handlers.toolbox.settings import AMQP, BUILD_API, ENDPOINT, Entry, Settings

PAGE = "https://docs.travis-ci.com/user/enterprise/worker-configuration/"
SCRIPTS = "__build__"


@diagnosis(
    "worker has the wrong host",
    of="builds not starting",
    also=("builds failing",),
    each=Role.WORKER,
    says="Does the worker look for the platform under its own name?",
    unless=("worker.config-overridden",),
    runbook=PAGE,
)
def worker_has_the_wrong_host(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine), settings.written(machine))
    written = settings.settings(look(settings.written(machine)), look(worker.init_system(machine)))
    wrong = [(name, entry) for name in _checked(look) if (entry := written.winner(name)) is not None]
    wrong = [(name, entry) for name, entry in wrong if not address.leads_here(look, machine, name, written.read(entry))]
    if not wrong:
        return
    wishes = tuple(dict.fromkeys(_wish(look, written, name, entry) for name, entry in wrong))
    entry = wrong[0][1]
    yield Finding(
        "worker.host-mismatch",
        Severity.BROKEN,
        machine,
        f"{machine} looks for the platform under {_to(written, entry) or 'no host at all'}, not {look.site.domain}",
        evidence="; ".join(f"{each.key}, {each.place}" for _, each in wrong)
        + "".join(f"; {wish}" for wish in wishes if wish.edit),
        fixes=edit.edit_and_restart(look, machine, *wishes),
        person=_by_hand(look, wishes, tuple(each for _, each in wrong)),
        link=PAGE,
    )


def _to(written: Settings, entry: Entry) -> str:
    return settings.host_of(written.read(entry))


def _wish(look: Look, written: Settings, name: str, entry: Entry) -> edit.Wish:
    change = edit.host_behind(written, entry, look.site.domain)
    return edit.Wish(change, settings.HOST if change and change.key == settings.HOST else name, look.site.domain)


def _by_hand(look: Look, wishes: tuple[edit.Wish, ...], wrong: tuple[Entry, ...]) -> str:
    if all(wish.edit for wish in wishes):
        return ""
    lines = " and ".join(f"{each.key} ({each.place})" for each in wrong)
    return f"Put {look.site.domain} as the host into {lines}, then restart travis-worker."


def _checked(look: Look) -> tuple[str, ...]:
    """A broker of one's own has a name of its own, which nobody has told opsbot."""
    return (AMQP, BUILD_API) if look.site.option("rabbitmq.via", "container") == "container" else (BUILD_API,)


@diagnosis(
    "worker gets no build scripts",
    of="builds not starting",
    also=("builds failing",),
    each=Role.WORKER,
    says="Does the worker know where build scripts come from?",
    runbook=PAGE,
)
def worker_gets_no_build_scripts(look: Look, machine: Target) -> Iterator[Finding]:
    """An upgrade of the package comments the endpoint out: https://github.com/travis-ci/worker/issues/325."""
    look.together(worker.init_system(machine), settings.written(machine))
    every = look(settings.written(machine))
    written = settings.settings(every, look(worker.init_system(machine)))
    if not every or not (problem := _no_scripts(written)):
        return
    wish = _remedy(look, written)
    yield Finding(
        "worker.build-api",
        Severity.BROKEN,
        machine,
        f"{machine} gets no build scripts: {problem}",
        evidence=str(wish) or "its settings files say so",
        fixes=edit.edit_and_restart(look, machine, wish),
        person="" if wish.edit else f"Set {BUILD_API}={_address(look)} on {machine}, and restart.",
        link=PAGE,
    )


def _no_scripts(written: Settings) -> str:
    """What is wrong, empty when nothing is."""
    entry = written.winner(BUILD_API)
    if entry is None and written.sourced and written.winner(settings.HOST) is not None:
        return "" if written.value(ENDPOINT) else f"{ENDPOINT} is not set"
    if entry is None:
        return f"{BUILD_API} is not set" if written.winner(AMQP) is not None else ""
    path = settings.path_of(written.read(entry)).strip("/")
    if path.startswith(SCRIPTS):
        return ""
    if ENDPOINT in entry.text and written.sourced and not written.value(ENDPOINT):
        return f"{ENDPOINT} is not set, and {BUILD_API} is made from it"
    return f"the path of {BUILD_API} in {entry.place} is `/{path}`, not /{SCRIPTS}/script"


def _remedy(look: Look, written: Settings) -> edit.Wish:
    wanted = _address(look)
    entry = written.winner(BUILD_API)
    if written.sourced and (entry is None or ENDPOINT in entry.text):
        return edit.Wish(edit.set_apart(written, ENDPOINT, SCRIPTS), ENDPOINT, SCRIPTS)
    if entry is None:
        amqp = written.winner(AMQP)
        return edit.Wish(edit.append(amqp.file if amqp else settings.MAIN, BUILD_API, wanted), BUILD_API, wanted)
    return edit.Wish(None if settings.MASKED in entry.text else edit.value(entry, wanted), BUILD_API, wanted)


def _address(look: Look) -> str:
    return f"https://{look.site.domain}/{SCRIPTS}/script"
