"""Redis on the platform, as Sidekiq and `redis-cli` see it: what is in it, and whether it answers.

For faults and tests:

    installation.redis.push("sync", 250, ago=900)       # so many jobs wait in this Sidekiq queue
    installation.redis.sets["sidekiq:processes"].clear()    # no Sidekiq process is alive
    installation.redis.settings["maxmemory-policy"] = "allkeys-lru"
    installation.redis.facts["persistence"]["rdb_last_bgsave_status"] = "err"
    installation.redis.running = False                  # connections to it are refused
    installation.redis.refuses = "LOADING Redis is loading the dataset in memory"   # its answer to everything
"""

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bot.sandbox.installation.timeline import Timeline

PORT = 6379
NAMESPACE = "sidekiq"  # the prefix of every key on enterprise branches
VERSION = "3.2.12"
QUEUES = (
    "sync.low", "archive", "repo_sync", "webhook", "keen_events", "scheduler", "github_status", "build_requests",
    "build_restarts", "hub", "slack", "pusher", "pusher-live", "build_cancellations", "sync", "user_sync",
    "logs.pusher_forwarding", "aggregate", "log_parts", "maintenance", "purge_log", "timing_info",
)  # fmt: skip
PROCESSES = ("hub", "scheduler", "tasks", "github-sync", "logs", "gatekeeper")
WRITES = {
    "DEL", "SET", "LPUSH", "RPUSH", "LPOP", "RPOP", "LREM", "SADD", "SREM", "ZADD", "ZREM", "HSET", "HDEL", "EXPIRE",
    "FLUSHALL", "FLUSHDB", "RENAME",
}  # fmt: skip
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
Said = str | int | None | Sequence[str]


class RedisError(Exception):
    """What Redis says instead of an answer; `redis-cli` prints it, and ends with 0."""


@dataclass(eq=False)
class Redis:
    timeline: Timeline
    running: bool = True
    refuses: str = ""
    password: str = ""
    strings: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    sets: dict[str, set[str]] = field(default_factory=dict)
    zsets: dict[str, dict[str, float]] = field(default_factory=dict)
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Sidekiq is alive, and nothing waits."""
        self.running, self.refuses = True, ""
        for kept in (self.strings, self.lists, self.sets, self.zsets, self.hashes):
            kept.clear()
        self.sets[f"{NAMESPACE}:queues"] = set(QUEUES)
        self.sets[f"{NAMESPACE}:processes"] = set()
        for name in PROCESSES:
            self.start_sidekiq(name)
        self.settings = {
            "maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "no", "save": "900 1 300 10 60 10000",
            "timeout": "0", "databases": "16", "dir": "/data",
        }  # fmt: skip
        self.facts = {
            "server": {"redis_version": VERSION, "redis_mode": "standalone", "os": "Linux 4.15.0 x86_64"},
            "clients": {"connected_clients": "41", "blocked_clients": "18"},
            "memory": {"used_memory": "9043968", "used_memory_human": "8.62M", "maxmemory": "0"},
            "persistence": {
                "loading": "0", "rdb_last_bgsave_status": "ok", "aof_enabled": "0", "aof_last_write_status": "ok",
            },
            "stats": {"rejected_connections": "0", "evicted_keys": "0"},
            "replication": {"role": "master", "connected_slaves": "0", "master_repl_offset": "0"},
        }  # fmt: skip

    # what Sidekiq does

    def start_sidekiq(self, name: str) -> None:
        """A Sidekiq process comes up and registers itself."""
        identity = f"te-main:{self._pid(name)}:{name}"
        self.sets.setdefault(f"{NAMESPACE}:processes", set()).add(identity)
        self.hashes[f"{NAMESPACE}:{identity}"] = {
            "busy": "0", "beat": str(self.timeline.date().timestamp()),
            "info": json.dumps({"hostname": "te-main", "tag": name, "concurrency": 20}),
        }  # fmt: skip

    def stop_sidekiq(self, name: str) -> None:
        """A Sidekiq process ends; its entry goes with it."""
        identity = f"te-main:{self._pid(name)}:{name}"
        self.sets.get(f"{NAMESPACE}:processes", set()).discard(identity)
        self.hashes.pop(f"{NAMESPACE}:{identity}", None)

    def alive(self, name: str) -> bool:
        return f"te-main:{self._pid(name)}:{name}" in self.sets.get(f"{NAMESPACE}:processes", set())

    def _pid(self, name: str) -> int:
        return 400 + 17 * sum(name.encode()) % 7919

    def push(
        self, queue: str, count: int = 1, ago: float = 0.0, worker: str = "Travis::Async::Sidekiq::Worker"
    ) -> None:
        """So many jobs were put into a Sidekiq queue so many seconds ago."""
        at = self.timeline.date().timestamp() - ago
        job = {"class": worker, "args": [], "retry": 4, "queue": queue, "created_at": at, "enqueued_at": at}
        self.sets.setdefault(f"{NAMESPACE}:queues", set()).add(queue)
        self.lists.setdefault(f"{NAMESPACE}:queue:{queue}", [])[:0] = [
            json.dumps(job | {"jid": f"{queue}-{no:024x}"[-24:]}) for no in range(count)
        ]

    def depth(self, queue: str) -> int:
        return len(self.lists.get(f"{NAMESPACE}:queue:{queue}", ()))

    def work_off(self, queue: str) -> None:
        """What waited in a Sidekiq queue is done."""
        self.lists.pop(f"{NAMESPACE}:queue:{queue}", None)

    # what clients do

    def command(self, words: Sequence[str]) -> Said:
        """The answer to one command; raises RedisError with what Redis says instead, KeyError for what is not here."""
        if self.refuses:
            raise RedisError(self.refuses)
        name, *arguments = words
        does = _COMMANDS[name.upper()]
        try:
            return does(self, arguments)
        except (IndexError, TypeError):
            raise RedisError(f"ERR wrong number of arguments for '{name.lower()}' command") from None

    def kinds(self) -> Mapping[str, Mapping[str, object]]:
        return {"string": self.strings, "list": self.lists, "set": self.sets, "zset": self.zsets, "hash": self.hashes}

    def keys(self) -> list[str]:
        return [key for kept in self.kinds().values() for key, value in kept.items() if value]

    def kind(self, key: str) -> str:
        return next((kind for kind, kept in self.kinds().items() if kept.get(key)), "none")

    def only(self, key: str, kind: str) -> str:
        if self.kind(key) not in (kind, "none"):
            raise RedisError(WRONG_TYPE)
        return key


def _list(redis: Redis, key: str) -> list[str]:
    return redis.lists.setdefault(redis.only(key, "list"), [])


def _set(redis: Redis, key: str) -> set[str]:
    return redis.sets.setdefault(redis.only(key, "set"), set())


def _zset(redis: Redis, key: str) -> dict[str, float]:
    return redis.zsets.setdefault(redis.only(key, "zset"), {})


def _hash(redis: Redis, key: str) -> dict[str, str]:
    return redis.hashes.setdefault(redis.only(key, "hash"), {})


def _ordered(redis: Redis, key: str) -> list[str]:
    found = _zset(redis, key)
    return sorted(found, key=lambda member: (found[member], member))


def _slice(items: Sequence[str], first: str, last: str) -> Sequence[str]:
    start, end = int(first), int(last)
    start = max(start + len(items), 0) if start < 0 else start
    end = end + len(items) if end < 0 else end
    return items[start : end + 1]


def _scored(redis: Redis, key: str, first: str, last: str, *more: str) -> Sequence[str]:
    found = _zset(redis, key)
    members = _slice(_ordered(redis, key), first, last)
    if "WITHSCORES" not in map(str.upper, more):
        return members
    return [text for member in members for text in (member, f"{found[member]:.17g}")]


def _within(redis: Redis, key: str, least: str, most: str) -> list[str]:
    found = _zset(redis, key)
    return [member for member in _ordered(redis, key) if float(least) <= found[member] <= float(most)]


def _delete(redis: Redis, *keys: str) -> int:
    count = sum(redis.kind(key) != "none" for key in keys)
    for kept in (redis.strings, redis.lists, redis.sets, redis.zsets, redis.hashes):
        for key in keys:
            kept.pop(key, None)
    return count


def _push(redis: Redis, key: str, *values: str, front: bool) -> int:
    found = _list(redis, key)
    found[:] = [*reversed(values), *found] if front else [*found, *values]
    return len(found)


def _add(redis: Redis, key: str, *members: str) -> int:
    before = len(_set(redis, key))
    _set(redis, key).update(members)
    return len(_set(redis, key)) - before


def _remove(redis: Redis, key: str, *members: str) -> int:
    before = len(_set(redis, key))
    _set(redis, key).difference_update(members)
    return before - len(_set(redis, key))


def _zadd(redis: Redis, key: str, score: str, member: str) -> int:
    new = member not in _zset(redis, key)
    _zset(redis, key)[member] = float(score)
    return int(new)


def _put(redis: Redis, key: str, value: str) -> str:
    redis.strings[key] = value
    return "OK"


def _info(redis: Redis, section: str = "") -> str:
    keyspace = {"db0": f"keys={len(redis.keys())},expires=0,avg_ttl=0"}
    sections = {**redis.facts, "keyspace": keyspace}
    chosen = {name: said for name, said in sections.items() if section.lower() in ("", "all", "default", name)}
    return "\n".join(
        f"# {name.capitalize()}\r\n" + "".join(f"{key}:{value}\r\n" for key, value in said.items())
        for name, said in chosen.items()
    )


def _role(redis: Redis) -> Sequence[str]:
    said = redis.facts["replication"]
    if said["role"] == "master":
        return ["master", said["master_repl_offset"]]
    state = "connected" if said.get("master_link_status") == "up" else "connect"
    return ["slave", said["master_host"], said["master_port"], state, said["master_repl_offset"]]


def _config(redis: Redis, verb: str, name: str) -> Sequence[str]:
    if verb.upper() != "GET":
        raise RedisError("ERR CONFIG subcommand must be one of GET, SET, RESETSTAT, REWRITE")
    return [text for key, value in redis.settings.items() if fnmatch.fnmatch(key, name) for text in (key, value)]


_COMMANDS: dict[str, Callable[[Redis, list[str]], Said]] = {
    "PING": lambda _r, _a: "PONG",
    "ECHO": lambda _r, a: a[0],
    "TIME": lambda r, _a: [str(int(r.timeline.date().timestamp())), "0"],
    "DBSIZE": lambda r, _a: len(r.keys()),
    "INFO": lambda r, a: _info(r, *a),
    "ROLE": lambda r, _a: _role(r),
    "CONFIG": lambda r, a: _config(r, *a),
    "KEYS": lambda r, a: sorted(key for key in r.keys() if fnmatch.fnmatchcase(key, a[0])),  # noqa: SIM118
    "TYPE": lambda r, a: r.kind(a[0]),
    "EXISTS": lambda r, a: sum(r.kind(key) != "none" for key in a),
    "DEL": lambda r, a: _delete(r, *a),
    "GET": lambda r, a: r.strings.get(r.only(a[0], "string")),
    "SET": lambda r, a: _put(r, a[0], a[1]),
    "LLEN": lambda r, a: len(_list(r, a[0])),
    "LRANGE": lambda r, a: _slice(_list(r, a[0]), a[1], a[2]),
    "LINDEX": lambda r, a: next(iter(_slice(_list(r, a[0]), a[1], a[1])), None),
    "LPUSH": lambda r, a: _push(r, *a, front=True),
    "RPUSH": lambda r, a: _push(r, *a, front=False),
    "SCARD": lambda r, a: len(_set(r, a[0])),
    "SMEMBERS": lambda r, a: sorted(_set(r, a[0])),
    "SISMEMBER": lambda r, a: int(a[1] in _set(r, a[0])),
    "SADD": lambda r, a: _add(r, *a),
    "SREM": lambda r, a: _remove(r, *a),
    "ZCARD": lambda r, a: len(_zset(r, a[0])),
    "ZRANGE": lambda r, a: _scored(r, *a),
    "ZRANGEBYSCORE": lambda r, a: _within(r, *a),
    "ZCOUNT": lambda r, a: len(_within(r, *a)),
    "ZADD": lambda r, a: _zadd(r, *a),
    "ZREM": lambda r, a: sum(_zset(r, a[0]).pop(member, None) is not None for member in a[1:]),
    "HGET": lambda r, a: _hash(r, a[0]).get(a[1]),
    "HGETALL": lambda r, a: [text for pair in _hash(r, a[0]).items() for text in pair],
    "HVALS": lambda r, a: list(_hash(r, a[0]).values()),
    "HLEN": lambda r, a: len(_hash(r, a[0])),
}
