"""Backups at rest: encrypted to people's public keys, in a folder or in an object store."""

from bot.adapters.vault.age import decrypt, identities, recipients
from bot.adapters.vault.objects import Objects, Patience, objects
from bot.adapters.vault.vault import ObjectVault

__all__ = ["ObjectVault", "Objects", "Patience", "decrypt", "identities", "objects", "recipients"]
