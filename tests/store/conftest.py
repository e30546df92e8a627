"""A migrated database, and opsbot's adapters on it."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from bot.adapters.durable import Durable
from bot.adapters.store import Audit, Outbox, Pool, Store
from bot.core.approval import Approval, Ask, Kind
from bot.core.people import Actor, Place
from bot.core.run import Order, Verb
from bot.core.shown import Redactor, Shown
from tests.rigs import postgres

KEY = b"an audit key of thirty-two bytes"
ANA, BOB, EVE = Actor("T1", "UANA"), Actor("T1", "UBOB"), Actor("T1", "UEVE")


@pytest.fixture
def migrated(postgres_server: postgres.Server) -> Iterator[str]:
    """A database with our tables, all empty."""
    with postgres_server.migrated() as dsn:
        yield dsn


@pytest.fixture
def pool(migrated: str) -> Iterator[Pool]:
    with closing(Pool(migrated)) as pool:
        yield pool


@pytest.fixture
def durable(pool: Pool) -> Durable:
    return Durable(pool)


@pytest.fixture
def audit(pool: Pool) -> Audit:
    return Audit(pool, KEY)


@pytest.fixture
def store(audit: Audit) -> Store:
    return Store(audit, approvals_channel="CAPPROVALS")


@pytest.fixture
def outbox(pool: Pool) -> Iterator[Outbox]:
    with closing(Outbox(pool)) as outbox:
        yield outbox


@pytest.fixture
def shown() -> Callable[[object], Shown]:
    return Redactor().show


@pytest.fixture
def begin(pool: Pool, store: Store) -> Callable[..., int]:
    """Starts a run of Ana's; by default in a channel, not in a thread."""

    def begin(place: Place | None = Place("C1"), actor: Actor = ANA) -> int:  # noqa: B008 (frozen)
        with pool.connection() as tx:
            return store.start(tx, Order(Verb.DIAGNOSE, "builds not starting", "prod", (), "", actor, place))

    return begin


@pytest.fixture
def put(pool: Pool, store: Store) -> Callable[..., Approval]:
    """Puts a question to people, with the plan it is about."""

    def put(run: int, no: int = 1, kind: Kind = Kind.PLAN, needs: int = 1, minutes: float = 30) -> Approval:
        until = datetime.now(UTC) + timedelta(minutes=minutes)
        with pool.connection() as tx:
            store.keep_plan(tx, run, no, f"digest-{no}", {"fixes": []})
            ask = Ask(run, no, kind, f"digest-{no}", needs, until, "Restart worker-1", "the whole plan", "rule 1")
            return store.put(tx, ask, ANA)

    return put


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is true; fails after a while."""

    def eventually(true: Callable[[], bool], within: float = 20.0) -> None:
        deadline = time.monotonic() + within
        while not true():
            assert time.monotonic() < deadline, f"not within {within} s"
            time.sleep(0.01)

    return eventually
