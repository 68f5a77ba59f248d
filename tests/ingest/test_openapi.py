"""What OpenAPI says is whole, and true of the examples in it."""

import re
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from services.ingest.main import openapi_app, run
from tests.ingest.conftest import KEY

SCHEMA: dict[str, Any] = openapi_app().openapi()


def test_operations_have_stable_names() -> None:
    operations = {
        operation["operationId"]: (method, path)
        for path, methods in SCHEMA["paths"].items()
        for method, operation in methods.items()
    }
    assert operations == {
        "post_events": ("post", "/v1/events"),
        "list_event_types": ("get", "/v1/event-types"),
        "receive_webhook": ("post", "/v1/webhooks/{source}"),
        "shake_hands": ("get", "/v1/webhooks/{source}"),
    }


def test_every_reference_leads_somewhere() -> None:
    refs = set(re.findall(r"'\$ref': '#/components/schemas/([^']+)'", repr(SCHEMA)))
    assert {"PlainEvent", "CloudEvent", "OrderData"} <= refs
    assert refs <= SCHEMA["components"]["schemas"].keys()


async def test_the_examples_of_bodies_are_taken(api: httpx.AsyncClient) -> None:
    content = SCHEMA["paths"]["/v1/events"]["post"]["requestBody"]["content"]
    assert set(content) == {
        "application/json",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    }
    for media, described in content.items():
        for example in described["examples"].values():
            response = await api.post(
                "/v1/events",
                json=example["value"],
                headers={"Content-Type": media, "Authorization": f"Bearer {KEY}"},
            )
            assert (response.status_code, response.json()["invalid"]) == (202, 0), response.text


async def test_accepted_and_invalid_events_are_counted_by_type(api: httpx.AsyncClient) -> None:
    def count(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"superfan_ingest_{name}", {"service": "ingest", **labels}) or 0

    before = [
        count("accepted_total", type="view"),
        count("invalid_total", type="other", reason="type"),
        count("invalid_total", type="view", reason="field"),
        count("ack_seconds_count"),
    ]
    view = {"content_id": "v", "watch_ms": 1, "duration_ms": 2}
    body = [
        {"type": "view", "user": "u", "data": view},
        {"type": "dance", "user": "u"},
        {"type": "view", "user": "u", "data": {**view, "watch_ms": -1}},
    ]
    await api.post("/v1/events", json=body, headers={"Authorization": f"Bearer {KEY}"})
    after = [
        count("accepted_total", type="view"),
        count("invalid_total", type="other", reason="type"),
        count("invalid_total", type="view", reason="field"),
        count("ack_seconds_count"),
    ]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 1]


@pytest.mark.parametrize("role", ["worker", "migrate"])
def test_roles_that_ingest_does_not_have(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run([role])
    assert (caught.value.code, capsys.readouterr().out) == (0, "ingest has no worker and no migrations\n")


def test_an_unknown_role_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(["dance"])
    assert caught.value.code == 2
    assert "api|worker|all|migrate" in capsys.readouterr().err
