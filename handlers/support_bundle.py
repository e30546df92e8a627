"""What the vendor's support asks for, in one archive, without secrets, and the mail that goes with it.

Sending it is a person's business, after reading it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from bot.core.errors import Unknown
from bot.core.fact import Fact
from bot.core.handler import Steps, job
from bot.core.look import CannotLook, Look
from bot.core.shown import MASK
from bot.core.target import Role, Site, Target
from handlers.toolbox import bundle, platform, rabbitmq, worker

NAME = "support-bundle"
LONGEST = 200_000  # characters of one file; of a longer one the end says more
INITS = (worker.SYSTEMD, worker.UPSTART)
MOST_NAMED = 20  # findings that the mail names
Texts = Mapping[str, str]
Files = Mapping[str, Sequence[Fact[str]]]
Parts = Mapping[str, tuple[str, Mapping[str, int]]]  # path -> text without secrets, and what was masked in it


@job("support bundle", says="Collect what the vendor's support asks for, without secrets, and write the mail to it")
def support_bundle(steps: Steps, look: Look) -> str:
    parts: dict[str, tuple[str, Mapping[str, int]]] = {}
    for machine in look.site:
        parts |= steps.step(f"collect from {machine}", partial(_collected, steps, partial(_of_machine, look, machine)))
    parts |= steps.step("ask RabbitMQ", partial(_collected, steps, partial(_of_broker, look)))
    parts |= steps.step("diagnose", partial(_collected, steps, partial(_of_findings, steps)))
    masked = {path: counts for path, (_, counts) in parts.items() if counts}
    texts = {path: text for path, (text, _) in parts.items()}
    mail = _mail(look.site, texts["findings.txt"])
    files = {**texts, "masked.txt": _masked_list(masked), "mail.txt": mail}
    count = sum(sum(counts.values()) for counts in masked.values())
    steps.attach(
        NAME, files, f"The support bundle: {len(files)} files, {count} values masked (`masked.txt` lists them)"
    )
    steps.say(mail)
    return (
        f"The bundle of {_number(look.site.targets, 'machine')} is attached; {count} values in it were masked. Read "
        f"it, fill in the mail, and send both to {platform.SUPPORT}."
    )


def _collected(steps: Steps, read: Callable[[], Texts]) -> Parts:
    """What is recorded of a step: texts without secrets."""
    return {path: _without_secrets(steps, text) for path, text in read().items()}


def _without_secrets(steps: Steps, text: str) -> tuple[str, Mapping[str, int]]:
    """Masked before it is cut: what tells a secret stands before it."""
    shown, counts = steps.masked(text)
    return _end_of(shown), counts


def _end_of(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"(the first {len(text) - LONGEST} characters are left out)\n{text[-LONGEST:]}"


# ---------------------------------------------------------------- what is collected


def _of_machine(look: Look, machine: Target) -> Texts:
    """A few files for each machine. One that cannot be reached is asked once, not a dozen times."""
    files: dict[str, str] = {}
    try:
        for name, facts in _facts(look, machine).items():
            files[f"{machine}/{name}"] = "\n".join(_read(look, fact) for fact in facts)
    except CannotLook as why:
        files[f"{machine}/not-read.txt"] = f"{machine} could not be read any further: {why}\n"
    return files


def _facts(look: Look, machine: Target) -> Files:
    of_role = _of_platform if machine.role is Role.PLATFORM else _of_worker
    return {"system.txt": bundle.system(machine), **of_role(look, machine)}


def _of_platform(look: Look, machine: Target) -> Files:
    return {
        "docker.txt": (bundle.platform_docker(machine), bundle.platform_containers(machine)),
        "replicated.txt": (bundle.replicated_version(machine), bundle.replicated_app(machine)),
        "travis.log": (bundle.platform_log(machine, platform.data_dir(look, machine)),),
    }


def _of_worker(look: Look, machine: Target) -> Files:
    try:
        init = look(worker.init_system(machine))
    except Unknown:
        init = ""
    return {
        "docker.txt": (bundle.worker_docker(machine), bundle.worker_containers(machine)),
        "travis-worker.log": [bundle.worker_log(machine, each) for each in INITS if init in ("", each)],
        "settings.txt": (bundle.worker_settings(machine), bundle.worker_setting_names(machine)),
        **(_of_upstart(machine) if init == worker.UPSTART else {}),
    }


def _of_upstart(machine: Target) -> Files:
    return {
        "travis-worker.log.1": [bundle.worker_log_before(machine)],
        "version.txt": [bundle.worker_program(machine)],
    }


def _of_broker(look: Look) -> Texts:
    try:
        at = rabbitmq.broker(look)
        queues = look(rabbitmq.queues(at.place, at.vhost))
        listed = "\n".join(str(queue) for queue in queues)
        return {"rabbitmq.txt": f"Queues of the vhost {at.vhost}:\n{listed}\n"}
    except (CannotLook, Unknown) as why:
        return {"rabbitmq.txt": f"RabbitMQ could not be asked: {why}\n"}


def _of_findings(steps: Steps) -> Texts:
    return {
        "findings.txt": "\n\n".join(steps.findings()) or "Every diagnosis is silent: nothing is wrong that it knows."
    }


def _read(look: Look, fact: Fact[str]) -> str:
    try:
        return look(fact)
    except Unknown as why:
        return f"$ {fact.question}\n(could not be read: {why})\n"


# ---------------------------------------------------------------- what is said about it


def _masked_list(masked: Mapping[str, Mapping[str, int]]) -> str:
    """How often what was masked where; never the value."""
    total = Counter[str]()
    for counts in masked.values():
        total.update(counts)
    every = [f"  {kind}: {count}" for kind, count in total.most_common()] or ["  nothing"]
    files = [f"  {path}: {kind}: {count}" for path, each in sorted(masked.items()) for kind, count in each.items()]
    return MASKED.format(
        mask=MASK, every="\n".join(every), files="\n".join(files) or "  none", harmless=", ".join(bundle.HARMLESS)
    )


def _mail(site: Site, findings: str) -> str:
    named = [f"  {line}" for line in findings.splitlines() if line.startswith(("BROKEN ", "WARN "))]
    machines = (
        f"{_number(site.of(Role.PLATFORM), 'platform machine')} and {_number(site.of(Role.WORKER), 'worker machine')}"
    )
    says = "\n".join(named[:MOST_NAMED]) or "  nothing is wrong that they know of"
    return MAIL.format(
        to=platform.SUPPORT,
        version=site.version,
        domain=site.domain,
        machines=machines,
        says=says,
        name=NAME,
        vendor=_vendors_own(site),
    )


def _vendors_own(site: Site) -> str:
    """How the bundle is made that the vendor's own tool collects; it may hold secrets, and none of it passes here."""
    if site.version.startswith("2."):
        return f"https://{site.domain}:8800/support, or `sudo replicatedctl support-bundle` on the platform"
    return "`kubectl support-bundle --load-cluster-specs`, or the admin console under Troubleshoot"


def _number(things: Sequence[Target], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


MASKED = """\
{mask} stands for what was taken out. In all:
{every}

By file:
{files}

Never collected: the encryption key, passwords, hidden settings of Replicated, the database, logs of builds.
Of the workers' settings only harmless ones with their values, of all others the names. Harmless:
{harmless}.
"""

MAIL = """\
To: {to}
Subject: Travis CI Enterprise {version} at {domain}: (what happens, in a few words)

Hello,

(What happens, since when, what you expected, and what was tried already.)

Installation: Travis CI Enterprise {version} at {domain}, {machines}.
GitHub: (github.com, or GitHub Enterprise and its version)
Configuration management: (Ansible, Chef, Puppet, none)
Log of a build that shows it: (attach it)

What our diagnoses say now:
{says}

Attached is {name}.tar.gz: logs of the platform and of all workers, versions, settings without secrets, and the whole
of what the diagnoses found.
Attach the vendor's own support bundle, too ({vendor}). Nobody has masked it: read it first.
"""
