"""SHA-256 in a thread of its own, beside the bytes that pass: hashlib needs no interpreter while it counts."""

import hashlib
from queue import Queue
from threading import Thread
from typing import Final

AHEAD: Final = 4


class Sha256:
    """Feed it; `hexdigest` is of all that was fed. Closed in every case."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._waiting: Queue[bytes | None] = Queue(AHEAD)
        self._thread = Thread(target=self._count, name="backup-sha256", daemon=True)
        self._thread.start()
        self.size = 0

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        self._waiting.put(data)

    def close(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def hexdigest(self) -> str:
        self.close()
        return self._sum.hexdigest()

    def _count(self) -> None:
        while (data := self._waiting.get()) is not None:
            self._sum.update(data)
