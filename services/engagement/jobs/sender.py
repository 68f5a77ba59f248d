"""What a worker does beside its consumers: asks again about messages that waited, and sends those of other channels.

Each channel has a loop and a breaker of its own, so that one dead provider delays no other. Several workers may run:
a message is leased to one of them at a time.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog
from prometheus_client import Counter, Gauge

from libs.common.config import Channel, ConfigFile
from libs.common.db import Sessions, is_transient
from libs.common.leases import Claimed
from libs.common.outbox import Relay
from libs.common.process import Component
from services.engagement.jobs.delivery import Poster
from services.engagement.usecases import sending
from services.engagement.usecases.telling import SERVICE
from services.engagement.usecases.waiting import ask_again

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
STRANDED_SECONDS = 30.0
ERROR_SECONDS = 5.0
HELD_AT_ONCE = 200
CALLS_AT_ONCE = 8
FAILURES_TO_OPEN = 5
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0

CALLS = Counter("superfan_channel_calls_total", "Calls of a channel by their end", ["service", "channel", "outcome"])
OPEN = Gauge("superfan_channel_open", "1 while a channel's breaker holds its calls back", ["service", "channel"])
ERRORS = Counter(
    "superfan_sender_errors_total", "Rounds of the sender that failed and are tried again", ["service", "loop"]
)


class Breaker:
    """Opens after FAILURES_TO_OPEN calls in a row that were not answered well; then lets one try, after pauses that
    double."""

    def __init__(self) -> None:
        self.failures = 0

    @property
    def pause(self) -> float:
        """Seconds to wait before the next call; 0 while closed."""
        beyond = self.failures - FAILURES_TO_OPEN
        return 0.0 if beyond < 0 else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(beyond, 20))

    def note(self, *, well: bool) -> None:
        self.failures = 0 if well else self.failures + 1


class Sender:
    """One loop for messages that wait, and one for each channel of the configuration."""

    def __init__(self, config: ConfigFile, sessions: Sessions, relay: Relay) -> None:
        self._config = config
        self._sessions = sessions
        self._relay = relay
        self._stopping = asyncio.Event()
        self._declared: set[Channel] = set()
        self._loops: dict[Channel, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until `stop`. A channel that changes in the configuration gets a new loop; the old one ends its calls."""
        own = [
            asyncio.create_task(self._repeat("held", POLL_SECONDS, self.ask_held, lambda: True)),
            asyncio.create_task(self._repeat("stranded", STRANDED_SECONDS, self.end_stranded, lambda: True)),
        ]
        while not self._stopping.is_set():
            self._declared = {
                channel for account in self._config.current.accounts.values() for channel in account.channels.values()
            }
            self._loops = {channel: loop for channel, loop in self._loops.items() if not loop.done()}
            for channel in self._declared - self._loops.keys():
                self._loops[channel] = asyncio.create_task(self._serve(channel))
            await self._pause(POLL_SECONDS)
        await asyncio.gather(*own, *self._loops.values(), return_exceptions=True)

    async def stop(self) -> None:
        """Finish the calls at hand."""
        self._stopping.set()

    async def ask_held(self) -> bool:
        """One batch of messages whose time has come; returns whether there may be more."""
        async with self._sessions() as session, session.begin():
            claimed = await sending.claim_held(session, datetime.now(UTC), HELD_AT_ONCE)
        if claimed:
            async with self._sessions() as session, session.begin():
                await ask_again(session, claimed, datetime.now(UTC), self._config.account)
            self._relay.wake()
        return len(claimed) == HELD_AT_ONCE

    async def end_stranded(self) -> bool:
        """One batch of messages that expired where no channel takes them."""
        async with self._sessions() as session, session.begin():
            claimed = await sending.claim_stranded(session, datetime.now(UTC), HELD_AT_ONCE)
        for one in claimed:
            async with self._sessions() as session, session.begin():
                await sending.begin(session, one, None, datetime.now(UTC))
        return len(claimed) == HELD_AT_ONCE

    async def _serve(self, channel: Channel) -> None:
        poster = Poster(channel)
        breaker = Breaker()
        try:
            await self._repeat(
                channel.id, POLL_SECONDS, lambda: self.send_some(poster, breaker), lambda: channel in self._declared
            )
        finally:
            await poster.close()

    async def send_some(self, poster: Poster, breaker: Breaker) -> bool:
        """One batch of messages of a channel; returns whether there may be more."""
        pause = breaker.pause
        OPEN.labels(SERVICE, poster.channel.id).set(pause > 0)
        if pause:
            await self._pause(pause)
        limit = 1 if pause else CALLS_AT_ONCE
        async with self._sessions() as session, session.begin():
            claimed = await sending.claim_for(session, poster.channel, datetime.now(UTC), limit)
        if claimed:
            ends = await asyncio.gather(*(self._send(poster, breaker, one) for one in claimed), return_exceptions=True)
            self._relay.wake()
            for end in ends:
                if end is not None:
                    raise end
        return len(claimed) == limit

    async def _send(self, poster: Poster, breaker: Breaker, claimed: Claimed) -> None:
        now = datetime.now(UTC)
        async with self._sessions() as session, session.begin():
            body = await sending.begin(session, claimed, poster.channel, now)
        if body is None:
            return
        answer = await poster.post(claimed.row.message_id, body, now, claimed.row.traceparent)
        breaker.note(well=answer.outcome == "sent")
        CALLS.labels(SERVICE, poster.channel.id, answer.outcome).inc()
        async with self._sessions() as session, session.begin():
            await sending.finish(session, claimed, poster.channel, answer, datetime.now(UTC), random.random())  # noqa: S311

    async def _repeat(
        self, name: str, seconds: float, act: Callable[[], Awaitable[bool]], wanted: Callable[[], bool]
    ) -> None:
        while wanted() and not self._stopping.is_set():
            more = False
            try:
                more = await act()
            except Exception as error:
                ERRORS.labels(SERVICE, name).inc()
                if not is_transient(error):
                    log.exception("the sender failed unexpectedly", loop=name)
                log.warning("the sender tries again", loop=name, error=repr(error)[:300])
                await self._pause(ERROR_SECONDS)
            if not more:
                await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def background(config: ConfigFile, sessions: Sessions, relay: Relay) -> Sequence[Component]:
    """The sender as a part of the worker."""
    sender = Sender(config, sessions, relay)
    return [Component("sender", run=sender.run, stop=sender.stop, deadline=25)]
