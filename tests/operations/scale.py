"""More and fewer workers, and every process restarted, while events and requests keep coming."""

import asyncio
from collections.abc import Iterable

from tests.operations.fleet import Fleet, names_of
from tests.operations.watch import Watch
from tests.support.services import SERVICES, WITH_DATABASE


def layout(apis: int = 2, services: Iterable[str] = WITH_DATABASE) -> list[str]:
    """Two of ingest, a worker of each service, and so many APIs of each of `services`."""
    names = [*names_of("ingest", "api", 2), *(f"{service}-worker-1" for service in WITH_DATABASE)]
    return names + [name for service in services for name in names_of(service, "api", apis)]


async def scale_workers(fleet: Fleet, watch: Watch, hold: float, services: Iterable[str] = WITH_DATABASE) -> None:
    """1 → 3 → 1 worker of one service after the other."""
    for service in services:
        (first,) = fleet.of("worker", [service])
        more = [f"{service}-worker-{number}" for number in (2, 3)]
        async with watch.step(f"{service}: 1 → 3 workers"):
            await fleet.add(*more)
            await asyncio.sleep(hold)
        async with watch.step(f"{service}: 3 → 1 workers"):
            # The first one leaves as well: whoever stays must take over everything.
            await fleet.end(first, more[0])
            await asyncio.sleep(hold)


async def roll(fleet: Fleet, watch: Watch, services: Iterable[str] = SERVICES) -> None:
    """Every API process gets SIGTERM and is started again, one after the other."""
    for service in services:
        what = "ingest" if service == "ingest" else f"{service}: API"
        async with watch.step(f"{what} restarted, one process after the other"):
            for name in fleet.of("api", [service]):
                await fleet.end(name)
                await fleet.add(name)
