"""What sudo would let opsbot stream is asked of its rules, and not run."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag
from unittest.mock import Mock

import pytest

from bot.adapters.ssh import Ssh
from bot.adapters.stream import OpenSsh
from bot.adapters.sudo import Rules
from bot.core.backup import BackupFailed, Source
from bot.core.command import sh
from bot.core.ports import Asker
from bot.core.question import Output, Unanswered
from bot.core.target import Role, Target
from tests.rigs.sshd import ROOT, HostSpec, sshd

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "127.0.0.1")
RULE = "ops ALL=(root) NOPASSWD: /usr/bin/timeout -k 2 60 "


def source(*words: str) -> Source:
    return Source("data-platform-1", PLATFORM, sh(*words).sudo(), timedelta(minutes=1))


@contextmanager
def rules(sudoers: str) -> Iterator[tuple[Rules, OpenSsh]]:
    with sshd(HostSpec("platform-1", sudoers=sudoers, recorded=False)) as rig:
        hosts = {"prod/platform-1": rig.host("platform-1")}
        ssh = Ssh(hosts)
        try:
            yield Rules(ssh), OpenSsh(hosts)
        finally:
            ssh.close()


if ROOT:  # an ordinary user has a pretended sudo, which knows no rules

    def test_a_rule_is_found_and_what_it_allows_is_not_run(tmp_path: Path) -> None:
        touched = tmp_path / "touched"
        with rules(f"{RULE}touch {touched}") as (asked, machine):
            allowed = source("touch", str(touched))
            asked.check(allowed, Flag())
            assert not touched.exists()
            with pytest.raises(BackupFailed, match="sudo on platform-1 has no rule for `sudo -n touch /else`"):
                asked.check(source("touch", "/else"), Flag())
            with machine.open(allowed, Flag()) as stream:  # these very words are what a backup sends
                assert stream.read(4096) == b""
            assert touched.exists()

    def test_a_user_who_may_run_nothing_is_told() -> None:
        with rules("Defaults listpw=never") as (asked, _), pytest.raises(BackupFailed, match="has no rule for"):
            asked.check(source("true"), Flag())

    def test_a_password_for_the_look_itself_tells_nothing() -> None:
        with rules(f"Defaults listpw=always\n{RULE}true") as (asked, _):
            asked.check(source("true"), Flag())


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        (Output(0, "/usr/bin/timeout -k 2 60 true\n"), False),
        (Output(1), True),
        (Output(1, "", "Sorry, user ops may not run sudo on platform-1.\n"), True),
        (Output(1, "", "sudo: a password is required\n"), False),
        (Output(None), False),
        (Unanswered("platform-1 is away", "unreachable"), False),
    ],
)
def test_only_a_refusal_is_a_lack(said: Output | Unanswered, lacks: bool) -> None:
    """As sudo 1.9 says it."""
    machines = Mock(Asker, ask=Mock(return_value=[said]))
    with pytest.raises(BackupFailed, match="has no rule for `sudo -n true`") if lacks else nullcontext():
        Rules(machines).check(source("true"), Flag())
    assert machines.ask.call_args.args[1] == [sh("sudo", "-n", "-l", "timeout", "-k", "2", "60", "true")]


def test_what_needs_no_root_needs_no_rule() -> None:
    with rules("# nothing") as (asked, _):
        asked.check(Source("any", PLATFORM, sh("true"), timedelta(minutes=1)), Flag())
