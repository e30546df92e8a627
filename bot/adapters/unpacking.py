"""Unpacks a tar for a try: no entry gets out of its folder, none is kept in memory, and the disk stays usable.

Links are looked at and never made, so that a name alone says where an entry would be.
"""

import errno
import os
import shutil
import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

from bot.core.backup import BackupFailed, Readable
from bot.core.drill import Unpacked
from bot.core.errors import Permanent

RESERVE: Final = 1 << 30  # bytes that a try leaves free on the disk
GROWS: Final = 4.0  # times, what is packed, for a guess
NAMED: Final = 3
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
NOT_WANTED: Final = "it was not to be unpacked"


def unpack(plain: Readable, folder: Path, size: float, wanted: bool | None) -> Unpacked:
    """Every entry of the archive, unpacked into the empty folder, or listed where there is no room.

    `size` is a guess of what comes, in bytes. `wanted` leaves no choice: True raises Permanent when there is no room.
    """
    work = _Unpacking(folder, wanted)
    if wanted is None and _free(folder) < size + RESERVE:
        work.stop("there is too little room here")
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", plain), mode="r|") as archive:  # a stream is only read
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every entry that it saw
                work.take(archive, entry)
    except tarfile.TarError as error:
        raise BackupFailed(f"It is no whole tar: {error}.") from error
    return work.result()


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass
class _Unpacking:
    folder: Path
    wanted: bool | None
    entries: int = 0
    written: int = 0
    why: str = ""
    left_out: list[str] = field(default_factory=list)
    astray: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.wanted is False:
            self.stop(NOT_WANTED)

    def take(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        self.entries += 1
        place = self._place(entry)
        if place is None or self.why or not (entry.isreg() or entry.isdir()):
            return
        if _free(self.folder) < entry.size + RESERVE:
            self._out_of_room()
        else:
            self._extract(archive, entry, place)

    def _extract(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, place: Path) -> None:
        try:
            _make(archive, entry, place)
            self.written += entry.size if entry.isreg() else 0
        except (OSError, ValueError) as error:  # of a name that no file can have
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                self._out_of_room()
            else:
                _name(self.left_out, entry)

    def _place(self, entry: tarfile.TarInfo) -> Path | None:
        """Where the entry may be unpacked: an absolute name begins in the folder, and nothing leads out of it."""
        if (place := self._inside(entry.name.lstrip("/"))) is None:
            _name(self.astray, entry)
        elif not self._stays(entry, place):
            _name(self.left_out, entry)
            return None
        return place

    def _stays(self, entry: tarfile.TarInfo, place: Path) -> bool:
        """Whether it is nothing but a file, a folder, or a link to one in here."""
        if entry.issym():
            return self._inside(os.path.relpath(place.parent, self.folder), entry.linkname) is not None
        return entry.isreg() or entry.isdir() or (entry.islnk() and self._inside(entry.linkname) is not None)

    def _inside(self, *names: str) -> Path | None:
        """The place of that name, by its name alone: there are no links in the folder. None when it is outside."""
        place = Path(os.path.normpath(self.folder.joinpath(*names)))
        return place if place.is_relative_to(self.folder) else None

    def _out_of_room(self) -> None:
        if self.wanted:
            raise Permanent(
                f"There is no room to unpack it in {self.folder.parent}: make some, or drill with --no-extract."
            )
        self.stop("it needs more room than there is here")

    def stop(self, why: str) -> None:
        """From here on it is only listed; what was unpacked makes room for others."""
        self.why, self.written = why, 0
        for left in self.folder.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with suppress(OSError):
                    left.unlink()

    def result(self) -> Unpacked:
        written = None if self.why else self.written
        return Unpacked(self.entries, written, self.why, tuple(self.left_out), tuple(self.astray))


def _make(archive: tarfile.TarFile, entry: tarfile.TarInfo, place: Path) -> None:
    """With our own rights and times. tarfile's filters came in the middle of Python 3.11, and Debian 12 has an older
    one.
    """
    (place if entry.isdir() else place.parent).mkdir(parents=True, exist_ok=True)
    if (content := archive.extractfile(entry)) is not None:
        with place.open("wb") as file:
            shutil.copyfileobj(content, file)


def _name(names: list[str], entry: tarfile.TarInfo) -> None:
    if len(names) < NAMED:
        names.append(repr(entry.name[:80]))
