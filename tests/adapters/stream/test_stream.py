"""Bytes come as they are or not at all: every way of losing the end is told, and nothing goes on running there."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag
from threading import Timer

import pytest

from bot.adapters.ssh import Host
from bot.adapters.stream import OpenSsh, words
from bot.core import wire
from bot.core.backup import TAR_WARNINGS, BackupFailed, BackupStopped, Source
from bot.core.command import Command, Secret, sh
from bot.core.target import Role, Target
from tests.adapters.stream.conftest import QUICK
from tests.rigs.sshd import LOGINS, HostSpec, Rig, sshd, wait_until

MACHINES = [f"{login}-{shell}" for login in LOGINS for shell in ("bash", "dash")]
ENDLESS = sh("cat", "/dev/zero")


def target(name: str) -> Target:
    return Target(name, Role.PLATFORM, "prod")


def source(machine: str, command: Command, **more: object) -> Source:
    return replace(Source("data", target(machine), command, timedelta(seconds=40)), **more)  # type: ignore[arg-type]


def read_all(ssh: OpenSsh, wanted: Source, abort: Flag | None = None) -> tuple[bytes, tuple[str, ...]]:
    with ssh.open(wanted, abort or Flag()) as stream:
        came = b"".join(iter(lambda: stream.read(1 << 16), b""))
        return came, stream.warnings


@pytest.mark.parametrize("machine", MACHINES)
def test_every_byte_comes_once_and_in_order(ssh: OpenSsh, rig: Rig, machine: str) -> None:
    data = os.urandom(5 << 20)
    file = rig.folder / f"data of {machine}"
    file.write_bytes(data)
    came, warnings = read_all(ssh, source(machine, sh("cat", str(file))))
    assert hashlib.sha256(came).digest() == hashlib.sha256(data).digest()
    assert warnings == ()


@pytest.mark.parametrize("size", [0, 1, wire.LONGEST_END - 1, wire.LONGEST_END, wire.LONGEST_END + 1, 70_000])
def test_no_size_confuses_the_end(ssh: OpenSsh, size: int) -> None:
    came, _ = read_all(ssh, source(MACHINES[0], sh("head", "-c", str(size), "/dev/zero")))
    assert came == b"\0" * size


@pytest.mark.parametrize("machine", MACHINES)
def test_sudo_and_its_terminal_change_no_byte(ssh: OpenSsh, machine: str) -> None:
    command = sh("printf", r"a\nb\r\n\004\377\n%s", "x").__or__(sh("cat").sudo())
    assert read_all(ssh, source(machine, command))[0] == b"a\nb\r\n\x04\xff\nx"


@pytest.mark.parametrize("packed", ["zstd", "gzip"])
def test_a_packer_runs_on_the_machine(ssh: OpenSsh, packed: str) -> None:
    came, _ = read_all(ssh, source(MACHINES[0], sh("head", "-c", "300000", "/dev/zero"), packed=packed))
    unpacked = subprocess.run([packed, "-dc"], input=came, capture_output=True, check=True).stdout
    assert unpacked == b"\0" * 300000
    assert len(came) < 3000


def test_a_warning_is_kept_and_every_other_status_is_a_failure(ssh: OpenSsh) -> None:
    wanted = source(MACHINES[0], sh("sh", "-c", "echo some; exit 1"), warnings=TAR_WARNINGS, packed="gzip")
    assert read_all(ssh, wanted)[1] == (TAR_WARNINGS[0][1],)
    fatal = replace(wanted, origin=sh("sh", "-c", "echo some; echo 'tar: No space' >&2; exit 2"))
    with pytest.raises(BackupFailed, match=r"data of .* could not be streamed: `sh .*` ended with status 2.*No space"):
        read_all(ssh, fatal)


def test_a_failing_packer_is_not_tars_warning(rig: Rig) -> None:
    with sshd(HostSpec("broken", programs={"gzip": "#!/bin/sh\ncat >/dev/null; exit 1\n"})) as broken:
        ssh = OpenSsh({"prod/broken": broken.hosts["broken"]}, limits=QUICK)
        with pytest.raises(BackupFailed, match="`gzip -c -1` ended with status 1"):
            read_all(ssh, source("broken", sh("echo"), warnings=TAR_WARNINGS, packed="gzip"))


def test_a_program_that_is_not_there_is_named(ssh: OpenSsh) -> None:
    with pytest.raises(BackupFailed, match="no such program"):
        read_all(ssh, source(MACHINES[0], sh("pg_dumb")))


def test_a_stream_past_its_time_is_a_failure(ssh: OpenSsh, rig: Rig) -> None:
    late = source(MACHINES[0], sh("sh", "-c", "echo some; sleep 51811"), within=timedelta(seconds=1))
    with pytest.raises(BackupFailed, match="did not end within"):
        read_all(ssh, late)
    assert rig.running(MACHINES[0], "sleep 51811") == []


def test_no_process_shows_a_secret(ssh: OpenSsh, rig: Rig) -> None:
    command = sh("printf", "%s", Secret("password")) | sh("sh", "-c", "cat; sleep 0.5")
    seen = False
    with ssh.open(source(MACHINES[0], command), Flag()) as stream:
        wait_until(lambda: bool(rig.running(MACHINES[0], "sleep 0.5")))
        seen = bool(rig.running(MACHINES[0], "pass word"))
        assert stream.read(4096) == b"pass word"
    assert not seen
    assert rig.received(MACHINES[0])[-1].command == wire.SHELL


# ---------------------------------------------------------------- how the end gets lost


def test_a_connection_that_breaks_is_never_a_success(rig: Rig) -> None:
    with sshd(HostSpec("cut")) as own:
        ssh = OpenSsh({"prod/cut": own.hosts["cut"]}, limits=QUICK)
        with ssh.open(source("cut", ENDLESS), Flag()) as stream:
            stream.read(1 << 16)
            own.drop_connections("cut")
            with pytest.raises(BackupFailed, match="the connection broke"):
                sum(map(len, iter(lambda: stream.read(1 << 20), b"")))
        wait_until(lambda: not own.running("cut", "cat /dev/zero"), 5)


def test_an_end_that_the_machine_did_not_write_is_none(rig: Rig) -> None:
    script = "#!/bin/sh\necho some; kill -KILL $(cat /proc/$$/ppid 2>/dev/null || ps -o ppid= -p $PPID)\n"
    with sshd(HostSpec("killed", programs={"dump": script})) as own:
        ssh = OpenSsh({"prod/killed": own.hosts["killed"]}, limits=QUICK)
        with pytest.raises(BackupFailed, match="its end is missing"):
            read_all(ssh, source("killed", sh("dump")))


def test_a_machine_that_freezes_is_noticed(rig: Rig) -> None:
    with sshd(HostSpec("frozen")) as own:
        ssh = OpenSsh({"prod/frozen": own.hosts["frozen"]}, limits=QUICK)
        with ssh.open(source("frozen", sh("sleep", "51812")), Flag()) as stream:
            wait_until(lambda: bool(own.running("frozen", "sleep 51812")))
            own.freeze("frozen")
            begun = time.monotonic()
            with pytest.raises(BackupFailed, match=r"broke|could not be reached"):
                stream.read(1 << 16)
            assert time.monotonic() - begun < 8
        own.thaw("frozen")


# ---------------------------------------------------------------- what runs there ends


def read_some_and_stop(ssh: OpenSsh, wanted: Source, abort: Flag) -> None:
    with ssh.open(wanted, abort) as stream:
        came = 0
        while data := stream.read(1 << 16):
            came += len(data)
            if came > 1_000_000:
                abort.set()


@pytest.mark.parametrize("machine", MACHINES)
def test_a_cancel_ends_what_runs_there(ssh: OpenSsh, rig: Rig, machine: str, abort: Flag) -> None:
    with pytest.raises(BackupStopped, match=r"was stopped after \d{7,} bytes"):
        read_some_and_stop(ssh, source(machine, ENDLESS), abort)
    assert rig.running(machine, "cat /dev/zero") == []


def test_a_cancel_wakes_one_who_waits_for_bytes(ssh: OpenSsh, rig: Rig, abort: Flag) -> None:
    timer = Timer(0.5, abort.set)
    timer.start()
    with pytest.raises(BackupStopped):
        read_all(ssh, source(MACHINES[0], sh("sleep", "51813")), abort)
    assert rig.running(MACHINES[0], "sleep 51813") == []


STREAMER = """\
import sys
from datetime import timedelta
from pathlib import Path
from threading import Event
from bot.adapters.ssh import Host
from bot.adapters.stream import OpenSsh
from bot.core.backup import Source
from bot.core.command import sh
from bot.core.target import Role, Target
host, port, user, key, known = sys.argv[1:]
ssh = OpenSsh({"prod/m": Host(host, int(port), user, Path(key), Path(known))})
command = sh("sh", "-c", "while :; do head -c 100000 /dev/zero; sleep 0.01; done", "endless-51814")
with ssh.open(Source("data", Target("m", Role.PLATFORM, "prod"), command, timedelta(seconds=60)), Event()) as stream:
    while stream.read(1 << 20):
        print(stream.passed, flush=True)
"""


@pytest.mark.parametrize("machine", MACHINES)
def test_a_killed_opsbot_leaves_nothing_running(rig: Rig, machine: str) -> None:
    host = rig.hosts[machine]
    where = (host.host, str(host.port), host.user, str(host.key_file), str(host.known_hosts))
    with subprocess.Popen([sys.executable, "-c", STREAMER, *where], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        assert rig.running(machine, "endless-51814")
        child.send_signal(signal.SIGKILL)
        wait_until(lambda: not rig.running(machine, "endless-51814"), 5)
        child.communicate(timeout=10)


# ---------------------------------------------------------------- pins and keys


def reached(host: Host) -> Callable[[], bytes]:
    ssh = OpenSsh({"prod/m": host}, limits=QUICK)
    return lambda: read_all(ssh, source("m", sh("echo", "here")))[0]


def test_an_unknown_host_key_is_refused(rig: Rig, tmp_path: Path) -> None:
    none = tmp_path / "known hosts %h"
    none.write_text("")
    with pytest.raises(BackupFailed, match="Host key verification failed"):
        reached(replace(rig.hosts[MACHINES[0]], known_hosts=none))()
    none.write_text(rig.known_hosts.read_text())
    assert reached(replace(rig.hosts[MACHINES[0]], known_hosts=none))() == b"here\n"


def test_an_authority_in_the_file_pins_nothing(rig: Rig) -> None:
    authority, certificate = rig.folder / "authority", rig.folder / "certified-cert.pub"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(authority)], check=True)
    (rig.folder / "certified.pub").write_bytes((rig.folder / "ed25519.pub").read_bytes())  # every rig has these keys
    sign = ("ssh-keygen", "-q", "-s", str(authority), "-I", "host", "-h", str(rig.folder / "certified.pub"))
    subprocess.run(sign, check=True)
    lines = rig.folder / "authorities"
    lines.write_text(f"@cert-authority * {authority.with_suffix('.pub').read_text()}")
    with sshd(HostSpec("certified", config=f"HostCertificate {certificate}\n")) as own:
        host = replace(own.hosts["certified"], known_hosts=lines)
        trusting = [word.replace("-*-cert", "+*-cert") for word in words(host, "echo trusted", 5, (1, 2))]
        assert subprocess.run(trusting, capture_output=True, check=False).stdout == b"trusted\n"
        with pytest.raises(BackupFailed, match=r"Host key verification failed|host key"):
            reached(host)()


def test_a_key_that_is_not_accepted_is_told(rig: Rig, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    with pytest.raises(BackupFailed, match="Permission denied"):
        reached(replace(rig.hosts[MACHINES[0]], key_file=tmp_path / "key"))()


def test_a_bastion_leads_on_with_a_pin_of_its_own(rig: Rig, tmp_path: Path) -> None:
    behind, bastion = rig.hosts[MACHINES[0]], rig.hosts[MACHINES[-1]]
    assert reached(replace(behind, jump=bastion))() == b"here\n"
    assert reached(replace(behind, jump=replace(bastion, jump=bastion)))() == b"here\n"
    none = tmp_path / "none"
    none.write_text("")
    with pytest.raises(BackupFailed, match="Host key verification failed"):
        reached(replace(behind, jump=replace(bastion, known_hosts=none)))()


def test_a_machine_that_nobody_configured_is_told(ssh: OpenSsh) -> None:
    with pytest.raises(BackupFailed, match="does not know how to reach nowhere"):
        read_all(ssh, source("nowhere", sh("true")))


def test_a_missing_client_is_told(rig: Rig) -> None:
    ssh = OpenSsh({f"prod/{MACHINES[0]}": rig.hosts[MACHINES[0]]}, limits=QUICK, program="/no/ssh")
    with pytest.raises(BackupFailed, match="openssh-client"):
        read_all(ssh, source(MACHINES[0], sh("true")))
