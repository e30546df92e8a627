"""What it takes to back an installation up, and where its backups lie."""

from dataclasses import dataclass, field
from datetime import timedelta

from bot.core.backup import Vault
from bot.core.keeping import Backup, Keep, Piece
from bot.core.taking import KeyReader, Rehearsal


@dataclass(frozen=True)
class Shelter:
    """What it takes to back an installation up, and its rules."""

    vault: Vault
    keys: KeyReader
    rehearsal: Rehearsal
    keep: Keep = field(default_factory=Keep)
    overdue_after: timedelta = timedelta(hours=26)
    restore: str = "schema"
    most_restored: int = 20 * 1024**3
    version: str = ""


def apart(site: str) -> str:
    """Where the encryption key is kept: never beside what it opens. No installation can be called so."""
    return f"{site}=key"


def place_of(backup: Backup, piece: Piece) -> str:
    """Below which name of the store its manifest is."""
    return apart(backup.site) if piece.kind == "key" else backup.site
