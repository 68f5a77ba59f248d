"""POST /v1/events and GET /v1/event-types, on a real broker."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from libs.common.config import ConfigFile
from services.ingest.platforms import standard
from tests.ingest.conftest import CLIENT_KEY, KEY, READ_KEY, STANDARD_OLD_SECRET, STANDARD_SECRET, Published, serving
from tests.support.kafka import TestBroker

JSON = {"Content-Type": "application/json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
SINGLE = {"Content-Type": "application/cloudevents+json"}
GOOD: dict[str, Any] = {
    "specversion": "1.0",
    "type": "follow",
    "id": "good",
    "source": "/test",
    "subject": "douyin:u1",
    "time": "2026-03-01T09:00:00+08:00",
}


async def post(
    api: httpx.AsyncClient, body: object, headers: dict[str, str] = JSON, key: str | None = KEY, query: str = ""
) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    authorization = {"Authorization": f"Bearer {key}"} if key else {}
    return await api.post(f"/v1/events{query}", content=content, headers={**headers, **authorization})


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(None, 401, "unauthorized"), ("sf_dev_wrong", 401, "unauthorized"), (READ_KEY, 403, "missing_scope")],
)
async def test_without_rights_nothing_is_taken(
    api: httpx.AsyncClient, published: Published, key: str | None, status: int, code: str
) -> None:
    response = await post(api, GOOD, key=key)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert (await api.get("/v1/event-types", headers={"Authorization": f"Bearer {key}"})).status_code == status
    assert await published() == []


async def test_another_account_cannot_be_written_to(api: httpx.AsyncClient, published: Published) -> None:
    response = await post(api, {**GOOD, "account": "other"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/account"
    records = await published()
    assert [(topic, key) for topic, key, _ in records] == [("superfan.rejected", b"demo")]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, GOOD),
        (JSON, [GOOD]),
        (JSON, {"events": [GOOD]}),
        (SINGLE, GOOD),
        (BATCH, [GOOD]),
        ({"Content-Type": 'application/JSON; charset="UTF-8"'}, GOOD),
        (JSON, b"\xef\xbb\xbf" + orjson.dumps(GOOD)),
    ],
)
async def test_every_way_in_gives_the_same_event(
    api: httpx.AsyncClient, published: Published, headers: dict[str, str], body: object
) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    before = datetime.now(UTC)
    response = await post(api, body, {**headers, "traceparent": trace})
    assert response.status_code == 202, response.text
    assert response.json() == {
        "accepted": 1,
        "invalid": 0,
        "results": [
            {
                "index": 0,
                "id": "good",
                "source": "/test",
                "status": "accepted",
                "retry_safe": True,
                "marks": [],
                "errors": [],
            }
        ],
    }
    [(topic, key, event)] = await published()
    assert (topic, key) == ("superfan.follows", b"demo/douyin:u1")
    received = datetime.fromisoformat(event.pop("receivedtime"))
    assert before <= received <= datetime.now(UTC)
    assert event == {
        **GOOD,
        "time": "2026-03-01T01:00:00Z",
        "account": "demo",
        "trust": "server",
        "backfill": False,
        "traceparent": trace,
        "data": {},
    }


async def test_a_plain_event_needs_type_and_user_only(api: httpx.AsyncClient, published: Published) -> None:
    response = await post(api, {"type": "sign_in", "user": "u42"}, key=CLIENT_KEY)
    [result] = response.json()["results"]
    assert (response.status_code, result["retry_safe"], result["marks"]) == (202, False, ["stamped"])
    [(topic, key, event)] = await published()
    assert (topic, key) == ("superfan.interactions", b"demo/demo:u42")
    assert (event["source"], event["trust"], event["timemark"]) == ("/app", "client", "stamped")
    assert event["id"] == result["id"]
    assert event["time"] == event["receivedtime"]
    # One trace leads from the request to whatever the event causes.
    assert event["traceparent"].startswith("00-")


async def test_an_idempotency_key_gives_the_ids(api: httpx.AsyncClient, published: Published) -> None:
    body = [
        {"type": "follow", "user": "a"},
        {"type": "follow", "user": "b", "id": "own"},
        {"type": "follow", "user": "c"},
    ]
    for _ in range(2):
        response = await post(api, body, {**JSON, "Idempotency-Key": "import-7"})
        results = response.json()["results"]
        assert [result["id"] for result in results] == ["import-7:0", "own", "import-7:2"]
        assert all(result["retry_safe"] for result in results)
    assert sorted(event["id"] for _, _, event in await published()) == sorted(["import-7:0", "own", "import-7:2"] * 2)


async def test_without_any_id_a_repeat_is_another_event(api: httpx.AsyncClient, published: Published) -> None:
    for _ in range(2):
        await post(api, [{"type": "follow", "user": "a"}, {"type": "follow", "user": "a"}])
    assert len({event["id"] for _, _, event in await published()}) == 4


async def test_an_empty_batch_is_no_error(api: httpx.AsyncClient, published: Published) -> None:
    response = await post(api, [], BATCH)
    assert (response.status_code, response.json()) == (202, {"accepted": 0, "invalid": 0, "results": []})
    assert await published() == []


async def test_a_thin_order_has_the_key_of_its_order(api: httpx.AsyncClient, published: Published) -> None:
    order = {"type": "order.paid", "id": "1", "platform": "doudian", "data": {"order_id": "77"}}
    assert (await post(api, order)).status_code == 202
    [(topic, key, event)] = await published()
    assert (topic, key, event["data"]) == ("superfan.orders", b"demo/order:doudian:77", {"order_id": "77"})


async def test_orders_are_refused_from_a_client_key(api: httpx.AsyncClient, published: Published) -> None:
    order = {"type": "order.paid", "user": "u", "data": {"order_id": "77", "amount_minor": 1, "currency": "CNY"}}
    response = await post(api, [order, GOOD], key=CLIENT_KEY)
    assert response.status_code == 202
    refused, taken = response.json()["results"]
    assert refused["errors"] == [
        {
            "pointer": "/type",
            "detail": "order events are not taken with a client key, which anybody may hold: "
            "send them with a server key",
        }
    ]
    assert taken["status"] == "accepted"
    assert sorted(topic for topic, _, _ in await published()) == ["superfan.follows", "superfan.rejected"]


def future(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


TOO_BIG = "an integer of more than 64 bits; send ids as strings"
ID = "Input should be a string of 1 to 200 characters without control characters; send ids as strings"
MONEY = "Input should be an integer from 0 to 9223372036854775807"


def order(amount: str) -> str:
    return (
        '{"type": "order.paid", "id": "o", "user": "u",'
        f' "data": {{"order_id": "1", "currency": "CNY", "amount_minor": {amount}}}}}'
    )


POINTS = {
    "entity": "e",
    "revision": 1,
    "since": "2026-03-01T00:00:00Z",
    "user_id": "usr_a",
    "points": 1,
    "balance": 1,
    "rule": "r",
    "rule_version": 1,
    "entry_id": "e",
    "caused_by": "0" * 32,
}

BAD: dict[str, tuple[str | bytes, str, str]] = {
    "not an object": ("17", "", "Input should be an object"),
    "null": ("null", "", "Input should be an object"),
    "wrong type of a field": ('{"type": "follow", "user": "u", "data": []}', "/data", "Input should be an object"),
    "wrong type of an id": ('{"type": "comment", "user": "u", "data": {"comment_id": {}}}', "/data/comment_id", ID),
    "unknown type": ('{"type": "dance", "user": "u"}', "/type", "unknown event type 'dance'"),
    "no type": ('{"user": "u"}', "/type", "Field required"),
    "id over 2^53 as a number": (
        '{"type": "follow", "user": "u", "id": 7247303576418566913}',
        "/id",
        "send ids as strings: this number may have been rounded on its way",
    ),
    "small id as a number": ('{"type": "follow", "user": "u", "id": 42}', "/id", ID),
    "id over 2^53 in unknown data": (
        '{"type": "follow", "user": "u", "data": {"shop": {"shop_id": 9007199254740993}}}',
        "/data/shop/shop_id",
        "send ids as strings: this number may have been rounded on its way",
    ),
    "integer over 64 bits": ('{"type": "follow", "user": "u", "data": {"n": 9223372036854775808}}', "/data/n", TOO_BIG),
    "5,000 digits": ('{"type": "follow", "user": "u", "data": {"n": ' + "7" * 5000 + "}}", "/data/n", TOO_BIG),
    "NUL": (
        r'{"type": "comment", "user": "u", "data": {"comment_id": "c", "text": "a\u0000b"}}',
        "/data/text",
        "the text holds a NUL character",
    ),
    "unpaired surrogate": (
        r'{"type": "comment", "user": "u", "data": {"comment_id": "c", "text": "\ud83d"}}',
        "/data/text",
        "the text holds an unpaired surrogate or bytes that are not UTF-8",
    ),
    "unpaired surrogate in a name": (
        r'{"type": "follow", "user": "u", "data": {"\ud83d": 1}}',
        "/data",
        "a field name holds an unpaired surrogate or bytes that are not UTF-8",
    ),
    "not UTF-8": (
        b'{"type": "follow", "user": "\xff"}',
        "/user",
        "the text holds an unpaired surrogate or bytes that are not UTF-8",
    ),
    "NaN": (order("NaN"), "/data/amount_minor", "NaN is not a JSON number"),
    "Infinity": (order("-Infinity"), "/data/amount_minor", "-Infinity is not a JSON number"),
    "duplicate keys": (
        '{"type": "follow", "user": "u", "data": {"a": 1, "a": 2}}',
        "/data/a",
        "the field stands twice",
    ),
    "duplicate envelope keys": ('{"type": "follow", "user": "u", "type": "follow"}', "/type", "the field stands twice"),
    "nested too deep": (
        '{"type": "follow", "user": "u", "data": {"a": ' + "[" * 31 + "]" * 31 + "}}",
        "/data/a" + "/0" * 30,
        "nested more than 32 levels deep",
    ),
    "negative amount": (order("-1"), "/data/amount_minor", MONEY),
    "amount as text": (order('"12"'), "/data/amount_minor", MONEY),
    "amount as a fraction": (order("0.5"), "/data/amount_minor", MONEY),
    "amount as a boolean": (order("true"), "/data/amount_minor", MONEY),
    "amount over 64 bits": (order("9223372036854775808"), "/data/amount_minor", TOO_BIG),
    "foreign account": (
        '{"type": "follow", "user": "u", "account": "other"}',
        "/account",
        "the credential belongs to another account; leave this field out",
    ),
    "derived type": (
        json.dumps({"type": "points.awarded", "user": "u", "data": POINTS}),
        "/type",
        "points.awarded events are made by this system and not taken from outside",
    ),
    "time without offset": ('{"type": "follow", "user": "u", "time": "2026-03-01T00:00:00"}', "/time", ""),
    "time as a number": ('{"type": "follow", "user": "u", "time": 1790000000}', "/time", ""),
    "backfill as text": ('{"type": "follow", "user": "u", "backfill": "yes"}', "/backfill", ""),
    "too large": (
        '{"type": "comment", "user": "u", "data": {"comment_id": "c", "text": "' + "x" * 270_000 + '"}}',
        "",
        "an event may have at most 262144 bytes",
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_event_is_told_and_the_good_ones_around_it_are_taken(
    api: httpx.AsyncClient, published: Published, case: str
) -> None:
    text, pointer, detail = BAD[case]
    bad = text if isinstance(text, bytes) else text.encode()
    first, last = orjson.dumps({**GOOD, "id": "first"}), orjson.dumps({**GOOD, "id": "last"})
    response = await post(api, b"[%s, %s, %s]" % (first, bad, last))
    assert response.status_code == 202, response.text
    answer = response.json()
    assert (answer["accepted"], answer["invalid"]) == (2, 1)
    assert [result["status"] for result in answer["results"]] == ["accepted", "invalid", "accepted"]
    [error] = answer["results"][1]["errors"]
    assert error["pointer"] == pointer
    assert detail in error["detail"]
    assert error["detail"]
    records = await published()
    assert sorted(event["id"] for topic, _, event in records if topic == "superfan.follows") == ["first", "last"]
    [(key, kept)] = [(key, event) for topic, key, event in records if topic == "superfan.rejected"]
    assert (key, kept["account"], kept["errors"]) == (b"demo", "demo", [error])
    assert "u" not in json.dumps(kept["event"]).replace("<number>", "").split('"')

    alone = await post(api, bad)
    if bad.startswith(b"{"):
        assert alone.status_code == 422
        assert alone.headers["content-type"] == "application/problem+json"
        problem = alone.json()
        assert (problem["code"], problem["errors"]) == ("invalid_events", [error])
        assert problem["results"][0]["status"] == "invalid"


UNUSUAL: dict[str, tuple[str, dict[str, Any]]] = {
    "emoji": (r'{"comment_id": "c", "text": "😀 \ud83d\ude00"}', {"comment_id": "c", "text": "😀 😀"}),
    "U+FEFF": ('{"comment_id": "c", "text": "a\ufeffb"}', {"comment_id": "c", "text": "a\ufeffb"}),
    "19 digits as text": ('{"comment_id": "7247303576418566913"}', {"comment_id": "7247303576418566913"}),
    "brackets and colons": (
        r'{"comment_id": "c", "text": "[x] {y} \":\" : \\\":"}',
        {"comment_id": "c", "text": '[x] {y} ":" : \\":'},
    ),
    "largest integer": ('{"comment_id": "c", "n": 9223372036854775807}', {"comment_id": "c", "n": 2**63 - 1}),
    "null is kept": ('{"comment_id": "c", "mood": null}', {"comment_id": "c", "mood": None}),
}


@pytest.mark.parametrize("case", UNUSUAL)
async def test_unusual_but_good_content_arrives_as_it_was_sent(
    api: httpx.AsyncClient, published: Published, case: str
) -> None:
    data, expected = UNUSUAL[case]
    response = await post(api, f'{{"type": "comment", "user": "u", "id": "1", "data": {data}}}'.encode())
    assert response.status_code == 202, response.text
    [(_, _, event)] = await published()
    assert event["data"] == expected


async def test_times_are_stamped_clamped_and_taken(api: httpx.AsyncClient, published: Published) -> None:
    far, near = future(days=400), future(minutes=4)
    sent = [None, far, near, "1997-01-01T00:00:00Z", "0001-01-02T00:00:00Z"]
    body = [{"type": "follow", "user": "u", "id": str(n), "time": time} for n, time in enumerate(sent)]
    response = await post(api, body)
    assert [result["marks"] for result in response.json()["results"]] == [["stamped"], ["clamped"], [], [], []]
    events = {event["id"]: event for _, _, event in await published()}
    assert events["0"]["time"] == events["0"]["receivedtime"]
    assert events["1"]["time"] == events["1"]["receivedtime"]
    assert (events["1"]["timemark"], events["1"]["originaltime"]) == ("clamped", far)
    assert datetime.fromisoformat(events["2"]["time"]) == datetime.fromisoformat(near)
    assert (events["3"]["time"], events["4"]["time"]) == ("1997-01-01T00:00:00Z", "0001-01-02T00:00:00Z")
    assert "timemark" not in events["2"]


async def test_a_repeated_id_with_other_content_goes_on_to_the_consumers(
    api: httpx.AsyncClient, published: Published
) -> None:
    response = await post(api, [GOOD, {**GOOD, "data": {"acquisition": {"channel": "kol"}}}])
    assert response.json()["accepted"] == 2
    assert [event["data"] for _, _, event in await published()] == [{}, {"acquisition": {"channel": "kol"}}]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"type": "follow",\n "user": }', "line 2 column 10: Expecting value"),
        (b"", "line 1 column 1: Expecting value"),
        (b'{"a": 1}{"b": 2}', "line 1 column 9: Extra data"),
        (b"[" * 500_000, "Nesting is not closed"),
        (b"[" * 200_000 + b"]" * 200_000 + b"}", "Extra data"),
    ],
    ids=["value", "empty", "extra", "unclosed", "deep"],
)
async def test_malformed_json_is_400_with_the_place(api: httpx.AsyncClient, body: bytes, detail: str) -> None:
    response = await post(api, body)
    assert (response.status_code, response.json()["code"]) == (400, "malformed_json")
    assert detail in response.json()["errors"][0]["detail"]


async def test_nesting_beyond_any_reader_is_one_bad_event(api: httpx.AsyncClient) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    response = await post(api, b'[{"type": "follow", "user": "u", "data": {"x": %s}}, %s]' % (deep, orjson.dumps(GOOD)))
    assert [result["status"] for result in response.json()["results"]] == ["invalid", "accepted"]


@pytest.mark.parametrize(
    ("headers", "body", "pointer"),
    [
        (JSON, b"17", ""),
        (SINGLE, [GOOD], ""),
        (BATCH, GOOD, ""),
        (JSON, {"events": {}}, "/events"),
        (JSON, {"events": [], "a/b": 1}, "/a~1b"),
    ],
)
async def test_a_body_of_another_shape_is_refused(
    api: httpx.AsyncClient, headers: dict[str, str], body: object, pointer: str
) -> None:
    response = await post(api, body, headers)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


async def test_pointers_of_a_wholly_bad_batch_lead_into_the_body(api: httpx.AsyncClient) -> None:
    bad = {"type": "follow"}
    for body, pointer in (([bad, bad], "/1/subject"), ({"events": [bad, bad]}, "/events/1/subject")):
        response = await post(api, body)
        assert response.status_code == 422
        assert response.json()["errors"][1]["pointer"] == pointer
        assert len(response.json()["results"]) == 2


async def test_a_cloudevent_without_specversion_is_refused(api: httpx.AsyncClient) -> None:
    response = await post(api, {name: value for name, value in GOOD.items() if name != "specversion"}, SINGLE)
    assert response.json()["errors"] == [{"pointer": "/specversion", "detail": "Field required"}]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=gbk"},
        {**JSON, "Content-Encoding": "gzip"},
        {**JSON, "ce-specversion": "1.0"},
    ],
)
async def test_other_media_are_415(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await post(api, GOOD, headers)).status_code == 415


async def test_too_much_is_413(api: httpx.AsyncClient, published: Published) -> None:
    big = {**GOOD, "data": {"x": "y" * 2_000_000}}
    response = await post(api, big)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")

    async def chunks() -> Any:
        for _ in range(40):
            yield b" " * 50_000

    headers = {**JSON, "Authorization": f"Bearer {KEY}"}
    response = await api.post("/v1/events", content=chunks(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")

    response = await post(api, [{"type": "follow", "user": "u"}] * 1001)
    assert (response.status_code, response.json()["code"]) == (413, "too_many_events")
    assert await published() == []


async def test_a_thousand_events_are_one_request(api: httpx.AsyncClient, published: Published) -> None:
    body = [{"type": "follow", "user": f"u{n}", "id": str(n)} for n in range(1000)]
    response = await post(api, body)
    assert (response.status_code, response.json()["accepted"]) == (202, 1000)
    assert {event["id"] for _, _, event in await published()} == {str(n) for n in range(1000)}


async def test_an_idempotency_key_that_cannot_be_one_is_refused(api: httpx.AsyncClient) -> None:
    response = await post(api, GOOD, {**JSON, "Idempotency-Key": "x" * 181})
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "header/idempotency-key"


def signed(body: bytes, secret: str = STANDARD_SECRET, webhook_id: str = "msg_1") -> dict[str, str]:
    return {**JSON, **standard.sign(body, secret, webhook_id, datetime.now(UTC))}


@pytest.mark.parametrize("secret", [STANDARD_SECRET, STANDARD_OLD_SECRET])
@pytest.mark.parametrize("path", ["/v1/events?source=standard-demo", "/v1/webhooks/standard-demo"])
async def test_standard_webhooks_need_no_key(
    api: httpx.AsyncClient, published: Published, secret: str, path: str
) -> None:
    body = orjson.dumps({"type": "sign_in", "timestamp": "2026-03-01T00:00:00Z", "user": "u1", "data": {}})
    response = await api.post(path, content=body, headers=signed(body, secret))
    assert response.status_code == 202, response.text
    [(_, key, event)] = await published()
    assert key == b"demo/shop:u1"
    assert (event["id"], event["source"], event["trust"]) == ("msg_1", "/standard-demo", "server")
    assert event["time"] == "2026-03-01T00:00:00Z"
    assert "platform" not in event


async def test_a_signed_batch_numbers_its_events(api: httpx.AsyncClient, published: Published) -> None:
    body = orjson.dumps([{"type": "follow", "user": "a"}, {"type": "follow", "user": "b", "id": "own"}])
    response = await post(api, body, signed(body), key=None, query="?source=standard-demo")
    assert [result["id"] for result in response.json()["results"]] == ["msg_1:0", "own"]
    assert len(await published()) == 2


async def test_a_bad_signature_is_401_whatever_key_comes_with_it(api: httpx.AsyncClient, published: Published) -> None:
    body = orjson.dumps(GOOD)
    for headers in (JSON, signed(b"other"), signed(body, "whsec_b3RoZXI=")):
        response = await post(api, body, headers, query="?source=standard-demo")
        assert (response.status_code, response.json()["code"]) == (401, "bad_signature")
    for source in ("unknown", "douyin-demo"):
        assert (await post(api, body, signed(body), query=f"?source={source}")).status_code == 404
    assert await published() == []


async def test_event_types_are_told_with_their_schemas(api: httpx.AsyncClient) -> None:
    response = await api.get("/v1/event-types", headers={"Authorization": f"Bearer {KEY}"})
    types = {item["name"]: item for item in response.json()["items"]}
    assert response.status_code == 200
    assert types["order.paid"]["topic"] == "superfan.orders"
    assert types["follow"]["json_schema"]["properties"]["type"]["const"] == "follow"
    assert "segment.entered" not in types


async def test_without_kafka_events_wait_on_disk_and_reach_it_later(
    config: ConfigFile, kafka: TestBroker, published: Published
) -> None:
    async with serving(config, kafka.bootstrap, ack_seconds=0.8) as api:
        assert (await post(api, GOOD)).status_code == 202
        await kafka.kill()
        try:
            response = await post(api, [{**GOOD, "id": "late"}, {"type": "dance"}])
            assert response.status_code == 202
            assert [result["status"] for result in response.json()["results"]] == ["accepted", "invalid"]
            response = await post(api, {"type": "follow", "user": "u"})
            assert response.status_code == 202
            unsafe = response.json()["results"][0]["id"]
            assert (await post(api, {"type": "dance"})).status_code == 422
        finally:
            await kafka.start()
        ids: set[str] = set()
        async with asyncio.timeout(60):
            while not {"late", unsafe} <= ids:
                await asyncio.sleep(0.2)
                ids = {value["id"] for _, _, value in await published()}


async def test_without_kafka_and_with_a_full_spool_503(config: ConfigFile) -> None:
    async with serving(config, "127.0.0.1:1", ack_seconds=0.8, spool_bytes=2000) as api:
        good = [{**GOOD, "id": str(number)} for number in range(10)]
        response = await post(api, good)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert response.json()["code"] == "not_stored"
        response = await post(api, [{"type": "follow", "user": "u"}] * 10)
        assert response.status_code == 503
        assert "Idempotency-Key" in response.json()["detail"]
        assert (await post(api, good[0])).status_code == 202
