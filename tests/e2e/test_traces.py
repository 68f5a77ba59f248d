"""A follow is one trace from the webhook to what is decided of it, in five processes that send to a real collector."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import NamedTuple

import httpx
import pytest

from services.ingest.platforms import douyin_signer
from tests.support.collector import Collector, Sent, tree
from tests.support.postgres import TestServer
from tests.support.services import SECRETS, SERVICES, System

THEIRS, UNWANTED, UNHEARD = "2" * 32, "3" * 32, "4" * 32

HOPS = {
    ("ingest", "POST /v1/webhooks/{source}"): None,
    ("ingest", "store events"): ("ingest", "POST /v1/webhooks/{source}"),
    **{(service, "apply follow"): ("ingest", "POST /v1/webhooks/{source}") for service in SERVICES[1:]},
    ("profile", "apply message.sent"): ("engagement", "apply follow"),
    ("profile", "apply segment.entered"): ("segmentation", "apply follow"),
    ("engagement", "apply segment.entered"): ("segmentation", "apply follow"),
    ("profile", "apply points.awarded"): ("rewards", "apply follow"),
}
"""The spans of a follow and what each lies below, as (service, name)."""


class Traced(NamedTuple):
    """`off` and `silent` are names of two more processes of ingest: one does not sample, the other's collector never
    answers."""

    system: System
    heard: Collector
    silent: Collector


@pytest.fixture(scope="module")
async def traced(pg_server: TestServer) -> AsyncIterator[Traced]:
    heard, silent = Collector(), Collector(silent=True)
    system = System(pg_server, {"demo": {}})
    system.log_format = "json"
    try:
        await heard.start()
        await silent.start()
        system.env = {"OTEL_EXPORTER_OTLP_ENDPOINT": heard.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        await system.start()
        told = dict(system.env)
        system.env = {**told, "OTEL_TRACES_SAMPLER": "always_off"}
        await system.spawn("ingest", name="off")
        system.env = {**told, "OTEL_EXPORTER_OTLP_ENDPOINT": silent.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        await system.spawn("ingest", name="silent")
        await system.wait_ready(["off", "silent"])
        yield Traced(system, heard, silent)
    finally:
        await system.stop()
        await silent.stop()
        await heard.stop()


async def follow(system: System, fan: str, process: str = "ingest", trace: str | None = None) -> httpx.Response:
    body = douyin_signer.follow(fan, datetime.now(UTC))
    headers = douyin_signer.sign(body, SECRETS["douyin"])
    if trace:
        headers["traceparent"] = f"00-{trace}-{'c' * 16}-01"
    response = await system.http.post(system.url(process, "/v1/webhooks/douyin-demo"), content=body, headers=headers)
    assert response.status_code == 200, response.text
    return response


def hop(span: Sent) -> tuple[str, str]:
    return span.service.removeprefix("superfan-"), span.name


async def test_a_follow_is_one_trace(traced: Traced) -> None:
    system, heard, silent = traced
    answer = await follow(system, "ou_alone")
    await follow(system, "ou_called", trace=THEIRS)
    await follow(system, "ou_off", "off", UNWANTED)
    await follow(system, "ou_silent", "silent", UNHEARD)

    entries = [
        json.loads(line) for line in (system.folder / "ingest.log").read_text().splitlines() if "request" in line
    ]
    traces = {entry["request_id"]: entry["trace_id"] for entry in entries if entry["message"] == "request"}
    own = traces[answer.headers["x-request-id"]]
    assert len(own) == 32

    def found(trace: str) -> list[Sent]:
        return [span for span in heard.spans if span.trace == trace]

    async with asyncio.timeout(40):
        while not all(HOPS.keys() <= {hop(span) for span in found(trace)} for trace in (own, THEIRS)):
            await asyncio.sleep(0.1)
        while not silent.calls:
            await asyncio.sleep(0.1)
    await system.applied()

    for trace, caller in ((own, ""), (THEIRS, "c" * 16)):
        spans = found(trace)
        by_id = {span.id: span for span in spans}
        assert {hop(span) for span in spans} == HOPS.keys(), tree(spans)
        for span in spans:
            above = HOPS[hop(span)]
            assert (span.parent == caller) if above is None else (hop(by_id[span.parent]) == above), tree(spans)
            assert span.begin <= span.end
            assert not span.error
            assert "ou_" not in str(span.attributes)
        named = {hop(span): span.attributes for span in spans}
        assert named["ingest", "store events"] == {"superfan.events": 1, "superfan.store": "kafka"}
        assert named["ingest", "POST /v1/webhooks/{source}"]["http.response.status_code"] == 200
        applied = named["profile", "apply points.awarded"]
        assert applied["superfan.outcome"] == "applied"
        assert applied["messaging.destination.name"] == "superfan.rewards"

    assert {span.trace for span in heard.spans} == {own, THEIRS, UNHEARD}
    assert "superfan-ingest" not in {span.service for span in found(UNHEARD)}


async def test_a_collector_that_never_answers_keeps_nobody_from_stopping(traced: Traced) -> None:
    await follow(traced.system, "ou_last", "silent")
    child = traced.system.children["silent"]
    await child.stop(deadline=25)
    assert child.popen is not None
    assert child.popen.returncode == 0, child.last_lines()
