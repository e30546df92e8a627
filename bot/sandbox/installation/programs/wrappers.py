"""Programs that run another program: sudo, timeout, bash, env, nsenter; and the shell itself."""

from bot.core import dump
from bot.sandbox.installation import execution
from bot.sandbox.installation.programs import Call, Reply, Usage, find, on_host, options, program, unsupported
from bot.sandbox.installation.timeline import Ended

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@program("sudo", where=on_host)
def sudo(call: Call) -> Reply:
    words = list(call.words)
    if not words or words.pop(0) != "-n" or not words:
        return unsupported(call, "sudo without -n (it would ask for a password)")
    if not (call.root or call.machine.sudo_without_password):
        return Reply(1, err="sudo: a password is required\n")
    if find(call.context, words[0]) is None:
        call.run(tuple(words))  # remembers it
        return Reply(1, err=f"sudo: {words[0]}: command not found\n")
    return call.run(tuple(words), user="root")


@program("timeout")
def timeout(call: Call) -> Reply:
    words = list(call.words)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in ("-k", "-s"):
            words.pop(0)
        elif not option.startswith(("--foreground", "--preserve-status", "--kill-after=", "--signal=")):
            return unsupported(call, option)
    if len(words) < 2:
        return Reply(125, err="timeout: missing operand\nTry 'timeout --help' for more information.\n")
    seconds = _duration(words.pop(0))
    if find(call.context, words[0]) is None:
        call.run(tuple(words))
        return Reply(127, err=f"timeout: failed to run command '{words[0]}': No such file or directory\n")
    timeline = call.machine.timeline
    end = timeline.now() + seconds
    try:
        return call.run(tuple(words), ended=lambda: call.context.ended() or timeline.now() >= end)
    except Ended as over:
        if timeline.now() < end:
            raise
        return Reply(124, over.out, over.err)


def _duration(text: str) -> float:
    return float(text[:-1]) * _SECONDS[text[-1]] if text[-1:] in _SECONDS else float(text)


@program("sh", "bash", "dash")
def shell(call: Call) -> Reply:
    words = list(call.words)
    pipefail = False
    script: str | None = None
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "-o" and words and words[0] == "pipefail":
            pipefail = bool(words.pop(0))
        elif option in ("-c", "-lc") and words:
            script = words.pop(0)
            break
        elif option not in ("-l", "-e", "-s", "--"):
            return unsupported(call, option)
    if script is None:
        if words:
            return unsupported(call, "a script file")
        script, stdin = call.stdin, ""
    else:
        stdin = call.stdin
    if script == dump.FEED:  # what it writes while somebody reads, which is nobody behind the first beat here
        return Reply(out=f"{words[1]}\n\\q\n")
    return execution.Shell(call.context, tuple(words) or (call.name,), pipefail=pipefail, name=call.name).reply(
        script, stdin
    )


@program("env", "nice", "setsid", "nohup", "stdbuf", "ionice")
def env(call: Call) -> Reply:
    words = list(call.words)
    environment = call.context.environment
    while words and (words[0].startswith("-") or "=" in words[0]):
        name, given, value = words.pop(0).partition("=")
        environment += ((name, value),) if given and not name.startswith("-") else ()
    return call.run(tuple(words), environment=environment) if words else unsupported(call, "no program")


@program("nsenter", where=on_host)
def nsenter(call: Call) -> Reply:
    try:
        read = options(
            call.words[: _program_at(call.words)], flags="numip", values="t", longs={"target": True, "net": False}
        )
    except Usage as usage:
        return unsupported(call, str(usage))
    pid = read.get("t", "target")
    words = call.words[_program_at(call.words) :]
    process = call.machine.processes.get(int(pid)) if pid.isdigit() else None
    if process is None:
        return Reply(1, err=f"nsenter: cannot open /proc/{pid}/ns/net: No such file or directory\n")
    if not call.root:
        return Reply(1, err=f"nsenter: cannot open /proc/{pid}/ns/net: Permission denied\n")
    return call.run(words, network=process.container)


def _program_at(words: tuple[str, ...]) -> int:
    """Where nsenter's own options end: the first word that is neither an option nor the value of -t."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in ("-t", "--target") else 1
    return at
