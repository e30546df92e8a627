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
            person="Order `backup key`, which also tries the key on what the database has encrypted, and keep the "
            "secret age key that opens the copy away from the platform.",
            link=MANUAL,
        )
        return
    now = look(backup.fingerprint(platform))
    if known.key_opens_nothing:
        yield (_unfit if now == known.fingerprint else _copied_wrong)(look, platform, known)
    elif now and now != known.fingerprint:
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


def _unfit(look: Look, platform: Target, known: backup.Known) -> Finding:
    """That there is a copy of it is no comfort: what is needed is the key that the data was encrypted with."""
    return Finding(
        "key.changed",
        Severity.BROKEN,
        platform,
        f"The platform of {look.site.name} uses another encryption key than the one that its data was encrypted with",
        evidence=f"when backup {known.key_backup} was taken, this very key opened no value of the database",
        person=f"{_former(known)} Put it back as `encryption.key` in the platform's settings, then order `backup key`, "
        "which tries it again. Remove no older backup meanwhile.",
        link=MANUAL,
    )


def _former(known: backup.Known) -> str:
    if known.key_before is not None:
        return f"Backup {known.key_before} has a former key, which opened one: `restore {known.key_before}` says how."
    return (
        "No backup that opsbot knows has a key that opened one. Find the former key: in older backups (`backups`), "
        "exports of the settings, and snapshots of the machine."
    )


def _copied_wrong(look: Look, platform: Target, known: backup.Known) -> Finding:
    """Another key came since, often the right one again: only one more backup tells."""
    return Finding(
        "key.missing",
        Severity.WARN,
        platform,
        f"The last backup of the encryption key of {look.site.name} has a wrong key, which the platform no longer uses",
        evidence=f"the key in backup {known.key_backup} opened no value of the database; the fingerprints differ",
        person="Order `backup key`: it tries the key that the platform uses now, and stores it.",
        link=MANUAL,
    )
