"""Every kind of error is a problem; ids, limits, metrics and OpenAPI."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import APIRouter, Depends, Request
from prometheus_client import REGISTRY
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp

from libs.common.auth import Caller, require
from libs.common.telemetry import current_traceparent
from libs.common.web import (
    Cursor,
    Limit,
    Page,
    Problem,
    conflict,
    decode_cursor,
    encode_cursor,
    make_page,
    not_found,
    problems,
)
from tests.support.web import client, make_app, places, problem

router = APIRouter(prefix="/v1", tags=["things"])


class Apple(BaseModel):
    kind: Literal["apple"]
    grams: int = Field(ge=0)


class Pear(BaseModel):
    kind: Literal["pear"]
    names: list[str]


class Thing(BaseModel):
    fruit: Annotated[Apple | Pear, Field(discriminator="kind")]
    note: str | int = ""
    extra: dict[str, Any] = {}


@router.post("/things", summary="Make a thing", responses=problems(409), status_code=201)
async def make_thing(body: Thing, caller: Annotated[Caller, Depends(require("rewards:write"))]) -> Thing:
    if body.note == "taken":
        raise conflict("The note is taken.", "note_taken")
    return body


@router.get("/things", summary="List things")
async def list_things(limit: Limit = 50, cursor: Cursor = None) -> Page[int]:
    (after,) = decode_cursor(cursor, (int,)) if cursor else (0,)
    rows = list(range(after + 1, 8))[: limit + 1]
    return make_page(rows, limit, lambda row: row, lambda row: (row,))


@router.get("/things/{name}", summary="One thing", responses=problems(404))
async def get_thing(name: str, number: int = 0) -> dict[str, str | None]:
    if name == "bug":
        raise RuntimeError("password=hunter2")
    if name == "missing":
        raise not_found("There is no such thing.")
    return {"name": name, "traceparent": current_traceparent()}


@router.put("/things/{name}", summary="Replace one thing")
async def put_thing(name: str) -> None:
    return None


@router.post("/raw", summary="Read the raw body")
async def raw(request: Request) -> int:
    return len(await request.body())


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client(make_app(tmp_path, router, max_body=2000)) as api:
        yield api


async def test_a_good_request_is_answered(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/things", json={"fruit": {"kind": "apple", "grams": 3}})
    assert answer.status_code == 201
    assert answer.json()["fruit"] == {"kind": "apple", "grams": 3}


async def test_unknown_path_and_domain_not_found_are_404(api: httpx.AsyncClient) -> None:
    problem(await api.get("/nothing"), 404, "not_found")
    problem(await api.get("/v1/things/"), 404, "not_found")
    assert problem(await api.get("/v1/things/missing"), 404, "not_found")["detail"] == "There is no such thing."


async def test_405_names_the_methods_of_every_route_at_the_path(api: httpx.AsyncClient) -> None:
    answer = await api.delete("/v1/things/a")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, PUT"
    problem(await api.post("/openapi.json"), 405, "method_not_allowed")


async def test_conflict_keeps_its_code(api: httpx.AsyncClient) -> None:
    body = {"fruit": {"kind": "apple", "grams": 3}, "note": "taken"}
    problem(await api.post("/v1/things", json=body), 409, "note_taken")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{\n "fruit": nope}', "line 2 column 11"),
        (b"{", "line 1 column 2"),
        (b'{"a": "\xff"}', "not JSON in UTF-8"),
        (b"[" * 1500, "nested too deeply"),
    ],
)
async def test_malformed_json_is_400_with_its_position(api: httpx.AsyncClient, body: bytes, words: str) -> None:
    answer = await api.post("/v1/things", content=body, headers={"Content-Type": "application/json"})
    assert words in problem(answer, 400, "malformed_json")["detail"]


async def test_other_content_types_are_415(api: httpx.AsyncClient) -> None:
    good = b'{"fruit": {"kind": "apple", "grams": 3}}'
    problem(await api.post("/v1/things", content=good, headers={"Content-Type": "text/plain"}), 415, _415)
    problem(await api.post("/v1/things", content=good), 415, _415)


_415 = "unsupported_media_type"


async def test_wrong_fields_are_422_with_json_pointers(api: httpx.AsyncClient) -> None:
    async def wrong(body: object) -> dict[str, Any]:
        return problem(await api.post("/v1/things", json=body), 422, "invalid_request")

    assert places(await wrong({"fruit": {"kind": "apple", "grams": -1}})) == ["/fruit/grams"]
    assert places(await wrong({"fruit": {"kind": "apple"}})) == ["/fruit/grams"]
    assert places(await wrong({"fruit": {"kind": "pear", "names": ["a", 2, {}]}})) == [
        "/fruit/names/1",
        "/fruit/names/2",
    ]
    assert places(await wrong({"fruit": {"kind": "stone"}})) == ["/fruit"]
    assert set(places(await wrong({"fruit": {"kind": "apple", "grams": 1}, "note": []}))) == {"/note"}
    assert places(await wrong({})) == ["/fruit"]
    assert places(await wrong([])) == [""]
    answer = await api.post("/v1/things")
    assert places(problem(answer, 422, "invalid_request")) == [""]


async def test_wrong_parameters_are_422_and_named(api: httpx.AsyncClient) -> None:
    body = problem(await api.get("/v1/things/a?number=x"), 422, "invalid_request")
    assert places(body) == ["query/number"]
    for limit in ("0", "1001", "x"):
        assert places(problem(await api.get(f"/v1/things?limit={limit}"), 422, "invalid_request")) == ["query/limit"]


@pytest.mark.parametrize("path", ["/v1/things/a%00b", "/v1/things/%ed%a0%80", "/v1/things/%ff"])
async def test_text_that_no_database_stores_is_refused_in_the_path(api: httpx.AsyncClient, path: str) -> None:
    assert places(problem(await api.get(path), 422, "invalid_request")) == ["path"]


async def test_text_that_no_database_stores_is_refused_in_the_query(api: httpx.AsyncClient) -> None:
    assert places(problem(await api.get("/v1/things/a?x=%00"), 422, "invalid_request")) == ["query"]
    assert places(problem(await api.get("/v1/things/a?%ed%b0%80=1"), 422, "invalid_request")) == ["query"]
    assert (await api.get("/v1/things/小红书🎉?x=%E4%BD%A0")).json()["name"] == "小红书🎉"


@pytest.mark.parametrize(
    ("extra", "place"),
    [
        (r'{"a": ["x", "\u0000"]}', "/extra/a/1"),
        (r'{"a/b": "\ud83d"}', "/extra/a~1b"),
        (r'{"\udc00": 1}', "/extra"),
        ('{"a": NaN}', "/extra/a"),
        ('{"a": [-Infinity]}', "/extra/a/0"),
        ('{"a": 1e999}', "/extra/a"),
        ('{"a": ' + "[" * 99 + "]" * 99 + "}", "/extra/a" + "/0" * 98),
    ],
)
async def test_text_that_no_database_stores_is_refused_in_the_body(
    api: httpx.AsyncClient, extra: str, place: str
) -> None:
    content = f'{{"fruit": {{"kind": "apple", "grams": 3}}, "extra": {extra}}}'.encode()
    answer = await api.post("/v1/things", content=content, headers={"Content-Type": "application/json"})
    assert places(problem(answer, 422, "invalid_request")) == [place]


async def test_emoji_written_as_a_surrogate_pair_is_fine(api: httpx.AsyncClient) -> None:
    content = rb'{"fruit": {"kind": "pear", "names": ["\ud83c\udf89"]}}'
    answer = await api.post("/v1/things", content=content, headers={"Content-Type": "application/json"})
    assert answer.json()["fruit"]["names"] == ["🎉"]


@pytest.mark.parametrize("path", ["/v1/things", "/v1/raw", "/nothing"])
async def test_a_body_over_the_limit_is_413(api: httpx.AsyncClient, path: str) -> None:
    problem(await api.post(path, content=b"x" * 2001), 413, "body_too_large")


@pytest.mark.parametrize("path", ["/v1/things", "/v1/raw"])
async def test_a_chunked_body_over_the_limit_is_413(api: httpx.AsyncClient, path: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    answer = await api.post(path, content=chunks(), headers={"Content-Type": "application/json"})
    problem(answer, 413, "body_too_large")


async def test_a_body_at_the_limit_is_taken(api: httpx.AsyncClient) -> None:
    assert (await api.post("/v1/raw", content=b"x" * 2000)).json() == 2000


async def test_a_bug_is_500_without_inner_text(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/things/bug")
    problem(answer, 500, "internal_error")
    assert "hunter2" not in answer.text


async def test_an_error_after_the_answer_has_begun_reaches_the_server(tmp_path: Path) -> None:
    def answer() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("half an answer is out")

        return StreamingResponse(parts())

    streaming = APIRouter()
    streaming.add_api_route("/stream", answer)
    app = make_app(tmp_path, streaming)
    async with client(app) as api:
        with pytest.raises(RuntimeError, match="half an answer"):
            await api.get("/stream")


async def test_a_good_request_id_is_kept_and_a_bad_one_replaced(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/things/a", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    for bad in ("has space", "x" * 129, "<script>"):
        answer = await api.get("/v1/things/a", headers={"X-Request-Id": bad})
        assert answer.headers["x-request-id"].startswith("req_")
    first, second = await api.get("/v1/things/a"), await api.get("/v1/things/a")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_a_traceparent_is_taken_over_or_made(api: httpx.AsyncClient) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert (await api.get("/v1/things/a", headers={"traceparent": given})).json()["traceparent"] == given
    made = (await api.get("/v1/things/a", headers={"traceparent": "rubbish"})).json()["traceparent"]
    assert len(made) == 55
    assert current_traceparent() is None


async def test_pages_follow_one_another_to_the_end(api: httpx.AsyncClient) -> None:
    seen: list[int] = []
    query = "limit=3"
    while True:
        page = (await api.get(f"/v1/things?{query}")).json()
        seen += page["items"]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        query = f"limit=3&cursor={page['next_cursor']}"
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_cursors_give_back_text_numbers_and_times() -> None:
    values = (datetime(2026, 11, 5, 1, 2, 3, 456789, tzinfo=UTC), "douyin:小红", 2**63 - 1)
    assert decode_cursor(encode_cursor(values), (datetime, str, int)) == values


@pytest.mark.parametrize(
    "values",
    [["a"], [1, 2], ["a", 1, 1], ["a\0", 1], ["a", True], ["a", None], ["a", 1.5], ["a", [1]]],
)
def test_cursors_of_another_shape_are_422(values: list[Any]) -> None:
    with pytest.raises(Problem) as raised:
        decode_cursor(encode_cursor(values), (str, int))
    assert raised.value.status == 422


@pytest.mark.parametrize("text", ["", "x", "?", "é", "bm90IGpzb24", "ImEi", "W10", "WzkyMjMzNzIwMzY4NTQ3NzU4MDhd"])
async def test_cursors_that_were_never_given_are_422(api: httpx.AsyncClient, text: str) -> None:
    with pytest.raises(Problem) as raised:
        decode_cursor(text, (int,))
    assert raised.value.status == 422
    with pytest.raises(Problem):
        decode_cursor(encode_cursor(["2026-01-01T00:00:00"]), (datetime,))
    if text:
        answer = await api.get("/v1/things", params={"cursor": text})
        assert places(problem(answer, 422, "invalid_request")) == ["query/cursor"]


def _count(**labels: str) -> float:
    return REGISTRY.get_sample_value("superfan_http_requests_total", labels) or 0


async def test_requests_are_counted_by_route_template(tmp_path: Path) -> None:
    async with client(make_app(tmp_path, router, service="counted")) as api:
        await api.get("/v1/things/a")
        await api.get("/v1/things/b")
        await api.get("/nothing/1")
        await api.request("BREW", "/nothing/2")
        await api.get("/v1/things/bug")
    service = {"service": "counted", "method": "GET"}
    assert _count(**service, route="/v1/things/{name}", status="200") == 2
    assert _count(**service, route="/v1/things/{name}", status="500") == 1
    assert _count(**service, route="unmatched", status="404") == 1
    assert _count(service="counted", method="other", route="unmatched", status="404") == 1
    seconds = {"service": "counted", "route": "/v1/things/{name}"}
    assert REGISTRY.get_sample_value("superfan_http_request_seconds_count", seconds) == 3


async def test_openapi_tells_security_and_errors(api: httpx.AsyncClient) -> None:
    schema = (await api.get("/openapi.json")).json()
    assert schema["openapi"].startswith("3.1")
    assert schema["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    assert not {"HTTPValidationError", "ValidationError"} & schema["components"]["schemas"].keys()
    operation = schema["paths"]["/v1/things"]["post"]
    assert operation["operationId"] == "make_thing"
    assert operation["security"] == [{"apiKey": []}]
    assert " ".join(operation["responses"]) == "201 400 401 403 408 409 413 415 422 429 500 503"
    for status, response in operation["responses"].items():
        if status != "201":
            assert response["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }
    assert "HTTPValidationError" not in json.dumps(schema)


async def test_pages_that_load_scripts_from_elsewhere_are_not_served(api: httpx.AsyncClient) -> None:
    assert (await api.get("/docs")).status_code == 404


async def test_the_middleware_passes_other_scopes_on(tmp_path: Path) -> None:
    app: ASGIApp = make_app(tmp_path)
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup" if not sent else "lifespan.shutdown"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
