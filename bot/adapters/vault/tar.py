"""Counts the entries of a tar while it passes. tarfile takes one that was cut between two files for whole."""

from typing import Final

from bot.adapters.vault.chunks import Chunks

BLOCK: Final = 512
END: Final = b"\0" * BLOCK
SIZE: Final = slice(124, 136)
CHECKSUM: Final = slice(148, 156)
KIND: Final = 156
NOT_ENTRIES: Final = b"xgXLKVMN"  # headers about the next entry, volume labels, continuations
PAX: Final = b"x"
WITHOUT_DATA: Final = b"123456"  # links, devices, folders and pipes: some archivers write a size there
MOST_OF_PAX: Final = 1 << 20


class Broken(Exception):
    """Where it is no tar."""


def count(plain: Chunks) -> int:
    """The entries of the archive; raises Broken unless it ends as archives end."""
    entries, said = 0, -1
    while (header := _exactly(plain, BLOCK, entries)) != END:
        kind, size = header[KIND : KIND + 1], _size(header, entries)
        if kind == PAX and size <= MOST_OF_PAX:
            said = _pax_size(_exactly(plain, _padded(size), entries)[:size])
            continue
        if kind not in NOT_ENTRIES:
            entries += 1
            size, said = (said if said >= 0 else size), -1
        if kind not in WITHOUT_DATA and not plain.skip(_padded(size)):
            raise Broken(f"it ends in the middle of entry {entries}")
    if _exactly(plain, BLOCK, entries) != END:
        raise Broken(f"after {entries} entries, a half end of an archive")
    return entries


def _size(header: bytes, entries: int) -> int:
    field = header[SIZE]
    try:
        summed = int(header[CHECKSUM].strip(b" \0"), 8)
        size = int.from_bytes(field[1:]) if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        summed, size = -1, 0
    if summed != sum(header) - sum(header[CHECKSUM]) + 8 * ord(" "):
        raise Broken(f"after {entries} entries, a header whose checksum is wrong")
    return size


def _pax_size(records: bytes) -> int:
    """What an extended header says of the size of the next entry, which may be too large for the usual field."""
    said = -1
    while records:
        length, _, _ = records.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(records):
            raise Broken("an extended header that cannot be read")
        name, _, value = records[len(length) + 1 : int(length) - 1].partition(b"=")
        if name == b"size" and value.isdigit():
            said = int(value)
        records = records[int(length) :]
    return said


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _exactly(plain: Chunks, size: int, entries: int) -> bytes:
    data = plain.read(size)
    if len(data) < size:
        raise Broken(f"it ends after {entries} entries, without the end of an archive")
    return data
