"""Strict JSON, completion and masking: values in, values out."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.events import Event
from services.ingest.domain.completion import Refusal, Sender, complete
from services.ingest.domain.masking import MAX_NODES, mask
from services.ingest.domain.strict_json import MalformedJsonError, find_flaws, pointer, read

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SENDER = Sender(
    account="demo", id_space="demo", source="/dev", trust="server", traceparent=f"00-{'a' * 32}-{'b' * 16}-01"
)
CLIENT = Sender(account="demo", id_space="demo", source="/app", trust="client")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@given(json_values, st.booleans(), st.sampled_from([None, (", ", " : "), (",\n", ":"), (",", ":")]))
def test_good_json_is_read_as_the_standard_library_reads_it(value: Any, ascii_only: bool, separators: Any) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    document = read(raw)
    assert document.value == json.loads(raw)
    assert find_flaws(document.value) == []


@given(
    json_values,
    json_values,
    st.sampled_from(["a", 'a":', "名", ":", "\\u0022:", ""]),
    st.sampled_from([":", " :", ":\t", "\n: "]),
)
def test_a_field_that_stands_twice_is_always_found(one: Any, two: Any, name: str, colon: str) -> None:
    key = name if name.startswith("\\") else json.dumps(name)[1:-1]
    raw = f'{{"x": [{{"{key}":{json.dumps(one)}, "z\\u0022:": 1, "{key}"{colon}{json.dumps(two)}}}]}}'.encode()
    document = read(raw)
    assert not document.clean
    expected = pointer(["x", "0", json.loads(f'"{key}"')])
    assert [(flaw.pointer, flaw.detail) for flaw in find_flaws(document.value)] == [
        (expected, "the field stands twice")
    ]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_as_the_standard_library_does(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        expected = json.loads(text)
    except ValueError:
        expected = ...
    try:
        document = read(raw)
    except MalformedJsonError:
        assert expected is ... or text.startswith("\ufeff")
        return
    if document.clean or not find_flaws(document.value):
        assert document.value == expected


FLAWS: list[tuple[bytes, str, str]] = [
    (rb'{"a": NaN}', "/a", "NaN is not a JSON number"),
    (rb'{"a": [1, -Infinity]}', "/a/1", "-Infinity is not a JSON number"),
    (rb'{"a": 1e400}', "/a", "a number out of range"),
    (rb'{"a": "\ud83d"}', "/a", "the text holds an unpaired surrogate or bytes that are not UTF-8"),
    (rb'{"a": "\ude00\ud83d"}', "/a", "the text holds an unpaired surrogate or bytes that are not UTF-8"),
    (b'{"a": "\xff"}', "/a", "the text holds an unpaired surrogate or bytes that are not UTF-8"),
    (b'{"a": "\xed\xa0\xbd"}', "/a", "the text holds an unpaired surrogate or bytes that are not UTF-8"),
    (rb'{"a": "x\u0000y"}', "/a", "the text holds a NUL character"),
    (rb'{"o": {"\u0000": 1}}', "/o", "a field name holds a NUL character"),
    (rb'{"a": 9223372036854775808}', "/a", "an integer of more than 64 bits; send ids as strings"),
    (rb'{"a": -9223372036854775809}', "/a", "an integer of more than 64 bits; send ids as strings"),
    (rb'{"a": 18446744073709551616}', "/a", "an integer of more than 64 bits; send ids as strings"),
    (b'{"a": ' + b"9" * 5000 + b"}", "/a", "an integer of more than 64 bits; send ids as strings"),
    (
        rb'{"video_id": 7247303576418566913}',
        "/video_id",
        "send ids as strings: this number may have been rounded on its way",
    ),
    (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "/a" + "/0" * 31, "nested more than 32 levels deep"),
    (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "/a" + "/0" * 31, "nested more than 32 levels deep"),
]


@pytest.mark.parametrize(("raw", "at", "detail"), FLAWS, ids=[flaw[0][:30].decode("latin-1") for flaw in FLAWS])
def test_what_readers_disagree_about_is_found_with_its_place(raw: bytes, at: str, detail: str) -> None:
    document = read(raw)
    assert not document.clean
    assert [tuple(flaw) for flaw in find_flaws(document.value)] == [(at, detail)]


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 31 + b'{"a": 1}' + b"]" * 31,
        rb'{"amount_minor": 9223372036854775807, "low": -9223372036854775808}',
        rb'{"id": "7247303576418566913", "text": "12345678901234567890123", "n": 1.0}',
        '{"text": "emoji 😀, \ufeff inside, [brackets] {and} \\":\\" quotes \\ud83d\\ude00"}'.encode(),
        b'\xef\xbb\xbf{"a": 1}',
        b" null ",
    ],
)
def test_unusual_but_good_json_is_taken(raw: bytes) -> None:
    document = read(raw)
    assert document.clean or find_flaws(document.value) == []
    assert document.value == json.loads(raw.decode("utf-8-sig"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a": 1,\n "b": }', "line 2 column 7: Expecting value"),
        (b"", "line 1 column 1: Expecting value"),
        (b'{"a": 1} x', "line 1 column 10: Extra data"),
        (b"[" * 100_000, "line 1 column 100001: Nesting is not closed"),
        (
            b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b", oops}",
            "line 1 column 10009: Expecting property name enclosed in double quotes",
        ),
        (b"\xff", "line 1 column 1: Expecting value"),
    ],
    ids=["line", "empty", "extra", "unclosed", "after-depth", "not-utf8"],
)
def test_malformed_json_tells_where(raw: bytes, message: str) -> None:
    with pytest.raises(MalformedJsonError) as caught:
        read(raw)
    assert str(caught.value) == message


def test_long_strings_of_escaped_quotes_take_linear_time() -> None:
    # Quadratic reading would take minutes here.
    raw = b'{"a": ' + b"[" * 2000 + b'"' + rb"\"" * 400_000
    with pytest.raises(MalformedJsonError):
        read(raw)


SEGMENT = {
    "entity": "e",
    "revision": 1,
    "since": "2026-03-01T00:00:00Z",
    "user_id": "usr_a",
    "segment": "s",
    "reason": "event",
    "initial": False,
}


def event(sent: dict[str, Any], sender: Sender = SENDER) -> Event:
    result = complete(sent, sender, NOW, "fallback")
    assert not isinstance(result, Refusal), result
    return result


def refusal(sent: object, sender: Sender = SENDER, *, cloudevent: bool = False) -> Refusal:
    result = complete(sent, sender, NOW, "fallback", cloudevent=cloudevent)
    assert isinstance(result, Refusal), result
    return result


def test_a_plain_event_is_completed_from_the_credential() -> None:
    result = event({"type": "follow", "user": "u42"})
    assert orjson.loads(result.to_json()) == {
        "specversion": "1.0",
        "id": "fallback",
        "source": "/dev",
        "type": "follow",
        "subject": "demo:u42",
        "account": "demo",
        "trust": "server",
        "time": "2026-03-01T12:00:00Z",
        "timemark": "stamped",
        "receivedtime": "2026-03-01T12:00:00Z",
        "traceparent": SENDER.traceparent,
        "backfill": False,
        "data": {},
    }


def test_what_only_ingest_may_say_is_overwritten() -> None:
    result = event(
        {
            "type": "follow",
            "user": "u",
            "time": "2026-03-01T00:00:00Z",
            "trust": "platform",
            "receivedtime": "1999-01-01T00:00:00Z",
            "timemark": "clamped",
            "originaltime": "x",
        }
    )
    assert (result.trust, result.receivedtime, result.timemark, result.originaltime) == ("server", NOW, None, None)


@pytest.mark.parametrize(
    ("sent", "time", "mark", "original"),
    [
        (None, NOW, "stamped", None),
        ("2026-03-01T12:05:00Z", NOW + timedelta(minutes=5), None, None),
        ("2026-03-01T20:05:01+08:00", NOW, "clamped", "2026-03-01T20:05:01+08:00"),
        ("2999-01-01T00:00:00Z", NOW, "clamped", "2999-01-01T00:00:00Z"),
        ("1997-01-01T00:00:00Z", datetime(1997, 1, 1, tzinfo=UTC), None, None),
        ("0001-01-02T00:00:00Z", datetime(1, 1, 2, tzinfo=UTC), None, None),
    ],
)
def test_time_is_stamped_clamped_or_taken(
    sent: str | None, time: datetime, mark: str | None, original: str | None
) -> None:
    result = event({"type": "follow", "user": "u", "time": sent})
    assert (result.time, result.timemark, result.originaltime) == (time, mark, original)


def test_a_trace_of_the_event_goes_before_that_of_the_request_unless_it_is_unreadable() -> None:
    own = f"00-{'c' * 32}-{'d' * 16}-00"
    assert event({"type": "follow", "user": "u", "traceparent": own}).traceparent == own
    assert event({"type": "follow", "user": "u", "traceparent": "nonsense"}).traceparent == SENDER.traceparent
    assert event({"type": "follow", "user": "u", "traceparent": 7}, CLIENT).traceparent is None


def test_published_content_is_its_own_subject() -> None:
    sent = {"type": "content.published", "data": {"content_id": "v-1"}}
    assert event(dict(sent)).subject == "content:v-1"
    assert refusal({**sent, "user": "u"}).problems[0].pointer == "/user"
    assert refusal({**sent, "data": {}}).problems[0].pointer == "/data/content_id"


def test_unknown_attributes_and_backfill_are_kept() -> None:
    result = event({"type": "follow", "user": "u", "backfill": True, "campaignwave": "b", "data": {"via": "qr"}})
    document = orjson.loads(result.to_json())
    assert (document["backfill"], document["campaignwave"], document["data"]) == (True, "b", {"via": "qr"})


@pytest.mark.parametrize(
    ("sent", "reason", "at", "detail"),
    [
        (7, "json", "", "Input should be an object"),
        ({"user": "u"}, "type", "/type", "Field required"),
        ({"type": "dance", "user": "u"}, "type", "/type", "unknown event type 'dance'"),
        ({"type": 5, "user": "u"}, "type", "/type", "unknown event type '5'"),
        (
            {"type": "segment.entered", "subject": "demo:u", "data": SEGMENT},
            "type",
            "/type",
            "segment.entered events are made by this system and not taken from outside",
        ),
        ({"type": "follow"}, "subject", "/subject", None),
        ({"type": "follow", "user": 42}, "subject", "/user", None),
        ({"type": "follow", "user": ""}, "subject", "/user", None),
        ({"type": "follow", "user": "u" * 151}, "subject", "/user", None),
        ({"type": "follow", "user": "a/b"}, "subject", "/user", None),
        ({"type": "follow", "user": "a", "subject": "demo:a"}, "subject", "/user", "give subject or user, not both"),
        ({"type": "follow", "subject": 7247303576418566913}, "subject", "/subject", None),
        ({"type": "follow", "user": "u", "id": 42}, "field", "/id", None),
        ({"type": "follow", "user": "u", "account": "other"}, "account", "/account", None),
        ({"type": "follow", "user": "u", "time": 1790000000}, "time", "/time", None),
        ({"type": "follow", "user": "u", "time": "2026-03-01T12:00:00"}, "time", "/time", None),
        ({"type": "follow", "user": "u", "time": "yesterday"}, "time", "/time", None),
        ({"type": "follow", "user": "u", "backfill": "true"}, "field", "/backfill", None),
        ({"type": "follow", "user": "u", "data_base64": "AA=="}, "field", "/data_base64", None),
        ({"type": "follow", "user": "u", "datacontenttype": "text/xml"}, "field", "/datacontenttype", None),
        ({"type": "follow", "user": "u", "specversion": "0.3"}, "field", "/specversion", None),
        ({"type": "comment", "user": "u", "data": {"comment_id": 7}}, "field", "/data/comment_id", None),
    ],
)
def test_refusals_name_place_and_reason(sent: object, reason: str, at: str, detail: str | None) -> None:
    result = refusal(sent)
    assert result.reason == reason
    assert result.problems[0].pointer == at
    assert len(result.problems) == 1
    if detail is not None:
        assert result.problems[0].detail == detail


def test_all_problems_of_an_event_are_told_together() -> None:
    result = refusal(
        {
            "type": "order.paid",
            "user": "u",
            "account": "other",
            "data": {"order_id": 1, "amount_minor": -5, "currency": "CNY"},
        }
    )
    assert [problem.pointer for problem in result.problems] == ["/account", "/data/order_id", "/data/amount_minor"]


def test_money_is_refused_from_a_client_key_only() -> None:
    sent = {"type": "order.paid", "user": "u", "data": {"order_id": "1", "amount_minor": 5, "currency": "CNY"}}
    assert event(dict(sent)).trust == "server"
    result = refusal(dict(sent), CLIENT)
    assert (result.reason, result.problems[0].pointer) == ("trust", "/type")
    assert "server key" in result.problems[0].detail


def test_a_cloudevent_must_name_its_version() -> None:
    assert refusal({"type": "follow", "user": "u"}, cloudevent=True).problems[0] == ("/specversion", "Field required")


def test_masking_keeps_names_and_hides_values() -> None:
    document = read(
        rb'{"type": "follow", "data": {"phone": "138", "n": 1, "f": 1.5, "b": true, "z": null, "l": [NaN, "x"]}}'
    )
    assert mask(document.value) == {
        "type": "<string>",
        "data": {
            "phone": "<string>",
            "n": "<integer>",
            "f": "<number>",
            "b": "<boolean>",
            "z": None,
            "l": ["<refused>", "<string>"],
        },
    }


@given(json_values)
def test_masked_values_are_bounded_and_hold_no_value(value: Any) -> None:
    shape = orjson.dumps(mask([value, "secret-leaf", 4711]))
    assert b"secret-leaf" not in shape
    assert b"4711" not in shape


def test_masking_is_bounded() -> None:
    assert len(orjson.dumps(mask({f"{'k' * 500}{n}": [n] * 1000 for n in range(1000)}))) < 40 * MAX_NODES
    assert len(orjson.dumps(mask(read(b"[" * 20_000 + b"]" * 20_000).value))) < 200
