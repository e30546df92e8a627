"""Letters: in order within a channel, by one process at a time, at least once; ten waiting updates are one."""

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import DictRow

from bot.adapters.store import Audit, Outbox, Pool, Store
from bot.core.approval import Approval, Ask, Click, Kind, Verdict
from bot.core.errors import Temporary
from bot.core.outbox import Letter
from bot.core.people import Actor, Place
from bot.core.shown import Shown
from tests.store.conftest import ANA, BOB

Begin = Callable[..., int]
Put = Callable[..., Approval]
Show = Callable[[object], Shown]


class Sender:
    """Sends what is due, as the Slack side does, and remembers it."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.letters: list[Letter] = []

    def send(self) -> Letter | None:
        with self.outbox.take() as letter:
            if letter is not None:
                self.letters.append(letter)
                self.outbox.sent(letter, letter.message or f"100.{letter.id}")
            return letter

    def send_all(self) -> list[Letter]:
        before = len(self.letters)
        while self.send() is not None:
            pass
        return self.letters[before:]


@pytest.fixture
def sender(outbox: Outbox) -> Sender:
    return Sender(outbox)


@pytest.fixture
def tell(pool: Pool, store: Store) -> Callable[..., None]:
    def tell(run: int, kind: str = "look", **data: object) -> None:
        with pool.connection() as tx:
            store.tell(tx, run, kind, data)

    return tell


Tell = Callable[..., None]


def kinds(letters: list[Letter]) -> list[str]:
    return [letter.kind for letter in letters]


# ------------------------------------------------------------ what is written


def test_a_run_has_one_status_message(sender: Sender, begin: Begin, tell: Tell) -> None:
    run = begin()
    for no in range(10):
        tell(run, no=no)
    (first,) = sender.send_all()
    assert (first.kind, first.channel, first.thread, first.message) == ("status", "C1", None, None)
    assert [event.data["no"] for event in first.story] == list(range(10))
    assert first.run is not None
    assert first.run.id == run
    tell(run, "outcome")
    (second,) = sender.send_all()
    assert (second.kind, second.message, len(second.story)) == ("status", f"100.{first.id}", 11), "edited in place"


def test_the_status_message_begins_the_thread(
    pool: Pool, store: Store, sender: Sender, begin: Begin, tell: Tell
) -> None:
    run = begin()
    tell(run, "note", text="hello")
    status, note = sender.send_all()
    assert kinds([status, note]) == ["status", "note"]
    assert (note.thread, note.body) == (f"100.{status.id}", {"text": "hello"})
    with pool.connection() as tx:
        found = store.run(tx, run)
    assert found is not None
    assert found.order.place == Place("C1", f"100.{status.id}")


def test_a_thread_that_was_there_stays_the_thread(sender: Sender, begin: Begin, tell: Tell) -> None:
    run = begin(Place("C1", "50.1"))
    tell(run, "note", text="hello")
    assert [letter.thread for letter in sender.send_all()] == ["50.1", "50.1"]


def test_a_run_from_the_command_line_says_nothing_in_slack(sender: Sender, begin: Begin, tell: Tell) -> None:
    tell(begin(None), "note", text="hello")
    assert sender.send() is None


def test_a_question_goes_to_the_thread_and_a_pointer_to_the_approvers(sender: Sender, begin: Begin, put: Put) -> None:
    approval = put(begin())
    status, question, pointer = sender.send_all()
    assert kinds([status, question, pointer]) == ["status", "approval", "pointer"]
    assert (question.channel, question.thread, question.message) == ("C1", f"100.{status.id}", None)
    assert question.approval == approval
    assert (pointer.channel, pointer.thread, pointer.message) == ("CAPPROVALS", None, None)
    assert pointer.approval == approval


def test_the_approvals_channel_needs_no_pointer_to_itself(sender: Sender, begin: Begin, put: Put) -> None:
    put(begin(Place("CAPPROVALS")))
    assert kinds(sender.send_all()) == ["status", "approval"]


def test_a_question_from_the_command_line_stands_in_the_approvals_channel(
    sender: Sender, begin: Begin, put: Put
) -> None:
    approval = put(begin(None))
    (question,) = sender.send_all()
    assert (question.kind, question.channel, question.thread, question.approval) == (
        "approval", "CAPPROVALS", None, approval,
    )  # fmt: skip


def test_without_an_approvals_channel_it_stands_where_people_ask(
    pool: Pool, audit: Audit, sender: Sender, begin: Begin
) -> None:
    store = Store(audit, None, "CCOMMANDS")
    with pool.connection() as tx:
        for run in (begin(None), begin(Place("C2"))):
            store.keep_plan(tx, run, 1, "digest", {"fixes": []})
            ask = Ask(run, 1, Kind.PLAN, "digest", 1, datetime.now(UTC) + timedelta(minutes=5), "Restart", "plan")
            store.put(tx, ask, ANA)
    said = [(letter.kind, letter.channel) for letter in sender.send_all()]
    assert sorted(said) == [("approval", "C2"), ("approval", "CCOMMANDS"), ("status", "C2")], "and no pointer"


def test_an_announcement_is_a_note_of_no_run(pool: Pool, store: Store, sender: Sender, shown: Show) -> None:
    with pool.connection() as tx:
        store.announce(tx, "C1", shown("the trail goes up to 17"))
    (letter,) = sender.send_all()
    assert (letter.kind, letter.channel, letter.thread, letter.run) == ("note", "C1", None, None)
    assert letter.body == {"text": "the trail goes up to 17"}


@pytest.mark.parametrize("how", ["decide", "expire", "withdraw"])
def test_a_closed_question_is_edited(
    pool: Pool, store: Store, sender: Sender, begin: Begin, put: Put, how: str
) -> None:
    approval = put(begin(), minutes=-1 if how == "expire" else 30)
    question = sender.send_all()[1]
    with pool.connection() as tx:
        if how == "decide":
            store.decide(tx, Click(approval.id, Verdict.DECLINE, BOB, "no", approval.nonce, None, None), [])
        elif how == "expire":
            store.expire(tx, approval.id)
        else:
            store.withdraw(tx, approval.id, "cancel")
    (edit,) = sender.send_all()
    assert (edit.kind, edit.message) == ("approval", f"100.{question.id}")
    assert edit.approval is not None
    assert edit.approval.state != "open"


def test_the_copy_that_was_answered_is_the_one_that_is_edited(
    pool: Pool, store: Store, sender: Sender, begin: Begin, put: Put
) -> None:
    """A crash had posted it twice: people pressed the button in the copy that nobody wrote down."""
    approval = put(begin())
    sender.send_all()
    with pool.connection() as tx:
        pressed = Click(approval.id, Verdict.APPROVE, BOB, "", approval.nonce, Place("C1"), "99.9")
        assert store.decide(tx, pressed, []) is not None
    assert [letter.message for letter in sender.send_all()] == ["99.9"]


def test_a_question_decided_before_it_was_posted_is_one_letter(
    pool: Pool, store: Store, sender: Sender, begin: Begin, put: Put
) -> None:
    approval = put(begin())
    with pool.connection() as tx:
        store.withdraw(tx, approval.id, "cancel")
    assert kinds(sender.send_all()) == ["status", "approval", "pointer"]


@pytest.mark.parametrize(
    ("place", "channel", "thread"), [(Place("C1", "5.5"), "C1", "5.5"), (Place("C1"), "C1", None), (None, "UANA", None)]
)
def test_a_reply_is_for_one_person(
    pool: Pool, store: Store, sender: Sender, shown: Show, place: Place | None, channel: str, thread: str | None
) -> None:
    with pool.connection() as tx:
        store.reply(tx, ANA, place, shown("not you"))
    (letter,) = sender.send_all()
    assert (letter.kind, letter.channel, letter.thread, letter.user, letter.body) == (
        "private", channel, thread, "UANA", {"text": "not you"},
    )  # fmt: skip


def test_a_note_of_no_run_goes_where_somebody_asked(pool: Pool, store: Store, sender: Sender) -> None:
    with pool.connection() as tx:
        store.post(tx, Place("C1", "44.1"), {"text": "for all", "chart": {"bars": []}})
        store.post(tx, Place("C1"), {"text": "for all"})
    letters = sender.send_all()
    assert [(each.kind, each.channel, each.thread, each.run) for each in letters] == [
        ("note", "C1", "44.1", None), ("note", "C1", None, None),
    ]  # fmt: skip
    assert letters[0].body == {"text": "for all", "chart": {"bars": []}}


def test_private_answers_keep_nobodys_news_waiting(
    pool: Pool, store: Store, sender: Sender, begin: Begin, put: Put, shown: Show
) -> None:
    run = begin()
    with pool.connection() as tx:
        for no in range(5):
            store.reply(tx, BOB, Place("C1"), shown(f"too late {no}"))
    put(run)
    said = [letter for letter in sender.send_all() if letter.kind != "pointer"]
    assert kinds(said) == ["status", "approval", *["private"] * 5]
    assert [letter.body["text"] for letter in said[2:]] == [f"too late {no}" for no in range(5)]


def test_what_is_rolled_back_is_never_said(pool: Pool, store: Store, sender: Sender, begin: Begin) -> None:
    run = begin()
    try:
        with pool.connection() as tx:
            store.tell(tx, run, "note", {"text": "hello"})
            raise LookupError
    except LookupError:
        assert sender.send() is None


# ------------------------------------------------------------ how it is served


def test_a_letter_that_was_not_sent_stays(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    tell(begin())
    with outbox.take() as first:
        assert first is not None
    try:
        with outbox.take() as second:
            assert second is not None
            raise OSError("Slack hung up")
    except OSError:
        pass
    with outbox.take() as third:
        assert third is not None
        assert third.id == first.id


def test_what_is_told_while_a_letter_goes_out_is_told_next(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    """The message that went out is older than the story."""
    run = begin()
    tell(run)
    with outbox.take() as letter:
        assert letter is not None
        assert len(letter.story) == 1
        tell(run)
        outbox.sent(letter, "100.1")
    with outbox.take() as again:
        assert again is not None
        assert (again.message, len(again.story)) == ("100.1", 2)
        outbox.sent(again, None)
    with outbox.take() as nothing:
        assert nothing is None


def test_telling_does_not_wait_for_slack(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    run = begin()
    tell(run)
    told = threading.Event()
    with outbox.take() as letter:
        assert letter is not None

        def tell_more() -> None:
            tell(run, "note", text="x")
            told.set()

        thread = threading.Thread(target=tell_more)
        thread.start()
        assert told.wait(5), "while the letter is on its way"
        thread.join(5)


def test_later_holds_the_whole_channel_back(pool: Pool, outbox: Outbox, begin: Begin, tell: Tell) -> None:
    tell(begin(), "note", text="one")
    tell(begin(Place("C2")))
    with outbox.take() as letter:
        assert letter is not None
        assert letter.channel == "C1"
        outbox.later(letter, 0.4, "rate limited")
    with outbox.take() as other:
        assert other is not None
        assert other.channel == "C2", "others go on"
        outbox.sent(other, "1.1")
    begun, waits = time.monotonic(), 0
    while (again := _taken(outbox)) is None:
        outbox.wait(10)
        waits += 1
    assert 0.1 < time.monotonic() - begun < 3, "it waits until the channel is due"
    assert waits <= 3, "and does not look again and again"
    assert (again.id, again.tries) == (letter.id, 1)


def _taken(outbox: Outbox) -> Letter | None:
    with outbox.take() as letter:
        return letter


def test_being_paced_is_no_try(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    tell(begin())
    for tried in (False, True, False):
        with outbox.take() as letter:
            assert letter is not None
            outbox.later(letter, 0.0, "not now", tried)
    with outbox.take() as letter:
        assert letter is not None
        assert letter.tries == 1


@pytest.mark.parametrize(("waited", "first"), [("0 s", "status"), ("11 s", "private")])
def test_an_answer_waits_for_news_but_does_not_starve(
    pool: Pool, store: Store, sender: Sender, begin: Begin, tell: Tell, shown: Show, waited: str, first: str
) -> None:
    with pool.connection() as tx:
        store.reply(tx, BOB, Place("C1"), shown("your decision did not count"))
        tx.execute("UPDATE opsbot.outbox SET created_at = created_at - %s::interval", [waited])
    tell(begin(), "note", text="news")
    assert kinds(sender.send_all())[0] == first


def test_dead_letters_are_kept_and_said(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    tell(begin(), "note", text="hello")
    with outbox.take() as letter:
        assert letter is not None
        outbox.dead(letter, "channel_not_found")
    with outbox.take() as following:
        assert following is not None
        assert following.kind == "note"
    assert [(row["id"], row["why"]) for row in outbox.dead_letters()] == [(letter.id, "channel_not_found")]


def test_who_asked_is_told_once_that_a_run_cannot_be_told_of(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    run = begin()
    for text in ("one", "two"):
        tell(run, "note", text=text)
    schedule = begin(actor=Actor("T1", "schedule", "cli"))
    tell(schedule, "note", text="three")
    sender, dead = Sender(outbox), 0
    while True:
        with outbox.take() as letter:
            if letter is None or letter.kind == "private":
                break
            outbox.dead(letter, "not_in_channel", "I cannot post there")
            dead += 1
    assert dead == 5, "two statuses and three notes"
    (word,) = sender.send_all()
    assert (word.kind, word.channel, word.user, word.thread) == ("private", "UANA", "UANA", None)
    assert word.body == {"text": "I cannot post there"}


def wait_is_ended_by_a_letter(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    timer = threading.Timer(0.2, tell, [begin()])
    timer.start()
    begun = time.monotonic()
    outbox.wait(10)
    assert time.monotonic() - begun < 5
    timer.join(5)


def test_wait_ends_with_a_letter_from_another_process(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    outbox.wait(0.01)
    wait_is_ended_by_a_letter(outbox, begin, tell)


def test_a_connection_that_could_not_listen_is_not_waited_on(
    outbox: Outbox, begin: Begin, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with outbox.take():  # its own connection; the next one is the listener's
        pass
    opened, deaf = outbox._opened, list[Connection[DictRow]]()

    def refuse(*_: object) -> None:
        raise psycopg.OperationalError("too many notifications in the NOTIFY queue")

    def open_deaf() -> Connection[DictRow]:
        connection = opened()
        if not deaf:
            deaf.append(connection)
            monkeypatch.setattr(connection, "execute", refuse)
        return connection

    monkeypatch.setattr(outbox, "_opened", open_deaf)
    outbox.wait(0.01)
    assert len(deaf) == 1
    assert deaf[0].closed, "nobody would close it"
    outbox.wait(0.01)  # another one begins to listen
    wait_is_ended_by_a_letter(outbox, begin, tell)


def test_no_letter_is_missed_between_taking_and_waiting(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    with outbox.take() as nothing:
        assert nothing is None
    tell(begin())
    begun = time.monotonic()
    outbox.wait(10)
    assert time.monotonic() - begun < 5


def test_a_channel_is_served_by_one_at_a_time(pool: Pool, outbox: Outbox, begin: Begin, tell: Tell) -> None:
    tell(begin(), "note", text="one")
    tell(begin(Place("C2")))
    peer = Outbox(pool)
    seen: list[str] = []

    def other_process() -> None:
        with peer.take() as letter:
            seen.append(letter.channel if letter else "nothing")

    with outbox.take() as letter:
        assert letter is not None
        assert letter.channel == "C1"
        thread = threading.Thread(target=other_process)
        thread.start()
        thread.join(10)
    assert seen == ["C2"], "C1 has a second letter, but C1 is ours"
    thread = threading.Thread(target=other_process)
    thread.start()
    thread.join(10)
    assert seen == ["C2", "C1"], "and now it is anybody's"
    peer.close()


def test_a_killed_process_frees_its_channel(pool: Pool, outbox: Outbox, begin: Begin, tell: Tell) -> None:
    tell(begin())
    taken, killed = threading.Event(), threading.Event()
    peer = Outbox(pool)

    def other_process() -> None:
        with peer.take() as letter:
            assert letter is not None
            taken.set()
            assert killed.wait(10)

    thread = threading.Thread(target=other_process)
    thread.start()
    assert taken.wait(10)
    with outbox.take() as nothing:
        assert nothing is None
    with pool.connection() as tx:
        tx.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    deadline = time.monotonic() + 5
    letter: Letter | None = None
    while letter is None:
        assert time.monotonic() < deadline
        with outbox.take() as letter:
            pass
    killed.set()
    thread.join(10)
    peer.close()


def test_losing_the_database_is_temporary(pool: Pool, outbox: Outbox, begin: Begin, tell: Tell) -> None:
    tell(begin())
    outbox.wait(0.01)
    with pool.connection() as tx:
        tx.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%opsbot_outbox%' "
                   "AND pid <> pg_backend_pid()")  # fmt: skip
        tx.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                   "AND application_name = 'opsbot'")  # fmt: skip
    with pytest.raises(Temporary, match="nothing can be said"), outbox.take():
        pytest.fail("there is no connection")
    with outbox.take() as letter:
        assert letter is not None


def test_in_order_whoever_sends(pool: Pool, store: Store, begin: Begin) -> None:
    """Six senders, four channels, two hundred and forty letters: in order in each channel, none twice."""
    runs = [begin(Place(f"C{no}", "1.1")) for no in range(4)]
    for no in range(60):
        with pool.connection() as tx:
            for run in runs:
                tx.execute(
                    "INSERT INTO opsbot.outbox (channel, kind, run_id, body) "
                    "SELECT channel, 'note', id, json_build_object('text', %s::text) FROM opsbot.runs WHERE id = %s",
                    [str(no), run],
                )
    sent: defaultdict[str, list[int]] = defaultdict(list)
    inside: defaultdict[str, int] = defaultdict(int)
    errors: list[str] = []

    def send() -> None:
        outbox = Outbox(pool)
        idle = 0
        while idle < 5:
            with outbox.take() as letter:
                if letter is None:
                    idle += 1
                    time.sleep(0.01)
                    continue
                idle = 0
                inside[letter.channel] += 1
                if inside[letter.channel] > 1:
                    errors.append(f"two in {letter.channel}")
                sent[letter.channel].append(int(letter.body["text"]))
                inside[letter.channel] -= 1
                outbox.sent(letter, f"1.{letter.id}")
        outbox.close()

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert dict(sent) == {f"C{no}": list(range(60)) for no in range(4)}


def test_sending_and_telling_at_once_never_block_each_other(
    pool: Pool, store: Store, begin: Begin, sender: Sender
) -> None:
    """Who tells locks the run and then its letter; who has sent one must not do it the other way round."""
    runs = [begin() for _ in range(3)]
    errors: list[str] = []

    def talk(run: int) -> None:
        try:
            for _ in range(40):
                with pool.connection() as tx:
                    store.tell(tx, run, "look", {})
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=talk, args=[run]) for run in runs]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sender.send_all()
    for thread in threads:
        thread.join(30)
    sender.send_all()
    assert errors == []
    newest = {letter.run.id: len(letter.story) for letter in sender.letters if letter.run}
    assert newest == dict.fromkeys(runs, 40)


@pytest.mark.parametrize(
    "sql",
    [
        b"INSERT INTO opsbot.outbox (channel, kind, run_id) VALUES ('C1', 'status', 1)",
        b"INSERT INTO opsbot.outbox (channel, kind) VALUES ('C1', 'status')",
        b"INSERT INTO opsbot.outbox (channel, kind) VALUES ('C1', 'approval')",
        b"INSERT INTO opsbot.outbox (channel, kind) VALUES ('C1', 'private')",
        b"INSERT INTO opsbot.outbox (channel, kind) VALUES ('C1', 'gossip')",
        b"UPDATE opsbot.outbox SET state = 'sent'",
    ],
    ids=str,
)
def test_the_schema_keeps_letters_whole(pool: Pool, begin: Begin, tell: Tell, sql: bytes) -> None:
    tell(begin())
    with pytest.raises(psycopg.errors.IntegrityError), pool.connection() as tx:
        tx.execute(sql)


def test_a_letter_wakes_one_thread_which_calls_another_for_the_next(outbox: Outbox, begin: Begin, tell: Tell) -> None:
    one, two = begin(Place("C1")), begin(Place("C2"))
    served: queue.Queue[str] = queue.Queue()
    looks: list[int] = []
    over, both = threading.Event(), threading.Barrier(2, timeout=5)

    def sender() -> None:
        while not over.is_set():
            looks.append(threading.get_ident())
            with outbox.take() as letter:
                if letter:
                    both.wait()  # each waits for the other to have one
                    outbox.sent(letter, "1.1")
                    served.put(letter.channel)
            outbox.wait(2)

    threads = [threading.Thread(target=sender) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    idle = len(looks)
    tell(one)
    tell(two)
    assert {served.get(timeout=5), served.get(timeout=5)} == {"C1", "C2"}
    time.sleep(0.3)
    assert len(looks) - idle <= 8, "not four looks for each letter"
    over.set()
    for thread in threads:
        thread.join(5)
