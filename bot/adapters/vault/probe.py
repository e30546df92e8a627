"""Whether a store takes what backups put there, and lets go of it: tried with an object that nothing else is called."""

import secrets
from typing import Final

from bot.adapters.vault.objects import Objects
from bot.core.backup import BackupFailed, check_key

# Below the installation and of the shape of a piece, since a store may allow no other; no manifest names it, so it is
# no backup, and one that a killed doctor left is swept like every piece that none names.
KEY: Final = "{site}/doctor-{mark}/probe.age"
CONTENT: Final = b"opsbot tries whether it may write here.\n"


def probe(store: Objects, site: str) -> None:
    """Put a small object, compare its size, delete it. Raises BackupFailed with what cannot be done."""
    key = check_key(KEY.format(site=site, mark=secrets.token_hex(8)))
    with store.without_traces(key):
        store.put(key, iter([CONTENT]))
        try:
            size = store.size(key)
        finally:
            _delete(store, key)
    if size != len(CONTENT):
        said = "nothing" if size is None else f"{size} bytes"
        raise BackupFailed(f"The store {store.where} took {len(CONTENT)} bytes as {key}, and had {said} there then.")


def _delete(store: Objects, key: str) -> None:
    try:
        store.delete(key)
    except BackupFailed as why:
        raise BackupFailed(
            f"{store.where} can be written, but nothing can be removed there, so backups would be kept for ever; allow"
            f" it, and remove {key} by hand: {why}"
        ) from why
