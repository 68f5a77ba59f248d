"""schemathesis over every OpenAPI document, against the running services: it must find nothing."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.services import SERVICES, WITH_DATABASE, System

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
async def known_fan(system: System) -> None:
    """The fan, and the event, that the examples in the documents name."""
    fan = {"source": "/douyin-demo", "subject": "douyin:u42", "data": {}}
    await system.post("demo", [{**fan, "specversion": "1.0", "id": "6f0b3a5c9d2e4f81", "type": "follow"}])
    await system.applied()


@pytest.fixture(autouse=True)
async def consuming(system: System, service: str) -> AsyncIterator[None]:
    """What was paused among all the calls goes on."""
    yield
    if service in WITH_DATABASE:
        done = await system.http.post(
            system.url(service, "/v1/consumer:resume"), headers=system.authorization("demo"), timeout=60
        )
        assert done.status_code == 200, done.text


@pytest.mark.usefixtures("known_fan")
@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_keeps_its_contract(system: System, service: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            system.url(service, "/openapi.json"),
            "--header",
            f"Authorization: Bearer {system.keys['demo']}",
            "--max-examples",
            "7",
            "--seed",
            "20260601",
            "--no-color",
            "--workers",
            "1",
        ],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.e2e.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
