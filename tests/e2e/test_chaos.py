"""The chaos battery in short, on a system of its own: everything acknowledged has its effects once, in all stores.

`make chaos` has all faults, longer, and measures them.
"""

from collections.abc import AsyncIterator

import pytest

from tests.chaos.checker import check
from tests.chaos.faults import FAULTS
from tests.chaos.load import Load
from tests.chaos.world import World
from tests.support.services import System

RATE = 60
SHORT = {"F2": 13, "F14": 1, "F1": 0, "F6": 3, "F3": 0, "F10": 0}
"""Faults in their order, each with about how many seconds it lasts."""
SPOILED = "spoiled"


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    world = World(["everything", "wiped", SPOILED])
    try:
        await world.start()
        yield world
    finally:
        await world.close()


async def must_be_right(system: System, load: Load) -> None:
    await system.wait_ready(seconds=180)
    await system.applied()
    verdicts = await check(system, load.history)
    assert all(verdict.good for verdict in verdicts), "\n".join(map(str, verdicts))


async def test_nothing_acknowledged_is_lost_or_doubled(world: World) -> None:
    """Zombies, poison, killed workers, a black hole, a killed broker and a crashed PostgreSQL, one after the other."""
    load = Load(world.system, "everything", rate=RATE)
    load.start()
    for name, seconds in SHORT.items():
        print(name, await FAULTS[name].do(world, load.history, seconds), flush=True)
    history = await load.stop()
    await world.system.wait_ready(seconds=180)
    await world.system.applied()
    # A consumer that did not come back would leave some of these behind.
    await load.send(300)
    await load.stop()
    assert len(history.acknowledged) > 1000
    await must_be_right(world.system, load)


async def test_a_broker_that_lost_its_data_is_gone_on_with(world: World) -> None:
    """Another cluster on the same port: what was applied stays, what comes counts, what comes again does not."""
    system, load = world.system, Load(world.system, "wiped", rate=RATE)
    await load.send(300)
    await system.applied()
    first_cluster = await system.broker.cluster_id()
    await system.broker.wipe()
    await system.broker.start()
    assert await system.broker.cluster_id() != first_cluster
    await load.repeat()
    await load.send(300)
    await load.stop()
    await must_be_right(system, load)


async def test_the_checker_sees_what_is_lost_and_what_is_doubled(world: World) -> None:
    system, load = world.system, Load(world.system, SPOILED)
    await load.send(200)
    history = await load.stop()
    await must_be_right(system, load)
    verdicts = await check(system, history)
    assert [verdict.acknowledged for verdict in verdicts[:2]] == [200, 200]
    like = next(sent for sent in history.acknowledged.values() if sent.type == "like")
    follow = next(sent for sent in history.acknowledged.values() if sent.type == "follow")

    days = "select min(day) from activity_day where account = $1 and type = 'like' and subject = $2"
    one_day = f"account = $1 and type = 'like' and subject = $2 and day = ({days})"
    whose = "from holder where holder.account_ref = balance.account_ref and holder.account = $1 and subject = $2"
    for service, argument, statement in (
        ("profile", like.subject, f"update activity_day set count = count + 1 where {one_day}"),
        ("segmentation", like.id, "delete from event where account = $1 and id = $2"),
        ("engagement", follow.id, "delete from decision where account = $1 and event_id = $2"),
        ("rewards", follow.subject, f"update balance set points = points + 1 {whose}"),
    ):
        await system.query(service, statement, SPOILED, argument)
    one_notice = "select digest from event where account = $1 and type = 'points.awarded' limit 1"
    await system.query("profile", f"delete from event where digest = ({one_notice})", SPOILED)
    verdicts = await check(system, history)
    lost = {verdict.service: verdict.lost for verdict in verdicts}
    doubled = {verdict.service: verdict.doubled for verdict in verdicts}
    # A notice of the decision that is gone is one too many; a wrong balance misses the right one.
    assert lost == {"profile": 0, "segmentation": 1, "engagement": 1, "rewards": 1, "notices": 1}
    assert doubled == {"profile": 1, "segmentation": 0, "engagement": 0, "rewards": 1, "notices": 1}
    assert not any(verdict.good for verdict in verdicts)
