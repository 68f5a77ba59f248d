"""An operation under load, and what came of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from tests.chaos.checker import Verdict, check
from tests.chaos.load import Load
from tests.operations.fleet import Exit, Fleet
from tests.operations.rest import Rest
from tests.operations.watch import Step, Watch

WARM_SECONDS = 2
AFTERWARDS = 300
"""Events that must pass when all is over: a consumer that did not come back would leave some behind."""
CATCH_UP_SECONDS = 300
REST = "rest"
"""The account of the stream of reads and writes."""


@dataclass
class Outcome:
    """`failed` names every request that did not succeed, every write that is not there once, and whatever else must not
    be. `events` and `requests` count those that succeeded, `waits` are the seconds of both, sorted."""

    name: str
    rate: float
    steps: list[Step]
    exits: list[Exit]
    events: int
    requests: int
    event_waits: list[float]
    request_waits: list[float]
    failed: list[str]
    verdicts: list[Verdict]

    @property
    def lost(self) -> int:
        return sum(verdict.lost for verdict in self.verdicts)

    @property
    def doubled(self) -> int:
        return sum(verdict.doubled for verdict in self.verdicts)

    @property
    def good(self) -> bool:
        return not self.failed and not self._bad()

    def _bad(self) -> list[Verdict | Exit]:
        return [one for one in self.verdicts if not one.good] + [one for one in self.exits if not one.good]

    def __str__(self) -> str:
        what = f"{self.events} events and {self.requests} requests, {len(self.failed)} failed"
        return "\n".join([f"{self.name}: {what}", *self.failed[:20], *map(str, self._bad())])


async def under_load(
    fleet: Fleet,
    account: str,
    operate: Callable[[Watch], Awaitable[None]],
    *,
    services: Iterable[str],
    rate: float,
    rest_rate: float,
    keep_alive: bool = True,
) -> Outcome:
    """`operate` while `rate` events/s come in for `account` and each API of `services` gets `rest_rate` requests/s."""
    load = Load(fleet, account, rate=rate, keep_alive=keep_alive)
    rest = Rest(fleet, REST, services, rate=rest_rate, keep_alive=keep_alive)
    await rest.prepare()
    exits = len(fleet.exits)
    async with Watch(fleet) as watch:
        load.start()
        rest.start()
        await asyncio.sleep(WARM_SECONDS)
        await operate(watch)
        history, answers = await load.stop(), await rest.stop()
        statuses = history.statuses()
        waits = sorted(answer.seconds for answer in history.answers if answer.status == 202)
        await fleet.applied(CATCH_UP_SECONDS)
    await load.send(AFTERWARDS)
    await load.stop()
    await fleet.applied(CATCH_UP_SECONDS)
    await watch.measure(history.source)
    failed = [f"{count} events were answered {status}" for status, count in statuses.items() if status != 202]
    return Outcome(
        account,
        rate,
        watch.steps,
        fleet.exits[exits:],
        statuses[202],
        len(answers.waits),
        waits,
        sorted(answers.waits),
        failed + answers.failed + await rest.differences(),
        await check(fleet, history),
    )
