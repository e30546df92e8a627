"""Registering handlers: three decorators that leave the function an ordinary function.

`@diagnosis` yields findings, `@action` makes a plan of one fix by name, `@job` records its steps one by one. The file
is found by scanning a folder; nothing else has to be edited.
"""

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bot.core.errors import Permanent
from bot.core.finding import Finding
from bot.core.fix import Fix, Risk
from bot.core.look import Look
from bot.core.taking import Taking
from bot.core.target import Role, Target

DiagnosisFunction = Callable[[Look, Target], Iterator[Finding]]
ActionFunction = Callable[[Look, Target], Fix] | Callable[[Look, Target, str], Fix]


class Steps(Protocol):
    """What a job gets: named steps whose results are kept, so that a restart repeats none that has finished."""

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        """The recorded result, or that of `do()` (JSON) recorded now."""
        ...

    def say(self, text: str) -> None: ...

    def masked(self, text: str) -> tuple[str, Mapping[str, int]]:
        """The text without secrets, and how often which kind was masked: all that a step may record of a log."""
        ...

    def attach(self, name: str, files: Mapping[str, str], says: str) -> None:
        """One archive `name`.tar.gz of these files, path to text, for whoever ordered the job."""
        ...

    def findings(self) -> Sequence[str]:
        """What all diagnoses together see now, and what they could not tell, a text each."""
        ...


class BackupSteps(Steps, Protocol):
    """What a job gets that takes or proves backups."""

    def backup(self, what: str) -> Taking:
        """The backup that this job takes of these things (`all`, `data`, …); raises Refused where none can be taken."""
        ...

    def verify_backup(self) -> str:
        """Read the backup that the job is about back from the store and compare; the sentence that ends the job."""
        ...


JobFunction = Callable[[Any, Look], str]  # its first argument is Steps, or BackupSteps


@dataclass(frozen=True)
class Diagnosis:
    """A question about every machine of a role; `of` is the situation it belongs to, `unless` the causes that explain
    it away (`platform.disk-full@BROKEN`: only where it is that bad). With `once` it is about the installation as a
    whole (its database, its broker), and runs for the role's first machine alone. `also` names other situations that
    it belongs to. One that `compares` uses `look.earlier`, and is looked at by itself every few minutes. `causes` are
    those that it works out, so that nobody finds them as words in its source.
    """

    name: str
    of: str
    each: Role
    says: str
    look: DiagnosisFunction
    unless: tuple[str, ...] = ()
    runbook: str = ""
    once: bool = False
    also: tuple[str, ...] = ()
    compares: bool = False
    causes: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        return (self.of, *self.also)

    def explained_by(self, cause: str, severity: str = "") -> bool:
        names = (cause, f"{cause}@{severity}")
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self.unless)


@dataclass(frozen=True)
class Action:
    """A fix that can be ordered by name: `restart worker-2 because …`. `proof` names the diagnosis that must be silent
    after. `takes` says what it is about besides a machine, such as a login: its function gets that word, too. `makes`
    is the id of that fix, so that a policy knows the action before anything was looked at; empty is its own name.
    """

    name: str
    each: Role
    says: str
    risk: Risk
    plan: ActionFunction
    proof: str = ""
    takes: str = ""
    makes: str = ""

    @property
    def fix_id(self) -> str:
        return self.makes or self.name

    def fix(self, look: Look, machine: Target, argument: str = "") -> Fix:
        """The fix as it would be now; raises Refused, Unknown, or asks. Permanent when it is not what was declared."""
        more = (argument,) if self.takes else ()
        made = self.plan(look, machine, *more)
        if (made.id, made.risk) != (self.fix_id, self.risk):
            raise Permanent(
                f"the action `{self.name}` is declared to make `{self.fix_id}` with the risk {self.risk.value}, but "
                f"made `{made.id}` with {made.risk.value}: a policy would judge another fix than the one that runs"
            )
        return made


@dataclass(frozen=True)
class Job:
    """Steps recorded one by one; returns the sentence that ends the run. What changes machines is a fix, with its
    approval, and no job. `takes` says what it is about, such as the number of a backup; it is empty where nobody said.
    """

    name: str
    says: str
    work: JobFunction
    takes: str = ""


Handler = Diagnosis | Action | Job


@dataclass
class Catalogue:
    """Every handler by name, and the situations (groups) that diagnoses belong to."""

    diagnoses: dict[str, Diagnosis] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def add(self, handler: Handler, file: str) -> None:
        """Add one; a name used twice stops the start, since chat could not tell the two apart."""
        if handler.name in self.files:
            raise Permanent(
                f"two handlers are called `{handler.name}`: one in {self.files[handler.name]}, one in {file}; "
                "rename one of them"
            )
        if handler.name in self.situations() or (isinstance(handler, Diagnosis) and self.files.keys() & handler.groups):
            raise Permanent(f"`{handler.name}` in {file} and a situation share one name; rename one of them")
        self.files[handler.name] = file
        self._shelf(handler)[handler.name] = handler

    def _shelf(self, handler: Handler) -> dict[str, Any]:
        shelves: dict[type, dict[str, Any]] = {Diagnosis: self.diagnoses, Action: self.actions, Job: self.jobs}
        return shelves[type(handler)]

    def situations(self) -> dict[str, tuple[Diagnosis, ...]]:
        groups: dict[str, tuple[Diagnosis, ...]] = {}
        for each in self.diagnoses.values():
            for group in each.groups:
                groups[group] = (*groups.get(group, ()), each)
        return groups

    def about(self, subject: str) -> tuple[Diagnosis, ...]:
        """The diagnoses of a situation, or the one of that name; none when nothing is called so."""
        if subject in self.diagnoses:
            return (self.diagnoses[subject],)
        return self.situations().get(subject, ())


PENDING: list[tuple[Handler, str]] = []  # filled while a handler file is imported, emptied by the scan


def diagnosis(
    name: str,
    *,
    of: str,
    each: Role,
    says: str,
    unless: tuple[str, ...] = (),
    runbook: str = "",
    once: bool = False,
    also: tuple[str, ...] = (),
    compares: bool = False,
    causes: tuple[str, ...] = (),
) -> Callable[[DiagnosisFunction], DiagnosisFunction]:
    """Declare a diagnosis, run for each machine of the role, or once for all; it yields findings and may only look."""

    def register(look: DiagnosisFunction) -> DiagnosisFunction:
        made = Diagnosis(name, of, each, says, look, unless, runbook, once, also, compares, causes)
        PENDING.append((made, look.__module__))
        return look

    return register


def action(
    name: str, *, each: Role, says: str, risk: Risk, makes: str, proof: str = "", takes: str = ""
) -> Callable[[ActionFunction], ActionFunction]:
    """Declare a fix that can be ordered by name; it goes through the same approval, locks and proof as an offered
    one. `makes` is the id of the fix, which a policy's rules go by.
    """

    def register(plan: ActionFunction) -> ActionFunction:
        PENDING.append((Action(name, each, says, risk, plan, proof, takes, makes), plan.__module__))
        return plan

    return register


def job(name: str, *, says: str, takes: str = "") -> Callable[[JobFunction], JobFunction]:
    """Declare a job: steps recorded one by one, carried on by another process when this one dies."""

    def register(work: JobFunction) -> JobFunction:
        PENDING.append((Job(name, says, work, takes), work.__module__))
        return work

    return register
