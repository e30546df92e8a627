"""A worker looks for the platform under another name, or does not know where build scripts come from."""

from collections.abc import Iterator

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import edit, rabbitmq, settings, worker
from handlers.toolbox.settings import AMQP, BUILD_API, ENDPOINT, Entry, Settings

PAGE = "https://docs.travis-ci.com/user/enterprise/worker-configuration/"
SCRIPTS = "__build__"


@diagnosis(
    "worker has the wrong host",
    of="builds not starting",
    each=Role.WORKER,
    says="Does the worker look for the platform under its own name?",
    unless=("worker.config-overridden",),
    runbook=PAGE,
)
def worker_has_the_wrong_host(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine), settings.written(machine))
    written = settings.settings(look(settings.written(machine)), look(worker.init_system(machine)))
    wrong = [(name, entry) for name in _checked(look) if (entry := written.winner(name)) is not None]
    wrong = [(name, entry) for name, entry in wrong if _elsewhere(look, machine, written, name, entry)]
    if not wrong:
        return
    wishes = tuple(dict.fromkeys(_wish(look, written, name, entry) for name, entry in wrong))
    entry = wrong[0][1]
    yield Finding(
        "worker.host-mismatch",
        Severity.BROKEN,
        machine,
        f"{machine} looks for the platform under {_host(written, entry)}, not {look.site.domain}",
        evidence="; ".join(f"{each.key}, {each.place}" for _, each in wrong)
        + "".join(f"; {wish}" for wish in wishes if wish.edit),
        fixes=edit.edit_and_restart(look, machine, *wishes),
        person=_by_hand(look, wishes, tuple(each for _, each in wrong)),
        link=PAGE,
    )


def _host(written: Settings, entry: Entry) -> str:
    return settings.host_of(written.read(entry)) or "no host at all"


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


def _elsewhere(look: Look, machine: Target, written: Settings, name: str, entry: Entry) -> bool:
    """Another name of the same machine is no fault; nor is one under which the worker did reach this broker."""
    host = settings.host_of(written.read(entry))
    platforms = look.site.of(Role.PLATFORM)
    if host in {look.site.domain.lower(), *(each.name for each in platforms), *(each.address for each in platforms)}:
        return False
    if host and _same_machine(look, machine, host):
        return False
    return name != AMQP or not _seen(look, machine, host)


def _same_machine(look: Look, machine: Target, host: str) -> bool:
    here, there = settings.addresses_of(machine, host), settings.addresses_of(machine, look.site.domain)
    look.together(here, there, *worker.asked(look, machine), *edit.ahead(look))
    known = (*look(there), *(each.address for each in look.site.of(Role.PLATFORM)))
    return any(address in known for address in look(here))


def _seen(look: Look, machine: Target, host: str) -> bool:
    """Nobody comes by a name that means nothing on the machine, whether RabbitMQ can be asked or not."""
    try:
        seen = rabbitmq.presences(look, rabbitmq.broker(look))
    except Unknown:
        if host and not look(settings.addresses_of(machine, host)):
            return False
        raise
    return any(seen[address].builds for address in look(worker.addresses(machine)) if address in seen)


@diagnosis(
    "worker gets no build scripts",
    of="builds not starting",
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
    address = _address(look)
    entry = written.winner(BUILD_API)
    if written.sourced and (entry is None or ENDPOINT in entry.text):
        return edit.Wish(edit.set_apart(written, ENDPOINT, SCRIPTS), ENDPOINT, SCRIPTS)
    if entry is None:
        amqp = written.winner(AMQP)
        return edit.Wish(edit.append(amqp.file if amqp else settings.MAIN, BUILD_API, address), BUILD_API, address)
    return edit.Wish(None if settings.MASKED in entry.text else edit.value(entry, address), BUILD_API, address)


def _address(look: Look) -> str:
    return f"https://{look.site.domain}/{SCRIPTS}/script"
