"""The key of the database's encrypted columns: without a copy, a restored database is worth little."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import backup

MANUAL = "https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/#backups"


@diagnosis(
    "encryption key",
    of="backups missing",
    each=Role.PLATFORM,
    says="The encryption key that the platform uses is backed up",
    runbook=MANUAL,
    once=True,
)
def encryption_key(look: Look, platform: Target) -> Iterator[Finding]:
    """Only keyed fingerprints are compared; a finding never says even these."""
    known = look(backup.records())
    if known is None:
        return
    if not known.fingerprint:
        yield Finding(
            "key.missing",
            Severity.WARN,
            platform,
            f"There is no backup of the encryption key of {look.site.name}",
            evidence="without it nothing can read the encrypted columns of a restored database",
            person="Order `backup key`, and keep the secret age key that opens it away from the platform.",
            link=MANUAL,
        )
    elif (now := look(backup.fingerprint(platform))) and now != known.fingerprint:
        yield Finding(
            "key.changed",
            Severity.BROKEN,
            platform,
            f"The platform of {look.site.name} uses another encryption key than the one that was backed up last",
            evidence="the fingerprints differ; what was encrypted with the old key cannot be read with the new one",
            person="Find out who changed `encryption.key` and why. When it was a mistake, put the old key back: "
            "`backups` says which backup has it. When it was meant, order `backup key`; the old copies are kept.",
            link=MANUAL,
        )
