"""When to stop asking something that does not answer: a circuit breaker as a pure state machine."""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """Closed: every call may be made. Open: none. Half-open: one at a time, to see whether it is well again."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and counts of one breaker."""

    window: float = 30
    samples: int = 20
    """Fewer calls within the window open nothing."""
    most: int = 200
    """So many of the window's last calls count: else the good ones of a busy half minute would outvote a dead Kafka."""
    share: float = 0.5
    """Failed calls among those of the window that open it."""
    cool_down: float = 5
    probes: int = 3
    """Good calls in a row, while half-open, that close it."""
    probe_seconds: float = 10
    """A probe whose end is not told by then is given up."""


class Breaker:
    """`now` is any clock in seconds that never goes back. Every call that `allow` lets through ends in `record`
    or `forget`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._state = State.CLOSED
        self._calls: deque[tuple[float, bool]] = deque()
        self._failed = 0
        self._opened = 0.0
        self._probe: float | None = None
        self._good_probes = 0

    @property
    def state(self) -> State:
        return self._state

    def allow(self, now: float) -> bool:
        """Whether a call may be made now."""
        if self._state is State.CLOSED:
            return True
        if self._state is State.OPEN:
            if now - self._opened < self._limits.cool_down:
                return False
            self._state, self._good_probes, self._probe = State.HALF_OPEN, 0, None
        if self._probe is not None and now - self._probe < self._limits.probe_seconds:
            return False
        self._probe = now
        return True

    def record(self, good: bool, now: float) -> None:
        """The end of a call. Calls made before it opened do not count while it is open."""
        if self._state is State.CLOSED:
            self._count(good, now)
        elif self._state is State.HALF_OPEN and self._probe is not None:
            self._probe = None
            if not good:
                self._open(now)
                return
            self._good_probes += 1
            if self._good_probes >= self._limits.probes:
                self._state = State.CLOSED

    def forget(self) -> None:
        """The call ended in a way that tells nothing."""
        self._probe = None

    def _count(self, good: bool, now: float) -> None:
        self._calls.append((now, good))
        self._failed += not good
        while self._calls[0][0] <= now - self._limits.window or len(self._calls) > self._limits.most:
            self._failed -= not self._calls.popleft()[1]
        if len(self._calls) >= self._limits.samples and self._failed >= self._limits.share * len(self._calls):
            self._open(now)

    def _open(self, now: float) -> None:
        self._state, self._opened, self._probe = State.OPEN, now, None
        self._calls.clear()
        self._failed = 0
