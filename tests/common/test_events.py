"""Events: what is taken, and what is refused at which place."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from libs.common.events import EVENT_TYPES, JsonInt, validate_event
from tests.support.events import data_of, event, reason, refused

INT64_MAX = 2**63 - 1
GIFT = {"room_id": "r", "gift_id": "g", "count": 1, "value_minor": 100, "currency": "CNY"}
ORDER = {"order_id": "o1", "amount_minor": 100, "currency": "CNY"}


# Envelope


def test_a_minimal_event_has_the_documented_defaults() -> None:
    found = validate_event(event())
    assert found.specversion == "1.0"
    assert data_of(event()).acquisition is None
    assert (found.backfill, found.trust, found.platform, found.dataschema) == (False, "server", None, None)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"specversion": "0.3"}, "/specversion"),
        ({"id": None}, "/id"),
        ({"id": ""}, "/id"),
        ({"id": "x" * 201}, "/id"),
        ({"id": "a\nb"}, "/id"),
        ({"id": 7}, "/id"),
        ({"source": None}, "/source"),
        ({"source": "x" * 201}, "/source"),
        ({"source": "a\x7fb"}, "/source"),
        ({"type": None}, "/type"),
        ({"type": "folow"}, "/type"),
        ({"type": ["follow"]}, "/type"),
        ({"account": None}, "/account"),
        ({"account": "Demo"}, "/account"),
        ({"account": "x" * 41}, "/account"),
        ({"account": "demo\n"}, "/account"),
        ({"account": ""}, "/account"),
        ({"subject": None}, "/subject"),
        ({"subject": "u1"}, "/subject"),
        ({"subject": "douyin:"}, "/subject"),
        ({"subject": ":u1"}, "/subject"),
        ({"subject": "Douyin:u1"}, "/subject"),
        ({"subject": "douyin:a/b"}, "/subject"),
        ({"subject": "douyin:a\tb"}, "/subject"),
        ({"subject": "douyin:a\x85b"}, "/subject"),
        ({"subject": "douyin:" + "x" * 194}, "/subject"),
        ({"subject": 12}, "/subject"),
        ({"platform": "Dou Yin"}, "/platform"),
        ({"time": None}, "/time"),
        ({"time": "2026-03-01T09:00:00"}, "/time"),
        ({"time": "2026-03-01"}, "/time"),
        ({"time": 1772326800}, "/time"),
        ({"time": "1772326800"}, "/time"),
        ({"time": "2026-02-30T09:00:00Z"}, "/time"),
        ({"time": "2026-W09-7T09:00:00Z"}, "/time"),
        ({"time": "0001-01-01T23:59:59Z"}, "/time"),
        ({"time": "0001-01-02T00:00:00+00:01"}, "/time"),
        ({"time": "9999-12-30T00:00:01Z"}, "/time"),
        ({"time": "9999-12-31T23:59:59-23:59"}, "/time"),
        ({"receivedtime": None}, "/receivedtime"),
        ({"receivedtime": "now"}, "/receivedtime"),
        ({"backfill": "yes"}, "/backfill"),
        ({"backfill": 1}, "/backfill"),
        ({"trust": "admin"}, "/trust"),
        ({"timemark": "guessed"}, "/timemark"),
        ({"data": []}, "/data"),
    ],
)
def test_a_bad_attribute_is_refused_at_its_place(changes: dict[str, object], pointer: str) -> None:
    assert refused(event() | changes) == [pointer]


@pytest.mark.parametrize("value", [[], "follow", 1, None])
def test_an_event_is_an_object(value: object) -> None:
    assert refused(value) == [""]


def test_all_faults_are_told_at_once() -> None:
    assert set(refused(event("view", {"watch_ms": -1}, id=1))) == {
        "/id",
        "/data/content_id",
        "/data/watch_ms",
        "/data/duration_ms",
    }


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-03-01T09:00:00+08:00", datetime(2026, 3, 1, 1, tzinfo=UTC)),
        ("2026-03-01t01:00:00z", datetime(2026, 3, 1, 1, tzinfo=UTC)),
        ("2026-03-01 01:00:00.5Z", datetime(2026, 3, 1, 1, 0, 0, 500000, tzinfo=UTC)),
        ("2026-03-01T01:00:00.123456789Z", datetime(2026, 3, 1, 1, 0, 0, 123456, tzinfo=UTC)),
        ("0001-01-02T00:00:00Z", datetime(1, 1, 2, tzinfo=UTC)),
        ("9999-12-30T00:00:00Z", datetime(9999, 12, 30, tzinfo=UTC)),
        ("9999-12-30T08:00:00+08:00", datetime(9999, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_held_in_utc(text: str, instant: datetime) -> None:
    found = validate_event(event(time=text))
    assert found.time == instant
    assert found.time.utcoffset() == timedelta(0)


def test_the_ends_of_the_calendar_can_be_shown_in_every_zone() -> None:
    for text in ("0001-01-02T00:00:00Z", "9999-12-30T00:00:00Z"):
        for hours in (-18, 18):
            assert validate_event(event(time=text)).time.astimezone(timezone(timedelta(hours=hours)))


def test_a_sign_in_keeps_the_offset_it_was_given_and_is_given_none() -> None:
    assert data_of(event("sign_in")).utc_offset_minutes is None
    found = validate_event(event("sign_in", {"utc_offset_minutes": 480}))
    assert data_of(json.loads(found.to_json())).utc_offset_minutes == 480
    for bad in (1081, -1081, "480", True):
        assert refused(event("sign_in", {"utc_offset_minutes": bad})) == ["/data/utc_offset_minutes"]


# Data


@pytest.mark.parametrize(
    ("type_name", "data", "pointer"),
    [
        ("view", {"content_id": 7301, "watch_ms": 1, "duration_ms": 1}, "/data/content_id"),
        ("order.paid", ORDER | {"order_id": 2**60}, "/data/order_id"),
        (
            "order.paid",
            ORDER | {"items": [{"product_id": 1, "quantity": 1, "price_minor": 1}]},
            "/data/items/0/product_id",
        ),
        ("follow", {"acquisition": {"content_id": 5}}, "/data/acquisition/content_id"),
        ("comment", {"comment_id": 1.0}, "/data/comment_id"),
    ],
)
def test_an_id_sent_as_a_number_is_refused_in_plain_words(type_name: str, data: object, pointer: str) -> None:
    assert refused(event(type_name, data)) == [pointer]
    assert "send ids as strings" in reason(event(type_name, data))


@pytest.mark.parametrize(
    ("type_name", "data", "pointer"),
    [
        ("view", {"content_id": "c", "watch_ms": -1, "duration_ms": 1}, "/data/watch_ms"),
        ("like", {"count": 0}, "/data/count"),
        ("message", {"message_id": "m", "direction": "sideways"}, "/data/direction"),
        ("live.gift", GIFT | {"value_minor": -1}, "/data/value_minor"),
        ("live.gift", GIFT | {"value_minor": INT64_MAX + 1}, "/data/value_minor"),
        ("live.gift", GIFT | {"value_minor": 9.99}, "/data/value_minor"),
        ("live.gift", GIFT | {"currency": "cny"}, "/data/currency"),
        ("live.gift", GIFT | {"currency": "CNY\n"}, "/data/currency"),
        ("live.fanclub", {"room_id": "r", "action": "leave", "level": 1}, "/data/action"),
        ("order.paid", ORDER | {"amount_minor": None}, "/data/amount_minor"),
        ("order.paid", {"order_id": "o1", "amount_minor": 1}, "/data/currency"),
        ("order.paid", ORDER | {"kind": "service"}, "/data/kind"),
        ("order.paid", ORDER | {"paid_at": "2026-03-01"}, "/data/paid_at"),
        ("order.paid", ORDER | {"coupon_codes": "A"}, "/data/coupon_codes"),
        ("order.refunded", {"amount_minor": 1, "currency": "CNY"}, "/data/refund_id"),
        ("order.enriched", ORDER, "/data/buyer"),
        ("order.enriched", ORDER | {"buyer": "b1"}, "/data/buyer"),
        ("consent.granted", {"channel": "sms"}, "/data/purpose"),
        ("survey.answered", {"survey_id": "s", "answers": [{"question_id": "q"}]}, "/data/answers/0/value"),
        ("profile.traits", {"traits": []}, "/data/traits"),
        ("content.published", {"content_id": "7301"}, "/subject"),
    ],
)
def test_bad_data_is_refused_at_its_place(type_name: str, data: object, pointer: str) -> None:
    assert refused(event(type_name, data)) == [pointer]


def test_types_without_required_fields_need_no_data() -> None:
    without = {name for name, kind in EVENT_TYPES.items() if not kind.model.model_fields["data"].is_required()}
    assert without == {"follow", "unfollow", "like", "sign_in"}
    assert data_of(event("like")).count == 1


def test_the_default_data_is_not_shared_between_events() -> None:
    first, second = data_of(event("like")), data_of(event("like"))
    first.count = 9
    assert second.count == 1


def test_unknown_fields_are_kept_everywhere() -> None:
    sent = event(
        "follow", {"shade": None, "acquisition": {"ad": {"id": [1, None]}}}, sampledrate=3, topic="x", digest="y"
    )
    found = validate_event(sent)
    written = json.loads(found.to_json())
    assert written["data"] == {"shade": None, "acquisition": {"ad": {"id": [1, None]}}}
    assert (written["sampledrate"], written["topic"], written["digest"]) == (3, "x", "y")
    assert found.topic == "superfan.follows"
    assert len(found.digest) == 16


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (12, 12),
        (12.0, 12),
        (-3.0, -3),
        (1e3, 1000),
        (INT64_MAX, INT64_MAX),
        (-(2**63), -(2**63)),
        (INT64_MAX + 1, None),
        (-(2**63) - 1, None),
        (9.3e18, None),
        (1e300, None),
        (1.5, None),
        (float("nan"), None),
        (float("inf"), None),
        ("12", None),
        (True, None),
        (False, None),
        (None, None),
        ([1], None),
    ],
)
def test_json_integers(value: object, expected: int | None) -> None:
    adapter = TypeAdapter(JsonInt)
    if expected is None:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
    else:
        found = adapter.validate_python(value)
        assert (found, type(found)) == (expected, int)


def test_a_json_integer_takes_further_bounds() -> None:
    adapter: TypeAdapter[int] = TypeAdapter(Annotated[JsonInt, Field(ge=3)])
    assert adapter.validate_python(3.0) == 3
    with pytest.raises(ValidationError):
        adapter.validate_python(2)


# Orders without subject


def test_a_thin_order_needs_its_platform_and_has_a_key_of_its_own() -> None:
    thin = validate_event(event("order.created", {"order_id": "o/1"}, subject=None, platform="doudian"))
    assert thin.key == b"demo/order:doudian:o/1"
    assert refused(event("order.created", {"order_id": "o1"}, subject=None)) == ["/platform"]
    refund = {"refund_id": "r1", "amount_minor": 1, "currency": "CNY"}
    assert refused(event("order.refunded", refund, subject=None, platform="doudian")) == ["/data/order_id"]
    assert refused(event("order.paid", {"order_id": "o1", "currency": "CNY"}, subject=None, platform="doudian")) == [
        "/data/amount_minor"
    ]


def test_a_whole_order_goes_with_its_subject() -> None:
    assert validate_event(event("order.paid", ORDER)).key == b"demo/douyin:u1"
    assert validate_event(event("order.refunded", {"refund_id": "r", "amount_minor": 1, "currency": "CNY"})).key == (
        b"demo/douyin:u1"
    )
