"""redis-cli inside te-main, as it prints when nobody watches: a line per element, nothing around it."""

import re

from bot.sandbox.installation.programs import Call, Reply, in_te_main, program, unsupported
from bot.sandbox.installation.redis import PORT, WRITES, RedisError, Said

_WITH_VALUE = ("-h", "-p", "-n", "-a", "-r", "-i", "-u", "-t")
_FLAGS = ("--raw", "--no-auth-warning", "-2", "-3")


@program("redis-cli", where=in_te_main)
def redis_cli(call: Call) -> Reply:
    words, given = list(call.words), dict(call.context.environment)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in _WITH_VALUE and words:
            given[option] = words.pop(0)
        elif option == "--rdb" and words == ["-"]:
            return _copy(call)
        elif option not in _FLAGS:
            return unsupported(call, option)
    commands = [words] if words else [_words(line) for line in call.stdin.splitlines() if line.strip()]
    if not commands:
        return unsupported(call, "no command")
    return _asked(call, commands, given)


def _copy(call: Call) -> Reply:
    """A dump as a replica gets it: short strings alone are in it, and no checksum is computed."""
    redis = call.context.installation.redis
    if not redis.running:
        return Reply(1, err="Could not connect to Redis at 127.0.0.1:6379: Connection refused\n")
    entries = b"".join(
        b"\0" + b"".join(bytes([len(part)]) + part for part in (name.encode(), value.encode()))
        for name, value in sorted(redis.strings.items())
        if max(len(name.encode()), len(value.encode())) < 64
    )
    dump = b"REDIS0006\xfe\0" + entries + b"\xff" + bytes(8)
    said = f"SYNC sent to master, writing {len(dump)} bytes to '-'\nTransfer finished with success.\n"
    return Reply(out=dump.decode(errors="surrogateescape"), err=said)


def _words(line: str) -> list[str]:
    """A line of input: plain words, and words in double quotes with bytes by their numbers."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    return [plain or _unquoted(quoted) for quoted, plain in found]


def _unquoted(text: str) -> str:
    said = re.sub(r"\\x([0-9a-f]{2})|\\(.)", lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)
    return said.encode("latin-1", errors="replace").decode(errors="replace")


def _asked(call: Call, commands: list[list[str]], given: dict[str, str]) -> Reply:
    redis = call.context.installation.redis
    host, port = given.get("-h", "127.0.0.1"), given.get("-p", str(PORT))
    if not redis.running or port != str(PORT):
        return Reply(1, err=f"Could not connect to Redis at {host}:{port}: Connection refused\n")
    if redis.password and redis.password not in (given.get("-a"), given.get("REDISCLI_AUTH")):
        return Reply(out="NOAUTH Authentication required.\n\n")
    out = ""
    for words in commands:
        if words[0].upper() in WRITES:
            call.changes()
        try:
            out += _printed(redis.command(words))
        except RedisError as error:
            out += f"{error}\n\n"
    return Reply(out=out)


def _printed(said: Said) -> str:
    if isinstance(said, str):
        return said if said.endswith("\n") else f"{said}\n"
    if said is None or isinstance(said, int):
        return f"{'' if said is None else said}\n"
    return "".join(f"{line}\n" for line in said) or "\n"
