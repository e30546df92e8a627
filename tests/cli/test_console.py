"""The socket of the command line: who somebody is, what they may, and what becomes of bad peers and stale sockets."""

import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot.adapters.console import Console, server
from bot.core.errors import Permanent, Temporary
from bot.core.outcome import Outcome
from bot.core.people import Actor
from bot.core.request import Ask
from tests.cli.fakes import (
    ANA,
    BO,
    CY,
    FINDING,
    LOOK,
    ME,
    TEAM,
    FakeDesk,
    ask,
    ask_raw,
    connected,
    console_of,
    outcome,
    say,
    serving,
)

NOBODY = 4_000_000_000  # a uid that no test runs as
GROUP = 64322  # a group that no test runs as
ME_AS_ANA = Actor(TEAM, ANA, "cli")


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk(then=(LOOK, outcome(Outcome.HEALTHY)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "opsbot.sock"


@pytest.fixture
def mapped(desk: FakeDesk, path: Path) -> Iterator[Console]:
    """I am ana."""
    with serving(desk, path, {ME: ANA, NOBODY: BO}) as console:
        yield console


@pytest.fixture
def unmapped(desk: FakeDesk, path: Path) -> Iterator[Console]:
    """I am nobody that opsbot knows."""
    with serving(desk, path, {NOBODY: BO}) as console:
        yield console


def eventually(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 5
    while not true():
        assert time.monotonic() < until, f"after 5 s still not: {what}"
        time.sleep(0.01)


# ---------------------------------------------------------------- who somebody is


def test_a_mapped_uid_orders_as_its_person(mapped: Console, desk: FakeDesk, path: Path) -> None:
    lines = say(path, "restart worker-1 because it hangs")
    assert [line["event"] for line in lines] == ["run", "look", "outcome"]
    ((request, actor),) = desk.filed
    assert actor == ME_AS_ANA
    assert (request.subject, request.targets, request.because) == ("restart", ("worker-1",), "it hangs")


def test_an_unmapped_uid_only_looks(unmapped: Console, desk: FakeDesk, path: Path) -> None:
    lines = say(path, "diagnose builds not starting worker-1")
    ((request, actor),) = desk.filed
    assert (request.ask, request.targets, request.site) == (Ask.RUN, ("worker-1",), "prod")
    assert request.look_only
    assert actor == Actor(TEAM, f"uid:{ME}", "cli")
    assert f"add `{ME}: U…` to `people.uids`" in lines[0]["text"]


@pytest.mark.parametrize(
    "text",
    ["restart worker-1 because it hangs", "backup all", "approve 1", "decline 1 because no", "cancel 1"],
)
def test_an_unmapped_uid_neither_orders_nor_decides(unmapped: Console, desk: FakeDesk, path: Path, text: str) -> None:
    desk.begin(Actor(TEAM, BO))
    (line,) = say(path, text)
    assert (line["event"], line["exit"]) == ("error", 6)
    assert line["text"] == (
        f"Not allowed: uid {ME} is nobody that opsbot knows, so it may look, but not order or decide; "
        f"an administrator can add `{ME}: U…` to `people.uids` in the configuration."
    )
    assert desk.filed == []
    assert desk.asked == []
    ((who, why),) = desk.turned_away
    assert who == Actor(TEAM, f"uid:{ME}", "cli")
    assert f"uid {ME}" in why


@pytest.mark.parametrize(
    "text", ["runs", "help", "can U0123ABCD restart worker-1", "backups", "backup show 1", "restore 1"]
)
def test_an_unmapped_uid_may_ask(unmapped: Console, desk: FakeDesk, path: Path, text: str) -> None:
    (line,) = say(path, text)
    assert line["event"] == "answer"
    assert [actor.user for _, actor in desk.asked] == [f"uid:{ME}"]


def test_a_person_with_two_uids_is_shared_and_may_only_look(desk: FakeDesk, path: Path) -> None:
    desk.begin(Actor(TEAM, BO))
    with serving(desk, path, {ME: ANA, NOBODY: ANA}):
        (line,) = say(path, "approve 1")
    assert line["text"] == (
        f"Not allowed: {ANA} has several uids in `people.uids`, so uid {ME} may look, but not order or decide."
    )
    assert desk.filed == []


def test_nobody_acts_as_another_where_that_is_off(mapped: Console, desk: FakeDesk, path: Path) -> None:
    (line,) = say(path, "restart worker-1 because it hangs", **{"as": BO})
    assert (line["event"], line["exit"]) == ("error", 6)
    assert "cli.impersonate" in line["text"]
    assert desk.filed == []
    assert [actor for actor, _ in desk.turned_away] == [ME_AS_ANA]


# ---------------------------------------------------------------- impersonation, where it is on


@pytest.fixture
def stage(desk: FakeDesk, path: Path) -> Iterator[Console]:
    """I am ana, and may play others."""
    with serving(desk, path, {ME: ANA}, impersonate=True) as console:
        yield console


def test_who_really_typed_stands_in_the_reason(stage: Console, desk: FakeDesk, path: Path) -> None:
    say(path, "restart worker-1 because it hangs", **{"as": BO})
    ((request, actor),) = desk.filed
    assert actor == Actor(TEAM, BO, "cli")
    assert request.because == f"it hangs (typed by uid {ME} (<@{ANA}>))"


def test_one_person_playing_two_is_still_one(stage: Console, desk: FakeDesk, path: Path) -> None:
    say(path, "restart worker-1 because it hangs", **{"as": BO})
    for played in ({}, {"as": CY}):
        (line,) = say(path, "approve 1", **played)
        assert "you had a part in this run yourself" in line["text"]
        assert line["exit"] == 6
    assert len(desk.filed) == 1
    assert len(desk.turned_away) == 2


def test_who_asked_cannot_approve_as_somebody_else(stage: Console, desk: FakeDesk, path: Path) -> None:
    desk.begin(Actor(TEAM, ANA))  # in Slack, say
    (line,) = say(path, "approve 1", **{"as": BO})
    assert "you had a part in this run yourself" in line["text"]
    assert desk.filed == []


def test_two_approvals_of_one_person_are_one(stage: Console, desk: FakeDesk, path: Path) -> None:
    desk.begin(Actor(TEAM, BO))
    assert say(path, "approve 1")[0]["event"] == "decision"
    (line,) = say(path, "approve 1", **{"as": CY})
    assert "you had a part" in line["text"]
    assert len(desk.filed) == 1


def test_who_played_is_known_after_a_restart(desk: FakeDesk, path: Path) -> None:
    with serving(desk, path, {ME: ANA}, impersonate=True):
        say(path, "restart worker-1 because it hangs", **{"as": BO})
    with serving(desk, path, {ME: ANA}, impersonate=True):
        (line,) = say(path, "approve 1")
    assert "you had a part in this run yourself" in line["text"]
    assert len(desk.filed) == 1


def test_an_approver_may_approve_the_next_plan_of_a_run_too(stage: Console, desk: FakeDesk, path: Path) -> None:
    desk.begin(Actor(TEAM, BO))
    assert [say(path, "approve 1")[0]["event"] for _ in range(2)] == ["decision", "decision"]


def test_people_are_named_where_somebody_knows_them(desk: FakeDesk, path: Path) -> None:
    names = {ANA: "ana", BO: "bo"}
    with serving(desk, path, {ME: ANA}, name=lambda user: names.get(user, "")):
        desk.begin(Actor(TEAM, BO))
        (line,) = say(path, "approve 1")
        assert line["people"] == {ANA: "ana"}
        (runs,) = say(path, "runs")
    assert runs["people"] == {ANA: "ana"}
    assert runs["runs"][0]["by"] == ANA, "ids stay what they are"


def test_nobody_may_play_two_people_to_try_things_out(desk: FakeDesk, path: Path) -> None:
    with serving(desk, path, {}, impersonate=True):
        say(path, "restart worker-1 because it hangs", **{"as": ANA})
        (line,) = say(path, "approve 1", **{"as": BO})
    assert (line["event"], line["by"]) == ("decision", BO)
    assert desk.filed[-1][0].because == f"(typed by uid {ME})"


def test_a_played_requester_cannot_approve_either(desk: FakeDesk, path: Path) -> None:
    with serving(desk, path, {}, impersonate=True):
        say(path, "restart worker-1 because it hangs", **{"as": ANA})
        (line,) = say(path, "approve 1", **{"as": ANA})
    assert "you asked for this yourself" in line["text"]
    assert len(desk.filed) == 1


@pytest.mark.parametrize("played", ["ana", "", 7, "U1; drop", ["U0ANA"]])
def test_whom_one_plays_is_a_user_id(stage: Console, desk: FakeDesk, path: Path, played: object) -> None:
    (line,) = say(path, "runs", **{"as": played})
    assert (line["event"], line["exit"]) == ("error", 2)
    assert desk.asked == []


# ---------------------------------------------------------------- decisions


def test_a_decision_is_answered_when_it_has_counted(mapped: Console, desk: FakeDesk, path: Path) -> None:
    desk.begin(Actor(TEAM, BO))
    desk.tell(1, *LOOK)
    (line,) = say(path, "approve 1")
    assert (line["event"], line["by"], line["verdict"], line["seq"]) == ("decision", ANA, "approve", 2)
    ((request, actor),) = desk.filed
    assert (request.ask, request.number, actor) == (Ask.APPROVE, 1, ME_AS_ANA)


def test_who_asked_cannot_approve(mapped: Console, desk: FakeDesk, path: Path) -> None:
    desk.begin(Actor(TEAM, ANA))
    (line,) = say(path, "approve 1")
    assert (line["event"], line["exit"]) == ("error", 6)
    assert "you asked for this yourself" in line["text"]
    assert desk.filed == []
    assert len(desk.turned_away) == 1


@pytest.mark.parametrize(("said", "allowed"), [("again 1", False), ("done 1", True), ("stop 1", True)])
def test_who_asked_says_what_became_of_a_change_but_does_not_send_it_again(
    mapped: Console, desk: FakeDesk, path: Path, said: str, allowed: bool
) -> None:
    desk.begin(Actor(TEAM, ANA))
    (line,) = say(path, said)
    assert line["event"] == ("decision" if allowed else "error")
    assert len(desk.filed) == (1 if allowed else 0)


def test_a_decision_that_does_not_count_says_so(
    mapped: Console, desk: FakeDesk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.adapters.console.COUNTED_WITHIN", 0.1)
    desk.begin(Actor(TEAM, BO))
    desk.tell(1, "decision", {"by": ANA, "verdict": "approve", "reason": ""})  # an earlier one of mine
    desk.counts = False
    (line,) = say(path, "approve 1")
    assert (line["event"], line["exit"]) == ("error", 6)
    assert "`show 1` says where the run is" in line["text"]


def test_somebody_who_may_not_decide_hears_why(desk: FakeDesk, path: Path) -> None:
    desk.begin(Actor(TEAM, BO))
    with serving(desk, path, {ME: ANA}, may_decide=lambda actor: f"{actor.user} is no approver"):
        (line,) = say(path, "approve 1")
    assert line["text"] == f"Not allowed: {ANA} is no approver."
    assert desk.filed == []


# ---------------------------------------------------------------- following a run


def test_a_story_is_told_as_it_grows(mapped: Console, desk: FakeDesk, path: Path) -> None:
    desk.then = (LOOK,)
    with connected(path) as peer, peer.makefile("rb") as lines:
        peer.sendall(json.dumps({"verb": "say", "text": "status"}).encode() + b"\n")
        assert json.loads(lines.readline())["event"] == "run"
        assert json.loads(lines.readline()) == {
            "event": "look", "run": 1, "seq": 1, "at": "2026-01-01T00:00:00+00:00", **LOOK[1],
        }  # fmt: skip
        desk.tell(1, *FINDING)
        assert json.loads(lines.readline())["cause"] == "worker.amqp-lost"
        desk.tell(1, *outcome(Outcome.UNFIXED))
        assert json.loads(lines.readline())["exit"] == 1
        assert lines.readline() == b""


def test_a_detached_run_is_not_waited_for(mapped: Console, desk: FakeDesk, path: Path) -> None:
    desk.then = (LOOK,)
    assert [line["event"] for line in say(path, "status", detach=True)] == ["run"]


def test_a_refused_run_ends_although_its_story_does_not(mapped: Console, desk: FakeDesk, path: Path) -> None:
    desk.begin(Actor(TEAM, ANA))
    desk.end(1, Outcome.REFUSED, "Not done: guests may not use opsbot.")
    (line,) = ask(path, verb="watch", run=1, after=0)
    assert line == {
        "event": "outcome", "run": 1, "seq": 1, "outcome": "REFUSED", "exit": 6,
        "text": "Not done: guests may not use opsbot.",
    }  # fmt: skip


def test_a_run_can_be_followed_from_anywhere_in_its_story(mapped: Console, desk: FakeDesk, path: Path) -> None:
    say(path, "status")
    assert [line["seq"] for line in ask(path, verb="watch", run=1, after=0)] == [1, 2]
    assert [line["seq"] for line in ask(path, verb="watch", run=1, after=1)] == [2]


def test_closing_lets_followers_go(desk: FakeDesk, path: Path) -> None:
    desk.then = (LOOK,)
    console = console_of(desk, path, {ME: ANA})
    console.start()
    with connected(path) as peer, peer.makefile("rb") as lines:
        peer.sendall(b'{"verb": "say", "text": "status"}\n')
        assert len([lines.readline(), lines.readline()]) == 2
        console.close()
        assert lines.readline() == b""
    assert not path.exists()


# ---------------------------------------------------------------- bad requests and bad peers


@pytest.mark.parametrize(
    ("request_line", "says"),
    [
        (b"not json\n", "a request is one line of JSON"),
        (b"\xff\xfe\n", "a request is one line of JSON"),
        (b"[" * 100_000 + b"\n", "a request is one line of JSON"),
        (b"[]\n", "a request is a JSON object"),
        (b"{}\n", 'a request is {"verb": "say", "text": …}'),
        (b'{"verb": "say", "text": 7}\n', 'a request is {"verb": "say", "text": …}'),
        (b'{"verb": "shutdown"}\n', 'a request is {"verb": "say", "text": …}'),
        (b'{"verb": "watch", "run": "1"}\n', "`run` must be a whole number from 0 to 2147483647"),
        (b'{"verb": "watch", "run": true}\n', "`run` must be a whole number from 0 to 2147483647"),
        (b'{"verb": "watch", "run": 1, "after": -1}\n', "`after` must be a whole number from 0 to 2147483647"),
        (b'{"verb": "watch", "run": 77}\n', "There is no run 77"),
        (b'{"verb": "say", "text": "make coffee"}\n', "I did not understand `make coffee`"),
        (b"x" * (1024 * 1024 + 1) + b"\n", "a request has at most 1 MiB"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_bad_request_gets_a_sentence(
    mapped: Console, desk: FakeDesk, path: Path, request_line: bytes, says: str
) -> None:
    (line,) = ask_raw(path, request_line)
    assert line["text"].startswith(says)
    assert (line["event"], line["exit"]) == ("error", 2)
    assert desk.filed == []


def test_a_failure_of_ours_says_nothing_about_itself(mapped: Console, desk: FakeDesk, path: Path) -> None:
    desk.broken = RuntimeError("postgresql://opsbot:hunter2@db")
    (line,) = say(path, "status")
    assert line == {"event": "error", "text": "opsbot could not answer; its log says why.", "exit": 3}


def test_a_temporary_failure_is_its_sentence(mapped: Console, desk: FakeDesk, path: Path) -> None:
    desk.broken = Temporary("the database is away; try again in a minute")
    (line,) = say(path, "status")
    assert line == {"event": "error", "text": "the database is away; try again in a minute", "exit": 3}


def test_a_peer_that_hangs_up_is_followed_no_longer(mapped: Console, desk: FakeDesk, path: Path) -> None:
    desk.then = (LOOK,)
    with connected(path) as peer, peer.makefile("rb") as lines:
        peer.sendall(b'{"verb": "say", "text": "status"}\n')
        assert len([lines.readline(), lines.readline()]) == 2
    eventually(lambda: not _answering(), "the thread of the peer ended")
    looked = desk.looked
    time.sleep(0.1)
    assert desk.looked == looked
    assert say(path, "runs")[0]["event"] == "answer"


def _answering() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "process_request_thread" in thread.name]


def test_a_peer_that_says_nothing_is_let_go(
    mapped: Console, desk: FakeDesk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    with connected(path) as silent:
        silent.sendall(b'{"verb": "say"')  # and never the rest
        assert silent.recv(100) == b""
    assert desk.filed == []


def test_a_peer_that_does_not_read_is_let_go(
    mapped: Console, desk: FakeDesk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    desk.then = (("note", {"text": "x" * 5_000_000}),)
    with connected(path) as slow:
        slow.sendall(b'{"verb": "say", "text": "status"}\n')
        eventually(lambda: len(desk.filed) == 1, "the run began")
        eventually(lambda: not _answering(), "the thread of the peer ended")


def test_more_peers_than_places_are_turned_away(desk: FakeDesk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_PEERS", 1)
    desk.then = (LOOK,)
    with serving(desk, path, {ME: ANA}), connected(path) as first, first.makefile("rb") as lines:
        first.sendall(b'{"verb": "say", "text": "status"}\n')
        lines.readline()
        (line,) = say(path, "runs")
        assert line == {"event": "error", "text": "Too many people ask at once; try again in a moment.", "exit": 3}
        first.shutdown(socket.SHUT_RDWR)
        eventually(lambda: say(path, "runs")[0]["event"] == "answer", "the place was free again")


# ---------------------------------------------------------------- the socket itself


def test_the_socket_is_for_its_group_and_goes_with_us(desk: FakeDesk, path: Path) -> None:
    with serving(desk, path, {}):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) & stat.S_IRWXO == 0
    assert not path.exists()


def test_the_group_of_the_folder_may_use_the_socket(desk: FakeDesk, path: Path) -> None:
    group = GROUP if os.geteuid() == 0 else os.getgroups()[-1]  # an ordinary user gives it to groups of their own only
    path.parent.mkdir()
    os.chown(path.parent, -1, group)
    with serving(desk, path, {}):
        assert path.stat().st_gid == group


def test_a_folder_of_a_foreign_group_is_no_reason_not_to_serve(
    desk: FakeDesk, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    with serving(desk, path, {}):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert "the group of its folder" in caplog.text


def test_a_dead_opsbots_socket_is_replaced(desk: FakeDesk, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with serving(desk, path, {ME: ANA}):
        assert say(path, "runs")[0]["event"] == "answer"


def test_where_another_opsbot_serves_none_is_started(mapped: Console, desk: FakeDesk, path: Path) -> None:
    with pytest.raises(Permanent, match=f"another opsbot serves at {path}; stop that one first"):
        console_of(desk, path, {}).start()
    assert say(path, "runs")[0]["event"] == "answer"


def test_of_two_that_start_together_one_serves(desk: FakeDesk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when each is slow to take the stale socket away, so that it might take another's."""
    waits, unlink = itertools.count(1), Path.unlink

    def slowly(self: Path, missing_ok: bool = False) -> None:
        time.sleep(0.02 * next(waits))
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", slowly)
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    consoles = [console_of(desk, path, {ME: ANA}) for _ in range(8)]
    refused: list[str] = []

    def start(console: Console) -> None:
        try:
            console.start()
        except Permanent as why:
            refused.append(str(why))

    threads = [threading.Thread(target=start, args=[console]) for console in consoles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(refused) == 7
    assert say(path, "runs")[0]["event"] == "answer"
    for console in consoles:
        console.close()


def test_a_file_in_the_sockets_place_is_left_alone(desk: FakeDesk, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("mine")
    with pytest.raises(Permanent, match="is there already and is no socket"):
        console_of(desk, path, {}).start()
    assert path.read_text() == "mine"


def test_a_link_in_the_sockets_place_is_left_alone(desk: FakeDesk, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.symlink_to(path.parent / "nowhere")
    with pytest.raises(Permanent, match="is there already and is no socket"):
        console_of(desk, path, {}).start()
    assert path.is_symlink()


def test_a_folder_that_everybody_can_write_is_no_place(desk: FakeDesk, path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o1777)
    with pytest.raises(Permanent, match="others can write in"):
        console_of(desk, path, {}).start()
    assert not path.exists()


def test_closing_leaves_anothers_socket_alone(desk: FakeDesk, path: Path) -> None:
    first, second = console_of(desk, path, {ME: ANA}), console_of(desk, path, {ME: ANA})
    first.start()
    path.rename(path.with_suffix(".old"))
    second.start()
    first.close()
    assert say(path, "runs")[0]["event"] == "answer"
    second.close()


def test_a_path_that_cannot_be_a_socket_says_so(desk: FakeDesk, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="set `socket:` to another"):
        console_of(desk, tmp_path / ("x" * 120) / "opsbot.sock", {}).start()


def test_the_kernel_says_who_speaks(unmapped: Console, desk: FakeDesk, path: Path) -> None:
    """As root with another group, so that a uid is not taken for a gid; an ordinary user has no other to take."""
    speak = (
        "import socket, sys\n"
        "peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[1])\n"
        'peer.sendall(b\'{"verb": "say", "text": "runs"}\\n\'); peer.recv(65536)\n'
    )
    group = 54_321 if os.geteuid() == 0 else None
    subprocess.run([sys.executable, "-c", speak, str(path)], check=True, timeout=10, group=group)
    assert [actor.user for _, actor in desk.asked] == [f"uid:{ME}"]
