"""Events: what can be stored, identity, versions, and the way to JSON and back."""

import json
import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_structured
from cloudevents.core.formats.json import JSONFormat
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common.events import (
    ACTIVE_TYPES,
    EVENT_TYPES,
    TOPICS,
    UPCASTERS,
    AnyEvent,
    find_unstorable,
    new_event,
    parse_event,
    problems,
    validate_event,
)
from libs.common.events.docs import example
from libs.common.events.inputs import Unfollow
from tests.support.events import data_of, event, reason, refused

# What cannot be stored


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"a": {"b": ["x", "y\0"]}}, "/a/b/1"),
        ({"a": {"b\0": 1}}, "/a"),
        ({"a": "\ud83d"}, "/a"),
        ({"a": {"\udc00": 1}}, "/a"),
        ({"a": [1, float("nan")]}, "/a/1"),
        ({"a": float("-inf")}, "/a"),
        ({"a": 2**64}, "/a"),
        ({"a": -(2**63) - 1}, "/a"),
        ({"a/b": {"c~d": "\0"}}, "/a~1b/c~0d"),
        ({"b": "\0", "a": "\0"}, "/b"),
        ("\0", ""),
        ("\0 \ud83d", ""),
    ],
)
def test_what_cannot_be_stored_is_found(value: object, pointer: str) -> None:
    found = find_unstorable(value)
    assert found is not None
    assert found[0] == pointer


@pytest.mark.parametrize(
    "value", ["\\u0000", "null", None, "😀\ufeff", 2**64 - 1, {"a": [None, "\\u0000", "null", 1e308]}]
)
def test_what_can_be_stored_passes(value: object) -> None:
    assert find_unstorable(value) is None


def test_nesting_beyond_what_can_be_written_is_refused() -> None:
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    found = find_unstorable(deep)
    assert found is not None
    assert "nested" in found[1]


@pytest.mark.parametrize("place", ["text", "unknown"])
@pytest.mark.parametrize("escape", ["\\u0000", "\\ud83d", "\\udc00x"])
def test_unstorable_text_is_refused_from_raw_json_too(place: str, escape: str) -> None:
    raw = json.dumps(event("comment", {"comment_id": "c", place: "@"})).replace("@", escape)
    for given_raw in (raw, raw.encode()):
        with pytest.raises(ValidationError) as caught:
            parse_event(given_raw)
        assert [problem.pointer for problem in problems(caught.value)] == [f"/data/{place}"]
    assert refused(json.loads(raw)) == [f"/data/{place}"]


def test_emoji_and_the_byte_order_mark_are_text() -> None:
    sent = event("comment", {"comment_id": "c", "text": "\ufeff🍜\\u0000"})
    found = parse_event(json.dumps(sent))
    assert data_of(sent).text == "\ufeff🍜\\u0000"
    assert parse_event(found.to_json()) == found


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b'\xef\xbb\xbf{"id": "1"}', b'"\xed\xa0\x80"']
)
def test_what_is_not_json_is_a_validation_error(raw: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_event(raw)
    assert problems(caught.value)[0].detail


# Identity

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200)
accounts = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=40)
identities = st.tuples(accounts, names, names)


@given(identities, identities)
@case(("a", "bc", "d"), ("a", "b", "cd"))
@case(("a", "b", "c"), ("ab", "c", "c"))
def test_a_digest_stands_for_one_identity(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    digests = [
        validate_event(event(account=account, source=source, id=event_id)).digest
        for account, source, event_id in (one, other)
    ]
    assert (digests[0] == digests[1]) == (one == other)


def test_digest_and_fingerprint_stay_as_they_are_stored() -> None:
    found = validate_event(example("follow", 1))
    assert found.digest.hex() == "1df61310c9ad71c57b357ebfe2052d9f"
    assert found.fingerprint == 6598130600892672211


def test_a_fingerprint_ignores_what_a_retry_changes() -> None:
    first = validate_event(event("like", {"content_id": "c", "count": 2, "x": {"a": 1, "b": 2}}))
    retry = validate_event(
        event(
            "like",
            {"x": {"b": 2, "a": 1}, "count": 2.0, "content_id": "c", "room_id": None},
            time="2026-03-01T01:00:00Z",
            receivedtime="2026-03-02T00:00:00Z",
            traceparent="00-1-2-03",
            trust="client",
            backfill=True,
        )
    )
    assert retry.fingerprint == first.fingerprint
    assert -(2**63) <= first.fingerprint < 2**63


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "douyin:u2"},
        {"time": "2026-03-01T01:00:00.000001Z"},
        {"data": {"count": 2}},
        {"data": {"count": 1, "x": None}},
        {"type": "unfollow"},
    ],
)
def test_a_fingerprint_tells_other_content(changes: dict[str, object]) -> None:
    assert validate_event(event("like") | changes).fingerprint != validate_event(event("like")).fingerprint


def test_a_time_that_ingest_set_is_not_in_the_fingerprint() -> None:
    stamped = [
        validate_event(event(time=time, timemark="stamped")).fingerprint
        for time in ("2026-03-01T01:00:00Z", "2026-03-01T02:00:00Z")
    ]
    assert stamped[0] == stamped[1]


# To JSON and back

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
times = st.datetimes(
    datetime(1, 1, 3),
    datetime(9999, 12, 28),
    timezones=st.integers(-1080, 1080).map(lambda m: timezone(timedelta(minutes=m))),
)


@given(
    st.sampled_from(sorted(EVENT_TYPES)),
    times,
    st.dictionaries(st.text(string.ascii_lowercase, min_size=1).map("x".__add__), json_values, max_size=3),
    names,
)
def test_an_event_survives_json(type_name: str, time: datetime, extra: dict[str, Any], event_id: str) -> None:
    sent = example(type_name, 1)
    sent |= extra | {"data": sent["data"] | extra, "id": event_id, "time": time.isoformat()}
    found = validate_event(sent)
    again = parse_event(found.to_json())
    assert again == found
    assert (again.digest, again.fingerprint, again.key) == (found.digest, found.fingerprint, found.key)
    assert again.to_json() == found.to_json()
    assert again.time == time


@pytest.mark.parametrize("type_name", EVENT_TYPES)
def test_the_cloudevents_library_reads_our_json(type_name: str) -> None:
    ours = validate_event(example(type_name, 1))
    headers = {"content-type": b"application/cloudevents+json"}
    theirs = from_structured(KafkaMessage(headers=headers, key=ours.key, value=ours.to_json()), JSONFormat())
    assert (theirs.get_id(), theirs.get_source(), theirs.get_type()) == (ours.id, ours.source, ours.type)
    assert (theirs.get_subject(), theirs.get_time()) == (ours.subject, ours.time)
    assert theirs.get_dataschema() == ours.dataschema
    assert theirs.get_extension("account") == "demo"
    assert theirs.get_data() == json.loads(ours.to_json())["data"]


def test_new_event_carries_the_current_version() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    made = new_event(
        "sign_in",
        account="demo",
        source="rewards",
        id="s1",
        subject="douyin:u1",
        time=at,
        received=at,
        data={"utc_offset_minutes": 480},
    )
    assert made.dataschema == "urn:superfan:event:sign_in:1"
    assert parse_event(made.to_json()) == made
    with pytest.raises(ValidationError):
        new_event("sign_in", account="demo", source="r", id="", subject="douyin:u1", time=at, received=at, data={})


# Versions


def test_an_old_version_is_brought_up_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_2(old: dict[str, Any]) -> dict[str, Any]:
        return old | {"data": {"why": old["data"]["cause"]}}

    def to_3(old: dict[str, Any]) -> dict[str, Any]:
        return old | {"data": {"reason": old["data"]["why"]}}

    monkeypatch.setitem(EVENT_TYPES, "unfollow", replace(EVENT_TYPES["unfollow"], version=3))
    monkeypatch.setitem(UPCASTERS, ("unfollow", 1), to_2)
    monkeypatch.setitem(UPCASTERS, ("unfollow", 2), to_3)

    def read(data: dict[str, str], version: int | None) -> AnyEvent:
        name = f"urn:superfan:event:unfollow:{version}" if version else None
        sent = event("unfollow", data, dataschema=name)
        before = json.dumps(sent)
        found = validate_event(sent)
        assert json.dumps(sent) == before
        assert parse_event(before) == found
        return found

    for found in (
        read({"cause": "noise"}, None),
        read({"cause": "noise"}, 1),
        read({"why": "noise"}, 2),
        read({"reason": "noise"}, 3),
    ):
        assert isinstance(found, Unfollow)
        assert found.data.reason == "noise"
        assert found.dataschema == "urn:superfan:event:unfollow:3"


@pytest.mark.parametrize(
    "name",
    [
        "urn:superfan:event:follow:2",
        "urn:superfan:event:follow:0",
        "urn:superfan:event:follow:01",
        "urn:superfan:event:view:1",
        "https://example.com/schema",
        7,
    ],
)
def test_an_unknown_version_is_refused_before_its_content(name: object) -> None:
    sent = event("follow", {"acquisition": 1}, dataschema=name)
    assert refused(sent) == ["/dataschema"]
    assert "urn:superfan:event:follow:1" in reason(sent)


def test_every_old_version_has_an_upcaster() -> None:
    old = {(name, version) for name, kind in EVENT_TYPES.items() for version in range(1, kind.version)}
    assert set(UPCASTERS) == old


# Types and topics


def test_the_types_are_those_of_the_contract() -> None:
    assert {name for name, kind in EVENT_TYPES.items() if kind.direction == "input"} == {
        "follow",
        "unfollow",
        "view",
        "like",
        "comment",
        "share",
        "message",
        "sign_in",
        "live.gift",
        "live.fanclub",
        "order.created",
        "order.paid",
        "order.shipped",
        "order.completed",
        "order.cancelled",
        "order.refunded",
        "order.enriched",
        "consent.granted",
        "consent.revoked",
        "profile.traits",
        "survey.answered",
        "content.published",
    }
    assert {name for name, kind in EVENT_TYPES.items() if kind.direction == "derived"} == {
        "profile.linked",
        "profile.updated",
        "segment.entered",
        "segment.left",
        "message.sent",
        "message.skipped",
        "points.awarded",
        "points.spent",
        "points.adjusted",
        "level.changed",
    }
    assert set(EVENT_TYPES) > ACTIVE_TYPES


def test_every_type_goes_to_a_declared_topic_of_twelve_partitions() -> None:
    declared = {topic.name: topic for topic in TOPICS}
    assert len(declared) == len(TOPICS)
    assert {kind.topic for kind in EVENT_TYPES.values()} <= set(declared)
    assert {topic.partitions for topic in TOPICS} == {12}
