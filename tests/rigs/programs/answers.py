"""What stands behind the programs of a machine: it hears each call over loopback and answers with a script."""

import os
import secrets
import shlex
import socketserver
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

STAND_IN = (Path(__file__).parent / "stand-in").read_text()


@dataclass(frozen=True)
class Call:
    """A program as it was called. An ordinary user has one uid for everything, so there everybody is root."""

    program: str
    words: tuple[str, ...]
    root: bool

    def __str__(self) -> str:
        return shlex.join((self.program, *self.words))

    def has(self, *words: str) -> bool:
        """Do the first words read so?"""
        return self.words[: len(words)] == words


Answer = Callable[[Call], str | None]


def said(out: str = "", err: str = "", status: int = 0) -> str:
    """The script that says this."""
    return f"printf %s {shlex.quote(out)}; printf %s {shlex.quote(err)} >&2; exit {status}"


def become(program: str, words: Iterable[str], env: Mapping[str, str] | None = None) -> str:
    """The script that runs a real program instead."""
    given = [f"{name}={value}" for name, value in (env or {}).items()]
    return f"exec {shlex.join(['/usr/bin/env', *given, program, *words])}"


def real(call: Call) -> str:
    """The program itself, for what a test machine and a real one have in common."""
    return become(f"/usr/bin/{call.program}", call.words)


class Programs:
    """The stand-ins in one folder, each with the function that answers for it; None means it was not understood."""

    def __init__(self, folder: Path, answers: Mapping[str, Answer]) -> None:
        self.folder = folder
        self.not_understood: list[Call] = []
        self._answers = answers
        self._token = secrets.token_hex(8)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.heard = self._heard
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], name="stand-ins", daemon=True)

    def __enter__(self) -> "Programs":
        self.folder.mkdir(mode=0o755)
        one = self.folder / "stand-in"
        port = str(self._server.server_address[1])
        one.write_text(STAND_IN.replace("@port@", port).replace("@token@", self._token))
        one.chmod(0o755)
        for program in self._answers:
            (self.folder / program).symlink_to(one)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _heard(self, token: str, uid: str, program: str, words: tuple[str, ...]) -> str:
        if not secrets.compare_digest(token, self._token):
            return said(err="this is another machine's rig\n", status=70)
        call = Call(program, words, int(uid) == os.geteuid())
        if (answer := self._answers[program](call)) is None:
            self.not_understood.append(call)
            return said(err=f"{program}: this test machine does not know `{call}`\n", status=64)
        return answer


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    heard: Callable[[str, str, str, tuple[str, ...]], str]


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        token, uid, count, program = (self._word() for _ in range(4))
        words = tuple(self._word() for _ in range(int(count)))
        self.wfile.write(self.server.heard(token, uid, program, words).encode() + b"\0")

    def _word(self) -> str:
        word = bytearray()
        while (byte := self.rfile.read(1)) not in (b"\0", b""):
            word += byte
        return word.decode(errors="replace")
