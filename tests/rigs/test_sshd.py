"""The machines of the rig are real where it matters, and leave nothing behind."""

import os
import pwd
import subprocess
from collections.abc import Sequence

import pytest

from tests.rigs.sshd import LOGINS, OPS, ROOT, HostSpec, Rig, cmdline, sshd, wait_until


def ssh(rig: Rig, name: str, command: str, stdin: str = "") -> str:
    host = rig.hosts[name]
    words: Sequence[str] = (
        *("ssh", "-F", "none", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={host.known_hosts}"),
        *("-i", str(host.key_file), "-p", str(host.port), f"{host.user}@{host.host}", command),
    )
    return subprocess.run(words, input=stdin, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("login", LOGINS)
def test_a_login_is_the_account_that_was_asked_for(login: str) -> None:
    with sshd(
        HostSpec("worker-1", login, env={"FLAVOUR": "a b"}, programs={"hello": "#!/bin/sh\necho hello\n"})
    ) as rig:
        said = ssh(rig, "worker-1", 'id -u; echo "$FLAVOUR"; hello; sudo -n id -u; ls -A ~').split("\n")
    uid = 0 if login == "root" else OPS
    assert said == [str(uid), "a b", "hello", "0" if ROOT else str(uid), ""]


def test_each_machine_notes_what_it_got_in_order() -> None:
    with sshd(HostSpec("worker-1"), HostSpec("worker-2")) as rig:
        assert ssh(rig, "worker-1", "echo one") == "one\n"
        assert ssh(rig, "worker-2", "exec bash --norc", "echo two\n") == "two\n"
        assert ssh(rig, "worker-1", "echo 'th\nree'; exit 0") == "th\nree\n"
        wait_until(lambda: len(rig.received()) == 3)
        noted = [(note.host, note.command, note.stdin) for note in rig.received()]
    assert noted == [
        ("worker-1", "echo one", ""),
        ("worker-2", "exec bash --norc", "echo two\n"),
        ("worker-1", "echo 'th\nree'; exit 0", ""),
    ]


def test_nothing_of_a_machine_outlives_it() -> None:
    marker = f"sleep 3{os.getpid()}7"
    with sshd(HostSpec("worker-1")) as rig:
        ssh(rig, "worker-1", f"(setsid {marker} & setsid {marker} &) </dev/null >/dev/null 2>&1")
        wait_until(lambda: len(rig.running("worker-1", marker)) == 2)
        rig.power_off("worker-1")
        assert [
            line for line in map(cmdline, map(int, filter(str.isdigit, os.listdir("/proc")))) if marker in line
        ] == []
        rig.power_on("worker-1")
        assert ssh(rig, "worker-1", "echo back") == "back\n"
    assert not rig.folder.exists()


def test_the_accounts_of_the_real_machine_stay_as_they_are() -> None:
    with sshd(HostSpec("worker-1")) as rig:
        assert ssh(rig, "worker-1", "id -un") == "ops\n"
        assert "ops" not in {account.pw_name for account in pwd.getpwall()}
