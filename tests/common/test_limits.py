"""Overload: the bucket by table, 429 with its headers, 503 when too much is in hand."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, Request
from prometheus_client import REGISTRY
from starlette.types import Message, Receive, Scope, Send

from libs.common.auth import Caller, require
from libs.common.config import ConfigError, Source, hash_key, load, make_key
from libs.common.process import HttpServer
from libs.common.web import Limits, Problem
from libs.common.web.limits import Load, RateLimits, burst_of, take
from libs.common.web.middleware import RequestMiddleware
from tests.support.web import OTHER_KEY, READ_KEY, TOML, client, config_file, make_app, problem

router = APIRouter()
gate = asyncio.Event()

SLOW_KEY = make_key("slow", "secret")
SLOW_TOML = f"""{TOML}
[[keys]]
id = "slow"
account = "demo"
sha256 = "{hash_key(SLOW_KEY)}"
scopes = ["rewards:read"]
rate_per_second = 0.5
"""


@router.get("/read")
async def read(caller: Annotated[Caller, Depends(require("rewards:read"))]) -> str:
    return caller.key_id


@router.get("/write")
async def write(caller: Annotated[Caller, Depends(require("rewards:write"))]) -> str:
    return caller.key_id


@router.get("/slow")
async def slow() -> None:
    await gate.wait()


@router.post("/body")
async def body(request: Request) -> int:
    return len(await request.body())


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(tmp_path, router, service="limits", limits=Limits(in_flight=3, per_second=2))
    app.state.config.path.write_text(SLOW_TOML)
    app.state.config.reload()
    async with client(app) as api:
        yield api


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def value(name: str, service: str = "limits") -> float:
    return REGISTRY.get_sample_value(name, {"service": service}) or 0.0


@pytest.mark.parametrize(
    ("per_second", "arrivals", "expected"),
    [
        # each arrival's instant; how many it leaves, and how long it has to wait
        (1, [0, 0, 0], [(1, 0), (0, 0), (0, 1)]),
        (1, [0, 0, 0.5, 1, 1], [(1, 0), (0, 0), (0, 0.5), (0, 0), (0, 1)]),
        (2, [0, 0, 0, 0, 0], [(3, 0), (2, 0), (1, 0), (0, 0), (0, 0.5)]),
        (2, [0, 0, 0, 0, 100, 100], [(3, 0), (2, 0), (1, 0), (0, 0), (3, 0), (2, 0)]),  # it never holds more than 4
        (0.5, [0, 0, 1.9, 2], [(0, 0), (0, 2), (0, 0.1), (0, 0)]),
        (0.1, [0, 9, 10], [(0, 0), (0, 1), (0, 0)]),  # at least one request at once
        (10, [1e6 + n / 10 for n in range(25)], [(19, 0)] * 25),  # steady at its rate, floats of a long uptime
    ],
)
def test_the_bucket(per_second: float, arrivals: list[float], expected: list[tuple[int, float]]) -> None:
    full_at = 0.0
    for now, (remaining, wait) in zip(arrivals, expected, strict=True):
        taken = take(per_second, full_at, now)
        full_at = taken.full_at
        assert taken.remaining == remaining, now
        assert taken.wait == pytest.approx(wait), now


@pytest.mark.parametrize("per_second", [0.3, 1, 7, 200, 99_999.9])
def test_in_the_long_run_a_key_gets_its_rate_and_one_burst(per_second: float) -> None:
    """Ten offers for each that is due, over 40 bursts."""
    full_at, now, taken = 0.0, 5e5, 0
    offers = 800 if per_second < 100 else 4000
    for number in range(offers):
        result = take(per_second, full_at, now + number / (10 * per_second))
        full_at = result.full_at
        taken += result.wait == 0
    due = (offers - 1) / 10
    assert due - 1 <= taken <= due + burst_of(per_second)


async def test_every_keyed_answer_tells_the_rate(api: httpx.AsyncClient) -> None:
    first = await api.get("/read", headers=bearer(READ_KEY))
    assert first.headers["ratelimit-policy"] == '"default";q=4;w=2'
    assert first.headers["ratelimit"] == '"default";r=3;t=1'
    refused = await api.get("/write", headers=bearer(READ_KEY))
    problem(refused, 403, "missing_scope")
    assert re.fullmatch(r'"default";r=[23];t=1', refused.headers["ratelimit"])
    for unkeyed in (await api.get("/read", headers=bearer("sf_reader_wrong")), await api.get("/nowhere")):
        assert "ratelimit" not in unkeyed.headers


async def test_beyond_its_rate_a_key_is_429_and_others_are_not(api: httpx.AsyncClient) -> None:
    answers = [await api.get("/read", headers=bearer(READ_KEY)) for _ in range(40)]
    assert [answer.status_code for answer in answers[:4]] == [200] * 4
    late = next(answer for answer in answers if answer.status_code == 429)
    assert problem(late, 429, "rate_limited")["detail"] == "This key may send 2 requests a second, and 4 at once."
    assert late.headers["retry-after"] == "1"
    assert late.headers["ratelimit"] == '"default";r=0;t=2'
    assert (await api.get("/read", headers=bearer(OTHER_KEY))).status_code == 200


async def test_a_key_may_have_a_rate_of_its_own(api: httpx.AsyncClient) -> None:
    first = await api.get("/read", headers=bearer(SLOW_KEY))
    assert (first.status_code, first.headers["ratelimit-policy"]) == (200, '"default";q=1;w=2')
    late = await api.get("/read", headers=bearer(SLOW_KEY))
    problem(late, 429, "rate_limited")
    assert late.headers["retry-after"] == "2"


def test_only_what_is_declared_is_remembered(tmp_path: Path) -> None:
    config = config_file(tmp_path)
    limits = RateLimits(config, 5)
    for key in config.current.keys:
        limits.take_for_key({}, key, None)
    config.path.write_text("[accounts.demo]\n")
    config.reload()
    limits.take_for_key({}, "test", None)
    assert not limits._full_at


def test_a_source_has_no_limit_unless_it_is_declared(tmp_path: Path) -> None:
    limits = RateLimits(config_file(tmp_path), 0.1)
    source = Source("s", "demo", "douyin", "douyin", ("x",))
    scope: dict[str, object] = {}
    for _ in range(1000):
        limits.take_for_source(scope, source.id, source.rate_per_second)
    assert not scope
    limits.take_for_source(scope, "other", 0.5)
    with pytest.raises(Problem) as refused:
        limits.take_for_source(scope, "other", 0.5)
    assert (refused.value.status, refused.value.code) == (429, "rate_limited")


async def test_openapi_tells_the_headers(api: httpx.AsyncClient) -> None:
    schema = (await api.get("/openapi.json")).json()
    keyed, unkeyed = (schema["paths"][path]["get"]["responses"] for path in ("/read", "/slow"))
    assert list(keyed["200"]["headers"]) == ["RateLimit-Policy", "RateLimit"]
    assert list(keyed["429"]["headers"]) == ["RateLimit-Policy", "RateLimit", "Retry-After"]
    assert list(keyed["503"]["headers"]) == ["Retry-After"]
    assert "headers" not in unkeyed["200"]
    assert "429" not in unkeyed
    assert schema["components"]["headers"].keys() == {"RateLimit-Policy", "RateLimit", "Retry-After"}


@pytest.mark.parametrize("rate", ["0", "-1", "2000000", '"fast"', "true"])
def test_a_rate_must_be_a_sensible_number(tmp_path: Path, rate: str) -> None:
    path = tmp_path / "superfan.toml"
    path.write_text(SLOW_TOML.replace("rate_per_second = 0.5", f"rate_per_second = {rate}"))
    with pytest.raises(ConfigError, match="keys slow rate_per_second"):
        load(path)


async def test_more_than_it_can_hold_is_503_at_once(api: httpx.AsyncClient) -> None:
    gate.clear()
    shed = value("superfan_http_shed_total")
    held = [asyncio.create_task(api.get("/slow")) for _ in range(3)]
    while value("superfan_http_in_flight") < 3:
        await asyncio.sleep(0)
    refused = await api.get("/read", headers={**bearer(READ_KEY), "X-Request-Id": "mine"})
    assert problem(refused, 503, "overloaded")["request_id"] == "mine"
    assert refused.headers["retry-after"] == "1"
    assert value("superfan_http_shed_total") == shed + 1
    gate.set()
    assert [(await answer).status_code for answer in held] == [200] * 3
    assert value("superfan_http_in_flight") == 0
    assert (await api.get("/read", headers=bearer(READ_KEY))).status_code == 200


async def test_bodies_in_hand_are_bounded(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.common.web.limits.MOST_BODY_BYTES", 1000)
    monkeypatch.setattr("libs.common.web.middleware.MOST_BODY_BYTES", 1000)
    gate.clear()
    begun = asyncio.Event()

    async def begins_and_waits() -> AsyncIterator[bytes]:
        yield b"x" * 900
        begun.set()
        await gate.wait()

    held = asyncio.create_task(api.post("/body", content=begins_and_waits()))
    await begun.wait()
    problem(await api.post("/body", content=b"y" * 200), 503, "overloaded")
    assert (await api.post("/body", content=b"y" * 50)).json() == 50
    gate.set()
    assert (await held).json() == 900
    assert (await api.post("/body", content=b"y" * 200)).json() == 200


async def test_a_request_without_its_body_gives_its_place_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.common.web.middleware.BODY_SECONDS", 1.5)
    app = make_app(tmp_path, router, service="slow-bodies", limits=Limits(in_flight=2))
    server = HttpServer(app, "127.0.0.1", 0)
    await server.start()
    heads = [b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhalf \r\n"]
    try:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in heads]
        for (_, writer), head in zip(held, heads, strict=True):
            writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\n" + head)
        async with asyncio.timeout(20), httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as api:
            while value("superfan_http_in_flight", "slow-bodies") < 2:
                await asyncio.sleep(0.01)
            problem(await api.post("/body", content=b"whole"), 503, "overloaded")
            for reader, writer in held:
                answer = (await reader.read()).lower()  # to its end: the server has closed the connection
                assert answer.startswith(b"http/1.1 408")
                assert b"connection: close" in answer
                assert b"/problems/body_too_slow" in answer
                writer.close()
            assert value("superfan_http_in_flight", "slow-bodies") == 0
            assert (await api.post("/body", content=b"whole")).json() == 5
    finally:
        await server.stop()
        await server.run()


async def test_only_the_body_has_to_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take longer than a body, and so may an app that waits for its client to go."""
    monkeypatch.setattr("libs.common.web.middleware.BODY_SECONDS", 0.2)
    heard = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    messages: Iterator[tuple[float, Message]] = iter(
        [(0.0, {"type": "http.request", "body": b"whole"}), (0.6, {"type": "http.disconnect"})]
    )

    async def receive() -> Message:
        pause, message = next(messages)
        await asyncio.sleep(pause)
        return message

    async def send(_message: Message) -> None:
        raise AssertionError("nothing is to be answered")

    scope = {"type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    await RequestMiddleware(app, "slow-answers", 100, Load("slow-answers", 1))(scope, receive, send)
    assert heard == ["http.request", "http.disconnect"]
