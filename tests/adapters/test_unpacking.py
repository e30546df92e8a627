"""A tar unpacked for a try: nothing gets out of its folder, and the disk stays usable."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from bot.adapters import unpacking
from bot.core.backup import BackupFailed
from bot.core.drill import Unpacked
from bot.core.errors import Permanent
from tests.rigs.backup import tar


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def unpack(data: bytes, folder: Path, wanted: bool | None = None) -> Unpacked:
    return unpacking.unpack(io.BytesIO(data), folder, len(data), wanted)


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_everything_is_unpacked(tmp_path: Path) -> None:
    done = unpack(tar(), tmp_path)
    assert (done.entries, done.written, done.why) == (2, 400_000, "")
    assert everything_in(tmp_path) == {"var/travis/log/web.log", "etc/travis/ssl/rabbitmq.cert"}


HOSTILE = (
    entry("../up"),
    entry("var/../../up"),
    entry("/rooted"),
    entry("away", tarfile.SYMTYPE, "/tmp"),
    entry("away/into"),
    entry("up", tarfile.SYMTYPE, "../.."),
    entry("twin", tarfile.LNKTYPE, "../../etc/hostname"),
    entry("device", tarfile.CHRTYPE),
    entry("pipe", tarfile.FIFOTYPE),
)


def test_hostile_names_stay_inside(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    done = unpack(tar(*HOSTILE), folder)
    assert done.entries == 2 + len(HOSTILE)
    assert done.astray == ("'../up'", "'var/../../up'")
    assert done.left_out == ("'away'", "'up'", "'twin'")
    assert everything_in(tmp_path) == {
        f"a/b/{name}" for name in ("var/travis/log/web.log", "etc/travis/ssl/rabbitmq.cert", "rooted", "away/into")
    }
    assert not Path("/tmp/into").exists()


def test_a_name_that_no_file_can_have_is_left_out(tmp_path: Path) -> None:
    odd = entry("odd")
    odd.pax_headers = {"path": "a\0b"}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(odd)
    done = unpack(made.getvalue(), tmp_path)
    assert (done.entries, done.left_out) == (1, ("'a\\x00b'",))


def test_what_is_not_wanted_is_only_listed(tmp_path: Path) -> None:
    done = unpack(tar(*HOSTILE), tmp_path, wanted=False)
    assert (done.entries, done.written, done.why) == (11, None, unpacking.NOT_WANTED)
    assert done.astray, "a listing tells it, too"
    assert everything_in(tmp_path) == set()


def test_without_room_it_is_only_listed_unless_it_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_free", lambda folder: unpacking.RESERVE - 1)
    done = unpack(tar(), tmp_path)
    assert (done.entries, done.written, done.why) == (2, None, "there is too little room here")
    with pytest.raises(Permanent, match="There is no room to unpack it in"):
        unpack(tar(), tmp_path, wanted=True)


def test_a_disk_that_fills_up_is_made_empty_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = iter([10**12, 10**12, 0])
    monkeypatch.setattr(unpacking, "_free", lambda folder: next(room))
    done = unpack(tar(), tmp_path)
    assert (done.entries, done.written, done.why) == (2, None, "it needs more room than there is here")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_tar_fails(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="It is no whole tar"):
        unpack(os.urandom(5000), tmp_path)
