"""Backups at rest: encrypted to people's public keys, in a folder or in an object store."""

from bot.adapters.vault.age import SECRET, decrypt, identities, identities_in, recipients
from bot.adapters.vault.chunks import Chunks
from bot.adapters.vault.objects import Objects, Patience, objects
from bot.adapters.vault.probe import probe
from bot.adapters.vault.unlocked import Unlocked, check_rdb
from bot.adapters.vault.vault import ObjectVault

__all__ = [
    "SECRET",
    "Chunks",
    "ObjectVault",
    "Objects",
    "Patience",
    "Unlocked",
    "check_rdb",
    "decrypt",
    "identities",
    "identities_in",
    "objects",
    "probe",
    "recipients",
]
