"""State that changes because a local day has passed: a sweep per worker moves what is due, account by account."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import structlog
from prometheus_client import Counter, Gauge, Histogram

from libs.common.config import Account, ConfigFile
from libs.common.days import local_day
from libs.common.db import AsyncSession, Sessions, is_transient
from libs.common.outbox import Relay

log = structlog.get_logger(__name__)

POLL_SECONDS = 5.0
FULL_SECONDS = 0.2
MOST_SECONDS_BETWEEN_ATTEMPTS = 30.0

SWEEP_ROWS = Counter("superfan_sweep_rows_total", "Rows looked at because their day had come", ["service"])
SWEEP_SECONDS = Histogram("superfan_sweep_seconds", "One transaction of the sweep", ["service"])
SWEEP_ERRORS = Counter(
    "superfan_sweep_errors_total", "Rounds of the sweep that failed and are tried again", ["service"]
)
SWEEP_OLDEST = Gauge(
    "superfan_sweep_due_oldest_days",
    "Local days since the longest overdue row of any account became due, as the last round began; 0 on its day",
    ["service"],
)


@dataclass(frozen=True)
class DueWork:
    """What a service does by the calendar of each account.

    `oldest(session, account name, today)` is the longest overdue day of an account, or None when nothing is due.
    `step(session, account, today, now)` does a bounded part of what is due, as one transaction that the sweep commits,
    and returns how many rows that were: 0 when nothing is left that no other transaction holds.
    """

    oldest: Callable[[AsyncSession, str, date], Awaitable[date | None]]
    step: Callable[[AsyncSession, Account, date, datetime], Awaitable[int]]


class Sweep:
    """Takes the steps of every account until nothing is due, then looks again every few seconds: a local midnight is
    seen soon, and after a stop it catches up. Several may run at once. Failures are retried without end."""

    def __init__(self, service: str, config: ConfigFile, sessions: Sessions, relay: Relay, work: DueWork) -> None:
        self._service = service
        self._config = config
        self._sessions = sessions
        self._relay = relay
        self._work = work
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`."""
        delay = POLL_SECONDS
        while not self._stopping.is_set():
            try:
                await self.sweep_all()
                delay = POLL_SECONDS
            except Exception as error:
                SWEEP_ERRORS.labels(self._service).inc()
                if not is_transient(error):
                    log.exception("the sweep failed unexpectedly")
                log.warning("the sweep tries again", error=repr(error)[:300], delay=delay)
                await self._pause(delay)
                delay = min(delay * 2, MOST_SECONDS_BETWEEN_ATTEMPTS)
            else:
                await self._pause(POLL_SECONDS)

    async def stop(self) -> None:
        """Finish the transaction at hand."""
        self._stopping.set()

    async def sweep_all(self) -> None:
        """All that is due now in every account. One account's failure keeps no other waiting; the last is raised."""
        due = []
        oldest = 0
        async with self._sessions() as session:
            for account in self._config.current.accounts.values():
                today = local_day(datetime.now(UTC), account.zone)
                day = await self._work.oldest(session, account.name, today)
                if day is not None:
                    due.append(account)
                    oldest = max(oldest, (today - day).days)
        SWEEP_OLDEST.labels(self._service).set(oldest)
        failure: Exception | None = None
        for account in due:
            try:
                await self._sweep(account)
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure

    async def _sweep(self, account: Account) -> None:
        while not self._stopping.is_set():
            if self._relay.full:
                await self._pause(FULL_SECONDS)
                continue
            started = time.monotonic()
            now = datetime.now(UTC)
            async with self._sessions() as session, session.begin():
                count = await self._work.step(session, account, local_day(now, account.zone), now)
            if not count:
                break
            self._relay.wake()
            SWEEP_ROWS.labels(self._service).inc(count)
            SWEEP_SECONDS.labels(self._service).observe(time.monotonic() - started)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
