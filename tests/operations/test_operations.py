"""`make operations` in short: no request fails, nothing is lost or doubled, every process ends with 0 in time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.operations.fleet import Fleet
from tests.operations.run import REST, under_load
from tests.operations.scale import layout, roll, scale_workers
from tests.operations.upgrade import LATER, later_differences, upgrade_workers
from tests.operations.versions import NoHistoryError, changed_services, extract, previous_revision
from tests.operations.watch import Watch
from tests.support.postgres import TestServer
from tests.support.services import WITH_DATABASE

RATE = 40
HOLD = 0.5


@pytest.fixture
async def fleet(pg_server: TestServer) -> AsyncIterator[Fleet]:
    """Not started yet."""
    fleet = Fleet(pg_server, ["operated", REST, LATER], drain=1.5)
    yield fleet
    await fleet.stop()


async def test_upgraded_and_restarted_under_load(fleet: Fleet, tmp_path: Path) -> None:
    """One service's workers from the previous version to this one; then another one's APIs restarted one process after
    the other."""
    previous, why_not, first = None, "", ["segmentation"]
    try:
        previous = extract(previous_revision(), tmp_path)
        first = changed_services(previous)[:1]
        fleet.code = dict.fromkeys(first, previous)
    except NoHistoryError as error:
        why_not = f"no previous version to upgrade from, the rest is tested: {error}"

    other = next([service] for service in WITH_DATABASE if service not in first)

    async def operate(watch: Watch) -> None:
        if previous is not None:
            await upgrade_workers(fleet, watch, previous, HOLD, first)
        else:
            await scale_workers(fleet, watch, HOLD, first)
        await roll(fleet, watch, other)

    await fleet.launch(layout(services=other))
    outcome = await under_load(fleet, "operated", operate, services=other, rate=RATE, rest_rate=8)
    assert outcome.good, str(outcome)
    assert outcome.events > 300
    assert len(outcome.exits) == (3 if previous else 4)
    if previous is None:
        pytest.skip(why_not)
    assert await later_differences(fleet, previous) == []
