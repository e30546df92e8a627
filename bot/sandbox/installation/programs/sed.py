"""sed, as far as settings are read and edited with it: s, p, d, =, F and a, with one address at most."""

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from bot.sandbox.installation.programs import Call, Reply, Usage, options, program, unsupported
from bot.sandbox.installation.programs.files import texts
from bot.sandbox.installation.programs.text import pattern


@dataclass(frozen=True)
class Order:
    """One command of a script: where it holds, and what it is."""

    holds: Callable[[str, int, bool], bool]
    name: str
    find: re.Pattern[str] | None = None
    put: str = ""
    flags: str = ""


_ORDER = re.compile(
    r"\s*(?:(?P<no>\d+|\$)|/(?P<re>(?:[^/\\]|\\.)*)/)?(?P<not>!?)\s*(?P<name>[spdaF=])(?P<rest>.*)", re.S
)


@program("sed")
def sed(call: Call) -> Reply:
    try:
        read = options(call.words, flags="nEsir", values="e", longs={"follow-symlinks": False})
    except Usage as usage:
        return unsupported(call, str(usage))
    scripts = read.all("e") or [read.words.pop(0)]
    orders = [_order(script, "E" in read or "r" in read) for script in scripts]
    found, wrong = texts(call, read.words)
    err = "".join(f"sed: can't read {reply.err.removeprefix('sed: ')}" for reply in wrong)
    done = [(path, _run(orders, path, text, "n" in read)) for path, text in found]
    if "i" not in read:
        return Reply(2 if wrong else 0, "".join(text for _, text in done), err)
    return _in_place(call, done, err)


def _in_place(call: Call, done: list[tuple[str, str]], err: str) -> Reply:
    """Written to a file beside it, which then takes its name: that needs the right to write into the folder."""
    if not call.root:
        folder = posixpath.dirname(done[0][0]) if done else ""
        return Reply(4, err=f"sed: couldn't open temporary file {folder}/sedXXXXXX: Permission denied\n")
    call.changes()
    for path, text in done:
        file = call.machine.files[path]
        file.text, file.changed = text, call.machine.timeline.now()
    return Reply(2 if err else 0, err=err)


def _order(script: str, extended: bool) -> Order:
    found = _ORDER.fullmatch(script)
    if found is None:
        raise ValueError(f"sed: {script}")
    where = re.compile(pattern(found["re"], False, extended)) if found["re"] is not None else None
    negated, no = bool(found["not"]), found["no"]

    def holds(line: str, number: int, last: bool) -> bool:
        if where is not None:
            return bool(where.search(line)) != negated
        return not no or (last if no == "$" else number == int(no)) != negated

    if found["name"] != "s":
        return Order(holds, found["name"], put=found["rest"].strip())
    sign = found["rest"][0]
    find, put, flags = re.split(rf"(?<!\\){re.escape(sign)}", found["rest"][1:])
    put = re.sub(r"\\(\d)", r"\\g<\1>", re.sub(r"(?<!\\)&", r"\\g<0>", put))
    return Order(holds, "s", re.compile(pattern(find, False, extended)), put, flags)


def _run(orders: list[Order], path: str, text: str, quiet: bool) -> str:
    lines = text.removesuffix("\n").split("\n") if text else []
    return "".join(
        _line(orders, path, line, number, number == len(lines), quiet) for number, line in enumerate(lines, 1)
    )


def _line(orders: list[Order], path: str, line: str, number: int, last: bool, quiet: bool) -> str:
    out, after = "", ""
    for order in orders:
        if not order.holds(line, number, last):
            continue
        if order.name == "d":
            return out
        if order.name == "s" and order.find is not None:
            line, hits = order.find.subn(order.put, line, count=0 if "g" in order.flags else 1)
            out += f"{line}\n" if hits and "p" in order.flags else ""
        elif order.name == "a":
            after += f"{order.put}\n"
        else:
            out += {"p": f"{line}\n", "=": f"{number}\n", "F": f"{path}\n"}[order.name]
    return out + ("" if quiet else f"{line}\n") + after


@program("rmdir")
def rmdir(call: Call) -> Reply:
    for path in call.words:
        if problem := _not_removable(call, path):
            return Reply(1, err=f"rmdir: failed to remove '{path}': {problem}\n")
    call.changes()
    for path in call.words:
        del call.machine.files[path]
    return Reply()


def _not_removable(call: Call, path: str) -> str:
    file = call.machine.files.get(path)
    if file is None:
        return "No such file or directory"
    if not file.folder:
        return "Not a directory"
    if not call.root:
        return "Permission denied"
    return "Directory not empty" if any(True for _ in call.machine.inside(path)) else ""
