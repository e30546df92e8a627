"""The license is for another host name, or has ended: then the platform's container does not start.

Only the vendor can change a license.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform, replicated

LINK = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/"
SOON = timedelta(days=14)  # a new license takes the vendor some days


@diagnosis(
    "license for another host",
    of="builds not starting",
    also=("platform not ready",),
    each=Role.PLATFORM,
    says="Is the license for this host name?",
    runbook=LINK,
)
def license_host(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(replicated.license(machine), replicated.app(machine))
    license = look(replicated.license(machine))
    if not license.hostname and not _runs(look, machine):
        raise Unknown("the license does not say for which host name it is")
    if not license.hostname or license.allows(look.site.domain):
        return
    found = Finding(
        "platform.license-host",
        Severity.BROKEN,
        machine,
        f"the license on {machine} is for {license.hostname}, not for {look.site.domain}",
        evidence=f"`replicatedctl license inspect` names {license.hostname}; this installation's `domain` is "
        f"{look.site.domain}",
        person=f"Mail {platform.SUPPORT}, subject `License Hostname Change`, with both names; then load the new "
        f"license at https://{look.site.domain}:8800, and start the app again.",
        link=LINK,
    )
    yield replace(found, severity=Severity.WARN) if _runs(look, machine) else found


@diagnosis(
    "license expired",
    of="builds not starting",
    also=("platform not ready",),
    each=Role.PLATFORM,
    says="Is the license still valid?",
    runbook=LINK,
)
def license_expired(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(replicated.license(machine), replicated.app(machine), platform.clock(machine))
    license, now = look(replicated.license(machine)), look(platform.clock(machine))
    when = f"{license.expires:%Y-%m-%d %H:%M} UTC" if license.expires else "an unknown day"
    person = f"Ask {platform.SUPPORT} for a new license, and load it at https://{look.site.domain}:8800."
    if license.expired or (license.expires is not None and license.expires <= now):
        evidence = f"`replicatedctl license inspect` says that it ended on {when}"
        title = f"the license on {machine} has expired"
        ended = Finding("platform.license-expired", Severity.BROKEN, machine, title, evidence, person=person, link=LINK)
        harmless = not license.enforced and _runs(look, machine)
        yield replace(ended, severity=Severity.WARN) if harmless else ended
    elif license.expires is not None and license.expires - now <= SOON:
        title = f"the license on {machine} expires in {readable(license.expires - now)}"
        evidence = f"`replicatedctl license inspect` says that it ends on {when}"
        yield Finding("platform.license-expiring", Severity.WARN, machine, title, evidence, person=person, link=LINK)


def _runs(look: Look, machine: Target) -> bool:
    """Whether the platform works all the same: what keeps it from starting did not do so."""
    try:
        return look(replicated.app(machine)).state == replicated.STARTED
    except Unknown:
        return False
