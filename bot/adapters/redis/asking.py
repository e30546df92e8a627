"""Redis of an installation: commands that only read, answered in the form of `redis-cli` without a terminal."""

import re
from collections.abc import Mapping, Sequence
from threading import Event as Flag
from typing import Final

from bot.adapters.redis.server import AWAY, CONTAINER, NOT_CONFIGURED, REFUSED, Server, judged
from bot.core.docker import Program
from bot.core.ports import Inside, Machines
from bot.core.question import Answer, Output, Question, RedisRead, Unanswered
from bot.core.target import Target

READING: Final = re.compile(  # the whole first word, or the first two
    r"dbsize|echo|exists|get|getrange|hexists|hget|hgetall|hkeys|hlen|hmget|hscan|hvals|info|lastsave|lindex|llen|lrange"
    r"|mget|ping|pttl|role|scan|scard|sismember|smembers|sscan|strlen|time|ttl|type|xlen|zcard|zcount|zrange"
    r"|zrangebyscore|zrevrange|zrank|zscan|zscore"
    r"|client (list|getname)|cluster (info|nodes)|config get|latency (latest|history)|memory (usage|stats|doctor)"
    r"|object (encoding|idletime|refcount)|slowlog (get|len)"
    r"|sentinel (masters|master|replicas|slaves|sentinels|get-master-addr-by-name|ckquorum|myid)",
    re.IGNORECASE,
)
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_.:*+@|/-]+")
_ERROR: Final = re.compile(  # an error is a line like any other for redis-cli, and exits 0
    r"(ERR|WRONGTYPE|NOAUTH|NOPERM|WRONGPASS|LOADING|MASTERDOWN|MISCONF|BUSY|CLUSTERDOWN|NOQUORUM|NOGOODSLAVE|DENIED"
    r"|IDONTKNOW|MOVED|ASK) [^\n]*\n*"
)


class Redis:
    """An `Asker` of `RedisRead`; `servers` by installation."""

    def __init__(self, servers: Mapping[str, Server], machines: Machines, containers: Inside) -> None:
        self._servers = servers
        self._machines = machines
        self._containers = containers

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> list[Answer | Unanswered]:
        """One answer per question; what is allowed goes over one connection, the rest is refused."""
        server = self._servers.get(target.installation)
        if server is None or (server.via != CONTAINER and not server.url):
            why = f"opsbot is not set up to ask redis of {target.installation}"
            return [Unanswered(why, NOT_CONFIGURED)] * len(questions)
        reads = [each for each in questions if isinstance(each, RedisRead) and only_reads(each.words)]
        said = iter(self._ask(target, server, reads, abort))
        return [next(said) if each in reads else _refused(each) for each in questions]

    def identity(self, target: Target) -> str:
        return self._machines.identity(target)

    def _ask(
        self, target: Target, server: Server, reads: Sequence[RedisRead], abort: Flag
    ) -> Sequence[Answer | Unanswered]:
        if server.via == CONTAINER:
            programs = [program(each) for each in reads]
            said = self._containers.ask(target, programs, abort) if programs else ()
            return [_from_program(each, server.shown(target)) for each in said]
        return self._over_a_connection(target, server, reads, abort)

    def _over_a_connection(
        self, target: Target, server: Server, reads: Sequence[RedisRead], abort: Flag
    ) -> Sequence[Answer | Unanswered]:
        """Its library is loaded only where redis is not in the container: six megabytes of each process."""
        from bot.adapters.redis import connection

        return list(connection.answers(server, target, self._machines, reads, abort))


def only_reads(words: Sequence[str]) -> bool:
    """Is it a command that changes nothing, and asks for no more than that?"""
    return any(READING.fullmatch(" ".join(words[:count])) for count in (1, 2) if len(words) >= count)


def program(read: RedisRead) -> Program:
    """redis-cli, told on its input, so that sudo's rule need not allow any word."""
    return Program(("redis-cli",), stdin=f"{' '.join(_quoted(word) for word in read.words)}\n")


def _quoted(word: str) -> str:
    """As redis-cli reads words: in double quotes, where every byte can be written by its number."""
    if _PLAIN_WORD.fullmatch(word):
        return word
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"'


def _from_program(said: Output | Unanswered, where: str) -> Answer | Unanswered:
    if isinstance(said, Unanswered):
        return said
    if said.exit is None or "Could not connect" in said.err or "Connection refused" in said.err:
        why = said.err.strip()[:300] or "it did not answer in time"
        return Unanswered(f"Redis {where} cannot be reached: {why}.", AWAY)
    if said.exit == 0 and _ERROR.fullmatch(said.out):
        return judged(Output(1, err=f"{said.out.strip()}\n"), where)
    if not said.ok and said.exit in (125, 126, 127):
        why = (said.err or said.out).strip()[:300]
        return Unanswered(f"Redis {where} cannot be asked: redis-cli did not run ({why}).", REFUSED)
    return said


def _refused(question: Question) -> Unanswered:
    return Unanswered(f"`{question}` may change something or is not known here, so redis was not asked.", REFUSED)
