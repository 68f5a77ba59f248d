"""One fault from its first event to its verdict, and the soak."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from tests.chaos.checker import Verdict, check
from tests.chaos.faults import Fault, NotPossibleError
from tests.chaos.load import FAILED, HUNG, RATE, History, Load
from tests.chaos.world import World
from tests.support.services import SERVICES

WARM_SECONDS = 2
AFTERWARDS = 300
"""Events that must pass when all is over: a consumer that did not come back would leave some behind."""
CATCH_UP_SECONDS = 120
SAMPLE_SECONDS = 10


@dataclass
class Result:
    """What one fault came to. `why_not` says why it was not possible here."""

    fault: Fault
    why_not: str = ""
    note: str = ""
    seconds: float = 0
    caught_up: float = 0
    acknowledged: int = 0
    refused: int = 0
    unanswered: int = 0
    waits: Sequence[float] = ()
    """Seconds to each 202 during the fault, sorted."""
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum(verdict.lost for verdict in self.verdicts)

    @property
    def doubled(self) -> int:
        return sum(verdict.doubled for verdict in self.verdicts)

    @property
    def good(self) -> bool:
        return all(verdict.good for verdict in self.verdicts)

    def wait(self, share: float) -> float:
        """The time in which this share of the 202s came; 0 without any."""
        return self.waits[min(len(self.waits) - 1, int(len(self.waits) * share))] if self.waits else 0


async def run_fault(world: World, fault: Fault, seconds: float, rate: float = RATE) -> Result:
    """Load, the fault, everything caught up, some more events, the checker."""
    system = world.system
    load = Load(system, fault.account, rate=rate)
    load.start()
    await asyncio.sleep(WARM_SECONDS)
    began = time.monotonic()
    try:
        note = await fault.do(world, load.history, seconds)
    except NotPossibleError as error:
        await load.stop()
        return Result(fault, why_not=str(error))
    finally:
        world.proxy.heal()
    ended = time.monotonic()
    history = await load.stop()
    await system.wait_ready(seconds=CATCH_UP_SECONDS)
    await system.applied(CATCH_UP_SECONDS)
    caught_up = time.monotonic()
    await load.send(AFTERWARDS)
    await load.stop()
    await system.applied(CATCH_UP_SECONDS)
    result = Result(fault, note=note, seconds=ended - began, caught_up=caught_up - ended)
    _figures(result, history, began, ended)
    result.verdicts = await check(system, history)
    return result


def _figures(result: Result, history: History, began: float, ended: float) -> None:
    statuses = history.statuses()
    result.acknowledged = len(history.acknowledged)
    result.refused = statuses[503] + statuses[429]
    result.unanswered = statuses[FAILED] + statuses[HUNG]
    result.waits = sorted(
        answer.seconds for answer in history.answers if answer.status == 202 and began <= answer.at <= ended
    )


@dataclass
class Soak:
    """Memory (MiB) of each process and connections, sampled every 10 s, and whether they stayed flat.

    Flat: the median of the last minute is at most a tenth and 10 MiB above that of the second minute, or not more than
    two connections above it. The broker's heap grows up to its fixed limit; its memory is shown and not judged.
    """

    result: Result
    samples: list[dict[str, float]] = field(default_factory=list)

    def ends(self, name: str) -> tuple[float, float]:
        """The medians of the second minute and of the last one."""
        values = [sample[name] for sample in self.samples]
        minute = 60 // SAMPLE_SECONDS
        return statistics.median(values[minute : 2 * minute] or values), statistics.median(values[-minute:])

    def flat(self, name: str) -> bool:
        first, last = self.ends(name)
        return last <= (first + 2 if "connections" in name else first * 1.1 + 10)

    @property
    def good(self) -> bool:
        return self.result.good and all(self.flat(name) for name in self.samples[0] if name != "kafka")


async def soak(world: World, minutes: float, rate: float = RATE) -> Soak:
    """Load for so long, with nothing wrong."""
    samples: list[dict[str, float]] = []

    async def watch(world: World, _history: History, seconds: float) -> str:
        """Nothing is wrong; load for minutes, and memory and connections are watched."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(SAMPLE_SECONDS)
            samples.append(await asyncio.to_thread(_sample, world))
        return f"{rate:.0f} events/s for {minutes:g} minutes"

    return Soak(await run_fault(world, Fault("soak", watch), minutes * 60, rate), samples)


def _sample(world: World) -> dict[str, float]:
    postgres = world.postgres.server.child
    assert postgres is not None
    pids = {name: world.system.children[name].pid for name in SERVICES} | {"kafka": world.system.broker.pid}
    sample = {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in pids.items()}
    # A PostgreSQL session is a process.
    sessions = [child for child in psutil.Process(postgres.pid).children() if _is_session(child)]
    kafka = [
        one for one in psutil.Process(pids["kafka"]).net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED
    ]
    return {**sample, "PostgreSQL connections": len(sessions), "Kafka connections": len(kafka)}


def _is_session(process: psutil.Process) -> bool:
    try:
        return "superfan" in " ".join(process.cmdline())
    except psutil.Error:
        return False
