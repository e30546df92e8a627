"""Facts about Sidekiq, the job queues that Travis' services keep in redis.

Its keys carry the prefix `sidekiq:` on Enterprise; where nothing is under it, the bare names are read. Sources:
https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/ and https://github.com/sidekiq/sidekiq/wiki/API
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk
from bot.core.look import Look
from bot.core.question import Output, RedisRead
from bot.core.target import Role, Target

RUNBOOK = "https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/"
PREFIX = "sidekiq:"
ARCHIVE = "archive"
NOT_CONFIGURED = "not-configured"  # why redis could not be asked: nobody has told opsbot where it is
MOST_READ = 200  # jobs of one queue that are read to learn whose they are
MOST_NAMES = 100  # queues and processes that are asked about one by one
APART = timedelta(minutes=4)  # samples are taken every five
AGAIN = timedelta(minutes=5)
DEEP = 200  # fewer are worked off before anybody notices
SYNC = re.compile(r"(user_)?sync(\.|$)")  # `sync`, `sync.low`, `user_sync`; not `repo_sync`
LAST_WITH_ARCHIVE = (2, 1, 7)  # the version until which nothing ever reads the archive queue

# Which queues each service works off; who works off any other one is not known here.
_QUEUES = {
    "travis-scheduler": "scheduler",
    "travis-hub": "hub build_restarts build_cancellations",
    "travis-github-sync": "sync sync.low user_sync repo_sync",
    "travis-gatekeeper": "build_requests",
    "travis-tasks": "github_status webhook slack email pusher",
    "travis-live": "pusher-live",
    "travis-logs": "log_parts aggregate archive logs.pusher_forwarding",
}
SERVICES = {queue: service for service, queues in _QUEUES.items() for queue in queues.split()}


@dataclass(frozen=True)
class Sidekiq:
    """What all of Sidekiq looks like: under which prefix, how deep each queue is, and which processes are alive."""

    prefix: str
    depths: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        deepest = sorted(self.depths.items(), key=lambda each: (-each[1], each[0]))
        return "\n".join(f"{name}: {depth}" for name, depth in deepest) or "no queues"


# ---------------------------------------------------------------- facts


@fact
def queue_names(prefix: str) -> Fact[tuple[str, ...]]:
    """The names of all queues that were ever used."""
    question = RedisRead(("SMEMBERS", f"{prefix}queues"))
    return Fact(f"Which queues has Sidekiq{_under(prefix)}?", Role.PLATFORM, question, _members)


@fact
def processes(prefix: str) -> Fact[tuple[str, ...]]:
    """The names under which Sidekiq processes have announced themselves; one that died may still be among them."""
    question = RedisRead(("SMEMBERS", f"{prefix}processes"))
    return Fact(f"Which Sidekiq processes are there{_under(prefix)}?", Role.PLATFORM, question, _members)


@fact
def alive(prefix: str, process: str) -> Fact[bool]:
    """Does this process still beat? Its key ends by itself a minute after it died."""
    question = RedisRead(("EXISTS", f"{prefix}{process}"))
    return Fact(f"Is Sidekiq's process {process} alive?", Role.PLATFORM, question, lambda said: _number(said) > 0)


@fact
def work(prefix: str, process: str) -> Fact[tuple[str, ...]]:
    """What a process has in hand at the moment: a JSON text for each of its busy threads."""
    question = RedisRead(("HVALS", f"{prefix}{process}:workers"))
    return Fact(f"What does Sidekiq's process {process} work on?", Role.PLATFORM, question, _members)


@fact
def depth(prefix: str, name: str) -> Fact[int]:
    """How many jobs wait in a queue."""
    question = RedisRead(("LLEN", f"{prefix}queue:{name}"))
    return Fact(f"depth of Sidekiq's queue {name}", Role.PLATFORM, question, _number, sampled=True)


@fact
def waiting(prefix: str, name: str) -> Fact[tuple[str, ...]]:
    """The jobs that wait in a queue, at most so many: a JSON text each."""
    question = RedisRead(("LRANGE", f"{prefix}queue:{name}", "0", str(MOST_READ - 1)))
    return Fact(f"What waits in Sidekiq's queue {name}?", Role.PLATFORM, question, _members)


@fact
def oldest(prefix: str, name: str) -> Fact[datetime | None]:
    """When the job was put there whose turn is next, None when none waits or it does not say."""
    question = RedisRead(("LRANGE", f"{prefix}queue:{name}", "-1", "-1"))
    return Fact(f"Since when does the next job in Sidekiq's queue {name} wait?", Role.PLATFORM, question, _since)


@fact
def has_entries(prefix: str, name: str) -> Fact[bool]:
    question = RedisRead(("LLEN", f"{prefix}queue:{name}"))
    return Fact(f"Sidekiq's queue {name} has entries", Role.PLATFORM, question, lambda said: _number(said) > 0)


@fact
def set_size(prefix: str, name: str) -> Fact[int]:
    """How many jobs are in `retry`, `schedule` or `dead`."""
    question = RedisRead(("ZCARD", f"{prefix}{name}"))
    return Fact(f"number of Sidekiq jobs in {name}", Role.PLATFORM, question, _number)


def _under(prefix: str) -> str:
    return f" under {prefix}*" if prefix else " without a prefix"


def _said(said: Output) -> str:
    if not said.ok:
        raise Unknown(f"redis answered: {(said.err or said.out).strip()[:200]}")
    return said.out


def _members(said: Output) -> tuple[str, ...]:
    return tuple(sorted(filter(None, (line.strip() for line in _said(said).splitlines()))))


def _since(said: Output) -> datetime | None:
    """Sidekiq 8 counts milliseconds, older ones seconds."""
    found = re.search(r'"enqueued_at":(\d{10})', _said(said))
    return datetime.fromtimestamp(int(found[1]), UTC) if found else None


def _number(said: Output) -> int:
    words = _said(said).removeprefix("(integer) ").strip()
    if not words.isdigit():
        raise Unknown(f"redis answered `{words[:40]}` where a number was asked for")
    return int(words)


# ---------------------------------------------------------------- putting facts together


def doors() -> tuple[Fact[tuple[str, ...]], ...]:
    """What has to be known before anything else: queues and processes, under both prefixes; asked in one round."""
    return tuple(make(under) for make in (queue_names, processes) for under in (PREFIX, ""))


def prefix(look: Look) -> str:
    """The prefix of Sidekiq's keys; raises Unknown in a redis that has never seen Sidekiq."""
    look.together(queue_names(PREFIX), queue_names(""))
    for each in (PREFIX, ""):
        if look(queue_names(each)):
            return each
    raise Unknown("redis holds no queues of Sidekiq, with or without its prefix: is it the redis that Travis uses?")


def depths(look: Look) -> Sidekiq:
    """How deep every queue is."""
    under = prefix(look)
    names = look(queue_names(under))[:MOST_NAMES]
    look.together(*(depth(under, name) for name in names))
    return Sidekiq(under, {name: look(depth(under, name)) for name in names})


def living(look: Look) -> tuple[str, ...]:
    """The processes that are alive."""
    look.together(*doors())
    under = prefix(look)
    named = look(processes(under))[:MOST_NAMES]
    look.together(*(alive(under, each) for each in named))
    return tuple(each for each in named if look(alive(under, each)))


def grown(look: Look, now: Sidekiq, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Those of the deep queues that got deeper in some minutes: before and now; raises Unknown without samples."""
    deep = [name for name in names if now.depths[name] >= DEEP]
    before = {name: look.earlier(depth(now.prefix, name), APART) for name in deep}
    unknown = [name for name, was in before.items() if was is None]
    if unknown:
        raise Unknown(
            f"Sidekiq's queue {unknown[0]} holds {now.depths[unknown[0]]} jobs; whether they get more is known from "
            "two looks five minutes apart",
            again_in=AGAIN,
        )
    return {name: (was, now.depths[name]) for name, was in before.items() if was is not None and now.depths[name] > was}


def sync_depth(now: Sidekiq) -> int:
    """How many accounts wait for their turn to be synced."""
    return sum(depth for name, depth in now.depths.items() if SYNC.match(name))


def numbers_in_hand(look: Look, under: str) -> set[int]:
    """Every number in what Sidekiq's processes sync at the moment: the ids of the users are among them."""
    look.together(*doors())
    named = look(processes(under))[:MOST_NAMES]
    look.together(*(work(under, each) for each in named))
    return {number for each in named for text in look(work(under, each)) for number in _numbers_of_sync(text)}


def numbers_waiting(look: Look, under: str) -> set[int]:
    """The same of the syncs that wait for their turn; raises Unknown when more wait than are read."""
    names = [name for name in look(queue_names(under))[:MOST_NAMES] if SYNC.match(name)]
    look.together(*(waiting(under, name) for name in names))
    texts = [text for name in names for text in look(waiting(under, name))]
    if any(len(look(waiting(under, name))) >= MOST_READ for name in names):
        raise Unknown(f"{MOST_READ} syncs and more wait in Sidekiq, so nobody knows whose they are: ask again later")
    return {number for text in texts for number in _numbers_waiting(text)}


def _numbers_waiting(text: str) -> Iterator[int]:
    try:
        arguments = json.dumps(json.loads(text).get("args"))
    except (ValueError, AttributeError) as error:
        raise Unknown("what waits in Sidekiq cannot be read, so nobody knows whose sync it is") from error
    yield from map(int, re.findall(r"\d+", arguments))


def _numbers_of_sync(text: str) -> Iterator[int]:
    try:
        job = json.loads(text)
        payload = json.loads(job["payload"]) if isinstance(job["payload"], str) else job["payload"]
        queue, arguments = str(job.get("queue", "")), json.dumps(payload.get("args"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown("what Sidekiq works on cannot be read, so nobody knows whose sync runs") from error
    if SYNC.match(queue):
        yield from map(int, re.findall(r"\d+", arguments))


def has_archive(version: str) -> bool:
    """Is it a version whose archive queue nothing reads, so that it may be cleared?"""
    parts = re.findall(r"\d+", version)
    return tuple(map(int, parts)) <= LAST_WITH_ARCHIVE if len(parts) >= 3 else version.startswith(("1.", "2.0"))


# ---------------------------------------------------------------- fixes


def clear_archive(platform: Target, container: str, under: str) -> Fix:
    """What the vendor does in the console for versions that do not archive logs: the list goes, all of it."""
    key = f"{under}queue:{ARCHIVE}"
    return Fix(
        id="sidekiq.clear-archive",
        title="Clear Sidekiq's archive queue",
        target=platform,
        steps=(
            Change(
                f"Delete the list {key}",
                sh("docker", "exec", container, "redis-cli", "DEL", key).sudo(),
                needed=has_entries(under, ARCHIVE),
            ),
        ),
        risk=Risk.DESTROYS,
        undo="it cannot be undone; nothing reads these jobs in this version",
    )
