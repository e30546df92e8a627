"""Diagnosing in rounds: run every diagnosis until it stops at an unknown fact, ask all machines at once, run again.

A diagnosis is pure and cheap, and its facts are made once, so running it again costs little; the number of round trips
is the depth of its questions. Being unable to look at a machine is a finding, and hides nothing about the others.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from threading import Event as Flag
from typing import Any, TypeVar

from bot.core.command import Command
from bot.core.errors import OpsbotError, Unknown
from bot.core.fact import Fact, FactRef, made_once
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, placed
from bot.core.handler import Action, Diagnosis
from bot.core.look import CannotLook, NotYet
from bot.core.ports import Asker
from bot.core.question import Answer, HttpGet, Output, Question, Response, Rows, TcpProbe, Unanswered
from bot.core.target import Role, Site, Target

T = TypeVar("T")
MOST_ROUNDS = 10  # a diagnosis that still asks after so many is broken
MACHINES_AT_ONCE = 32
# Causes of not knowing that say nothing about any machine: nobody to ask, no right to, or a question that does not fit.
NOT_ITS_FAULT = (
    "absent", "not-configured", "container", "sql", "database-refused", "redis-refused", "http", "name-server",
)  # fmt: skip
Earlier = Callable[[Target, Question, timedelta], Answer | None]
Asked = tuple[Target, Question]


@dataclass(frozen=True)
class Found:
    """A finding, the diagnosis that made it, and the cause that explains it away (empty when it stands by itself)."""

    finding: Finding
    by: str
    under: str = ""


@dataclass(frozen=True)
class Report:
    """What one look saw. `unknown` are sentences: what could not be told, and why; `again_in`: when it may be;
    `unsure`: which diagnoses could not tell, of which machine.
    """

    findings: tuple[Found, ...] = ()
    asked: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    answers: tuple[tuple[Target, Question, Answer], ...] = ()
    sampled: tuple[Question, ...] = ()
    again_in: timedelta | None = None
    unsure: tuple[tuple[str, Target], ...] = ()
    rounds: int = 0

    def troubles(self) -> tuple[Found, ...]:
        """What is wrong by itself, worst first: WARN and above, not a consequence of something else."""
        own = (found for found in self.findings if not found.under and found.finding.severity >= Severity.WARN)
        return tuple(sorted(own, key=lambda found: -found.finding.severity))

    def causes_first(self) -> tuple[Found, ...]:
        """Everything, worst first, what follows from something behind all that stands by itself: who reads from above
        meets the cause before its consequences.
        """
        return tuple(sorted(self.findings, key=lambda found: (bool(found.under), -found.finding.severity)))


@dataclass
class Cache:
    """The answers of one look, shared by its diagnoses."""

    site: Site
    earlier: Earlier
    answers: dict[Asked, Answer | Unanswered] = field(default_factory=dict)
    sampled: dict[Question, None] = field(default_factory=dict)
    silent: set[tuple[Target, type]] = field(default_factory=set)
    known: dict[tuple[Target, Question, FactRef], Any] = field(default_factory=dict)
    there: dict[Role, tuple[Target, ...]] = field(default_factory=dict)
    rounds: int = 0

    def learn(self, machine: Target, questions: Sequence[Question], answers: Sequence[Answer | Unanswered]) -> None:
        for asked, said in zip(questions, answers, strict=True):
            self.answers[machine, asked] = said
            if _silent(asked, said):
                self.silent.add((machine, type(asked)))

    def where(self, fact: Fact[Any]) -> Target:
        if isinstance(fact.on, Target):
            return fact.on
        if (there := self.there.get(fact.on)) is None:
            there = self.there[fact.on] = self.site.of(fact.on)
        if not there:
            raise CannotLook(fact, f"{self.site.name} has no {fact.on.value} to ask", "absent")
        kind = type(fact.question)  # a database that is away does not make its machine silent
        return next((target for target in there if (target, kind) not in self.silent), there[0])

    def read(self, fact: Fact[T]) -> T:
        """What a registered function's fact says is read once: a hundred workers ask the same broker."""
        where = self.where(fact)
        if fact.ref is None:
            return self._parsed(where, fact)
        key = (where, fact.question, fact.ref)
        if key not in self.known:
            self.known[key] = self._parsed(where, fact)
        value: T = self.known[key]
        return value

    def _parsed(self, where: Target, fact: Fact[T]) -> T:
        answer = self.answers.get((where, fact.question))
        if answer is None:
            raise NotYet(fact)
        if isinstance(answer, Unanswered):
            raise CannotLook(fact, answer.why, answer.cause)
        if isinstance(answer, Output | Rows | Response) and answer.truncated:
            raise Unknown(f"{fact}: the answer was too long and is cut")
        try:
            return fact.parse(answer)
        except OpsbotError:
            raise
        except Exception as error:
            raise Unknown(f"{fact}: the answer cannot be read ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class CachedLook:
    """The `look` that a diagnosis gets. What any machine of a role can answer is asked of the machine that the look is
    about, where it has that role: a container's id, what is asked in it and the fix belong to one machine.
    """

    cache: Cache
    about: Target | None = None

    @property
    def site(self) -> Site:
        return self.cache.site

    def __call__(self, fact: Fact[T]) -> T:
        return self.cache.read(self._own(fact))

    def together(self, *facts: Fact[Any]) -> None:
        own = [self._own(fact) for fact in facts]
        missing = [fact for fact in own if (self.cache.where(fact), fact.question) not in self.cache.answers]
        if missing:
            raise NotYet(*missing)

    def earlier(self, fact: Fact[T], at_least: timedelta) -> T | None:
        """A sample of another machine of the role is as good, where it was asked the very same. One that told nothing,
        as while RabbitMQ was down, is none: its trouble would be taken for one of now.
        """
        here = self.cache.where(self._own(fact))
        others = () if isinstance(fact.on, Target) else (each for each in self.site.of(fact.on) if each != here)
        samples = (self.cache.earlier(target, fact.question, at_least) for target in (here, *others))
        told = (_told(fact, sample) for sample in samples if sample is not None)
        return next((value for value in told if value is not None), None)

    def bound(self, fix: Fix) -> Fix:
        """The fix, all of whose facts say which machine is asked: it stays that one when another answers again."""
        return placed(fix, lambda fact: self.cache.where(self._own(fact)) if self._has(fact) else None)

    def _has(self, fact: Fact[Any]) -> bool:
        return isinstance(fact.on, Target) or bool(self.site.of(fact.on))

    def _own(self, fact: Fact[T]) -> Fact[T]:
        if self.about is None or fact.on is not self.about.role:
            return fact
        return replace(fact, on=self.about)


def _told(fact: Fact[T], sample: Answer) -> T | None:
    try:
        return fact.parse(sample)
    except Exception:  # whatever it was: what is asked now is read the same way, and says it
        return None


@dataclass
class Pair:
    """One diagnosis of one machine on its way: done when `wants` is empty. It is about the next one of `instead` when
    its machine does not answer; when none does, `first` is told.
    """

    diagnosis: Diagnosis
    machine: Target
    instead: tuple[Target, ...] = ()
    findings: tuple[Finding, ...] = ()
    wants: tuple[Fact[Any], ...] = ()
    unknown: str = ""
    again_in: timedelta | None = None
    cannot: CannotLook | None = None
    first: tuple[Target, CannotLook] | None = None

    def run(self, cache: Cache) -> None:
        self.findings, self.wants, self.unknown, self.again_in, self.cannot = (), (), "", None, None
        look = CachedLook(cache, self.machine)
        try:
            self.findings = tuple(_bound(look, each) for each in self.diagnosis.look(look, self.machine))
        except NotYet as stopped:
            self.wants = stopped.facts
        except CannotLook as failure:
            self.cannot = failure
            if self._moves(cache, failure):
                self.run(cache)
        except Unknown as why:
            self.unknown, self.again_in = f"{self.machine}: {why}", why.again_in
        except Exception as error:  # one handler's mistake must not hide what the others saw
            self.unknown = f"{self.machine}: `{self.diagnosis.name}` failed: {type(error).__name__}: {error}"

    def _moves(self, cache: Cache, failure: CannotLook) -> bool:
        """On to the next machine that has not failed to answer the same kind of question."""
        kind = type(failure.fact.question)
        if failure.fact.on != self.machine or (self.machine, kind) not in cache.silent:
            return False
        self.first = self.first or (self.machine, failure)
        left = [each for each in self.instead if (each, kind) not in cache.silent]
        if left:
            self.machine, self.instead = left[0], tuple(left[1:])
        else:
            self.machine, self.cannot = self.first
        return bool(left)


def _bound(look: CachedLook, finding: Finding) -> Finding:
    return replace(finding, fixes=tuple(map(look.bound, finding.fixes))) if finding.fixes else finding


@dataclass(frozen=True)
class Diagnoser:
    """Looks at one installation; `asker` reaches the machines, `earlier` finds samples."""

    site: Site
    asker: Asker
    earlier: Earlier

    def look(self, diagnoses: Sequence[Diagnosis], machines: Iterable[Target], abort: Flag) -> Report:
        """Run these diagnoses on these machines (each on those of its role)."""
        chosen = tuple(machines)
        pairs = [pair for each in diagnoses for pair in _pairs(each, chosen)]
        cache = Cache(self.site, self.earlier)
        with made_once():
            self._rounds(pairs, cache, abort)
        return _report(pairs, cache)

    def fix(self, action: Action, machine: Target, argument: str, abort: Flag) -> Fix:
        """The fix that an action orders for a machine, as it is now; raises Refused, CannotLook or Unknown."""
        return self.planned(lambda look: look.bound(action.fix(look, machine, argument)), abort, machine)

    def answer(self, fact: Fact[T], abort: Flag) -> T:
        """One fact, asked now; raises CannotLook or Unknown."""
        return self.planned(lambda look: look(fact), abort)

    def planned(self, make: Callable[[CachedLook], T], abort: Flag, about: Target | None = None) -> T:
        """The value of a function that looks, such as an action's plan; raises CannotLook or Unknown."""
        cache = Cache(self.site, self.earlier)
        for _ in range(MOST_ROUNDS):
            try:
                return make(CachedLook(cache, about))
            except NotYet as stopped:
                self._ask(stopped.facts, cache, abort)
        raise Unknown("the plan still had questions after ten rounds")

    def _rounds(self, pairs: Sequence[Pair], cache: Cache, abort: Flag) -> None:
        of: dict[Target, list[Pair]] = {}
        for pair in pairs:
            of.setdefault(pair.machine, []).append(pair)
            pair.run(cache)

        def heard(machine: Target) -> None:
            """Think about a machine that has answered while others are still being asked."""
            _run_on(of.get(machine, ()), cache)

        for _ in range(MOST_ROUNDS):
            open_pairs = _run_on(pairs, cache)
            if not open_pairs or abort.is_set():
                break
            self._ask([fact for pair in open_pairs for fact in pair.wants], cache, abort, heard)
        for pair in _run_on(pairs, cache):
            pair.unknown = f"{pair.machine}: `{pair.diagnosis.name}` was still asking when the look ended"

    def _ask(
        self, facts: Sequence[Fact[Any]], cache: Cache, abort: Flag, heard: Callable[[Target], None] = lambda _: None
    ) -> None:
        wanted: dict[Target, list[Question]] = {}
        cache.rounds += 1
        cache.sampled.update({fact.question: None for fact in facts if fact.sampled})
        for fact in facts:
            questions = wanted.setdefault(cache.where(fact), [])
            if fact.question not in questions and (cache.where(fact), fact.question) not in cache.answers:
                questions.append(fact.question)

        def ask(machine: Target) -> Sequence[Answer | Unanswered]:
            return self.asker.ask(machine, wanted[machine], abort)

        with ThreadPoolExecutor(min(MACHINES_AT_ONCE, len(wanted) or 1), "ask") as pool:
            for machine, answers in zip(wanted, pool.map(ask, wanted), strict=True):
                cache.learn(machine, wanted[machine], answers)
                heard(machine)


@dataclass(frozen=True)
class AskingLook:
    """A `look` that asks at once, each time anew."""

    diagnoser: Diagnoser
    abort: Flag

    @property
    def site(self) -> Site:
        return self.diagnoser.site

    def __call__(self, fact: Fact[T]) -> T:
        return self.diagnoser.answer(fact, self.abort)

    def together(self, *facts: Fact[Any]) -> None:
        """Nothing is kept, so there is nothing to ask beforehand."""

    def earlier(self, fact: Fact[T], at_least: timedelta) -> T | None:
        return CachedLook(Cache(self.site, self.diagnoser.earlier)).earlier(fact, at_least)


def _pairs(diagnosis: Diagnosis, machines: Sequence[Target]) -> list[Pair]:
    """What concerns the whole installation is asked about the first of its machines that answers."""
    own = [machine for machine in machines if machine.role is diagnosis.each]
    if diagnosis.once and own:
        return [Pair(diagnosis, own[0], tuple(own[1:]))]
    return [Pair(diagnosis, machine) for machine in own]


def _run_on(pairs: Sequence[Pair], cache: Cache) -> list[Pair]:
    """Run each pair on as far as its answers reach; those that still want some."""
    for pair in pairs:
        if pair.wants and all((cache.where(fact), fact.question) in cache.answers for fact in pair.wants):
            pair.run(cache)
    return [pair for pair in pairs if pair.wants]


def _silent(asked: Question, said: Answer | Unanswered) -> bool:
    """Did the machine fail to answer? What opsbot is not set up to ask is not its silence, nor is what opsbot asks over
    the network itself, whichever machine it is about.
    """
    if isinstance(asked, HttpGet | TcpProbe):
        return False
    return isinstance(said, Unanswered) and said.cause not in NOT_ITS_FAULT


def _report(pairs: Sequence[Pair], cache: Cache) -> Report:
    found = [Found(finding, pair.diagnosis.name) for pair in pairs for finding in pair.findings]
    found += _unreachable(pairs, cache)
    diagnoses = {pair.diagnosis.name: pair.diagnosis for pair in pairs}
    return Report(
        findings=_by_their_roots([_explain(each, found, diagnoses) for each in found]),
        asked=tuple(dict.fromkeys(target.name for target, _ in cache.answers)),
        checked=tuple(dict.fromkeys(pair.diagnosis.name for pair in pairs)),
        unknown=tuple(dict.fromkeys(_unknowns(pairs))),
        answers=tuple(
            (target, asked, said) for (target, asked), said in cache.answers.items() if not isinstance(said, Unanswered)
        ),
        sampled=tuple(cache.sampled),
        again_in=max((pair.again_in for pair in pairs if pair.again_in), default=None),
        rounds=cache.rounds,
        unsure=tuple((pair.diagnosis.name, pair.machine) for pair in pairs if pair.unknown or pair.cannot is not None),
    )


def _unreachable(pairs: Sequence[Pair], cache: Cache) -> list[Found]:
    """One finding for each machine that could not be looked at, or service of it, however many diagnoses wanted to."""
    seen: dict[tuple[Target, str], Found] = {}
    for pair in pairs:
        if pair.cannot is not None and pair.cannot.cause not in NOT_ITS_FAULT:
            machine = cache.where(pair.cannot.fact)
            cause = f"{machine.role.value}.{pair.cannot.cause}"
            person = PERSON.get(pair.cannot.cause, PERSON["unreachable"])
            finding = Finding(cause, Severity.BROKEN, machine, pair.cannot.why, person=person)
            seen.setdefault((machine, cause), Found(finding, ""))
    return list(seen.values())


PERSON = {
    "unreachable": "Check that the machine is up and that opsbot may reach its SSH port, then ask again.",
    "host-key-changed": "Find out why the host key changed; only when that is known, put the new key into known_hosts.",
    "host-key-unknown": "Compare the fingerprint with the machine's own, then put the key into known_hosts.",
    "sudo-denied": "Give opsbot's login the sudo rule that `opsbot manifest sudoers` prints.",
    "database-unreachable": "Check that PostgreSQL runs where the sentence says and takes connections, then ask again.",
    "redis-unreachable": "Check that redis runs where the sentence says and takes connections, then ask again.",
    "rabbitmq-unreachable": "Check that RabbitMQ's management API runs where the sentence says, then ask again.",
    "auth": "Give opsbot the private key that the sentence names, and that login's authorized_keys the public one.",
}


def own_causes() -> tuple[str, ...]:
    """The causes that any look can find, whatever is looked for; services are the platform's alone."""
    return tuple(
        f"{role.value}.{cause}"
        for role in Role
        for cause in PERSON
        if role is Role.PLATFORM or f"{Role.PLATFORM.value}.{cause}" not in SERVICES
    )


# What may keep the platform's services from answering: then they say nothing of their own.
STOPS_SERVICES = (
    "platform.not-ready", "platform.app-stopped", "platform.disk-full@BROKEN", "platform.license-*@BROKEN",
    "platform.oauth-mismatch", "platform.rabbitmq-cert-directory",
)  # fmt: skip
SERVICES = {
    "platform.database-unreachable": STOPS_SERVICES,
    "platform.redis-unreachable": STOPS_SERVICES,
    "platform.rabbitmq-unreachable": (*STOPS_SERVICES, "broker.down"),
}


def _unknowns(pairs: Sequence[Pair]) -> Iterable[str]:
    for pair in pairs:
        if pair.unknown:
            yield pair.unknown
        elif pair.cannot is not None:
            yield f"{pair.machine}: {pair.diagnosis.says or pair.diagnosis.name}: not known, because {pair.cannot.why}"


def _explain(found: Found, others: Sequence[Found], diagnoses: Mapping[str, Diagnosis]) -> Found:
    """A finding whose diagnosis names another one's cause in `unless` is its consequence: shown so, no fix offered."""
    own = diagnoses.get(found.by) or _service(found.finding.cause)
    if found.finding.unless is not None:
        own = replace(own, unless=found.finding.unless)
    reasons = [
        other.finding
        for other in others
        if other.by != found.by
        and _could_explain(other.finding, found.finding)
        and own.explained_by(other.finding.cause, other.finding.severity.name)
    ]
    for reason in reasons:
        if _suffices(reason, reasons, found.finding):
            return replace(found, under=reason.cause, finding=replace(found.finding, fixes=()))
    return found


def _by_their_roots(explained: Sequence[Found]) -> tuple[Found, ...]:
    """A consequence of a consequence stands under what began it all, which is the one that stands by itself."""
    above = {each.finding.cause: each.under for each in explained}
    above |= {each.finding.cause: "" for each in explained if not each.under}
    return tuple(replace(each, under=_root(each.under, above)) for each in explained)


def _root(cause: str, above: Mapping[str, str]) -> str:
    passed: set[str] = set()
    while (higher := above.get(cause, "")) and higher not in passed:
        passed.add(cause)
        cause = higher
    return cause


def _service(cause: str) -> Diagnosis:
    """The engine's own finding, as if a diagnosis had made it."""
    return Diagnosis("", "", Role.PLATFORM, "", lambda *_: iter(()), SERVICES.get(cause, ()))


def _could_explain(other: Finding, found: Finding) -> bool:
    """What is wrong on one worker says nothing about another one."""
    near = other.target == found.target or other.target.role is not found.target.role
    return near and other.severity >= Severity.WARN


def _suffices(reason: Finding, reasons: Sequence[Finding], found: Finding) -> bool:
    """What is wrong with other machines explains a finding only when it is wrong with all that the finding blames."""
    if found.blamed is None or reason.target == found.target:
        return True
    return reason.target in found.blamed and {*found.blamed} <= {each.target for each in reasons}


def shown_answer(question: Question, answer: Answer) -> str:
    """An answer as evidence: the question and what came back, to be redacted and capped by the caller."""
    return f"{'$ ' if isinstance(question, Command) else ''}{question}\n{_in_lines(answer)}"


def _in_lines(answer: Answer) -> str:
    """As who gave it would print it; a row is a line of JSON."""
    if isinstance(answer, Output):
        return "\n".join(filter(None, (answer.out.strip(), answer.err.strip(), f"(exit {answer.exit})")))
    if isinstance(answer, Rows):
        return "\n".join(json.dumps(dict(row), ensure_ascii=False) for row in answer.rows) or "(no rows)"
    if isinstance(answer, Response):
        return f"HTTP status {answer.status}\n{answer.body.strip()}"
    return answer.state
