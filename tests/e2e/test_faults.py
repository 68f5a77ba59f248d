"""Killed, frozen and doubled workers, and a broker that lost its data: acknowledged events = effects."""

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.postgres import TestServer
from tests.support.services import WITH_DATABASE, System

ACCOUNT = "fire"
SUBSCRIBED = {
    "profile": {"follow", "like", "order.paid"},
    "segmentation": {"follow", "like", "order.paid"},
    "engagement": {"follow"},
    "rewards": {"follow", "like", "order.paid"},
}


def event(number: int, source: str, users: int = 50) -> dict[str, Any]:
    """The n-th event of a stream: each fan follows once, then likes and buys."""
    user = number % users
    kind = "follow" if number < users else ("like", "like", "order.paid")[number % 3]
    order = {"order_id": f"{source.strip('/')}-{number}", "amount_minor": 100, "currency": "CNY"}
    data = order if kind == "order.paid" else {}
    return {
        "specversion": "1.0",
        "id": f"{source}-{number}",
        "source": source,
        "type": kind,
        "subject": f"douyin:{source.strip('/')}-{user}",
        "platform": "douyin",
        "time": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(),
        "data": data,
    }


class Stream:
    """Sends events in the background and remembers those that were acknowledged."""

    def __init__(self, system: System, source: str, account: str = ACCOUNT) -> None:
        self.acknowledged: list[dict[str, Any]] = []
        self._system = system
        self._source = source
        self._account = account
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            events = [event(number + n, self._source) for n in range(10)]
            number += 10
            await self._system.post(self._account, events)
            self.acknowledged += events
            await asyncio.sleep(0.03)

    async def stop(self) -> None:
        self._stop.set()
        await self._task


async def check_effects(system: System, acknowledged: list[dict[str, Any]], source: str, account: str) -> None:
    """Every acknowledged event has had its effects exactly once in all four stores."""
    types = {event["id"]: event["type"] for event in acknowledged}
    for service in WITH_DATABASE:
        wanted = Counter(name for name, kind in types.items() if kind in SUBSCRIBED[service])
        assert await system.event_ids(service, account, source) == wanted, service
        letters = await system.query(service, "select reason from dead_letter where account = $1", account)
        assert letters == [], service
    subjects = f"douyin:{source.strip('/')}-%"
    counts = await system.query(
        "profile",
        "select type, sum(count)::int from activity_day where account = $1 and subject like $2 group by type",
        account,
        subjects,
    )
    assert dict(counts) == Counter(types.values())
    decisions = await system.query(
        "engagement", "select count(*) from decision where account = $1 and subject like $2", account, subjects
    )
    assert decisions == [(Counter(types.values())["follow"],)]
    earning = Counter(types.values())
    entries = await system.query(
        "rewards",
        "select count(*), count(distinct event_digest) from ledger_entry l join holder h using (account, account_ref)"
        " where account = $1 and subject like $2",
        account,
        subjects,
    )
    assert entries == [(earning.total(), earning.total())]


@pytest.mark.parametrize("service", WITH_DATABASE)
async def test_a_killed_worker_loses_and_doubles_nothing(system: System, service: str) -> None:
    source = f"/kill-{service}"
    stream = Stream(system, source)
    for _ in range(3):
        await asyncio.sleep(1)
        await system.children[service].kill()
        await asyncio.sleep(0.3)
        await system.spawn(service)
    await asyncio.sleep(0.5)
    await stream.stop()
    await system.wait_ready([service])
    await system.applied()
    assert len(stream.acknowledged) > 100
    await check_effects(system, stream.acknowledged, source, ACCOUNT)


async def test_frozen_workers_that_wake_up_apply_nothing_twice(system: System) -> None:
    """Every worker gets a second copy, is frozen until the copies hold all partitions, and is woken."""
    source = "/freeze"
    stream = Stream(system, source)
    originals = [system.children[service] for service in WITH_DATABASE]
    copies = [await system.spawn(service, "worker", f"{service}-copy") for service in WITH_DATABASE]
    await system.wait_ready([copy.name for copy in copies])
    for child in originals:
        child.popen.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    await asyncio.sleep(13)  # longer than the session time-out of 10 s
    for child in originals:
        child.popen.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
    await asyncio.sleep(3)
    await stream.stop()
    await asyncio.gather(*(copy.stop() for copy in copies))
    for copy in copies:
        del system.children[copy.name]
    await system.applied()
    # Enough users for every partition: a consumer that did not come back would leave some behind.
    after = [event(number, "/thawed", users=200) for number in range(400)]
    await system.post(ACCOUNT, after)
    await system.applied(60)
    await check_effects(system, stream.acknowledged, source, ACCOUNT)
    await check_effects(system, after, "/thawed", ACCOUNT)


async def test_a_broker_that_lost_its_data_is_gone_on_with(pg_server: TestServer) -> None:
    """Another cluster on the same port: what was applied stays, what comes counts, what comes again does not."""
    system = System(pg_server, {"demo": {"zone": "Asia/Shanghai"}})
    try:
        await system.start()
        before = [event(number, "/wipe") for number in range(300)]
        await system.post("demo", before)
        await system.applied()
        stream = Stream(system, "/meanwhile", "demo")
        await asyncio.sleep(0.5)
        await stream.stop()
        await system.applied()

        first_cluster = await system.broker.cluster_id()
        await system.broker.wipe()
        await system.broker.start()
        assert await system.broker.cluster_id() != first_cluster

        after = before + [event(number, "/wipe") for number in range(300, 600)]
        await system.post("demo", after)
        await system.wait_ready()
        await system.applied()
        await check_effects(system, after, "/wipe", "demo")
        await check_effects(system, stream.acknowledged, "/meanwhile", "demo")
    finally:
        await system.stop()
