"""`make operations` in short, with one service's workers and APIs: no request fails, nothing is lost or doubled, every
process ends with exit code 0 in time.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.operations.fleet import Fleet
from tests.operations.run import REST, under_load
from tests.operations.scale import layout, roll, scale_workers
from tests.operations.upgrade import LATER, go_back, later_differences, upgrade_workers
from tests.operations.versions import NoHistoryError, extract, previous_revision
from tests.operations.watch import Watch
from tests.support.postgres import TestServer

RATE = 40
HOLD = 0.5
OPERATED = ["rewards"]


@pytest.fixture
async def fleet(pg_server: TestServer) -> AsyncIterator[Fleet]:
    """Not started yet."""
    fleet = Fleet(pg_server, ["operated", REST, LATER], drain=2)
    yield fleet
    await fleet.stop()


async def test_scaled_and_restarted_under_load(fleet: Fleet) -> None:
    """1 → 3 → 1 workers, then the APIs and ingest restarted one process after the other."""

    async def operate(watch: Watch) -> None:
        await scale_workers(fleet, watch, HOLD, OPERATED)
        await roll(fleet, watch, ["ingest", *OPERATED])

    await fleet.launch(layout(services=OPERATED))
    outcome = await under_load(fleet, "operated", operate, services=OPERATED, rate=RATE, rest_rate=8)
    assert outcome.good, str(outcome)
    assert outcome.events > 300
    assert len(outcome.exits) == 6


async def test_the_previous_version_beside_this_one(fleet: Fleet, tmp_path: Path) -> None:
    """Its workers at the new schema, together with new ones, and again after new ones."""
    try:
        previous = extract(previous_revision(), tmp_path)
    except NoHistoryError as error:
        pytest.skip(f"no previous version to upgrade from: {error}")

    async def operate(watch: Watch) -> None:
        await upgrade_workers(fleet, watch, previous, HOLD, OPERATED)
        await go_back(fleet, watch, previous, HOLD, OPERATED)

    fleet.code = dict.fromkeys(OPERATED, previous)
    await fleet.launch(layout(apis=1, services=OPERATED)[1:])
    outcome = await under_load(fleet, "operated", operate, services=OPERATED, rate=RATE, rest_rate=8)
    assert outcome.good, str(outcome)
    assert await later_differences(fleet, previous) == []
