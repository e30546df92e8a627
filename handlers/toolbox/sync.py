"""Facts about accounts that are being synced with GitHub, and the fix for those that say so for ever.

`users.is_syncing` is set when a sync is asked for and taken back when it ends; when the sync dies in between it stays,
and every further sync is refused. No column tells since when: only two looks do. `is_syncing` may be NULL, which is
false. Source: https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Step, Wait, at_least
from bot.core.look import Look
from bot.core.question import Rows
from bot.core.sql import Query, Statement
from bot.core.target import Role, Target
from handlers.toolbox import sidekiq

RUNBOOK = (
    "https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/#user-accounts-are-stuck-in-syncing-state"
)
APART = timedelta(minutes=10)  # most syncs end within minutes; what has not moved for so long is worth a second look
SHALLOW = 10  # fewer jobs than this wait for a moment only
BATCH = 1000  # users in one statement
MOST_SYNCED = 10  # users whom opsbot syncs again itself; the others may press the button again, or wait for tonight
SYNCED_WITHIN = timedelta(minutes=15)
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,38}")  # what may stand in --logins: no comma, no dash at the start

SYNCING = "SELECT id, login, synced_at FROM users WHERE is_syncing ORDER BY id LIMIT 5000"
MEMBERS = """
SELECT o.login AS organization, u.id, u.login, u.synced_at
  FROM users u JOIN memberships m ON m.user_id = u.id JOIN organizations o ON o.id = m.organization_id
 WHERE u.is_syncing ORDER BY o.login, u.id LIMIT 5000
"""
CLEAR = "UPDATE users SET is_syncing = false WHERE is_syncing AND id = ANY(%s)"


@dataclass(frozen=True)
class User:
    """One user who is being synced; `synced_at` is when the last sync ended, empty when none ever has."""

    id: int
    login: str
    synced_at: str
    organization: str = ""

    @property
    def as_seen(self) -> str:
        """Who it is and when the last sync ended, one word: whoever sees another one later knows that a sync has ended
        since, and never takes an older one for it.
        """
        return f"{self.id}@{self.synced_at.replace(' ', 'T')}"

    @property
    def last(self) -> str:
        """When the last sync ended, as people read it."""
        return f"{self.synced_at.replace('T', ' ')[:16]} UTC" if self.synced_at else "never"


# ---------------------------------------------------------------- facts


@fact
def syncing() -> Fact[tuple[User, ...]]:
    """The users who are being synced, by the database's word."""
    return Fact("Who is being synced?", Role.PLATFORM, Query(SYNCING), _users, sampled=True)


@fact
def members() -> Fact[tuple[User, ...]]:
    """The members of organizations who are being synced, once for each of their organizations."""
    return Fact("Which members of organizations are being synced?", Role.PLATFORM, Query(MEMBERS), _users, sampled=True)


@fact
def user(login: str) -> Fact[User | None]:
    """The user of that login, whatever its case; None when there is none."""
    text = "SELECT id, login, synced_at FROM users WHERE lower(login) = lower(%s) ORDER BY id LIMIT 2"
    return Fact(f"Who is {login}?", Role.PLATFORM, Query(text, (login,)), _one_user)


def _one_user(said: Rows) -> User | None:
    found = _users(said)
    if len(found) > 1:
        raise Unknown(f"{len(found)} users are called {found[0].login}")
    return found[0] if found else None


@fact
def still_syncing(ids: str) -> Fact[bool]:
    """Does any of these users (comma-separated ids) still say so?"""
    question = Query("SELECT count(*) AS users FROM users WHERE is_syncing AND id = ANY(%s)", (_numbers(ids),))
    return Fact("some of them are still marked as syncing", Role.PLATFORM, question, lambda said: _count(said) > 0)


@fact
def ended_since(seen: str) -> Fact[int]:
    """How many of these users (comma-separated, as they were seen) have had a sync come to its end since."""
    was = frozenset(seen.split(","))
    ids = tuple(int(each.partition("@")[0]) for each in seen.split(","))
    question = Query("SELECT id, login, synced_at FROM users WHERE id = ANY(%s) ORDER BY id", (ids,))

    def count(said: Rows) -> int:
        return sum(bool(user.synced_at) and user.as_seen not in was for user in _users(said))

    return Fact("number of these users whose sync has ended since", Role.PLATFORM, question, count)


@fact
def marked(ids: str) -> Fact[str]:
    """The ids, of these, that are marked as syncing: what a way back needs."""
    question = Query("SELECT id FROM users WHERE is_syncing AND id = ANY(%s) ORDER BY id", (_numbers(ids),))
    return Fact("these users who are marked as syncing", Role.PLATFORM, question, _ids)


def _numbers(ids: str) -> tuple[int, ...]:
    return tuple(int(each) for each in ids.split(","))


def _users(said: Rows) -> tuple[User, ...]:
    return tuple(
        User(_id(row["id"]), str(row["login"] or ""), str(row["synced_at"] or ""), str(row.get("organization") or ""))
        for row in said.rows
    )


def _id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unknown(f"the database answered `{str(value)[:40]}` where a user's id was asked for")
    return value


def _count(said: Rows) -> int:
    return _id(said.rows[0]["users"])


def _ids(said: Rows) -> str:
    return ", ".join(str(row["id"]) for row in said.rows)


# ---------------------------------------------------------------- putting facts together


def stuck(look: Look, fact: Callable[[], Fact[tuple[User, ...]]], now: Sequence[User]) -> tuple[User, ...]:
    """Those who were being synced ten minutes ago as well, with no sync ended in between, and whom Sidekiq does not
    have in hand; raises Unknown when nobody has looked so early.
    """
    before = look.earlier(fact(), APART)
    if before is None:
        raise Unknown(
            f"{len({user.id for user in now})} users are being synced; whether they are stuck is known from two looks "
            "ten minutes apart",
            again_in=APART + timedelta(minutes=1),
        )
    still = tuple(user for user in now if user in before)
    if not still:
        return ()
    in_hand = sidekiq.numbers_in_hand(look, sidekiq.prefix(look))
    return tuple(user for user in still if user.id not in in_hand)


def held(look: Look, user: User) -> bool:
    """Does Sidekiq have a sync of this user in hand, or waiting? Then the mark is right, and nobody may take it."""
    under = sidekiq.prefix(look)
    return user.id in sidekiq.numbers_in_hand(look, under) | sidekiq.numbers_waiting(look, under)


# ---------------------------------------------------------------- fixes


def release(platform: Target, users: Sequence[User], version: str) -> Fix:
    """Takes the mark from exactly these users, and syncs them again where the platform has a command for it."""
    some = _each_once(users)
    ids = tuple(user.id for user in some)
    named = ",".join(map(str, ids))
    again = _ordered(some, version)
    return Fix(
        id="users.release",
        title=f"Release {len(ids)} stuck {'user' if len(ids) == 1 else 'users'}{', then sync again' if again else ''}",
        target=platform,
        steps=(*_cleared(ids), *_again(again)),
        risk=Risk.DATA,
        saves=(marked(named),),
        undo=f"UPDATE users SET is_syncing = true WHERE id IN ({named})",
        items=(*map(str, ids), *(word for user in again for word in (user.login, user.as_seen))),
    )


def _each_once(users: Sequence[User]) -> list[User]:
    return [user for _, user in sorted({user.id: user for user in users}.items())]


def _ordered(some: Sequence[User], version: str) -> list[User]:
    """Whom opsbot can sync again itself: on 3.x nobody, since github-sync has a pod of its own there."""
    able = [user for user in some if _LOGIN.fullmatch(user.login)][:MOST_SYNCED]
    return able if version.startswith("2.") else []


def afterwards(users: Sequence[User], version: str) -> str:
    """What a person does for those whom opsbot releases and does not sync again; empty when there are none."""
    some = _each_once(users)
    synced = _ordered(some, version)
    left = [user for user in some if user not in synced]
    if not left:
        return ""
    whom = "They" if len(left) == len(some) else f"The {len(left)} others"
    named = next((user.login for user in left if _LOGIN.fullmatch(user.login)), "")
    order = f"`resync {named} because the mark is gone`" if version.startswith("2.") else in_its_pod(named)
    return f"{whom} can press `Sync account` in Travis then{f'; or, one by one, {order}' if named else ''}."


def in_its_pod(login: str) -> str:
    """How one user is synced on 3.x; the login is one that `sync_user` would take."""
    order = f"kubectl -n NAMESPACE exec -i POD -- bundle exec bin/schedule users {login}"
    return f"`{order}` with a pod of travis-github-sync"


def _cleared(ids: tuple[int, ...]) -> Iterator[Change]:
    """One change for so many users, each with its exact ids."""
    for at in range(0, len(ids), BATCH):
        batch = ids[at : at + BATCH]
        whom = "them" if len(ids) <= BATCH else f"{len(batch)} of them, from {batch[0]} to {batch[-1]}"
        still = still_syncing(",".join(map(str, batch)))
        yield Change(f"Take the mark `is_syncing` from {whom}", clear(batch), needed=still)


def sync_again(platform: Target, user: User, is_marked: bool) -> Fix:
    """Sync one user, whose mark is taken away first where it stands: while it does, every sync is refused."""
    one = str(user.id)
    clear_first = Change("Take the mark `is_syncing` away", clear((user.id,)), needed=still_syncing(one))
    return Fix(
        id="users.resync",
        title=f"Sync {user.login} with GitHub again",
        target=platform,
        steps=(*((clear_first,) if is_marked else ()), *_again([user])),
        risk=Risk.DATA,
        saves=(marked(one),),
        undo="nothing to undo: a sync reads from GitHub",
        items=(one, user.login, user.as_seen),
    )


def _again(users: Sequence[User]) -> tuple[Step, ...]:
    """One order for each user, so that sudo can be told exactly what may be ordered. One of them has to come to its
    end: of the others GitHub may refuse the token.
    """
    if not users:
        return ()
    orders = (Change(f"Sync {user.login} again", sync_user(user.login)) for user in users)
    seen = ",".join(user.as_seen for user in users)
    return (*orders, Wait(ended_since(seen), at_least(1), SYNCED_WITHIN))


def clear(ids: tuple[int, ...]) -> Statement:
    """Without ids there is no such statement: it would be about everybody."""
    if not ids or len(ids) > BATCH:
        raise ValueError(f"the mark is taken from 1 to {BATCH} users at a time, not from {len(ids)}")
    return Statement(CLEAR, (ids,), rows=len(ids))


def sync_user(login: str) -> Command:
    """Sync exactly this user. The platform's command syncs every user when it is given none: then there is none.

    Two ASCII hyphens: the vendor's page has a dash there that the command does not understand.
    """
    if not _LOGIN.fullmatch(login):
        raise ValueError(f"sync_users needs the login it is about, and {login!r} is none")
    return sh("replicated", "admin", "--no-tty", "sync_users", f"--logins={login}").sudo()
