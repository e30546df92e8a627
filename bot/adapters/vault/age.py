"""age: chunks in, encrypted chunks out, and back again for the owners of the recipients' identities alone."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event as Flag
from threading import Thread
from typing import Any, Final, Protocol

import pyrage

from bot.adapters.vault.chunks import Chunks
from bot.core.backup import BackupFailed, Readable

AHEAD: Final = 4  # chunks that wait for whoever takes them
CHUNK: Final = 1 << 20
TICK: Final = 0.2
SECRET: Final = "AGE-SECRET-KEY-"
SSH_KEY: Final = b"-----BEGIN"
NO_KEY: Final = "No matching keys"  # pyrage has one error for all that can go wrong

Recipient = Any  # pyrage has no types
Identity = Any


class NotARecipient(BackupFailed):
    """None of the given identities is one that it was encrypted to, or its header is damaged."""


class Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


def recipients(texts: Sequence[str]) -> tuple[Recipient, ...]:
    """The public keys of those who may read the backups (`age1…`, `ssh-ed25519 …`, `ssh-rsa …`)."""
    if not texts:
        raise BackupFailed(
            "A backup is only taken encrypted, and nobody could decrypt it: `backups.recipients` is empty. Make a key"
            " with `age-keygen`, keep it away from these machines, and configure its public half (age1…)."
        )
    return tuple(_recipient(text.strip()) for text in texts)


def _recipient(text: str) -> Recipient:
    kind = pyrage.ssh.Recipient if text.startswith("ssh-") else pyrage.x25519.Recipient
    if text.upper().startswith(SECRET):
        raise BackupFailed("One of `backups.recipients` is a SECRET key. Put its public half (age1…) there instead.")
    try:
        return kind.from_str(text)
    except pyrage.RecipientError as error:
        raise BackupFailed(f"{text[:80]!r} is no public key that age can encrypt to: {error}.") from error


def identities(file: Path) -> tuple[Identity, ...]:
    """The secret keys in a file: lines as `age-keygen` writes them, or a private key of SSH without a passphrase."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise BackupFailed(f"The identity {file} cannot be read: {error.strerror}.") from error
    return identities_in(text, str(file))


def identities_in(text: bytes, where: str) -> tuple[Identity, ...]:
    """The same from memory; `where` they came from is all that an error says of them."""
    try:
        if text.lstrip().startswith(SSH_KEY):
            return (pyrage.ssh.Identity.from_buffer(text),)
        lines = (line.strip() for line in text.decode().splitlines())
        found = tuple(pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#"))
    except (pyrage.IdentityError, UnicodeDecodeError):
        raise BackupFailed(f"{where} holds no identity that can decrypt: it is not what `age-keygen` writes.") from None
    if not found:
        raise BackupFailed(f"{where} holds no identity: it has no line that begins with {SECRET}.")
    return found


def decrypt(reader: Readable, keys: Sequence[Identity], writer: Writable) -> None:
    """The plain bytes into the writer; raises BackupFailed when the keys do not fit, or a bit of it is another one.

    So it does when the reader fails; what the writer raises, this raises.
    """
    flat, checked = _Flat(reader), _Checked(writer)
    try:
        pyrage.decrypt_io(flat, checked, list(keys))
    except (pyrage.DecryptError, OSError) as error:
        if checked.failure is not None:
            raise checked.failure from None
        if isinstance(flat.failure, BackupFailed):
            raise flat.failure from None
        if flat.failure is not None:
            raise BackupFailed(f"The backup cannot be read: {flat.failure.strerror}.") from flat.failure
        kind = NotARecipient if NO_KEY in str(error) else BackupFailed
        raise kind(
            f"It cannot be decrypted ({error}): either it was not encrypted to this identity, or it is damaged or cut"
            " off. What was written of it so far proves nothing."
        ) from error


def encrypt(chunks: Iterable[bytes], to: Sequence[Recipient]) -> Generator[bytes, None, None]:
    """The same bytes as an age file, a megabyte at a time; what the chunks raise, this raises. Close it."""
    return _passed(chunks, lambda passage: pyrage.encrypt_io(passage, passage, list(to)))


def decrypted(chunks: Iterable[bytes], keys: Sequence[Identity]) -> Generator[bytes, None, None]:
    """The bytes that an age file holds, likewise; raises as `decrypt` does, perhaps after most of them. Close it."""
    return _passed(chunks, lambda passage: decrypt(passage, keys, passage))


def _passed(chunks: Iterable[bytes], work: Callable[["_Passage"], object]) -> Generator[bytes, None, None]:
    passage = _Passage(iter(chunks), work)
    passage.start()
    try:
        while (chunk := passage.made.get()) is not None:
            yield chunk
    finally:
        passage.stop()
    if passage.failure is not None:
        raise passage.failure


class _Stopped(Exception):
    """Nobody takes what is encrypted any more."""


class _Passage(Thread):
    """pyrage pulls and pushes, so it gets a thread: it reads from the chunks and writes into a short queue."""

    def __init__(self, chunks: Iterator[bytes], work: Callable[["_Passage"], object]) -> None:
        super().__init__(name="backup-age", daemon=True)
        self._came = Chunks(chunks)
        self._work = work
        self._written: list[bytes] = []
        self._size = 0
        self._unwanted = Flag()
        self.made: Queue[bytes | None] = Queue(AHEAD)
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._work(self)
            self.flush()
        except _Stopped:
            return
        except BaseException as error:
            self.failure = self.failure or error
        if not self._unwanted.is_set():
            self._hand(None)

    def read(self, most: int) -> bytes:
        try:
            return self._came.read(most)
        except BaseException as error:  # pyrage would make another one of it
            self.failure = error
            raise

    def write(self, data: bytes) -> int:
        self._written.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        if self._written:
            self._hand(b"".join(self._written))
            self._written, self._size = [], 0

    def stop(self) -> None:
        """Also when all is done: the thread ends at its next byte."""
        self._unwanted.set()
        while self.is_alive():
            try:
                self.made.get(timeout=TICK)
            except Empty:
                continue

    def _hand(self, chunk: bytes | None) -> None:
        while not self._unwanted.is_set():
            try:
                return self.made.put(chunk, timeout=TICK)
            except Full:
                continue
        raise _Stopped


class _Flat:
    """pyrage reads by calling `read` with a size, and takes nothing but bytes; of an error it keeps the words alone."""

    def __init__(self, reader: Readable) -> None:
        self._reader = reader
        self.failure: OSError | BackupFailed | None = None

    def read(self, most: int) -> bytes:
        try:
            return bytes(self._reader.read(most))
        except (OSError, BackupFailed) as error:
            self.failure = error
            raise


class _Checked:
    """pyrage wants to know how much was taken, and to flush."""

    def __init__(self, writer: Writable) -> None:
        self._writer = writer
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self._writer.write(data)
        except OSError as error:
            self.failure = error
            raise
        return len(data)

    def flush(self) -> None:
        """The writer's owner closes it."""
