"""How fast Slack takes what: tokens that come back with time, per channel and for edits. Pure but for its clock."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

POSTS: Final = (1.0, 3)  # a second, and at once: Slack takes about one message a second in a channel
EDITS: Final = (50 / 60, 20)  # chat.update, all channels together
EDITS_KEPT: Final = 6  # of these for what people wait for: approvals that close, outcomes
BETWEEN_EDITS: Final = 1.0  # seconds between two edits of one status message


@dataclass
class _Bucket:
    rate: float
    size: float
    left: float
    at: float

    def wait(self, now: float, keep: float = 0.0) -> float:
        """Take a token, unless fewer than `keep` would stay: 0.0, or the seconds until there is one."""
        self.left = min(self.size, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1 + keep:
            return (1 + keep - self.left) / self.rate
        self.left -= 1
        return 0.0


class Pace:
    """Whether a message may go now; safe to ask from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._buckets: dict[Hashable, _Bucket] = {}

    def post(self, channel: str) -> float:
        """Seconds to wait before the next message in this channel; 0.0 takes the turn."""
        with self._guard:
            return self._bucket(("posts", channel), *POSTS).wait(self._clock())

    def edit(self, channel: str, message: str, prompt: bool) -> float:
        """The same for an edit; one that nobody waits for (`prompt` is False) leaves some room to others."""
        with self._guard:
            now = self._clock()
            if not prompt and (wait := self._bucket((channel, message), 1 / BETWEEN_EDITS, 1).wait(now)):
                return wait
            return self._bucket("edits", *EDITS).wait(now, 0.0 if prompt else EDITS_KEPT)

    def _bucket(self, name: Hashable, rate: float, size: float) -> _Bucket:
        if len(self._buckets) > 10_000:  # full ones are as good as new ones
            now = self._clock()
            self._buckets = {
                key: each for key, each in self._buckets.items() if (now - each.at) * each.rate < each.size
            }
        return self._buckets.setdefault(name, _Bucket(rate, size, size, self._clock()))
