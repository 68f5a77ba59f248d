"""What a step of an operation costs: how late events are applied, how far behind, how often partitions move."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from libs.cli.local.lag import LagReader
from tests.operations.fleet import Exit, Fleet
from tests.support.services import WITH_DATABASE

SAMPLE_SECONDS = 2.0
REBALANCES = "superfan_consumer_rebalances_total"
DELAYS = (
    "select count(*), percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from applied - received)),"
    " max(extract(epoch from applied - received))"
    " from event where source = $1 and received >= $2 and received < $3"
)


@dataclass
class Step:
    """`lag` is the most records that one service was behind, `rebalances` how often a process that stayed gave up its
    partitions. `p50`, `p99` and `worst` are seconds from ingest's receipt of an event to the transaction that applied
    it, for the service where `worst` was longest: the longest pause in applying is in it."""

    name: str
    began: datetime
    ended: datetime
    seconds: float = 0
    exits: list[Exit] = field(default_factory=list)
    rebalances: int = 0
    lag: int = 0
    p50: float = 0
    p99: float = 0
    worst: float = 0
    slowest: str = ""

    @property
    def longest_exit(self) -> float:
        return max((one.seconds for one in self.exits), default=0)


class Watch:
    """Samples all processes of a fleet every two seconds while it is entered."""

    def __init__(self, fleet: Fleet) -> None:
        self.steps: list[Step] = []
        self._fleet = fleet
        self._counted: dict[int, float] = {}
        self._rebalances = 0.0
        self._lag = 0
        self._stopping = False

    async def __aenter__(self) -> "Watch":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await self._task

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """What happens inside is one step of the operation."""
        print(f"  {name}", flush=True)
        now, began = datetime.now(UTC), time.monotonic()
        await self._count()
        exits, rebalances = len(self._fleet.exits), self._rebalances
        self._lag = 0
        yield
        await self._count()
        step = Step(name, now, datetime.now(UTC), time.monotonic() - began, self._fleet.exits[exits:])
        step.rebalances, step.lag = int(self._rebalances - rebalances), self._lag
        self.steps.append(step)

    async def measure(self, source: str) -> None:
        """The delays of the events of `source` that came in during each step, once everything is applied."""
        for step in self.steps:
            for service in WITH_DATABASE:
                ((count, quantiles, worst),) = await self._fleet.query(service, DELAYS, source, step.began, step.ended)
                if count and worst > step.worst:
                    step.p50, step.p99 = map(float, quantiles)
                    step.worst, step.slowest = float(worst), service

    async def _run(self) -> None:
        reader = LagReader({"kafka": self._fleet.broker.bootstrap, "postgres": self._fleet.databases})
        while not self._stopping:
            with contextlib.suppress(TimeoutError, OSError):
                begins, ends = await reader.log()
                self._lag = max(self._lag, *(sum(lag.behind.values()) for lag in await reader.read(ends, begins)))
            await self._count()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _count(self) -> None:
        """A process that has left tells nothing more; what it told last has been counted."""
        for name in self._fleet.of("worker"):
            child = self._fleet.children.get(name)
            if child is None:
                continue
            with contextlib.suppress(httpx.TransportError):
                count = await self._fleet.metric(name, REBALANCES)
                self._rebalances += max(0.0, count - self._counted.get(child.pid, 0))
                self._counted[child.pid] = count
