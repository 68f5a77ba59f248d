"""From the previous version to this one and back again while events and requests keep coming."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from libs.cli.local.lag import consumed_topics
from libs.common.events import parse_event
from libs.common.kafka import Producer, Record
from tests.operations.fleet import Fleet
from tests.operations.watch import Watch
from tests.support.services import WITH_DATABASE

LATER = "later"
"""The account of events that carry what a later version may add."""
LEAVE_SECONDS = 2.0


async def upgrade_workers(fleet: Fleet, watch: Watch, old: Path, hold: float, services: Iterable[str]) -> None:
    """The workers and the schema of `services`, whose processes run the code of `old` at its schema."""
    services = list(services)
    async with watch.step("the previous version at its own schema, with events of a later one"):
        await lay_later_events(fleet, old)
        await asyncio.sleep(hold)
    for service in services:
        del fleet.code[service]
    async with watch.step("schema migrated, everything still the previous version"):
        await asyncio.gather(*map(fleet.migrate, services))
        await asyncio.sleep(hold)
    async with watch.step("a new worker beside each old one"):
        before = fleet.of("worker", services)
        await fleet.add(*(f"{service}-worker-new" for service in services))
        await asyncio.sleep(hold)
    async with watch.step("the old workers leave"):
        await fleet.end(*before)
        await asyncio.sleep(hold)


async def upgrade_apis(fleet: Fleet, watch: Watch, services: Iterable[str]) -> None:
    """A new process comes, then an old one leaves, until all are new. ingest is upgraded last: only then does anything
    send what only the new version knows."""
    for service in services:
        fleet.code.pop(service, None)
        async with watch.step(f"{service}: a new API process comes, an old one leaves, twice"):
            for number, name in enumerate(fleet.of("api", [service])):
                await fleet.add(f"{service}-api-new{number}")
                await fleet.end(name, leave=LEAVE_SECONDS)


async def go_back(fleet: Fleet, watch: Watch, old: Path, hold: float, services: Iterable[str]) -> None:
    """The code of the workers goes back, the schema stays; then forward again."""
    services = list(services)
    new = fleet.of("worker", services)
    async with watch.step("back: an old worker beside each new one, at the new schema"):
        fleet.code = dict.fromkeys(services, old)
        back = [f"{service}-worker-back" for service in services]
        await fleet.add(*back)
        await asyncio.sleep(hold)
    async with watch.step("back: the new workers leave"):
        await fleet.end(*new)
        await asyncio.sleep(hold)
    fleet.code = {}
    async with watch.step("forward again"):
        await fleet.add(*(f"{service}-worker-again" for service in services))
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
