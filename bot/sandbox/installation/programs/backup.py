"""What backups are made with: tar, gzip, pg_dump, find. Real archives of simulated files, in memory."""

import fnmatch
import gzip as gzip_format
import io
import posixpath
import tarfile
from pathlib import Path
from typing import Final

from bot.sandbox.installation.programs import Call, Reply, Usage, in_te_main, on_host, options, program, unsupported
from bot.sandbox.installation.state import Machine

DUMP: Final = Path(__file__).parents[1] / "schema" / "travis-2.2.dump"  # what pg_dump 18 wrote of travis-2.2.sql


@program("tar", where=on_host)
def tar(call: Call) -> Reply:
    """`tar -c -f - -C / FOLDER …`: all files below, as they are in memory."""
    try:
        given = options(call.words, flags="cz", values="fC", longs={"numeric-owner": False})
    except Usage as usage:
        return unsupported(call, str(usage))
    if "c" not in given or given.get("f") != "-" or given.get("C") != "/":
        return unsupported(call, "anything but writing an archive of / to standard output")
    packed, missing = io.BytesIO(), ""
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in given.words:
            paths = [path for path in call.machine.files if f"{path}/".startswith(f"/{name}/")]
            missing += "" if paths else f"tar: {name}: Cannot stat: No such file or directory\n"
            for path in sorted(paths):
                _add(archive, call.machine, path)
    end = "tar: Exiting with failure status due to previous errors\n" if missing else ""
    return Reply(2 if missing else 0, packed.getvalue().decode(errors="surrogateescape"), missing + end)


def _add(archive: tarfile.TarFile, machine: Machine, path: str) -> None:
    file = machine.files[path]
    content = b"" if file.folder else file.text.encode(errors="surrogateescape")
    member = tarfile.TarInfo(path.lstrip("/"))
    member.type, member.size = tarfile.DIRTYPE if file.folder else tarfile.REGTYPE, len(content)
    member.mode, member.mtime = file.mode, int(machine.timeline.date(file.changed).timestamp())
    archive.addfile(member, io.BytesIO(content))


@program("gzip")
def gzip(call: Call) -> Reply:
    if any(word not in ("-c", "-1") for word in call.words):
        return unsupported(call, "anything but packing standard input")
    packed = gzip_format.compress(call.stdin.encode(errors="surrogateescape"), 1, mtime=0)
    return Reply(out=packed.decode(errors="surrogateescape"))


@program("pg_dump", where=in_te_main)
def pg_dump(call: Call) -> Reply:
    """A dump of the schema as it is at the start; the rows that change later are not in it."""
    try:
        given = options(call.words, values="hpUFd")
    except Usage as usage:
        return unsupported(call, str(usage))
    if given.get("F") != "c" or not given.get("d"):
        return unsupported(call, "anything but a dump in custom format")
    if not call.context.installation.app.services["postgresql"].running:
        why = 'connection to server at "127.0.0.1", port 5432 failed: Connection refused'
        return Reply(1, err=f"pg_dump: error: {why}\n")
    return Reply(out=DUMP.read_bytes().decode(errors="surrogateescape"))


@program("find", where=on_host)
def find(call: Call) -> Reply:
    """`find FOLDER -maxdepth N -name PATTERN`."""
    folder, *rest = call.words
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    if given.keys() != {"-maxdepth", "-name"}:
        return unsupported(call, "find with other tests")
    prefix, depth = f"{folder.rstrip('/')}/", int(given["-maxdepth"])
    inside = [path for path in call.machine.files if path.startswith(prefix)]
    if not inside and folder not in call.machine.files:
        return Reply(1, err=f"find: '{folder}': No such file or directory\n")
    fitting = (p for p in inside if p.count("/") - prefix.count("/") < depth)
    matching = (p for p in fitting if fnmatch.fnmatchcase(posixpath.basename(p), given["-name"]))
    return Reply(out="".join(f"{path}\n" for path in sorted(matching)))


@program("zstd", where=lambda _machine, _inside: False)
def zstd(call: Call) -> Reply:
    """A program that these machines do not have, and may be asked for."""
    return unsupported(call, "it")
