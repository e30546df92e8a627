"""Answers queries and executes statements, whichever way leads to an installation's databases."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Event as Flag

import psycopg

from bot.adapters.database import inside, trouble
from bot.adapters.database.location import Location, Way, address
from bot.adapters.database.session import Session, connected, unanswered
from bot.core.ports import Inside, Machines, NotLed, NotSent, Unreached
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.sql import Query, Statement
from bot.core.target import Target

NOT_CONFIGURED = "not-configured"
Locations = Mapping[tuple[str, str], Location]  # by installation, and `main` or `logs`


class Database:
    """An `Asker` of queries, and what executes statements."""

    def __init__(self, locations: Locations, machines: Machines, containers: Inside) -> None:
        self._locations = locations
        self._machines = machines
        self._containers = containers

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> list[Answer | Unanswered]:
        """One answer per query; those for the same database go over one connection."""
        answers: dict[int, Answer | Unanswered] = {}
        for name, numbers in _by_database(questions).items():
            queries = [each for no in numbers if isinstance(each := questions[no], Query)]
            answers.update(zip(numbers, self._ask(target, name, queries, abort), strict=True))
        return [answers.get(no) or _no_query(question) for no, question in enumerate(questions)]

    def identity(self, target: Target) -> str:
        return self._machines.identity(target)

    def execute(self, target: Target, statement: Statement, within: timedelta, abort: Flag) -> Output:
        """Commit a statement once; raises NotSent when it surely was not tried, exit None when nobody knows."""
        location = self._location(target, statement.database)
        if location is None:
            raise NotSent(_unknown(target, statement.database))
        if abort.is_set():
            raise NotSent("it was stopped before anything was sent")
        if location.way is Way.CONTAINER:
            return inside.change(self._containers, target, location, statement, within, abort)
        if not location.write_dsn:
            raise NotSent(
                f"opsbot is not set up to write to the {statement.database} database of {target.installation}"
            )
        try:
            with self._session(target, location, location.write_dsn) as session:
                return session.change(statement, within, abort)
        except Unreached as why:
            raise NotSent(str(why)) from why
        except (NotLed, psycopg.Error) as error:
            raise NotSent(unanswered(location.shown(location.write_dsn, target), error).why) from error

    def _ask(self, target: Target, name: str, queries: Sequence[Query], abort: Flag) -> list[Answer | Unanswered]:
        location = self._location(target, name)
        if location is None or (location.way is not Way.CONTAINER and not location.read_dsn):
            return [Unanswered(_unknown(target, name), NOT_CONFIGURED)] * len(queries)
        if location.way is Way.CONTAINER:
            return inside.ask(self._containers, target, location, queries, abort)
        return self._over_a_connection(target, location, queries, abort)

    def _over_a_connection(
        self, target: Target, location: Location, queries: Sequence[Query], abort: Flag
    ) -> list[Answer | Unanswered]:
        """Queries only read, so those that a lost connection left open are asked again, once."""
        answers: list[Answer | Unanswered] = []
        where = location.shown(location.read_dsn, target)
        for _ in range(2):
            left = queries[len(answers) :]
            try:
                with self._session(target, location, location.read_dsn) as session:
                    answers += list(_until_lost(session, left, abort))
            except Unreached as why:
                return [*answers, *(Unanswered(str(why), why.cause) for _ in left)]
            except (NotLed, psycopg.Error) as error:
                return [*answers, *(unanswered(where, error) for _ in left)]
            if len(answers) == len(queries):
                break
        lost = Unanswered(f"The database {where} lost the connection twice.", trouble.AWAY)
        return [*answers, *(lost for _ in queries[len(answers) :])]

    @contextmanager
    def _session(self, target: Target, location: Location, dsn: str) -> Iterator[Session]:
        where = location.shown(dsn, target)
        if location.way is Way.DIRECT:
            with connected(dsn, where) as session:
                yield session
            return
        with self._machines.forward(target, *address(dsn)) as port, connected(dsn, where, port) as session:
            yield session

    def _location(self, target: Target, name: str) -> Location | None:
        return self._locations.get((target.installation, name)) or self._locations.get((target.installation, "main"))


def _until_lost(session: Session, queries: Sequence[Query], abort: Flag) -> Iterator[Answer | Unanswered]:
    for query in queries:
        said = session.answer(query, abort)
        if isinstance(said, Unanswered) and said.cause == trouble.AWAY and session.connection.broken:
            return
        yield said


def _by_database(questions: Sequence[Question]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for no, question in enumerate(questions):
        if isinstance(question, Query):
            found.setdefault(question.database, []).append(no)
    return found


def _unknown(target: Target, name: str) -> str:
    return f"opsbot is not set up to ask the {name} database of {target.installation}"


def _no_query(question: Question) -> Unanswered:
    return Unanswered(f"`{question}` is no query.", NOT_CONFIGURED)
