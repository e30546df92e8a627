"""The shell text that goes over SSH: many questions in one script, one change in another, and the answers told apart.

Pure text, shared by the SSH adapter and the simulated machines. Every answer ends with a marker on both streams that
holds a nonce, so that no program's output can pass for the end of its own answer.

Both scripts watch their standard input, which ends with the connection: then everything that they started is ended.
docs/decisions/ending-remote-processes.md says why it is done this way.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache

from bot.core.command import Command, Resolve, Secret, refuse_secrets
from bot.core.question import Output

KILL_AFTER = 2  # seconds between TERM and KILL for a program past its time
SHELL = "exec bash --norc"  # what is asked for when a change is sent; its script follows on standard input
ENDED = (124, 137)  # `timeout` ended the program
CUT_SHORT = (*ENDED, 129, 143)  # ... or the end of the connection did

# The shell that questions are typed into, round after round: it stays, because a login shell costs a machine more than
# the questions do. POSIX, because the login shell runs it. What comes in passes through a reader, which ends everything
# of the session (sshd's own for this command, so it holds what `timeout` puts into process groups) when nothing more
# can come. A round stands between two lines of its nonce, and nothing of it runs before the second one was read.
# A pipeline asks for a bash, which a login shell that is one need not start. One with a part past its time has not
# answered, whatever a filter behind it made of the little that it heard. `lastpipe` spares a bash the process that it
# would else fork to type into.
ASK_SHELL = """\
export LC_ALL=C; [ "$BASH_VERSION" ] && shopt -s lastpipe
t='r=$? s=" ${PIPESTATUS[*]} "; case $s in *" 124 "* | *" 137 "*) r=124; esac; exit $r'
bash() { case "$#$1$2$3 $BASH_VERSION" in 4-opipefail-c\\ ?*) (set -o pipefail; eval "$4
$t");; 4-opipefail-c*) command bash -o pipefail -c "$4
$t";; *) command bash "$@";; esac; }
{ /bin/cat; trap '' TERM HUP
read -r l </proc/$$/stat; set -- ${l##*) }; s=$4; read -r l </proc/self/stat; w=${l%% *}
for n in TERM 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 KILL; do left=
for p in $(sed -rn "s/^([0-9]+) \\(.*\\) [^Z] [0-9]+ [0-9]+ $s .*/\\1/p" /proc/[0-9]*/stat); do
[ "$p" != "$w" ] && kill -$n "$p" && left=1
done; [ "$left" ] || exit; sleep 0.1; done; } 2>/dev/null | while IFS= read -r n; do
b=; while IFS= read -r l; do [ "$l" = "$n" ] && break; b="$b$l
"; done; [ "$l" = "$n" ] && eval "$b"; done"""

# One compound command: bash runs nothing of it before it has read the last brace, so half a script does nothing.
# What runs is read from a pipe (7), so that no argv holds it. A program under sudo takes no signal from an ordinary
# user, nor does sudo 1.8; `script` gives it a terminal, and when `script` dies the kernel hangs that up: sudo passes
# the signal on, and `timeout` inside sudo ends its whole group. Output goes around the terminal (8, 9), the status too
# (5): `script -e` says 0 when the terminal closes before it hears of its child. Its input (6) never ends.
# What is ours: sshd's session for this command, and every session that one of ours opened (script's, sudo's).
CHANGE_HEAD = "{{ sudo={sudo}; body="
CHANGE_BODY = "exec 7<&-; set -o pipefail"
CHANGE_TAIL = r"""
export LC_ALL=C; exec 3<&0 </dev/null 7< <(printf '%s\n' "$body")
[ $sudo ] && [ $EUID != 0 ] && type script >/dev/null 2>&1 && exec 5<> <(:) 6<> <(:) || sudo=
run() {
  [ $sudo ] || exec bash --norc /dev/fd/7
  inner='bash --norc /dev/fd/7 </dev/null >&8 2>&9 5>&- 6<&- 8>&- 9>&-; echo $? >&5'
  SHELL=/bin/sh exec script -qc "$inner" /dev/null 8>&1 9>&2 <&6 >/dev/null 2>&1
}
signal_all() {
  local l f grown=1 some=1; local -A parent session
  for f in /proc/[0-9]*/stat; do
    read -r l <"$f" || continue
    set -- "${l%% *}" ${l##*) }
    [ "$2" = Z ] || { parent[$1]=$3; session[$1]=$5; }
  done
  [ "${session[$$]}" ] || return 1
  ours[${session[$$]}]=1
  while [ $grown ]; do
    grown=
    for f in "${!session[@]}"; do
      [ "${ours[${session[${parent[$f]}]:-0}]}" ] && [ ! "${ours[${session[$f]}]}" ] || continue
      grown=1; ours[${session[$f]}]=1
    done
  done
  for f in "${!session[@]}"; do
    if [[ ${ours[${session[$f]}]} && $f != $$ && $f != $BASHPID ]]; then kill -s $signal "$f"; some=0; fi
  done
  return $some
}
watch() {
  local -A ours
  while read -r -u 3 _; do :; done
  trap '' TERM HUP
  signal=TERM; signal_all; kill -KILL $p
  for signal in 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 KILL 0 0 0 0 0; do signal_all || break; sleep 0.1; done
}
run 3<&- & p=$!
watch >/dev/null 2>&1 & w=$!
exec 3<&- 7<&-
wait $p 2>/dev/null; r=$?
[ ! $sudo ] || read -r -t 0.5 -u 5 r || r=137
{ kill $w; wait $w; } 2>/dev/null
exit $r
}
"""

# Behind the last byte of a stream: a line that nobody could have said before, and how each program of it ended. What
# comes in order proves by its last line that nothing is missing; a status that comes beside it would not.
STREAM_TAIL = 'printf "\\n%s %s\\n" {nonce} "${{PIPESTATUS[*]}}"'
LONGEST_END = 512  # bytes of that line; so much of a stream is held back until more came

# A `timeout` for each program costs a machine as much as the program. What takes nothing but numbers from the kernel
# needs none, nor does what has its own: with KILL after it, or before a network's probe, which TERM ends.
_ENDS = re.compile(
    r"date( -u)? \+%s|hostname -I|ps -p 1 -o comm=|free -m|cat /proc/(uptime|loadavg|sys/kernel/[a-z_/]+)"
)
_OWN_BOUND = re.compile(rf"timeout (?:-k [1-{KILL_AFTER}] (?=\d+ )|(?=\d+ (?:getent|bash|openssl)\b))(\d+) ")
_STATUS = re.compile(r"[0-9]{1,3}\n")
_FILTERS = ("grep", "sed", "sha256sum", "wc", "head", "tail", "sort")

_CHANGE_HEAD = re.escape(CHANGE_HEAD.format(sudo="?")).replace(r"\?", "1?")
_QUOTED = r"""(?:[A-Za-z0-9_@%+=:,./-]+|'[^']*'(?:"'"'[^']*')*)"""  # what shlex.quote makes
_STREAM_TAIL = re.escape(STREAM_TAIL.format(nonce="?")).replace(r"\?", f"({_QUOTED})")


def questions_script(commands: Sequence[Command], nonce: str, seconds: int) -> str:
    """One script that runs each command in turn, each program bounded by `timeout`, a marker after each on both
    streams.
    """
    mark = f"m() {{ printf '\\n%s %s\\n' {nonce} \"$1\"; printf '\\n%s %s\\n' {nonce} \"$1\" >&2; }}"
    asks = (f"{_question(command, seconds)} </dev/null; m $?" for command in commands)
    return "\n".join((mark, *asks))


def bound(program: Command, seconds: int) -> tuple[str, ...]:
    """The words that are put before a program so that it ends in time: none when its own do so."""
    own = _OWN_BOUND.match(" ".join(str(word) for word in program.words[:5]))
    return () if own and int(own[1]) <= seconds else ("timeout", "-k", str(KILL_AFTER), str(seconds))


@lru_cache(maxsize=512)  # a fleet's machines are asked the same
def _question(command: Command, seconds: int) -> str:
    first, *others = command.parts()
    free = [_ENDS.fullmatch(str(first)) is not None, *map(_filters, others)]
    parts = (
        part.text(bound="" if ends else " ".join(bound(part, seconds)))
        for part, ends in zip((first, *others), free, strict=True)
    )
    return f"bash -o pipefail -c {shlex.quote(' | '.join(parts))}" if others else next(parts)


def _filters(part: Command) -> bool:
    """Does it end when its input does? The program that it hears is bounded, so it is as well."""
    return part.words[0] in _FILTERS and not part.as_root


def ask_round(commands: Sequence[Command], nonce: str, seconds: int) -> str:
    """The questions of one round, to be typed into an `ASK_SHELL`."""
    return f"{nonce}\n{questions_script(commands, nonce, seconds)}\n{nonce}\n"


def read_round(text: str) -> tuple[str, str] | None:
    """The `questions_script` of the first round and what comes behind it; None while it is not whole."""
    nonce, _, rest = text.partition("\n")
    script, end, rest = rest.partition(f"\n{nonce}\n")
    return (script, rest) if nonce and end else None


def change_script(command: Command, seconds: int, resolve: Resolve = refuse_secrets) -> str:
    """The script for `SHELL` that makes one change: each program bounded on the machine, ended with the connection.

    A secret is the value of a shell variable and a word of `printf`: no argv, no environment and no message of the
    shell holds it.
    """
    return _bound_to_connection(command, seconds, resolve)


def stream_script(command: Command, seconds: int, nonce: str, resolve: Resolve = refuse_secrets) -> str:
    """The script for `SHELL` that writes a command's output as it comes, and its end behind it; ended like a change."""
    return _bound_to_connection(command, seconds, resolve, STREAM_TAIL.format(nonce=shlex.quote(nonce)))


def read_stream(script: str) -> tuple[str, str] | None:
    """The line that a `stream_script` runs and its nonce; None when it is not one, or not whole."""
    line = read_change(script) or ""
    found = re.fullmatch(rf"(.*)\n{_STREAM_TAIL}", line, re.S)
    return (found[1], shlex.split(found[2])[0]) if found else None


def stream_end(statuses: Sequence[int], nonce: str) -> bytes:
    """What a machine writes behind a stream."""
    return f"\n{nonce} {' '.join(map(str, statuses))}\n".encode()


def read_end(last: bytes, nonce: str) -> tuple[bytes, tuple[int, ...]] | None:
    """The bytes before the end of a stream, and how each of its programs ended; None when the end is not there."""
    found = re.search(rb"\n%s (\d{1,3}(?: \d{1,3})*)\n\Z" % re.escape(nonce).encode(), last)
    return (last[: found.start()], tuple(map(int, found[1].split()))) if found else None


def _bound_to_connection(command: Command, seconds: int, resolve: Resolve, *more: str) -> str:
    given = {secret: f"s{no}" for no, secret in enumerate(dict.fromkeys(command.secrets))}
    values = (f"{variable}={shlex.quote(_value(secret, resolve))}" for secret, variable in given.items())
    line = " | ".join(_change_part(part, seconds, given) for part in command.parts())
    body = "\n".join((CHANGE_BODY, *values, line, *more))
    sudo = "1" if any(part.as_root for part in command.parts()) else ""
    return f"{CHANGE_HEAD.format(sudo=sudo)}{shlex.quote(body)}{CHANGE_TAIL}"


def read_change(script: str) -> str | None:
    """The line that a `change_script` runs, with its secrets in their places; None when it is not one, or not whole."""
    found = re.fullmatch(rf"{_CHANGE_HEAD}({_QUOTED}){re.escape(CHANGE_TAIL)}", script)
    if found is None:
        return None
    line = shlex.split(found[1])[0].removeprefix(f"{CHANGE_BODY}\n")
    values: dict[str, str] = {}
    while given := re.match(rf"s(\d+)=({_QUOTED})\n", line):
        values[given[1]] = given[2]
        line = line[given.end() :]
    return re.sub(rf'{_QUOTED}|"\$s(\d+)"', lambda word: values[word[1]] if word[1] else word[0], line)


def _change_part(part: Command, seconds: int, given: Mapping[Secret, str]) -> str:
    if not part.secrets:
        return part.text(bound=" ".join(bound(part, seconds)))
    if part.as_root:
        raise ValueError(f"{part} may not run under sudo: its secret would be a word that `ps` shows")
    return " ".join(f'"${given[word]}"' if isinstance(word, Secret) else shlex.quote(word) for word in part.words)


def _value(secret: Secret, resolve: Resolve) -> str:
    value = resolve(secret)
    if "\0" in value:
        raise ValueError(f"{secret} holds a NUL character, which no shell can carry")
    return value


def read_answers(out: str, err: str, nonce: str, asked: int, truncated: bool = False) -> list[Output | None]:
    """An output for each command asked, None for those whose marker never came (the connection or machine went
    away).
    """
    outs, errs = _split(out, nonce), _split(err, nonce)
    both = [
        Output(_exit(status), text, errs[no][0] if no < len(errs) else "", truncated)
        for no, (text, status) in enumerate(outs[:asked])
    ]
    return [*both, *[None] * (asked - len(both))]


def _split(stream: str, nonce: str) -> list[tuple[str, int]]:
    text, *others = stream.split(f"\n{nonce} ")
    found: list[tuple[str, int]] = []
    for other in others:
        status, _, after = other.partition("\n")
        if not _STATUS.match(other):
            break
        found.append((text, int(status)))
        text = after
    return found


def _exit(status: int) -> int | None:
    """124 and 137 are `timeout` ending the program: it did not say anything itself."""
    return None if status in ENDED else status
