"""What one process takes on: requests at once, bytes of bodies at once, requests a second of one key.

The bucket is one pure function. The package `limits` would do the same with a storage, a strategy and a parsed rate
per call; it knows neither these headers nor a bound on memory that follows from the configuration.
"""

import math
import time
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prometheus_client import Counter, Gauge
from starlette.types import Scope

from libs.common.config import ConfigFile
from libs.common.web.problems import Problem, unavailable

HTTP_SHED = Counter(
    "superfan_http_shed_total", "Requests refused with 503 `overloaded`, before anything was done.", ["service"]
)
HTTP_IN_FLIGHT = Gauge("superfan_http_in_flight", "Requests that are being handled.", ["service"])

BURST_SECONDS = 2
MOST_BODY_BYTES = 64 * 1024 * 1024
BODY_SECONDS = 10.0
"""So long a body may take to arrive: whoever opens a request and sends none must not hold a place for ever."""
RATE_HEADERS = "superfan.rate_limit"
"""Where a request's scope keeps the raw headers that tell its key's rate limit."""


def overloaded() -> Problem:
    """503 of a process that has its hands full."""
    return unavailable("This process has as much to do as it can. Try again.", "overloaded", 1)


@dataclass(frozen=True)
class Limits:
    """Of one process: requests handled at once, and requests a second of a key that has no rate of its own."""

    in_flight: int = 256
    per_second: float = 1000


DEFAULT_LIMITS = Limits()


class Load:
    """Requests, and bytes of their bodies, that are in hand now."""

    def __init__(self, service: str, most_requests: int) -> None:
        self.most_requests = most_requests
        self.requests = 0
        self.body_bytes = 0
        self._shed = HTTP_SHED.labels(service)
        HTTP_IN_FLIGHT.labels(service).set_function(lambda: self.requests)

    @property
    def full(self) -> bool:
        return self.requests >= self.most_requests or self.body_bytes >= MOST_BODY_BYTES

    def count_shed(self) -> None:
        self._shed.inc()


class Taken(NamedTuple):
    """`wait` is 0 when the request may go on, else the seconds after which one could."""

    full_at: float
    remaining: int
    wait: float


def burst_of(per_second: float) -> int:
    """Requests that a key may send at once after a pause."""
    return max(1, round(per_second * BURST_SECONDS))


def take(per_second: float, full_at: float, now: float) -> Taken:
    """One request out of a token bucket of `burst_of(per_second)` tokens, refilled by `per_second`.

    A bucket is nothing but the instant at which it is full again, in seconds of any clock; one in the past means full.
    """
    full_at = max(full_at, now)
    left = burst_of(per_second) - (full_at - now) * per_second - 1
    if left < -0.001:  # floats: the token that is due now counts as there
        return Taken(full_at, 0, -left / per_second)
    return Taken(full_at + 1 / per_second, int(left + 0.001), 0.0)


class RateLimits:
    """The buckets of one process. Only declared keys and sources have one: that bounds the memory."""

    def __init__(self, config: ConfigFile, default_per_second: float) -> None:
        self._config = config
        self._default = default_per_second
        self._full_at: dict[tuple[str, str], float] = {}

    def take_for_key(self, scope: Scope, key_id: str, per_second: float | None) -> None:
        """Count a request of a key, at its own rate or the default. Raises Problem 429."""
        self._take(scope, "key", key_id, per_second or self._default)

    def take_for_source(self, scope: Scope, source_id: str, per_second: float | None) -> None:
        """Count a delivery of a source; without a rate of its own it has no limit. Raises Problem 429."""
        if per_second is not None:
            self._take(scope, "source", source_id, per_second)

    def _take(self, scope: Scope, kind: Literal["key", "source"], name: str, per_second: float) -> None:
        now = time.monotonic()
        taken = take(per_second, self._full_at.get((kind, name), now), now)
        self._full_at[kind, name] = taken.full_at
        if len(self._full_at) > len(self._config.current.keys) + len(self._config.current.sources):
            self._forget_undeclared()
        burst = burst_of(per_second)
        scope[RATE_HEADERS] = (
            (b"ratelimit-policy", f'"default";q={burst};w={math.ceil(burst / per_second)}'.encode()),
            (b"ratelimit", f'"default";r={taken.remaining};t={math.ceil(taken.full_at - now)}'.encode()),
        )
        if taken.wait:
            raise Problem(
                429,
                "rate_limited",
                f"This {kind} may send {per_second:g} requests a second, and {burst} at once.",
                headers={"Retry-After": str(math.ceil(taken.wait))},
            )

    def _forget_undeclared(self) -> None:
        declared = {"key": self._config.current.keys, "source": self._config.current.sources}
        self._full_at = {
            (kind, name): full_at for (kind, name), full_at in self._full_at.items() if name in declared[kind]
        }
