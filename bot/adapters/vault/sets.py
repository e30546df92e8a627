"""What manifests say: they are read whole or not at all, and objects are compared with them."""

import json
from collections.abc import Sequence
from typing import Final

from bot.adapters.vault.objects import Objects
from bot.core.backup import MANIFEST, BackupFailed, Manifest, Stored, manifest_from_json

LONGEST_MANIFEST: Final = 16 << 20


def manifests(objects: Objects, site: str) -> Sequence[Manifest]:
    """All sets of an installation, oldest first; what cannot be read raises, rather than being left out."""
    keys = (each.key for each in objects.list(f"{site}/"))
    found = [manifest(objects, key) for key in keys if names_a_manifest(key)]
    return sorted(found, key=lambda each: (each.made, each.set))


def manifest(objects: Objects, key: str) -> Manifest:
    """The one of that name; raises BackupFailed when it is not there, or is none."""
    text = b""
    for chunk in objects.get(key):
        text += chunk
        if len(text) > LONGEST_MANIFEST:
            raise BackupFailed(f"{key} in {objects.where} is too long for a manifest; look at it.")
    try:
        found = manifest_from_json(json.loads(text))
    except (ValueError, BackupFailed) as error:
        raise BackupFailed(
            f"{key} in {objects.where} cannot be read, so nothing is known of its set: {error}"
        ) from error
    if found.key != key:
        raise BackupFailed(f"{key} in {objects.where} says that it belongs to {found.key}; somebody moved it.")
    return found


def names_a_manifest(key: str) -> bool:
    return key.count("/") == 2 and key.endswith(f"/{MANIFEST}")


def compare(stored: Stored, size: int, sha256: str) -> None:
    """Raises BackupFailed unless the bytes in the store are those that were written."""
    if size != stored.stored_bytes:
        raise BackupFailed(_damaged(stored.key, f"it has {size} bytes, and {stored.stored_bytes} were stored"))
    if sha256 != stored.stored_sha256:
        raise BackupFailed(_damaged(stored.key, "its SHA-256 is another one"))


def _damaged(key: str, how: str) -> str:
    return (
        f"{key} is not what was stored: {how}. This backup cannot be trusted. Take another one now, and look at the"
        " store."
    )
