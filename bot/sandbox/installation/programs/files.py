"""Files: what is in them, who owns them, and the few ways to change them."""

import hashlib
import posixpath
import re
from collections.abc import Callable

from bot.sandbox.installation.programs import Call, Options, Reply, Usage, options, program, unsupported
from bot.sandbox.installation.state import Disk, File, Machine


def read(call: Call, path: str) -> str | Reply:
    """The text of a file, or what the program says when it cannot have it."""
    virtual = _VIRTUAL.get(path)
    if virtual is not None:
        return virtual(call.machine)
    file = call.machine.files.get(path) or _environ(call.machine, path)
    if file is None:
        problem = "No such file or directory"
    elif file.folder:
        problem = "Is a directory"
    elif not file.readable_by(call.context.user):
        problem = "Permission denied"
    else:
        return file.text
    return Reply(1, err=f"{call.name}: {path}: {problem}\n")


def _environ(machine: Machine, path: str) -> File | None:
    """What a process was started with, as /proc shows it to root."""
    found = re.fullmatch(r"/proc/(\d+)/environ", path)
    process = machine.processes.get(int(found[1])) if found else None
    return None if process is None else File("".join(f"{each}\0" for each in process.environment), mode=0o400)


_VIRTUAL: dict[str, Callable[[Machine], str]] = {
    "/proc/sys/kernel/random/boot_id": lambda m: f"{m.boot_id}\n",
    "/proc/uptime": lambda m: f"{m.uptime():.2f} {m.uptime() * 1.9:.2f}\n",
    "/proc/loadavg": lambda _m: "0.08 0.03 0.01 1/182 4242\n",
    "/etc/hostname": lambda m: f"{m.name}\n",
    "/proc/1/comm": lambda m: f"{m.processes[1].name}\n",
}


def texts(call: Call, paths: list[str]) -> tuple[list[tuple[str, str]], list[Reply]]:
    """Each file with its text, and what is wrong with the others; standard input when there are none."""
    if not paths:
        return [("-", call.stdin)], []
    found: list[tuple[str, str]] = []
    wrong: list[Reply] = []
    for path in paths:
        text = call.stdin if path == "-" else read(call, path)
        if isinstance(text, Reply):
            wrong.append(text)
        else:
            found.append((path, text))
    return found, wrong


@program("cat")
def cat(call: Call) -> Reply:
    found, wrong = texts(call, [word for word in call.words if word != "--"])
    return Reply(1 if wrong else 0, "".join(text for _, text in found), "".join(reply.err for reply in wrong))


@program("stat")
def stat(call: Call) -> Reply:
    try:
        given = options(call.words, flags="L", values="c", longs={"format": True})
    except Usage as usage:
        return unsupported(call, str(usage))
    form = given.get("c", "format")
    if not form:
        return unsupported(call, "stat without -c")
    out, err = "", ""
    for path in given.words:
        file = call.machine.files.get(path)
        if file is None:
            err += f"stat: cannot statx '{path}': No such file or directory\n"
        else:
            out += _formatted(call.machine, path, file, form) + "\n"
    return Reply(1 if err else 0, out, err)


def _formatted(machine: Machine, path: str, file: File, form: str) -> str:
    fields = {
        "%U": file.owner, "%G": file.group, "%a": f"{file.mode:o}", "%n": path, "%s": str(len(file.text.encode())),
        "%F": "directory" if file.folder else "regular file", "%A": ("d" if file.folder else "-") + _letters(file.mode),
        "%Y": str(int(machine.timeline.date(file.changed).timestamp())), "%u": str(machine.users.get(file.owner, 0)),
        "%g": str(machine.users.get(file.group, 0)),
        "%y": machine.timeline.date(file.changed).strftime("%F %T.000000000 +0000"),
    }  # fmt: skip
    for key, value in fields.items():
        form = form.replace(key, value)
    return form


def _letters(mode: int) -> str:
    return "".join(letter if mode >> (8 - at) & 1 else "-" for at, letter in enumerate("rwxrwxrwx"))


@program("ls")
def ls(call: Call) -> Reply:
    try:
        given = options(call.words, flags="la1dAh")
    except Usage as usage:
        return unsupported(call, str(usage))
    out, err = "", ""
    for path in given.words or ["/"]:
        file = call.machine.files.get(path)
        inside = list(call.machine.inside(path))
        if file is None and not inside:
            err += f"ls: cannot access '{path}': No such file or directory\n"
        elif "d" in given or (file is not None and not file.folder):
            out += _listed(path, file, "l" in given)
        else:
            out += "".join(_listed(posixpath.basename(p), call.machine.files.get(p), "l" in given) for p in inside)
    return Reply(2 if err else 0, out, err)


def _listed(name: str, file: File | None, long: bool) -> str:
    if not long or file is None:
        return f"{name}\n"
    kind = "d" if file.folder else "-"
    return f"{kind}{_letters(file.mode)} 1 {file.owner} {file.group} {len(file.text)} Nov 22 03:00 {name}\n"


@program("test", "[")
def test(call: Call) -> Reply:
    words = list(call.words)
    if call.name == "[":
        if words[-1:] != ["]"]:
            return Reply(2, err="[: missing ]\n")
        words.pop()
    negated = words[:1] == ["!"]
    words = words[negated:]
    checks: dict[str, Callable[[File | None], bool]] = {
        "-e": lambda f: f is not None,
        "-f": lambda f: f is not None and not f.folder,
        "-d": lambda f: f is not None and f.folder,
        "-s": lambda f: f is not None and bool(f.text),
        "-r": lambda f: f is not None and f.readable_by(call.context.user),
    }
    if len(words) != 2 or words[0] not in checks:
        return unsupported(call, " ".join(call.words))
    path = words[1]
    file = File() if path in _VIRTUAL else call.machine.files.get(path) or _implied(call.machine, path)
    return Reply(int(checks[words[0]](file) == negated))


def _implied(machine: Machine, path: str) -> File | None:
    """A folder that nobody wrote down, but that holds files."""
    return File(folder=True) if any(True for _ in machine.inside(path)) else None


@program("df")
def df(call: Call) -> Reply:
    try:
        given = options(call.words, flags="Pkihm", longs={"portability": False, "inodes": False})
    except Usage as usage:
        return unsupported(call, str(usage))
    missing = [path for path in given.words if not _is_there(call.machine, path)]
    there = [path for path in given.words if path not in missing]
    disks = [call.machine.disk(path) for path in there] if given.words else call.machine.disks
    kind = "i" if "i" in given or "inodes" in given else "h" if "h" in given else "k"
    rows = [_HEADS_OF_DF[kind], *(_row_of_df(disk, kind) for disk in disks)] if disks else []
    widths = [max(len(row[at]) for row in rows) for at in range(5)] if rows else []
    out = "".join(f"{row[0]:<{widths[0]}} {_right(row, widths)} {row[5]}\n" for row in rows)
    err = "".join(f"df: {path}: No such file or directory\n" for path in missing)
    return Reply(1 if missing else 0, out, err)


_HEADS_OF_DF = {
    "k": ("Filesystem", "1024-blocks", "Used", "Available", "Capacity", "Mounted on"),
    "i": ("Filesystem", "Inodes", "IUsed", "IFree", "IUse%", "Mounted on"),
    "h": ("Filesystem", "Size", "Used", "Avail", "Use%", "Mounted on"),
}
_ALWAYS_THERE = ("/", "/var", "/var/lib", "/var/lib/docker", "/var/log", "/var/lib/replicated", "/tmp", "/etc", "/usr")


def _is_there(machine: Machine, path: str) -> bool:
    return path in _ALWAYS_THERE or path in machine.files or _implied(machine, path) is not None


def _row_of_df(disk: Disk, kind: str) -> tuple[str, ...]:
    size, used = (disk.inodes, disk.inodes_used) if kind == "i" else (disk.size, disk.used)
    percent = f"{-(-used * 100 // size)}%"  # df rounds up
    shown = (_readable(size), _readable(used), _readable(size - used)) if kind == "h" else (size, used, size - used)
    return (disk.device, *map(str, shown), percent, disk.mount)


def _right(row: tuple[str, ...], widths: list[int]) -> str:
    return " ".join(row[at].rjust(widths[at]) for at in range(1, 5))


def _readable(blocks: int) -> str:
    return f"{blocks / 1024 / 1024:.0f}G" if blocks >= 10 * 1024**2 else f"{blocks / 1024:.0f}M"


@program("du")
def du(call: Call) -> Reply:
    """KiB; what is inside a folder comes before it, as deep as -d allows."""
    try:
        given = options(call.words, flags="xskhc", values="d", longs={"max-depth": True})
    except Usage as usage:
        return unsupported(call, str(usage))
    depth = 0 if "s" in given else int(given.get("d", "max-depth", default="99"))
    missing = [path for path in given.words if not _is_there(call.machine, path)]
    rows = [
        (p, _size(call.machine, p)) for path in given.words if path not in missing for p in _under(call, path, depth)
    ]
    err = "".join(f"du: cannot access '{path}': No such file or directory\n" for path in missing)
    return Reply(1 if missing else 0, "".join(f"{size}\t{path}\n" for path, size in rows), err)


def _under(call: Call, path: str, depth: int) -> list[str]:
    prefix = path.rstrip("/") + "/"
    machine = call.machine
    folders = {posixpath.dirname(p) for p, file in machine.files.items() if not file.folder}
    folders |= {p for p, file in machine.files.items() if file.folder} | machine.sizes.keys()
    inside = {"/".join(p.split("/")[: prefix.count("/") + no + 1]) for p in folders for no in range(depth)}
    return [*sorted(p for p in inside if p.startswith(prefix) and p != prefix), path]


def _size(machine: Machine, path: str) -> int:
    prefix = path.rstrip("/") + "/"
    counted = sum(size for p, size in machine.sizes.items() if f"{p}/".startswith(prefix))
    return counted + sum(4 for p in machine.files if f"{p}/".startswith(prefix)) + 4


@program("sha256sum")
def sha256sum(call: Call) -> Reply:
    found, wrong = texts(call, list(call.words))
    lines = (f"{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()}  {path}\n" for path, text in found)
    return Reply(1 if wrong else 0, "".join(lines), "".join(reply.err for reply in wrong))


# ---------------------------------------------------------------- changes


@program("mkdir")
def mkdir(call: Call) -> Reply:
    try:
        given = options(call.words, flags="p", values="m", longs={"parents": False, "mode": True})
    except Usage as usage:
        return unsupported(call, str(usage))
    refused = _only_root(call, given.words, "cannot create directory")
    if refused:
        return refused
    call.changes()
    for path in given.words:
        if path in call.machine.files and "p" not in given:
            return Reply(1, err=f"mkdir: cannot create directory '{path}': File exists\n")
        if path not in call.machine.files:
            call.machine.folder(path)
    return Reply()


@program("chown")
def chown(call: Call) -> Reply:
    words = [word for word in call.words if word not in ("-R", "--")]
    owner, _, group = words[0].partition(":")
    refused = _only_root(call, words[1:], "changing ownership of")
    if refused:
        return refused
    for name in filter(None, (owner, group)):
        if name not in call.machine.users:
            return Reply(1, err=f"chown: invalid user: '{words[0]}'\n")
    call.changes()
    paths = [path for each in words[1:] for path in (_inside(call.machine, each) if "-R" in call.words else [each])]
    return _each(call, paths, lambda file: _own(file, owner, group))


def _inside(machine: Machine, path: str) -> list[str]:
    return [path, *(each for each in machine.files if each.startswith(f"{path.rstrip('/')}/"))]


def _own(file: File, owner: str, group: str) -> None:
    file.owner, file.group = owner or file.owner, group or file.group


@program("chmod")
def chmod(call: Call) -> Reply:
    words = [word for word in call.words if word not in ("-R", "--")]
    if not words or not words[0].isdigit():
        return unsupported(call, " ".join(call.words))
    refused = _only_root(call, words[1:], "changing permissions of")
    if refused:
        return refused
    call.changes()
    return _each(call, words[1:], lambda file: setattr(file, "mode", int(words[0], 8)))


@program("install")
def install(call: Call) -> Reply:
    """`install -d -o travis -g travis -m 755 FOLDER`, and `install -m 600 FILE COPY`."""
    try:
        given = options(
            call.words, flags="d", values="ogm", longs={"owner": True, "group": True, "mode": True, "directory": False}
        )
    except Usage as usage:
        return unsupported(call, str(usage))
    if "d" not in given and "directory" not in given:
        return _install_file(call, given)
    refused = _only_root(call, given.words, "cannot create directory")
    if refused:
        return refused
    call.changes()
    for path in given.words:
        call.machine.folder(path, given.get("o", "owner") or "root", int(given.get("m", "mode") or "755", 8))
    return Reply()


def _install_file(call: Call, given: Options) -> Reply:
    if len(given.words) != 2:
        return unsupported(call, "install of several files")
    source, to = given.words
    text = read(call, source)
    if isinstance(text, Reply):
        return Reply(1, err=text.err.replace(f"{source}:", f"cannot stat '{source}':"))
    if refused := _only_root(call, [to], "cannot create regular file"):
        return refused
    call.changes()
    call.machine.write(to, text, given.get("o", "owner") or call.context.user, int(given.get("m", "mode") or "755", 8))
    return Reply()


@program("rm")
def rm(call: Call) -> Reply:
    words = [word for word in call.words if not word.startswith("-")]
    refused = _only_root(call, words, "cannot remove")
    if refused:
        return refused
    call.changes()
    for path in words:
        for name in [name for name in call.machine.files if name == path or name.startswith(f"{path}/")]:
            del call.machine.files[name]
    return Reply()


@program("tee")
def tee(call: Call) -> Reply:
    append = "-a" in call.words
    paths = [word for word in call.words if not word.startswith("-")]
    refused = _only_root(call, [path for path in paths if path != "/dev/null"], "")
    if refused:
        return Reply(1, err="".join(f"tee: {path}: Permission denied\n" for path in paths))
    call.changes()
    for path in paths:
        before = call.machine.files.get(path)
        file = call.machine.files.setdefault(path, File())
        file.text = (before.text if append and before else "") + call.stdin
        file.changed = call.machine.timeline.now()
    return Reply(out=call.stdin)


def _only_root(call: Call, paths: list[str], doing: str) -> Reply | None:
    if call.root or not paths:
        return None
    return Reply(1, err="".join(f"{call.name}: {doing} '{path}': Permission denied\n" for path in paths))


def _each(call: Call, paths: list[str], change: Callable[[File], None]) -> Reply:
    err = ""
    for path in paths:
        file = call.machine.files.get(path)
        if file is None:
            err += f"{call.name}: cannot access '{path}': No such file or directory\n"
        else:
            change(file)
    return Reply(1 if err else 0, err=err)
