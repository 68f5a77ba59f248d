"""`make operations` in short: from the previous version to this one and back, three workers and one again, everything
restarted one after the other, all under load: no request fails, nothing is lost or doubled, every process ends with 0.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.operations.fleet import Fleet
from tests.operations.run import REST, under_load
from tests.operations.scale import layout, roll, scale_workers
from tests.operations.upgrade import LATER, go_back, later_differences, upgrade
from tests.operations.versions import NoHistoryError, extract, previous_revision
from tests.operations.watch import Watch
from tests.support.postgres import TestServer

RATE = 40
WITH_API = ["rewards"]


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The code from before the newest migration."""
    try:
        return extract(previous_revision(), tmp_path)
    except NoHistoryError as error:
        pytest.skip(f"no previous version to upgrade from: {error}")


@pytest.fixture
async def fleet(pg_server: TestServer) -> AsyncIterator[Fleet]:
    """Not started yet."""
    fleet = Fleet(pg_server, ["operated", REST, LATER], drain=1)
    yield fleet
    await fleet.stop()


async def test_scaled_and_restarted_under_load(fleet: Fleet) -> None:
    async def operate(watch: Watch) -> None:
        await scale_workers(fleet, watch, 1, WITH_API)
        await roll(fleet, watch, ["ingest", *WITH_API])

    await fleet.launch(layout(services=WITH_API))
    outcome = await under_load(fleet, "operated", operate, services=WITH_API, rate=RATE, rest_rate=10)
    assert outcome.good, outcome
    assert outcome.events > 500
    assert len(outcome.exits) == 6


async def test_upgraded_and_taken_back_under_load(fleet: Fleet, previous: Path) -> None:
    async def operate(watch: Watch) -> None:
        await upgrade(fleet, watch, previous, 1)
        await go_back(fleet, watch, previous, 1)

    fleet.tree = previous
    await fleet.launch(name for name in layout(apis=1, services=WITH_API) if name != "ingest-api-2")
    outcome = await under_load(fleet, "operated", operate, services=WITH_API, rate=RATE, rest_rate=10, keep_alive=False)
    assert outcome.good, outcome
    assert await later_differences(fleet, previous) == []
