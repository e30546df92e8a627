"""Can a TCP connection be opened from here?"""

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Any, Final

from bot.core.ports import Asker
from bot.core.question import Answer, Question, Reached, TcpProbe, Unanswered
from bot.core.target import Target

OPEN, REFUSED, SILENT, NO_NAME = "open", "refused", "silent", "no-name"
NAME_SERVER: Final = "name-server"  # not known: nobody says where the host is
AT_ONCE: Final = 16


class Tcp:
    """An `Asker` of `TcpProbe`; all probes of a round run side by side."""

    def __init__(self, machines: Asker) -> None:
        self._machines = machines

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> list[Answer | Unanswered]:
        """How each connection went; what was opened is closed at once."""
        del target, abort  # a probe is short
        with ThreadPoolExecutor(min(AT_ONCE, len(questions) or 1), "probe") as pool:
            return list(pool.map(_answer, questions))

    def identity(self, target: Target) -> str:
        return self._machines.identity(target)


def _answer(question: Question) -> Answer | Unanswered:
    if not isinstance(question, TcpProbe):
        return Unanswered(f"`{question}` is no probe.", "not-configured")
    until = time.monotonic() + question.within.total_seconds()
    try:
        addresses = _addresses(question, until)
    except socket.gaierror as error:
        if error.errno != socket.EAI_AGAIN:
            return Reached(NO_NAME)
        return Unanswered(f"Nobody says where {question.host} is: the name server does not answer.", NAME_SERVER)
    except UnicodeError:
        return Reached(NO_NAME)
    seen = {OPEN: False, REFUSED: False}
    for address in addresses:
        state = _reached(address, until)
        seen[state] = True
        if state == OPEN:
            break
    return Reached(next((state for state, was in seen.items() if was), SILENT))


def _addresses(probe: TcpProbe, until: float) -> Sequence[Any]:
    """Where the host is. The resolver keeps its own time, so it is left behind when that is too long."""
    found: SimpleQueue[Any] = SimpleQueue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(probe.host, probe.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        said = found.get(timeout=max(0.0, until - time.monotonic()))
    except Empty:
        raise socket.gaierror(socket.EAI_AGAIN, "too late") from None
    if isinstance(said, Exception):
        raise said
    return list(said)


def _reached(address: Any, until: float) -> str:
    family, kind, protocol, _, where = address
    try:
        with socket.socket(family, kind, protocol) as wire:
            wire.settimeout(max(0.05, until - time.monotonic()))
            wire.connect(where)
        return OPEN
    except ConnectionRefusedError:
        return REFUSED
    except OSError:
        return SILENT
