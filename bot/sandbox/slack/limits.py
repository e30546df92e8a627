"""Slack's numbers: how long, how many, how often. Sources: slack.md §1.3 and §1.4."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

TEXT_POSTED = 40_000  # cut off beyond this
TEXT_UPDATED = 4_000  # refused beyond this, chat.update only
BLOCKS_PER_MESSAGE = 50
BLOCKS_PER_VIEW = 100
BLOCK_TEXT_PER_MESSAGE = 13_200  # undocumented: bolt-js issues 2509 and 2867
VIEW_BYTES = 250_000
VIEWS_STACKED = 3
METADATA_BYTES = 16_000
RETRIED_EVENT_SECONDS = (0.0, 60.0, 300.0)

# Calls per minute of a method for the whole app, by Slack's tiers; a method not named here is Tier 4.
TIER_2, TIER_3, TIER_4 = 20, 50, 100
PER_MINUTE = {
    "apps.connections.open": TIER_3,
    "auth.test": 600,
    "chat.delete": TIER_3,
    "chat.getPermalink": 600,
    "chat.postMessage": 300,
    "chat.update": TIER_3,
    "conversations.history": TIER_3,
    "conversations.info": TIER_3,
    "conversations.list": TIER_2,
    "conversations.open": TIER_3,
    "conversations.replies": TIER_3,
    "reactions.add": TIER_3,
    "team.info": TIER_3,
    "usergroups.list": TIER_2,
    "usergroups.users.list": TIER_2,
    "users.list": TIER_2,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that a test may relax. Seconds are real; `clock_factor` shortens the long ones (retries, response_url)."""

    ack_seconds: float = 3.0
    trigger_seconds: float = 3.0
    response_url_seconds: float = 1800.0
    response_url_uses: int = 5
    connections: int = 10
    rate_limited: bool = True
    posts_per_second: float = 1.0
    post_burst: int = 4
    clock_factor: float = 1.0

    def scaled(self, seconds: float) -> float:
        return seconds / self.clock_factor


@dataclass(slots=True)
class Bucket:
    """Tokens that come back at `rate` per second, at most `size` of them."""

    rate: float
    size: float
    left: float
    at: float

    def wait(self, now: float) -> float:
        """Take one token; 0.0 when there was one, else the seconds until there will be."""
        self.left = min(self.size, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.rate
        self.left -= 1
        return 0.0


@dataclass(slots=True)
class RateLimits:
    """Slack's two rates: per method for the app, and posts per channel."""

    limits: Limits
    now: Callable[[], float] = time.monotonic
    buckets: dict[str, Bucket] = field(default_factory=dict)

    def retry_after(self, method: str, channel: str | None) -> int:
        """Whole seconds to wait before this call may be made; 0 means go ahead."""
        if not self.limits.rate_limited:
            return 0
        per_minute = PER_MINUTE.get(method, TIER_4)
        wait = self._take(method, per_minute / 60, per_minute)
        if not wait and channel and method in ("chat.postMessage", "chat.postEphemeral"):
            wait = self._take(f"#{channel}", self.limits.posts_per_second, self.limits.post_burst)
        return math.ceil(wait)

    def _take(self, name: str, rate: float, size: float) -> float:
        bucket = self.buckets.setdefault(name, Bucket(rate, size, size, self.now()))
        return bucket.wait(self.now())
