"""Text: printf, echo, grep, zgrep, head, tail, wc, sort, uniq, cut, tr."""

import re

from bot.sandbox.installation.programs import Call, Reply, Usage, options, program, unsupported
from bot.sandbox.installation.programs.files import texts

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "r": "\r", "a": "\a", "0": "\0"}


@program("true")
def true(_call: Call) -> Reply:
    return Reply()


@program("false")
def false(_call: Call) -> Reply:
    return Reply(1)


@program("echo")
def echo(call: Call) -> Reply:
    if call.words[:1] == ("-n",):
        return Reply(out=" ".join(call.words[1:]))
    return Reply(out=" ".join(call.words) + "\n")


@program("printf")
def printf(call: Call) -> Reply:
    """The format is used again until the arguments are used up, as every shell does."""
    if not call.words:
        return Reply(2, err="sh: 1: printf: usage: printf format [arg ...]\n")
    form, *arguments = call.words
    out = ""
    while True:
        part, used = _formatted(form, arguments)
        out += part
        arguments = arguments[used:]
        if not arguments or not used:
            return Reply(out=out)


def _formatted(form: str, arguments: list[str]) -> tuple[str, int]:
    used = 0

    def filled(found: re.Match[str]) -> str:
        nonlocal used
        if found[0] == "%%":
            return "%"
        if found[0].startswith("\\"):
            return chr(int(found[1], 8)) if found[1][0] in "01234567" else _ESCAPES.get(found[1], found[0])
        value = arguments[used] if used < len(arguments) else ""
        used += 1
        return value if found[2] in "sb" else str(int(value or "0"))

    return re.sub(r"\\([0-7]{1,3}|.)|%%|%([sbd])", filled, form), used


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


@program("grep", "egrep", "fgrep")
def grep(call: Call) -> Reply:
    longs = {"count": False, "quiet": False, "invert-match": False, "regexp": True, "extended-regexp": False}
    longs |= {"fixed-strings": False, "ignore-case": False, "max-count": True, "line-regexp": False}
    try:
        read = options(call.words, flags="cqviEFohHIswxn", values="emAB", longs=longs)
    except Usage as usage:
        return unsupported(call, str(usage))
    patterns = read.all("e", "regexp") or [read.words.pop(0)]
    found, wrong = texts(call, read.words)
    fixed = "F" in read or call.name == "fgrep"
    extended = "E" in read or call.name == "egrep"
    try:
        test = re.compile("|".join(pattern(p, fixed, extended) for p in patterns), re.I if "i" in read else 0)
    except re.error:
        return Reply(2, err="grep: Invalid regular expression\n")
    matched: list[str] = []
    for path, text in found:
        name = f"{path}:" if ("H" in read or len(read.words) > 1) and "h" not in read else ""
        for number, line in enumerate(_lines(text), 1):
            if _hits(test, line, read.given) != ("v" in read or "invert-match" in read):
                matched.append(name + (f"{number}:" if "n" in read else "") + line)
    if limit := read.get("m", "max-count"):
        matched = matched[: int(limit)]
    status = 2 if wrong else 0 if matched else 1
    err = "".join(reply.err for reply in wrong)
    if "q" in read or "quiet" in read:
        return Reply(0 if matched else status, err=err)
    if "c" in read or "count" in read:
        return Reply(status, f"{len(matched)}\n", err)
    if "o" in read:
        matched = [hit[0] for line in matched for hit in test.finditer(line) if hit[0]]
    return Reply(status, "".join(f"{line}\n" for line in matched), err)


@program("zgrep")
def zgrep(call: Call) -> Reply:
    """grep, in files that gzip has packed or not; it is gzip that misses a file."""
    reply = call.run(("grep", *call.words))
    return Reply(reply.exit, reply.out, reply.err.replace("grep: ", "gzip: "))


def _hits(test: re.Pattern[str], line: str, given: dict[str, list[str]]) -> bool:
    if "x" in given or "line-regexp" in given:
        return test.fullmatch(line) is not None
    if "w" in given:
        return re.search(rf"(?<!\w)(?:{test.pattern})(?!\w)", line, test.flags) is not None
    return test.search(line) is not None


def pattern(text: str, fixed: bool, extended: bool) -> str:
    """POSIX to Python: in a basic pattern `+ ? | ( ) {` are plain unless escaped."""
    if fixed:
        return re.escape(text)
    if not extended:
        text = re.sub(r"\\([+?|(){}])|([+?|(){}])", lambda f: f[1] or "\\" + f[2], text)
    for name, letters in (
        ("[:space:]", r"\s"),
        ("[:digit:]", "0-9"),
        ("[:alpha:]", "A-Za-z"),
        ("[:alnum:]", "A-Za-z0-9"),
    ):
        text = text.replace(name, letters)
    return text


@program("head", "tail")
def head(call: Call) -> Reply:
    words = tuple(f"-n{word[1:]}" if re.fullmatch(r"-\d+", word) else word for word in call.words)
    try:
        read = options(words, flags="q", values="nc", longs={"lines": True, "bytes": True, "quiet": False})
    except Usage as usage:
        return unsupported(call, str(usage))
    found, wrong = texts(call, read.words)
    err = "".join(reply.err.replace(": ", ": cannot open '", 1).replace(": No", "' for reading: No") for reply in wrong)
    size, lines = read.get("c", "bytes"), read.get("n", "lines") or "10"
    out = "".join(_bytes(call.name, text, int(size)) if size else _cut(call.name, text, lines) for _, text in found)
    return Reply(1 if wrong else 0, out, err)


@program("zcat")
def zcat(call: Call) -> Reply:
    """With -f: what is not packed is passed on as it is. Simulated files are never packed, whatever they are called."""
    if call.words[:1] != ("-f",):
        return unsupported(call, "anything but -f")
    found, wrong = texts(call, list(call.words[1:]))
    err = "".join(reply.err.replace("zcat:", "gzip:", 1) for reply in wrong)
    return Reply(1 if wrong else 0, "".join(text for _, text in found), err)


def _bytes(name: str, text: str, size: int) -> str:
    return text[:size] if name == "head" else text[-size:]


def _cut(name: str, text: str, amount: str) -> str:
    lines = text.splitlines(keepends=True)
    if name == "head":
        return "".join(lines[: int(amount)])
    if amount.startswith("+"):
        return "".join(lines[int(amount) - 1 :])
    return "".join(lines[-int(amount) :] if int(amount) else [])


@program("wc")
def wc(call: Call) -> Reply:
    try:
        read = options(call.words, flags="lcwm", longs={"lines": False, "bytes": False, "words": False})
    except Usage as usage:
        return unsupported(call, str(usage))
    found, wrong = texts(call, read.words)
    out = ""
    for path, text in found:
        counts = {"l": text.count("\n"), "w": len(text.split()), "c": len(text.encode(errors="surrogateescape"))}
        asked = [str(counts[letter]) for letter in "lwc" if letter in read] or [f"{n:7}" for n in counts.values()]
        out += " ".join(asked) + ("" if path == "-" else f" {path}") + "\n"
    return Reply(1 if wrong else 0, out, "".join(reply.err for reply in wrong))


@program("sort")
def sort(call: Call) -> Reply:
    try:
        read = options(call.words, flags="nru", values="kt")
    except Usage as usage:
        return unsupported(call, str(usage))
    found, wrong = texts(call, read.words)
    if wrong:
        return wrong[0]
    lines = [line for _, text in found for line in _lines(text)]
    lines.sort(key=_number if "n" in read else str, reverse="r" in read)
    if "u" in read:
        lines = list(dict.fromkeys(lines))
    return Reply(out="".join(f"{line}\n" for line in lines))


def _number(line: str) -> float:
    found = re.match(r"\s*(-?\d+(?:\.\d+)?)", line)
    return float(found[1]) if found else 0.0


@program("uniq")
def uniq(call: Call) -> Reply:
    counted: list[tuple[int, str]] = []
    for line in _lines(call.stdin):
        if counted and counted[-1][1] == line:
            counted[-1] = (counted[-1][0] + 1, line)
        else:
            counted.append((1, line))
    return Reply(out="".join(f"{count:7} {line}\n" if "-c" in call.words else f"{line}\n" for count, line in counted))


@program("cut")
def cut(call: Call) -> Reply:
    try:
        read = options(call.words, values="df")
    except Usage as usage:
        return unsupported(call, str(usage))
    columns = [int(column) - 1 for column in read.get("f").split(",")]
    by = read.get("d") or "\t"
    found, wrong = texts(call, read.words)
    rows = [line.split(by) for _, text in found for line in _lines(text)]
    out = "".join(by.join(row[c] for c in columns if c < len(row)) + "\n" for row in rows)
    return Reply(1 if wrong else 0, out, "".join(reply.err for reply in wrong))


@program("tr")
def tr(call: Call) -> Reply:
    if len(call.words) == 2 and call.words[0] == "-d":
        return Reply(out=call.stdin.translate({ord(c): None for c in _plain(call.words[1])}))
    if len(call.words) == 2 and len(_plain(call.words[0])) == len(_plain(call.words[1])):
        return Reply(out=call.stdin.translate(str.maketrans(_plain(call.words[0]), _plain(call.words[1]))))
    return unsupported(call, " ".join(call.words))


def _plain(text: str) -> str:
    return re.sub(r"\\([nt0\\])", lambda found: _ESCAPES[found[1]], text)


@program("od")
def od(call: Call) -> Reply:
    """`od -An -tx1`: the bytes of the input, sixteen in a line."""
    if call.words != ("-An", "-tx1"):
        return unsupported(call, " ".join(call.words))
    data = call.stdin.encode("latin-1", errors="replace")
    lines = (data[at : at + 16] for at in range(0, len(data), 16))
    return Reply(out="".join("".join(f" {byte:02x}" for byte in line) + "\n" for line in lines))
