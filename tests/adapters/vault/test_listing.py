"""An archive is read to its last byte while it passes: a whole one is counted, any other one is told."""

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
import zstandard

from bot.adapters.vault import listing, rdb
from bot.adapters.vault.listing import Listed, Listing
from bot.core.backup import BackupFailed, Form, Packed
from tests.adapters.vault.conftest import source
from tests.rigs.postgres import server

PACK: dict[Packed, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "zstd": lambda data: subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout,
}


def listed(data: bytes, form: Form, packed: Packed = "", size: int = 50_000) -> Listed:
    with closing(Listing(source(form=form, packed=packed))) as listing:
        for start in range(0, len(data), size):
            listing.feed(data[start : start + size])
        return listing.end()


def archive(files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind) as tar:
        folder = tarfile.TarInfo("var")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "var"
        tar.addfile(link)
    return made.getvalue()


FILES = {"a": b"", "b": b"x", "c" * 200: os.urandom(70_000), "ü/d": bytes(512), "e" * 90 + "/" + "f" * 90: b"y" * 513}


@pytest.mark.parametrize("packed", ["", "gzip", "zstd"])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_entries_of_a_tar_are_counted(packed: Packed, kind: int) -> None:
    assert listed(PACK[packed](archive(FILES, kind)), "tar", packed) == (len(FILES) + 2, ())


def test_debians_tar_is_read(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(20 << 20)
        sparse.seek(1 << 20)
        sparse.write(b"x")
    os.link(tmp_path / "a", tmp_path / "hard")
    for more in (("--sparse",), ("--format=pax",), ("--format=pax", "--sparse"), ()):
        words = ("tar", "-c", *more, "-C", str(tmp_path), ".")
        made = subprocess.run(words, capture_output=True, check=True).stdout
        names = subprocess.run(["tar", "-t"], input=made, capture_output=True, check=True).stdout
        assert listed(made, "tar")[0] == len(names.splitlines()), more


@pytest.mark.parametrize("packed", ["", "gzip", "zstd"])
def test_a_tar_that_was_cut_anywhere_is_noticed(packed: Packed) -> None:
    whole = PACK[packed](archive({"a": b"x" * 600, "b": b"y"}))
    plain_end = len(whole) if packed else 512 * 8  # behind the end there is padding alone
    for cut in {*range(0, plain_end, 61), plain_end - 1}:
        with pytest.raises(BackupFailed, match="it is not whole"):
            listed(whole[:cut], "tar", packed)


def test_a_tar_with_a_flipped_bit_in_a_header_is_noticed() -> None:
    data = bytearray(archive(FILES))
    data[513] ^= 1
    with pytest.raises(BackupFailed, match="checksum is wrong"):
        listed(bytes(data), "tar")


def test_zeros_packed_to_almost_nothing_are_not_all_unpacked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zstandard.ZstdCompressor().compressobj()
    packed = [packer.compress(bytes(1 << 20)) for _ in range(300)]
    data = b"".join((*packed, packer.flush()))
    assert len(data) < 100_000
    before = peak()
    listed(data, "bytes", "zstd")
    assert peak() - before < 40 << 20


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def test_several_frames_of_zstd_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = archive(FILES)
    both = PACK["zstd"](whole[:1000]) + PACK["zstd"](whole[1000:])
    assert listed(both, "tar", "zstd")[0] == len(FILES) + 2
    with pytest.raises(BackupFailed, match="not whole"):
        listed(both[:-1], "tar", "zstd")


@pytest.mark.parametrize("packed", ["gzip", "zstd"])
def test_a_packer_that_was_cut_is_noticed_whatever_it_packed(packed: Packed) -> None:
    whole = PACK[packed](os.urandom(3000))
    assert listed(whole, "bytes", packed)[0] is None
    for cut in range(20, len(whole), 37):
        with pytest.raises(BackupFailed, match="it is not whole"):
            listed(whole[:cut], "bytes", packed)


def test_json_is_parsed_when_it_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(json.dumps({"queues": [], "users": []}).encode(), "json") == (2, ())
    for broken in (b'{"queues": [', b"[" * 200_000):
        with pytest.raises(BackupFailed, match="it is no JSON"):
            listed(broken, "json")
    monkeypatch.setattr(listing, "SMALL", 10)
    entries, unlisted = listed(json.dumps(list(range(100))).encode(), "json")
    assert entries is None
    assert "not parsed" in unlisted[0]


def test_a_dump_of_redis_has_a_checksum() -> None:
    body = b"REDIS0011\xfa\tredis-ver\x057.0.15\xff"
    whole = body + rdb._crc(body).to_bytes(8, "little")
    assert rdb._crc(b"123456789") == 0xE9C6D914C4B8D9CA  # redis' own test of it
    assert listed(whole, "rdb") == listed(whole, "rdb", size=7) == (None, ())
    assert "none" in listed(body + bytes(8), "rdb")[1][0]
    for broken in (whole[:-1], body, b"x" + whole, whole[:12] + b"!" + whole[13:], b""):
        with pytest.raises(BackupFailed, match="not whole"):
            listed(broken, "rdb")


def test_a_dump_of_postgres_is_listed() -> None:
    with server("15") as database:
        subprocess.run(["psql", "-q", database.dsn, "-c", "CREATE TABLE builds (id int)"], check=True)
        custom = subprocess.run(["pg_dump", "-Fc", database.dsn], capture_output=True, check=True).stdout
        sql = subprocess.run(["pg_dump", database.dsn], capture_output=True, check=True).stdout
    entries, unlisted = listed(custom, "pg_dump")
    assert (entries or 0) >= 2
    assert unlisted == ()
    assert "dump of SQL" in listed(PACK["gzip"](sql), "pg_dump", "gzip")[1][0]
    for broken in (custom[:200], sql[:-200], b"no dump", b""):
        with pytest.raises(BackupFailed, match="not whole"):
            listed(broken, "pg_dump")


def test_without_pg_restore_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PG_RESTORE", "/no/pg_restore")
    assert "there is no" in listed(b"PGDMP" + bytes(100), "pg_dump")[1][0]


def test_what_could_not_be_listed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_: object) -> Listed:
        raise ArithmeticError

    monkeypatch.setitem(listing.LIST, "json", cannot)
    assert listed(b"{}", "json") == (None, ("its contents were not listed: ArithmeticError",))


def test_a_dump_may_end_inside_its_table_of_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a backup is cancelled: pg_restore waits for the rest, and whoever reads what it says waits for it."""
    waits = tmp_path / "pg_restore"
    waits.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    waits.chmod(0o755)
    monkeypatch.setattr(listing, "PG_RESTORE", str(waits))
    cut = Listing(source(form="pg_dump"))
    cut.feed(b"PGDMP" + bytes(listing.CHUNK))
    closing_it = Thread(target=cut.close, daemon=True)
    closing_it.start()
    closing_it.join(20)
    assert not closing_it.is_alive()
