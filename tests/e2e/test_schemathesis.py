"""schemathesis over every OpenAPI document, against the running services: it must find nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.services import SERVICES, System


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
            "25",
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
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
