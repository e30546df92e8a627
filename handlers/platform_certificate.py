"""Where RabbitMQ's certificate belongs lies a directory, so that docker cannot start the platform's container.

Docker makes an empty one when the file is missing; it happened in upgrades to Replicated 2.8.0.
"""

from collections.abc import Iterator
from dataclasses import replace

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform

LINK = "https://docs.travis-ci.com/user/enterprise/platform-tips-tcie-2.x/"
REBOOT = "reboot the platform machine, as the vendor advises; opsbot never does that"


@diagnosis(
    "rabbitmq certificate is a directory",
    of="builds not starting",
    also=("platform not ready",),
    each=Role.PLATFORM,
    says="Is RabbitMQ's certificate a file?",
    runbook=LINK,
)
def rabbitmq_certificate(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(platform.certificate_kind(machine), platform.containers(machine))
    if look(platform.certificate_kind(machine)) != "directory":
        return
    containers = look(platform.containers(machine))
    runs = any(each.up for each in containers)
    newest = [platform.start_error(machine, containers[0].id)] if containers and not runs else []
    look.together(platform.certificate_holds(machine), *newest)
    empty = look(platform.certificate_holds(machine)) == 0
    error = look(newest[0]) if newest else ""
    found = Finding(
        "platform.rabbitmq-cert-directory",
        Severity.BROKEN,
        machine,
        f"{platform.CERTIFICATE} on {machine} is a directory, not a certificate",
        evidence=f"docker says: {error[:300]}" if error else _evidence(runs),
        fixes=(platform.remove_empty_folder(machine),) if empty else (),
        person=f"When it is removed, {REBOOT}. To start the app again may be enough." if empty else _full(machine),
        link=LINK,
    )
    yield replace(found, severity=Severity.WARN) if runs else found


def _evidence(runs: bool) -> str:
    if runs:
        return "the platform's container runs still, and would not start again"
    return "the platform's container does not run, and docker gives no error for it"


def _full(machine: Target) -> str:
    return (
        f"Something lies in it, so opsbot does not touch it: look at `sudo ls -lA {platform.CERTIFICATE}` on "
        f"{machine}, keep what is yours, `sudo rm -r {platform.CERTIFICATE}`, then {REBOOT}."
    )
