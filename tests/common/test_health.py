"""/livez, /readyz and /metrics over a real socket."""

import asyncio
import time
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from libs.common import health as module
from libs.common.health import Health
from libs.common.process import HttpServer
from libs.common.telemetry import HTTP_REQUESTS


@pytest.fixture
def health() -> Health:
    return Health("health-test", stuck_after=0.3)


@pytest.fixture
async def api(health: Health) -> AsyncIterator[httpx.AsyncClient]:
    server = HttpServer(health.app(), "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as api:
        yield api
    await server.stop()
    await server.run()


async def test_without_troubles_it_is_alive_and_ready(api: httpx.AsyncClient) -> None:
    ready = await api.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "checks": {"draining": "ok"}, "notices": {}})
    alive = await api.get("/livez")
    assert alive.json()["checks"].keys() == {"event_loop"}


async def test_a_check_that_fails_is_named_with_its_reason(
    health: Health, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)

    async def good() -> str | None:
        return None

    async def bad() -> str | None:
        return "no connection"

    def broken() -> str | None:
        raise RuntimeError("bug")

    async def silent() -> str | None:
        await asyncio.Event().wait()
        return None

    for name, check in (("good", good), ("bad", bad), ("broken", broken), ("silent", silent)):
        health.add_readiness(name, check)
    answer = await api.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "failing",
        "checks": {
            "draining": "ok",
            "good": "ok",
            "bad": "no connection",
            "broken": "RuntimeError: bug",
            "silent": "no answer within 0.05 s",
        },
        "notices": {},
    }
    assert "bad" not in (await api.get("/livez")).json()["checks"]
    health.add_liveness("bad", bad)
    assert (await api.get("/livez")).status_code == 503


async def test_a_notice_is_told_and_changes_nothing(health: Health, api: httpx.AsyncClient) -> None:
    health.add_notice("line", lambda: "stopped")
    health.add_notice("paused", lambda: None)
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert answer.json()["notices"] == {"line": "stopped", "paused": "ok"}


def test_the_version_is_told_and_is_that_of_the_project(health: Health) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    labels = {"service": "health-test", "version": project["version"]}
    assert REGISTRY.get_sample_value("superfan_build_info", labels) == 1


async def test_a_process_that_stops_is_alive_and_not_ready(health: Health, api: httpx.AsyncClient) -> None:
    beating = asyncio.create_task(health.heartbeat())
    await asyncio.sleep(0)
    health.drain()
    assert (await api.get("/readyz")).status_code == 503
    assert (await api.get("/livez")).status_code == 200
    beating.cancel()


async def test_a_stuck_event_loop_is_not_alive_until_it_turns_again(
    health: Health, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.1)
    beating = asyncio.create_task(health.heartbeat())
    await asyncio.sleep(0.2)
    time.sleep(0.5)  # before the heartbeat's next turn the check sees the gap
    check = health._check_loop()
    assert check is not None
    assert "stuck" in check
    while (await api.get("/livez")).status_code != 200:
        await asyncio.sleep(0.01)
    assert (REGISTRY.get_sample_value("superfan_event_loop_lag_seconds", {"service": "health-test"}) or 0) >= 0
    beating.cancel()


async def test_a_heartbeat_that_never_ran_is_not_alive(health: Health, api: httpx.AsyncClient) -> None:
    await asyncio.sleep(0.35)
    assert (await api.get("/livez")).status_code == 503


async def test_metrics_are_in_the_format_that_is_asked_for(api: httpx.AsyncClient) -> None:
    HTTP_REQUESTS.labels("health-test", "GET", "/x", 200).inc()
    answer = await api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "superfan_http_requests" in {family.name for family in parse_text(answer.text)}
    asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = await api.get("/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "superfan_http_requests" in {family.name for family in parse_openmetrics(answer.text)}  # type: ignore[no-untyped-call]


async def test_the_component_serves_and_stops(health: Health) -> None:
    component = health.serve("127.0.0.1", 0)
    assert component.start is not None
    assert component.stop is not None
    assert component.run is not None
    await component.start()
    await component.stop()
    await asyncio.wait_for(component.run(), 20)
