"""`superfan dead-letters` on the running services: a poison record is found, corrected, tried and applied."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from libs.common.events import new_event
from libs.common.kafka import Producer, Record
from tests.e2e.test_commands import Ended, run_json
from tests.e2e.test_commands import superfan as run
from tests.support.folding import NOW
from tests.support.services import System

ROOT = Path(__file__).parents[2]
SERVICE = "engagement"


@pytest.fixture(scope="module")
def data(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("letters")
    (folder / "run.json").write_text(json.dumps(run_json(system)))
    return folder


async def superfan(data: Path, *arguments: str) -> Ended:
    """`superfan dead-letters` to its end."""
    return await run(data, "dead-letters", *arguments)


async def poison(system: System, count: int) -> list[dict[str, Any]]:
    """Follows that only Kafka's own door lets in: their time is no time. Returns what they should have been."""
    events = [
        new_event(
            "follow",
            account="demo",
            source="/poison",
            id=uuid.uuid4().hex,
            subject=f"douyin:poisoned-{n}",
            time=NOW,
            received=NOW,
            data={},
        )
        for n in range(count)
    ]
    documents = [json.loads(event.to_json()) for event in events]
    producer = Producer(system.broker.bootstrap, "test")
    await producer.start()
    try:
        records = [
            Record(event.topic, event.key, json.dumps({**document, "time": "yesterday"}).encode())
            for event, document in zip(events, documents, strict=True)
        ]
        assert await producer.send(records, 10) == [None] * count
    finally:
        await producer.stop()
    await system.applied()
    return documents


async def test_a_letter_is_found_corrected_tried_and_applied(system: System, data: Path, tmp_path: Path) -> None:
    [event] = await poison(system, 1)
    code, out, error = await superfan(data, "list", SERVICE, "--error", "ValidationError", "--since", NOW.isoformat())
    assert (code, error) == (0, "")
    [line] = [line for line in out.splitlines() if "follow" in line]
    letter_id = line.split()[0]
    assert "RFC 3339" in line

    code, out, _ = await superfan(data, "show", SERVICE, letter_id)
    assert code == 0
    assert json.loads(out)["value"] == {**event, "time": "yesterday"}
    code, out, error = await superfan(data, "redrive", SERVICE, letter_id)
    assert (code, out.split()[:2]) == (1, [letter_id, "failed"])
    assert error.startswith("error: 1 of 1 stay;")

    (tmp_path / "event.json").write_text(json.dumps(event))
    assert (await superfan(data, "edit", SERVICE, letter_id, str(tmp_path / "event.json")))[0] == 0
    code, out, _ = await superfan(data, "redrive", SERVICE, letter_id, "--dry-run")
    assert (code, out.split()) == (0, [letter_id, "applied"])
    assert not await system.event_ids(SERVICE, "demo", "/poison")
    for outcome in ("applied", "already_applied"):
        code, out, _ = await superfan(data, "redrive", SERVICE, letter_id)
        assert (code, out.split()) == (0, [letter_id, outcome])
    assert await system.event_ids(SERVICE, "demo", "/poison") == {event["id"]: 1}


async def test_many_are_dropped_by_filter_and_a_slip_is_one_line(system: System, data: Path) -> None:
    await poison(system, 3)
    for service in ("profile", "segmentation", "engagement", "rewards"):
        code, out, error = await superfan(data, "drop", service, "--type", "follow", "--reason", "a test")
        assert (code, error) == (0, "")
        assert [line.split()[1] for line in out.splitlines()].count("dropped") >= 3
        assert (await superfan(data, "list", service, "--type", "follow"))[1] == "no such dead letters\n"
    for arguments, reason in [
        (("drop", SERVICE, "--reason", "x"), "name letters by their ids"),
        (("list", "ingest"), "no service ingest with dead letters"),
        (("show", SERVICE, "0" * 32), "engagement answered 404: There is no such dead letter"),
        (("redrive", SERVICE, "--all", "--dry-run"), "--dry-run needs the ids"),
    ]:
        code, out, error = await superfan(data, *arguments)
        assert (code, out, error.count("\n")) == (1, "", 1)
        assert error.startswith(f"error: {reason}")


async def test_a_stopped_service_says_so_and_is_resumed(system: System, data: Path) -> None:
    await system.query(SERVICE, "insert into consumer_stop values (now(), 'a test')")
    ready = f"{system.metrics_url(SERVICE)}/readyz"
    try:
        async with asyncio.timeout(30):
            while (answer := await system.http.get(ready)).json()["notices"]["line"] == "ok":
                await asyncio.sleep(0.1)
        assert answer.json()["notices"]["line"].startswith("stopped: a test")
        assert answer.status_code == 200, "the code that mends it must be able to roll out"
        assert "a test" in (await superfan(data, "list", SERVICE))[1]
    finally:
        assert (await superfan(data, "resume", SERVICE))[0] == 0
    assert "a test" not in (await superfan(data, "list", SERVICE))[1]
