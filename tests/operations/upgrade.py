"""From the previous version to this one and back again while events and requests keep coming."""

import asyncio
import json
from pathlib import Path
from typing import Any

from libs.cli.local.lag import consumed_topics
from libs.common.events import parse_event
from libs.common.kafka import Producer, Record
from tests.operations.fleet import Fleet, service_of
from tests.operations.versions import ROOT
from tests.operations.watch import Watch
from tests.support.services import WITH_DATABASE

LATER = "later"
"""The account of events that carry what a later version may add."""
LEAVE_SECONDS = 2.0


async def upgrade(fleet: Fleet, watch: Watch, old: Path, hold: float) -> None:
    """All processes of `fleet` but its ingest run the code of `old`, at its schema. In the end workers and APIs run
    this version."""
    async with watch.step("the previous version at its own schema, with events of a later one"):
        await lay_later_events(fleet, old)
        await asyncio.sleep(hold)
    fleet.tree = ROOT
    async with watch.step("schema migrated, everything still the previous version"):
        await asyncio.gather(*map(fleet.migrate, WITH_DATABASE))
        await asyncio.sleep(hold)
    async with watch.step("a new worker beside each old one"):
        before = fleet.of("worker")
        await fleet.add(*(f"{service}-worker-new" for service in WITH_DATABASE))
        await asyncio.sleep(hold)
    async with watch.step("the old workers leave"):
        await fleet.end(*before)
        await asyncio.sleep(hold)
    for name in fleet.of("api", WITH_DATABASE):
        async with watch.step(f"{name}: a new one comes, the old one leaves"):
            await fleet.add(f"{service_of(name)}-api-new{name[-1]}")
            await fleet.end(name, leave=LEAVE_SECONDS)


async def upgrade_ingest(fleet: Fleet, watch: Watch) -> None:
    """ingest, which is upgraded last: only then does anything send what only the new version knows."""
    async with watch.step("ingest: new ones come, the old ones leave"):
        before = fleet.of("api", ["ingest"])
        await fleet.add("ingest-api-new1", "ingest-api-new2")
        await fleet.end(*before, leave=LEAVE_SECONDS)


async def go_back(fleet: Fleet, watch: Watch, old: Path, hold: float) -> None:
    """The code goes back, the schema stays; and forward again."""
    new = fleet.of("worker")
    async with watch.step("back: an old worker beside each new one"):
        fleet.tree = old
        back = [f"{service}-worker-back" for service in WITH_DATABASE]
        await fleet.add(*back)
        await asyncio.sleep(hold)
    async with watch.step("back: old workers only, at the new schema"):
        await fleet.end(*new)
        await asyncio.sleep(hold)
    async with watch.step("forward again"):
        fleet.tree = ROOT
        await fleet.add(*(f"{service}-worker-again" for service in WITH_DATABASE))
        await fleet.end(*back)


async def lay_later_events(fleet: Fleet, old: Path) -> None:
    """One event of every type that `old` knows, with fields that it does not know, straight onto Kafka."""
    producer = Producer(fleet.broker.bootstrap, "operations-later")
    await producer.start()
    try:
        for event in later_events(old):
            known = parse_event(json.dumps(event))
            (failure,) = await producer.send([Record(known.topic, known.key, json.dumps(event).encode())], 30)
            if failure:
                raise failure
    finally:
        await producer.stop()


def later_events(old: Path) -> list[dict[str, Any]]:
    """The examples of every type, each with a new attribute and a new field in its data."""
    examples = [json.loads(path.read_text()) for path in sorted((old / "libs/common/events/examples").iterdir())]
    return [
        example | {"account": LATER, "laterattribute": "x", "data": example["data"] | {"later_field": {"deep": [1]}}}
        for example in examples
    ]


async def later_differences(fleet: Fleet, old: Path) -> list[str]:
    """Where an event of `lay_later_events` was not applied, or became a dead letter."""
    found = []
    events = later_events(old)
    for service in WITH_DATABASE:
        topics = consumed_topics(service)
        wanted = {event["id"] for event in events if parse_event(json.dumps(event)).topic in topics}
        applied = {row[0] for row in await fleet.query(service, "select id from event where account = $1", LATER)}
        if missing := wanted - applied:
            found.append(f"{service} has not applied {sorted(missing)}")
        for error, reason in await fleet.query(service, "select error, reason from dead_letter"):
            found.append(f"{service} has a dead letter: {error}: {reason}")
    return found
