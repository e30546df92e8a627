"""`opsbot backup drill` as an operator runs it: real programs, a real store, a real key, and what it may not leave."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyrage
import pytest
from psycopg.conninfo import conninfo_to_dict

import bot
from bot.adapters.encryption_key import fingerprint
from bot.adapters.store import Audit, Pool, Store, migrate
from bot.core.keeping import Backup, Piece, Proof
from bot.core.people import Actor
from bot.core.run import Order, Verb
from tests.rigs import backup, postgres, redis
from tests.rigs.backup import Made
from tests.test_settings import broken, valid

CHECKOUT = Path(bot.__file__).parents[1]
AUDIT_KEY = "an-audit-key-of-thirty-two-bytes"
STRANGER = "a key that opens nothing of it"
KINDS = {"data-platform-1": "data", "database-main": "databases", "redis": "redis", "rabbitmq": "rabbitmq"}

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


class Desk:
    """An operator's machine with a configuration; opsbot's database knows one backup."""

    def __init__(self, folder: Path, dsn: str, made: Made) -> None:
        self.folder, self.dsn, self.made = folder, dsn, made
        self.state = folder / "state"
        recipient = str(made.identity.to_public())
        given: dict[str, Any] = {
            "backups": {"store": made.store, "recipients": [recipient]},
            "state_dir": str(self.state),
            "people.uids": {os.getuid(): "U0ANA"},
        }
        self.config = valid(folder, broken({"put": given}))
        self.environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "HOME": str(folder),
            "OPSBOT_DATABASE_URL": url(dsn), "OPSBOT_AUDIT_KEY": AUDIT_KEY, "OPSBOT_CONFIG": str(self.config),
        }  # fmt: skip
        self.number = self._record()

    def _record(self) -> int:
        migrate(self.dsn)
        now = datetime.now(UTC)
        with closing(Pool(self.dsn)) as pool, pool.connection() as tx:
            store = Store(Audit(pool, AUDIT_KEY.encode()))
            run = store.start(tx, Order(Verb.JOB, "backup all", "prod", (), "", Actor("T1", "U0ANA")))
            number = store.begin_backup(tx, "prod", "all", run, backup.FOLDER)
            for stored in (*self.made.main, self.made.key):
                kind = "key" if stored is self.made.key else KINDS.get(stored.name, "settings")
                print_ = fingerprint(backup.KEY, AUDIT_KEY.encode()) if kind == "key" else ""
                piece = Piece(0, kind, stored.name, stored.key, stored.plain_bytes, stored.stored_bytes,
                              stored.sha256, stored.packed, now, now, print_)  # fmt: skip
                store.add_piece(tx, number, piece)
            store.seal_backup(tx, number, f"prod/{backup.FOLDER}/manifest.json")
        return number

    def drill(self, *words: str, key: str | None = None, identity: str = "-") -> "subprocess.CompletedProcess[str]":
        line = self.line(*words, "--identity", identity)
        given = self.made.secret if key is None else key
        return subprocess.run(
            line, cwd=self.folder, env=self.environment, input=given, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip

    @staticmethod
    def line(*words: str) -> list[str]:
        return [sys.executable, "-m", "bot.cli", "backup", "drill", *words]

    def backup(self) -> Backup:
        with closing(Pool(self.dsn)) as pool, pool.connection() as tx:
            found = Store(Audit(pool, AUDIT_KEY.encode())).backup(tx, self.number)
        assert found is not None
        return found

    def proofs(self) -> dict[str, tuple[bool, str]]:
        return {
            piece.name: (proof.passed, proof.said)
            for piece in self.backup().pieces for proof in piece.proofs if proof.by is Proof.DRILLED
        }  # fmt: skip

    def left(self) -> list[Path]:
        folder = self.state / "rehearsals"
        return list(folder.iterdir()) if folder.exists() else []


def url(dsn: str) -> str:
    """As the environment wants it."""
    parts = conninfo_to_dict(dsn)
    return f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}&port={parts['port']}"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, postgres_server: postgres.Server) -> Iterator[tuple[Path, Made]]:
    """A backup that nobody changes."""
    folder = tmp_path_factory.mktemp("made")
    with postgres_server.database() as travis, redis.server() as server:
        backup.fill(travis)
        yield folder, backup.make(folder, travis, server)


@pytest.fixture
def made(original: tuple[Path, Made], tmp_path: Path) -> Made:
    """The same, to be spoilt."""
    folder, made = original
    subprocess.run(["cp", "-r", str(folder / "store"), str(tmp_path)], check=True)
    return Made(tmp_path, made.identity, list(made.main), made.key)


@pytest.fixture
def desk(made: Made, tmp_path: Path, database: str) -> Desk:
    return Desk(tmp_path, database, made)


def events(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_everything_is_restored_and_recorded(desk: Desk) -> None:
    done = desk.drill("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    *pieces, last = events(done)
    said = {each["name"]: each["said"] for each in pieces}
    with psycopg.connect(desk.dsn) as connection:
        mac = connection.execute("SELECT \"user\", detail FROM opsbot.audit WHERE what = 'backup drilled'").fetchall()
    assert [each["kind"] for each in pieces] == ["databases", "key", "redis", "rabbitmq", "settings", "data"]
    assert f"tables with {backup.ROWS} rows were restored" in said["database-main"]
    assert said["encryption-key"] == (
        "its fingerprint is the recorded one; it decrypted a value of the restored database"
    )
    assert said["redis"] == "redis-server loaded it: 42 keys"
    assert said["rabbitmq"] == "1 user, 2 vhosts, 0 queues, 0 policies"
    assert said["app-config-platform-1"] == "parsed: 1 entry"
    assert said["data-platform-1"] == "2 entries were unpacked, 390.6 KiB"
    assert last == {"event": "drilled", "backup": desk.number, "passed": True, "note": ""}
    assert desk.proofs() == {name: (True, text) for name, text in said.items()}
    proven = desk.backup().proven
    assert proven is not None
    assert proven.by is Proof.DRILLED
    assert [who for who, _ in mac] == ["U0ANA"] * 6
    assert desk.left() == []
    assert desk.made.secret not in done.stdout + done.stderr
    assert backup.KEY.decode() not in done.stdout + done.stderr
    assert backup.TOKEN not in done.stdout + done.stderr


def test_a_table_for_people(desk: Desk) -> None:
    (desk.folder / "key").write_text(f"# made by age-keygen\n{desk.made.secret}\n")
    desk.made.replace("database-main", rows={"public.users": backup.LOGINS})
    done = desk.drill(str(desk.number), "--no-extract", identity="key", key="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"backup {desk.number}: all of prod" in done.stdout
    assert "data-platform-1\tpassed\t" in done.stdout
    assert f"{backup.ROWS} rows were restored, each as many as when it was dumped" in done.stdout
    assert "2 entries were read to the last byte, not unpacked" in done.stdout
    assert "All 6 pieces were restored" in done.stdout


def test_a_store_and_a_key_are_enough(desk: Desk) -> None:
    desk.environment = {name: desk.environment[name] for name in ("PATH", "PYTHONPATH", "HOME")}
    done = desk.drill(f"prod/{backup.FOLDER}", "--store", desk.made.store, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    *pieces, last = events(done)
    assert len(pieces) == 6
    assert last["backup"] is None
    assert "its fingerprint cannot be compared here; it decrypted a value" in pieces[1]["said"]
    assert desk.proofs() == {}


@pytest.mark.parametrize(
    ("words", "key", "said"),
    [
        ((), STRANGER, "This identity does not open prod"),
        ((), "no key at all", "Standard input holds no identity"),
        ((), "", "Standard input holds no identity"),
        (("77",), None, "there is no backup 77 of"),
        (("prod",), None, "prod is no number of a backup"),
        (("--on", "nowhere"), None, "there is no installation nowhere"),
    ],
)
def test_what_cannot_be_drilled_is_no_failed_backup(
    desk: Desk, words: tuple[str, ...], key: str | None, said: str
) -> None:
    key = str(pyrage.x25519.Identity.generate()) if key is STRANGER else key
    done = desk.drill(*words, key=key)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not key or key not in done.stdout + done.stderr
    assert desk.proofs() == {}


def test_a_key_on_the_command_line_is_refused_and_not_repeated(desk: Desk) -> None:
    done = desk.drill(identity=desk.made.secret)
    assert done.returncode == 2
    assert "as a word of the command" in done.stderr
    assert desk.made.secret[20:] not in done.stdout + done.stderr


def test_a_database_that_is_away_is_a_sentence(desk: Desk) -> None:
    desk.environment["OPSBOT_DATABASE_URL"] = "postgresql://opsbot@127.0.0.1:9/opsbot"
    done = desk.drill()
    assert done.returncode == 2
    assert "does not answer: nothing listens there." in done.stderr
    assert "opsbot backup drill SITE --store URL` needs the store alone" in done.stderr


def test_no_other_key_than_the_trails_own_records_a_drill(desk: Desk) -> None:
    del desk.environment["OPSBOT_AUDIT_KEY"]
    done = desk.drill()
    assert done.returncode == 2
    assert f"there is no OPSBOT_AUDIT_KEY and no {desk.state}/audit.key" in done.stderr
    assert not (desk.state / "audit.key").exists()
    assert desk.proofs() == {}


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def test_what_is_damaged_fails_and_is_recorded(desk: Desk) -> None:
    made = desk.made
    flip(made.path("database-main"), 0.6)
    flip(made.path("rabbitmq"), 0.05)  # in its header: so the key seems to be none of its recipients
    made.path("redis").unlink()
    made.path("data-platform-1").write_bytes(made.path("data-platform-1").read_bytes()[:-1000])
    done = desk.drill("--json")
    assert done.returncode == 1, done.stdout + done.stderr
    failed = {each["name"]: each["said"] for each in events(done) if each["event"] == "drill" and not each["passed"]}
    assert list(failed) == ["database-main", "redis", "rabbitmq", "data-platform-1"]
    assert "database-main.dump.age is not what was stored: its SHA-256 is another one" in failed["database-main"]
    assert "there is no prod/" in failed["redis"]
    assert "Make room" not in failed["redis"]
    assert "rabbitmq.json.age is not what was stored: its SHA-256 is another one" in failed["rabbitmq"]
    assert "is not what was stored: it has" in failed["data-platform-1"]
    assert {name: passed for name, (passed, _) in desk.proofs().items()} == {
        **dict.fromkeys(failed, False), "encryption-key": True, "app-config-platform-1": True,
    }  # fmt: skip
    assert desk.backup().proven is None
    assert desk.left() == []


def test_other_rows_than_were_dumped_fail(desk: Desk) -> None:
    desk.made.replace("database-main", rows={"public.users": backup.LOGINS + 1, "public.gone": 3})
    done = desk.drill("--json")
    assert done.returncode == 1, done.stdout + done.stderr
    said = "Restored, and it is not what was dumped: public.users has 500 rows instead of 501, public.gone is missing"
    assert events(done)[0]["said"].startswith(said)


def test_names_that_lead_out_fail_and_get_nowhere(desk: Desk) -> None:
    link = tarfile.TarInfo("etc/travis/current")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    hostile = backup.tar(tarfile.TarInfo("../../../escaped"), tarfile.TarInfo("/absolute"), link)
    desk.made.put("data-platform-1", backup.zstd(hostile), "tar", "zstd")
    done = desk.drill("prod", "--store", desk.made.store, "--json")
    (failed,) = [each for each in events(done) if each["event"] == "drill" and not each["passed"]]
    assert "lead out of the folder that it is unpacked into: '../../../escaped'" in failed["said"]
    assert not list(desk.folder.rglob("escaped"))
    assert not Path("/absolute").exists()


def begun(desk: Desk, sign: str) -> "subprocess.Popen[bytes]":
    """A drill that has come as far as that file in its folder."""
    process = subprocess.Popen(
        desk.line("--identity", "-"), cwd=desk.folder, env=desk.environment, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(desk.made.secret.encode())
    process.stdin.close()
    deadline = time.monotonic() + 60
    while not any((left / sign).exists() for left in desk.left()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(
    ("piece", "sign"), [("database-main", "postgres/data"), ("redis", "log"), ("data-platform-1", "data")]
)
def test_a_killed_drill_leaves_nothing_after_the_next(desk: Desk, piece: str, sign: str) -> None:
    """The store gives nothing of that piece, so that the drill stands in the middle of it."""
    desk.made.main = [desk.made.stored(piece)]
    desk.made.seal()  # the others fail at once, so it comes there soon
    path = desk.made.path(piece)
    path.rename(path.with_suffix(".kept"))
    os.mkfifo(path)
    process = begun(desk, sign)
    (left,) = desk.left()
    assert left.stat().st_mode & 0o777 == (0o711 if piece == "database-main" else 0o700)
    words = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
    assert desk.made.secret.encode() not in words
    process.send_signal(signal.SIGKILL)
    process.wait()
    path.unlink()  # or reading its SHA-256 would wait, too
    path.with_suffix(".kept").rename(path)
    stranger = str(pyrage.x25519.Identity.generate())
    assert desk.drill(key=stranger).returncode == 2, "it sweeps before it tries the key"
    assert desk.left() == []
    deadline = time.monotonic() + 20
    while works := at_work_in(left):
        assert time.monotonic() < deadline, works
        time.sleep(0.05)


def test_a_drill_that_is_told_to_end_leaves_nothing(desk: Desk) -> None:
    process = begun(desk, "postgres")
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 130
    assert desk.left() == []


def at_work_in(folder: Path) -> list[str]:
    """Processes whose folder is in there, or was before it was removed."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append((process / "cmdline").read_text())
    return found
