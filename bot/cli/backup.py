"""`opsbot backup …`: what an operator does with a backup on a machine of their own, without `opsbot serve`."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getpass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from bot.core.backup import BackupFailed, NotThere

if TYPE_CHECKING:
    from bot.adapters.vault import Chunks, Objects

app = typer.Typer(help="Backups: read what was stored.", no_args_is_help=True)

Identity = Annotated[
    str, typer.Option("--identity", "-i", help="The secret key: a file as `age-keygen` writes it; - is standard input.")
]
LONGEST_KEYS: Final = 1 << 20  # bytes
NEAR: Final = 20  # objects that are named to one who mistyped
Output = Annotated[Path | None, typer.Option("--output", "-o", help="A new file; else standard output.")]
Stored = Annotated[str, typer.Argument(metavar="OBJECT", help="A file, or its address: s3://bucket/prod/….age")]


@app.callback()
def _backup() -> None:
    """Backups: read what was stored."""


@app.command()
def decrypt(stored: Stored, identity: Identity, output: Output = None) -> None:
    """Decrypt an object of a backup; the same as `age -d -i IDENTITY OBJECT`."""
    from bot.adapters import vault

    keys = keys_of(identity)
    with _reading(stored) as reader, _writing(output) as writer:
        vault.decrypt(reader, keys, writer)


def keys_of(identity: str) -> tuple[Any, ...]:
    """The secret keys in a file, or on standard input, where nothing of them is shown or kept."""
    from bot.adapters import vault

    if identity.lstrip().upper().startswith(vault.SECRET):
        raise BackupFailed(
            "A secret key was given as a word of the command, where others can see it. Make a new one; give it by a"
            " file, or with `--identity -` on standard input."
        )
    if identity != "-":
        return vault.identities(Path(identity))
    typed = getpass("Secret key: ").encode() if sys.stdin.isatty() else sys.stdin.buffer.read(LONGEST_KEYS)
    return vault.identities_in(typed, "Standard input")


@contextmanager
def _reading(stored: str) -> Iterator["BinaryIO | Chunks"]:
    if "://" in stored:
        from bot.adapters import vault

        place, _, name = stored.rpartition("/")
        objects = vault.objects(place)
        if objects.size(name) is None:
            raise NotThere(f"There is no {name} in {objects.where}. {_near(objects)}")
        yield vault.Chunks(objects.get(name))
        return
    try:
        file = Path(stored).open("rb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise BackupFailed(f"{stored} cannot be read: {error.strerror}.") from error
    with file:
        yield file


def _near(objects: "Objects") -> str:
    """What is there, for one who mistyped."""
    found = ["".join(filter(str.isprintable, each.key)) for each in islice(objects.list(), NEAR + 1)]
    if not found:
        return "Nothing is there at all; `opsbot run backup show N` names the objects of a backup."
    more = ", …" if len(found) > NEAR else ""
    return f"There is {', '.join(sorted(found[:NEAR]))}{more}"


@contextmanager
def _writing(output: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there only when it is whole: what was cut off looks like a backup, too."""
    if output is None:
        if sys.stdout.isatty():
            raise BackupFailed("A backup is not for a terminal: name a file with --output, or redirect it.")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists():
        raise BackupFailed(f"{output} is there already, and was left as it is; name another file.")
    unfinished = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
        unfinished.rename(output)
    except OSError as error:
        raise BackupFailed(f"{output} cannot be written: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
