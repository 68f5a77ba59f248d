"""`superfan consumer` on the running services: a paused topic waits, everything else goes on, and all see why."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from libs.cli.doctor.running import examine
from libs.cli.local.state import Folder
from tests.e2e.test_commands import Ended, run_json
from tests.e2e.test_commands import superfan as run
from tests.support.folding import NOW
from tests.support.services import SERVICES, System

ROOT = Path(__file__).parents[2]
SERVICE = "engagement"
REASON = "a journey is put right first"


@pytest.fixture(scope="module")
def data(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("consumer")
    (folder / "run.json").write_text(json.dumps(run_json(system)))
    return folder


async def superfan(data: Path, *arguments: str) -> Ended:
    """`superfan consumer` to its end."""
    return await run(data, "consumer", *arguments)


async def test_a_paused_topic_waits_and_goes_on(system: System, data: Path) -> None:
    async def notice() -> str:
        answer = await system.http.get(f"{system.metrics_url(SERVICE)}/readyz")
        assert answer.status_code == 200
        return str(answer.json()["notices"]["paused"])

    async def has_applied(service: str, event: dict[str, Any]) -> bool:
        answer = await system.http.get(
            system.url(service, "/v1/applied-events"),
            params={"source": event["source"], "id": event["id"]},
            headers=system.authorization("demo"),
        )
        return answer.status_code == 200

    try:
        code, out, error = await superfan(data, "pause", SERVICE, "--topic", "follows", "--reason", REASON)
        assert (code, error) == (0, "")
        states = {line.split()[0]: line.split()[1] for line in out.splitlines()}
        assert states == {
            "superfan.follows": "paused",
            "superfan.segments": "consumed",
            "superfan.profiles": "consumed",
        }
        async with asyncio.timeout(30):
            while await notice() == "ok":
                await asyncio.sleep(0.1)
        assert (await notice()).endswith(f"by demo/demo: {REASON}")
        urls = {name: {"url": system.url(name), "metrics": system.metrics_url(name)} for name in SERVICES}
        findings = await examine(run_json(system) | {"services": urls}, Folder(data))
        finding = next(finding for finding in findings if finding.check == f"service {SERVICE}")
        assert finding.level == "warn"
        assert REASON in finding.detail
        assert f"superfan consumer resume {SERVICE}" in finding.advice

        event = {
            "specversion": "1.0",
            "type": "follow",
            "source": "/pause",
            "id": uuid.uuid4().hex,
            "subject": "douyin:paused",
            "time": NOW.isoformat(),
            "data": {},
        }
        await system.post("demo", [event])
        async with asyncio.timeout(60):
            while not await has_applied("rewards", event):
                await asyncio.sleep(0.1)
        assert not await has_applied(SERVICE, event)
        assert REASON in (await superfan(data, "status", SERVICE))[1]
    finally:
        code, out, _ = await superfan(data, "resume", SERVICE, "--topic", "superfan.follows")
    assert (code, out.count("consumed"), out.count("paused")) == (0, 3, 0)
    await system.applied()
    assert await has_applied(SERVICE, event)


async def test_a_slip_is_one_line(data: Path) -> None:
    for arguments, reason in [
        (("status", "ingest"), "no service ingest that consumes"),
        (("pause", SERVICE, "--topic", "orders", "--reason", "x"), f"{SERVICE} answered 422: "),
    ]:
        code, out, error = await superfan(data, *arguments)
        assert (code, out, error.count("\n")) == (1, "", 1)
        assert error.startswith(f"error: {reason}")
