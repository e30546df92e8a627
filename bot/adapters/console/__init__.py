"""The Unix socket that the command line speaks to: one JSON line in, JSON lines out.

`{"verb": "say", "text": "diagnose builds not starting", "as": "U…", "detach": false}` says a sentence, `{"verb":
"watch", "run": 12, "after": 0}` follows a run. Each line of the answer has `event`: one of the kinds of a story, with
`run`, `seq` and `at`; or `run` (it began), `answer` (a question's), `error` (a sentence, and the exit status it means),
`alive` (nothing to tell: every 5 s, from the thread that looks, so that one who waits can tell when `serve` hangs).

Who speaks is the peer's uid, as the kernel says. A uid that is nobody in `people.uids`, or that shares its person with
another uid, may look: it could be anybody, also the one who asked.
"""

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from bot.adapters.console.server import ALIVE, Gone, Line, Server
from bot.core.errors import NotUnderstood, Permanent, Refused
from bot.core.people import Actor, Part, Place, person_of
from bot.core.request import STARTS, Ask, Request
from bot.core.run import Run
from bot.core.story import Event
from bot.engine.answers import Said
from bot.engine.desk import Filed

COUNTED_WITHIN: Final = 10.0  # seconds in which a decision is normally counted
LOOKS: Final = (Ask.HELP, Ask.RUNS, Ask.SHOW, Ask.CAN, Ask.STATUS, Ask.BACKUPS, Ask.BACKUP, Ask.RESTORE)
DECIDES: Final = (Ask.APPROVE, Ask.DECLINE, Ask.DONE, Ask.AGAIN, Ask.STOP)
ORDERS: Final = (Ask.APPROVE, Ask.DECLINE, Ask.AGAIN)  # what nobody says who had a part in the run


class Desk(Protocol):
    """What takes orders, decisions and questions; each is committed before it is answered."""

    def file(
        self, request: Request, actor: Actor, place: Place | None, key: str, typed_by: Actor | None = None
    ) -> Filed: ...

    def parts(self, run: int, who: Actor) -> frozenset[Part]: ...

    def now(self, request: Request, actor: Actor) -> Said: ...

    def refused(self, actor: Actor | None, why: str) -> None: ...


@dataclass(frozen=True)
class Peer:
    """Who is at the other end: the uid, the person it is (None: nobody, or several uids are), and whom it plays."""

    uid: int
    user: str | None
    played: str | None = None

    def actor(self, team: str) -> Actor:
        return Actor(team, self.played or self.user or f"uid:{self.uid}", "cli")

    def real(self, team: str) -> Actor | None:
        """The person at the keyboard. A uid that nobody is mapped to may play everybody: to try things out."""
        return Actor(team, self.user, "cli") if self.user else None

    @property
    def anybody(self) -> bool:
        return self.user is None and self.played is None

    def __str__(self) -> str:
        return f"uid {self.uid}{f' (<@{self.user}>)' if self.user else ''}"


class Console:
    """Serves the socket until it is closed; a thread for each peer.

    `read` understands a sentence, `events(run, after)` and `run(number)` read what is stored, `may_decide(actor)` says
    beforehand why a decision would not count (the row decides all the same). `name(id)` is what a person is called,
    empty when nobody can say: each line brings the names of whom it mentions along, as `people`.
    """

    def __init__(
        self,
        path: Path,
        *,
        desk: Desk,
        read: Callable[[str], Request],
        people: Mapping[int, str],
        team: str,
        impersonate: bool,
        events: Callable[[int, int], Sequence[Event]],
        run: Callable[[int], Run | None],
        may_decide: Callable[[Actor], str] = lambda _: "",
        name: Callable[[str], str] = lambda _: "",
        pace: float = 0.3,
    ) -> None:
        self.path = path
        self.desk = desk
        self.read = read
        self.people = people
        self.team = team
        self.impersonate = impersonate
        self.events = events
        self.run = run
        self.may_decide = may_decide
        self.name = name
        self.pace = pace
        self.stopping = threading.Event()
        self._server: Server | None = None

    def start(self) -> None:
        """Begin to serve; raises Permanent when the socket cannot be had, with what to do."""
        self._server = Server(self.path, self.answer)
        threading.Thread(target=self._server.serve_forever, args=[0.1], name="console", daemon=True).start()

    def close(self) -> None:
        """Take the socket away, and let everybody who listens know that their run goes on without them."""
        self.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.take_away()
            self._server = None

    # ------------------------------------------------------------ one request

    def answer(self, request: Line, uid: int, gone: Gone) -> Iterator[Line]:
        """The lines that answer a request; raises OpsbotError with a sentence."""
        return map(self._named, self._answer(request, uid, gone))

    def _answer(self, request: Line, uid: int, gone: Gone) -> Iterator[Line]:
        if request.get("verb") == "watch":
            return self._watch(_number(request, "run"), _number(request, "after"), gone)
        if request.get("verb") != "say" or not isinstance(request.get("text"), str):
            raise NotUnderstood('a request is {"verb": "say", "text": …} or {"verb": "watch", "run": …, "after": 0}')
        return self._say(request, self._peer(uid, request.get("as")), gone)

    def _named(self, line: Line) -> Line:
        mentioned = sorted({*_MENTION.findall(repr(line)), *_ids(line)})
        people = {user: name for user in mentioned if (name := self.name(user))}
        return {**line, "people": people} if people else line

    def _peer(self, uid: int, played: Any) -> Peer:
        peer = Peer(uid, self._person(uid))
        if played is None:
            return peer
        if not isinstance(played, str) or not re.fullmatch(r"[UW][A-Z0-9]{1,30}", played):
            raise NotUnderstood("`--as` wants the id of a person, such as U012AB3CD")
        if not self.impersonate:
            self._refuse(peer, "only where `cli.impersonate` is true can somebody act as another person")
        return replace(peer, played=played)

    def _person(self, uid: int) -> str | None:
        return person_of(uid, self.people)

    def _say(self, said: Line, peer: Peer, gone: Gone) -> Iterator[Line]:
        wanted = self.read(said["text"])
        request = self._allowed(wanted, peer)
        if request.ask in DECIDES:
            yield from self._decide(request, peer, gone)
        elif request.ask not in STARTS:
            answer = self.desk.now(request, peer.actor(self.team))
            yield {"event": "answer", "text": answer.text, **answer.data}
        else:
            note = f" It only looks: {self._nobody(peer.uid)}." if request.look_only else ""
            yield from self._start(request, peer, gone, note, detach=said.get("detach") is True)

    def _allowed(self, request: Request, peer: Peer) -> Request:
        """The request as this peer may make it: one who could be anybody gets a look, and no offer, since a plan of
        theirs could be approved by the same person under their own name.
        """
        if not peer.anybody or request.ask in LOOKS:
            return self._signed(request, peer)
        if request.ask is Ask.RUN and request.kind == "diagnose":
            return replace(request, look_only=True)
        raise self._turned_away(peer, self._nobody(peer.uid))

    def _nobody(self, uid: int) -> str:
        if uid in self.people:
            return (
                f"{self.people[uid]} has several uids in `people.uids`, so uid {uid} may look, but not order or decide"
            )
        return (
            f"uid {uid} is nobody that opsbot knows, so it may look, but not order or decide; "
            f"an administrator can add `{uid}: U…` to `people.uids` in the configuration"
        )

    def _signed(self, request: Request, peer: Peer) -> Request:
        """Who really typed it stands in the reason, which everybody sees and the audit trail keeps."""
        if peer.played is None:
            return request
        return replace(request, because=f"{request.because} (typed by {peer})".strip())

    def _start(self, request: Request, peer: Peer, gone: Gone, note: str, detach: bool) -> Iterator[Line]:
        filed = self._file(request, peer)
        if filed.run is None:
            raise Permanent(filed.text)
        yield {"event": "run", "run": filed.run, "text": filed.text + note}
        if not detach:
            yield from self._watch(filed.run, 0, gone)

    # ------------------------------------------------------------ decisions

    def _decide(self, request: Request, peer: Peer, gone: Gone) -> Iterator[Line]:
        run, actor = request.number or 0, peer.actor(self.team)
        known = self._known(run)
        if request.ask in ORDERS:
            self._refuse_parties(peer, actor, known)
        if why := self.may_decide(actor):
            self._refuse(peer, why)
        after = max((event.no for event in self.events(run, 0)), default=0)
        yield from self._counted(run, actor, after, gone, self._file(request, peer))

    def _refuse_parties(self, peer: Peer, actor: Actor, run: Run) -> None:
        """Who had a part in a run orders no change in it, under whatever name."""
        parts = self.desk.parts(run.id, real) if (real := peer.real(self.team)) else frozenset()
        if Part.TYPED in parts or (peer.played and parts):
            self._refuse(peer, "you had a part in this run yourself, so somebody else has to decide")
        if run.order.actor.same_person(actor):
            self._refuse(peer, f"you asked for this yourself, so somebody else has to decide; or `cancel {run.id}`")

    def _file(self, request: Request, peer: Peer) -> Filed:
        """Committed with who was really at the keyboard, where that is another person."""
        played = peer.real(self.team) if peer.played not in (None, peer.user) else None
        return self.desk.file(request, peer.actor(self.team), None, f"cli:{uuid.uuid4()}", played)

    def _counted(self, run: int, actor: Actor, after: int, gone: Gone, filed: Filed) -> Iterator[Line]:
        """The decision as the run's story tells it: a worker has counted it then."""
        until = time.monotonic() + COUNTED_WITHIN
        while time.monotonic() < until and not self.stopping.is_set():
            for event in self.events(run, after):
                if event.kind == "decision" and event.data.get("by") == actor.user:
                    yield _line(event)
                    return
            if gone.wait(self.pace):
                return
            yield ALIVE
        raise Refused(
            f"{filed.text} It has not been after {COUNTED_WITHIN:.0f} s: it came too late, or it did not count (the "
            f"audit trail says why). `show {run}` says where the run is."
        )

    def _refuse(self, peer: Peer, why: str) -> None:
        raise self._turned_away(peer, why)

    def _turned_away(self, peer: Peer, why: str) -> Refused:
        self.desk.refused(peer.actor(self.team), f"{why} ({peer})")
        return Refused(f"Not allowed: {why}.")

    # ------------------------------------------------------------ following a run

    def _known(self, number: int) -> Run:
        if (run := self.run(number)) is None:
            raise NotUnderstood(f"There is no run {number}; `runs` lists the latest.")
        return run

    def _watch(self, number: int, after: int, gone: Gone) -> Iterator[Line]:
        """The story as it grows, until its outcome. A run that was refused ends without telling one."""
        while not self.stopping.is_set():
            run = self._known(number)
            for event in self.events(number, after):
                yield _line(event)
                after = event.no
                if event.kind == "outcome":
                    return
            if run.outcome is not None:
                yield {
                    "event": "outcome",
                    "run": number,
                    "seq": after + 1,
                    "outcome": run.outcome.name,
                    "text": run.summary,
                    "exit": run.outcome.exit_status,
                }
                return
            if gone.wait(self.pace):
                return
            yield ALIVE


_MENTION: Final = re.compile(r"<@([UW][A-Z0-9]+)>")


def _ids(line: Line) -> Iterator[str]:
    """Whom a line names without a mention."""
    yield from (str(each["by"]) for each in (line, *line.get("runs", ())) if each.get("by"))


def _line(event: Event) -> Line:
    return {"event": event.kind, "run": event.run, "seq": event.no, "at": event.at.isoformat(), **event.data}


def _number(request: Line, name: str) -> int:
    value = request.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise NotUnderstood(f"`{name}` must be a whole number from 0 to {2**31 - 1}")
    return value
