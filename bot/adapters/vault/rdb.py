"""A dump of redis: begins with its magic and version, ends with an end mark and a checksum of all before it."""

import re
from typing import Final

from bot.core.backup import Readable

CHUNK: Final = 1 << 20
MAGIC: Final = re.compile(rb"REDIS\d{4}")
WITH_CHECKSUM: Final = 5  # since this version
END: Final = b"\xff"
TAIL: Final = 9  # bytes: the end mark, and the checksum with its lowest byte first; zero when redis computes none
MARK: Final = 40  # letters behind it, by which redis 7 says without a disk that it is over; they harm no load
COMPUTED: Final = 16 << 20  # more would take Python too long
POLYNOMIAL: Final = 0x95AC9329AC4BC9B5  # Jones' CRC-64, reflected


class Broken(Exception):
    """How it is no dump of redis."""


def check(plain: Readable) -> tuple[str, ...]:
    """What could not be checked; raises Broken when something is wrong."""
    head = plain.read(9)
    if not MAGIC.fullmatch(head):
        raise Broken("it does not begin as a dump of redis does")
    held, crc, length = head, 0, len(head)
    while data := plain.read(CHUNK):
        both = held + data
        crc = _crc(both[: -TAIL - MARK], crc) if length <= COMPUTED else crc
        held, length = both[-TAIL - MARK :], length + len(data)
    if _marked(held):
        held = held[:-MARK]
    last = held[-TAIL:]
    crc = _crc(held[:-TAIL], crc)
    if int(head[5:]) < WITH_CHECKSUM:
        return ("its checksum was not compared: dumps of so old a redis have none",)
    if len(last) < TAIL or last[:1] != END:
        raise Broken("its end is missing")
    return _compared(int.from_bytes(last[1:], "little"), _crc(last[:1], crc), length)


def _marked(held: bytes) -> bool:
    return len(held) == TAIL + MARK and held[:1] == END and re.fullmatch(rb"[0-9a-f]{40}", held[TAIL:]) is not None


def _compared(said: int, crc: int, length: int) -> tuple[str, ...]:
    if said == 0:
        return ("its checksum was not compared: redis is configured to write none",)
    if length > COMPUTED:
        return (f"its checksum was not compared: it is longer than {COMPUTED >> 20} MiB",)
    if said != crc:
        raise Broken("its checksum is wrong")
    return ()


def _crc(data: bytes, crc: int = 0) -> int:
    table = TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _table() -> tuple[int, ...]:
    rows = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
        rows.append(crc)
    return tuple(rows)


TABLE: Final = _table()
