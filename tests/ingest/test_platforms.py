"""Adapters and signers: pure functions, checked by the platforms' own vectors and payloads where there are any."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from libs.common.events import Event
from services.ingest.domain.completion import Refusal, Sender, complete
from services.ingest.platforms import ADAPTERS, douyin, douyin_signer, standard
from services.ingest.platforms.adapter import Delivery, Events, Flawed, Handshake, Rejection

WEBHOOKS = Path(__file__).parents[3] / "shared" / "data" / "webhooks"
AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
SENDER = Sender("demo", "douyin", "/douyin-demo", "platform", platform="douyin")


def deliver(body: bytes, /, secret: str = "s", secrets: tuple[str, ...] = ("s",), **changes: Any) -> Any:
    headers = {name.lower(): value for name, value in douyin_signer.sign(body, secret).items()}
    delivery = Delivery("POST", "/v1/webhooks/douyin-demo", {}, headers, body, secrets, AT)
    return douyin.receive(delivery._replace(**changes))


def event(body: bytes) -> Event:
    result = deliver(body)
    assert isinstance(result, Events)
    completed = complete(dict(result.items[0]), SENDER, AT, "none")
    assert not isinstance(completed, Refusal), completed
    return completed


def test_the_signature_is_sha1_of_secret_and_body() -> None:
    # echo -n sbody | sha1sum
    assert douyin_signer.sign(b"body", "s")["X-Douyin-Signature"] == "f13ff5b70758591952b07918cc00c4c316547a2d"
    assert isinstance(deliver(douyin_signer.follow("ou_1", AT)), Events)


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {}},
        {"headers": {"x-douyin-signature": ""}},
        {"headers": {"x-douyin-signature": "0" * 40}},
        {"headers": {"x-douyin-signature": "é"}},
        {"body": douyin_signer.follow("ou_2", AT)},
        {"secrets": ("other", "another")},
    ],
)
def test_an_unsigned_delivery_is_rejected(changes: dict[str, Any]) -> None:
    result = deliver(douyin_signer.follow("ou_1", AT), **changes)
    assert isinstance(result, Rejection)
    assert (result.reason, result.status) == ("signature", 401)


@pytest.mark.parametrize("secret", ["new", "old"])
def test_both_secrets_are_good_while_they_rotate(secret: str) -> None:
    assert isinstance(deliver(douyin_signer.follow("ou_1", AT), secret, ("new", "old")), Events)


def test_a_signature_in_capitals_is_good() -> None:
    body = douyin_signer.follow("ou_1", AT)
    signature = douyin_signer.sign(body, "s")["X-Douyin-Signature"].upper()
    assert isinstance(deliver(body, headers={"x-douyin-signature": signature}), Events)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("content", [{"challenge": 12345}, '{"challenge": 12345}'])
def test_a_challenge_is_echoed_signed_or_not(signed: bool, content: object) -> None:
    body = orjson.dumps({"event": "verify_webhook", "client_key": "", "content": content})
    result = deliver(body, secret="s" if signed else "wrong")
    assert isinstance(result, Handshake)
    assert orjson.loads(result.body) == {"challenge": 12345}


def test_a_text_that_only_mentions_the_challenge_needs_a_signature() -> None:
    body = douyin_signer.comment("ou_1", "item", "c1", "verify_webhook", AT)
    assert isinstance(deliver(body, secret="wrong"), Rejection)
    assert isinstance(deliver(body), Events)


def test_trailing_bytes_are_no_json_even_under_a_good_signature() -> None:
    result = deliver(douyin_signer.follow("ou_1", AT) + b"\x80\x00\x00" + douyin_signer.follow("ou_2", AT))
    assert isinstance(result, Rejection)
    assert (result.reason, result.status) == ("malformed", 400)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            douyin_signer.follow("ou_1", AT),
            {"type": "follow", "subject": "douyin:ou_1", "time": AT, "data": {}},
        ),
        (
            douyin_signer.like("ou_1", "@9VxS/+==", AT),
            {"type": "like", "subject": "douyin:ou_1", "time": AT, "data": {"content_id": "@9VxS%2F+==", "count": 1}},
        ),
        (
            douyin_signer.comment("ou_1", "item-1", "c-1", "多少钱 😀", AT, reply_to="c-0"),
            {
                "type": "comment",
                "subject": "douyin:ou_1",
                "time": AT,
                "data": {"comment_id": "c-1", "content_id": "item-1", "reply_to": "c-0", "text": "多少钱 😀"},
            },
        ),
        (
            douyin_signer.message("ou_1", "m-1", "hello", AT),
            {
                "type": "message",
                "subject": "douyin:ou_1",
                "time": AT,
                "data": {
                    "message_id": "m-1",
                    "conversation_id": "conversation-ou_1",
                    "direction": "in",
                    "text": "hello",
                    "message_type": "text",
                },
            },
        ),
        (
            douyin_signer.message("ou_1", "m-2", "welcome", AT, outgoing=True),
            {
                "type": "message",
                "subject": "douyin:ou_1",
                "time": AT,
                "data": {
                    "message_id": "m-2",
                    "conversation_id": "conversation-ou_1",
                    "direction": "out",
                    "text": "welcome",
                    "message_type": "text",
                },
            },
        ),
        (
            douyin_signer.authorize("ou_1", ["user_info"], "log-1"),
            {
                "type": "consent.granted",
                "subject": "douyin:ou_1",
                "time": AT,
                "data": {"purpose": "platform_data", "channel": "douyin", "scopes": ["user_info"]},
            },
        ),
        (
            douyin_signer.authorize("ou_1", ["user_info"], "log-2", revoked=True),
            {
                "type": "consent.revoked",
                "subject": "douyin:ou_1",
                "time": AT,
                "data": {"purpose": "platform_data", "channel": "douyin", "scopes": ["user_info"]},
            },
        ),
        (
            douyin_signer.create_video("@9VxS/+=="),
            {
                "type": "content.published",
                "subject": "content:@9VxS%2F+==",
                "time": AT,
                "data": {"content_id": "@9VxS%2F+=="},
            },
        ),
    ],
    ids=["follow", "like", "comment", "message-in", "message-out", "authorize", "unauthorize", "create_video"],
)
def test_every_kind_becomes_its_event(body: bytes, expected: dict[str, Any]) -> None:
    got = event(body)
    assert (got.account, got.source, got.platform, got.trust) == ("demo", "/douyin-demo", "douyin", "platform")
    document = orjson.loads(got.to_json())
    shown = {"type": got.type, "subject": got.subject, "time": got.time, "data": document["data"]}
    assert shown == expected


def test_the_id_is_the_same_for_a_retry_and_another_for_another_event() -> None:
    def id_of(body: bytes) -> str:
        return event(body).id

    first = douyin_signer.follow("ou_1", AT)
    retried = orjson.dumps({**orjson.loads(first), "log_id": "another"})
    assert id_of(first) == id_of(retried)
    respelled = orjson.loads(first)
    respelled["content"] = json.loads(respelled["content"])
    assert id_of(first) == id_of(json.dumps(respelled, indent=1).encode())
    others = [
        douyin_signer.follow("ou_2", AT),
        douyin_signer.follow("ou_1", AT + timedelta(seconds=1)),
        douyin_signer.like("ou_1", "i", AT),
        douyin_signer.message("ou_1", "m-1", "x", AT),
        douyin_signer.message("ou_1", "m-1", "x", AT, outgoing=True),
        douyin_signer.authorize("ou_1", [], "log-1"),
        douyin_signer.authorize("ou_1", [], "log-2"),
        douyin_signer.authorize("ou_1", [], "log-1", revoked=True),
    ]
    assert len({id_of(body) for body in [first, *others]}) == len(others) + 1


def test_a_comment_that_gained_likes_is_the_same_comment() -> None:
    body = orjson.loads(douyin_signer.comment("ou_1", "item", "c-1", "x", AT))
    first = event(orjson.dumps(body)).id
    body["content"]["digg_count"] = 17
    assert event(orjson.dumps(body)).id == first


@pytest.mark.parametrize(
    "body",
    [
        {"event": "group_fans_event", "content": {}},
        {"event": "new_follow_action", "from_user_id": "ou_1", "content": '{"action_type":2,"action_time":1}'},
        {"event": "create_video", "content": {"share_id": "1"}},
    ],
)
def test_kinds_without_use_are_ignored(body: dict[str, Any]) -> None:
    assert deliver(orjson.dumps(body)) == Events([], (body["event"],))


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"event": "new_follow_action", "content": '{"action_type":1,"action_time":1790000001}'}, "/subject"),
        ({"event": "im_receive_msg", "from_user_id": "ou_1", "content": {"create_time": 1}}, "/data/message_id"),
        (
            {
                "event": "new_follow_action",
                "from_user_id": "ou_1",
                "content": {"action_type": 1, "action_time": 10**18},
            },
            "/time",
        ),
        ({"event": "item_comment_reply", "from_user_id": "ou_1", "content": {}}, "/data/comment_id"),
    ],
)
def test_a_kind_with_missing_parts_is_refused_with_its_place(body: dict[str, Any], at: str) -> None:
    result = deliver(orjson.dumps(body))
    assert isinstance(result, Events)
    refusal = complete(dict(result.items[0]), SENDER, AT, "none")
    assert isinstance(refusal, Refusal)
    assert [problem.pointer for problem in refusal.problems] == [at]


def test_ids_sent_as_numbers_are_taken_from_a_platform() -> None:
    body = orjson.loads(douyin_signer.message("ou_1", "x", "hi", AT))
    body["content"]["server_message_id"] = 7247303576418566913
    got = event(orjson.dumps(body))
    assert orjson.loads(got.to_json())["data"]["message_id"] == "7247303576418566913"


def test_a_signed_text_that_cannot_be_stored_is_set_aside() -> None:
    result = deliver(rb'{"event":"item_comment_reply","from_user_id":"o","content":{"content":"a\u0000b"}}')
    assert isinstance(result, Flawed)
    assert [problem.pointer for problem in result.problems] == ["/content/content"]


@pytest.mark.parametrize("content", ["not json", "[]", 7, None, '{"a":1,"a":2}'])
def test_unreadable_content_is_set_aside(content: object) -> None:
    result = deliver(orjson.dumps({"event": "new_follow_action", "from_user_id": "o", "content": content}))
    assert isinstance(result, Flawed)
    assert [problem.pointer for problem in result.problems] == ["/content"]


def test_get_is_no_way_of_douyin() -> None:
    result = deliver(b"", method="GET")
    assert isinstance(result, Rejection)
    assert result.status == 404


def shared(name: str) -> Any:
    path = WEBHOOKS / name
    if not path.exists():
        pytest.skip(f"the payloads published by platforms are not on this machine ({name})")
    return json.loads(path.read_text())


def test_published_douyin_payloads_are_understood() -> None:
    bodies = [entry for entry in shared("platform_payloads.json")["payloads"] if entry["platform"] == "douyin"]
    assert {entry["event"] for entry in bodies} == {"new_video_digg", "verify_webhook"}
    for entry in bodies:
        result = deliver(json.dumps(entry["body"]).encode())
        if entry["event"] == "verify_webhook":
            assert isinstance(result, Handshake)
            assert orjson.loads(result.body) == {"challenge": 12345}
        else:
            assert isinstance(result, Events)
            assert result.items[0]["type"] == "like"
            assert result.items[0]["time"] == "2023-06-15T08:33:16+00:00"


VECTOR = {
    "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp": "1614265330",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    "body": '{"test": 2432232314}',
}
VECTOR_TIME = datetime.fromtimestamp(1614265330, UTC)
VECTOR_HEADERS = {
    "webhook-id": VECTOR["id"],
    "webhook-timestamp": VECTOR["timestamp"],
    "webhook-signature": VECTOR["signature"],
}


def verify(
    headers: dict[str, str] = VECTOR_HEADERS,
    body: bytes = VECTOR["body"].encode(),
    secrets: tuple[str, ...] = (VECTOR["secret"],),
    now: datetime = VECTOR_TIME,
) -> standard.Signed | Rejection:
    return standard.verify(headers, body, secrets, now)


def test_the_published_vector_of_standard_webhooks() -> None:
    assert verify() == standard.Signed(VECTOR["id"])
    assert standard.sign(VECTOR["body"].encode(), VECTOR["secret"], VECTOR["id"], VECTOR_TIME) == VECTOR_HEADERS


def test_the_vector_in_the_shared_data_is_this_one() -> None:
    vectors = {vector["name"]: vector for vector in shared("signature_vectors.json")["vectors"]}
    assert VECTOR.items() <= vectors["standard_webhooks_spec"].items()


@pytest.mark.parametrize(
    "changes",
    [
        {"secrets": ("whsec_b3RoZXI=", VECTOR["secret"])},
        {"secrets": ("not base64!", VECTOR["secret"])},
        {"headers": VECTOR_HEADERS | {"webhook-signature": f"v1a,xx v1 v1,AAAA {VECTOR['signature']}"}},
        {"now": VECTOR_TIME + timedelta(minutes=5)},
        {"now": VECTOR_TIME - timedelta(minutes=5)},
    ],
)
def test_good_signatures(changes: dict[str, Any]) -> None:
    assert verify(**changes) == standard.Signed(VECTOR["id"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"headers": {}}, "signature"),
        ({"headers": VECTOR_HEADERS | {"webhook-id": "other"}}, "signature"),
        ({"headers": VECTOR_HEADERS | {"webhook-id": "é" * 3}}, "signature"),
        ({"headers": VECTOR_HEADERS | {"webhook-signature": "v1,é"}}, "signature"),
        ({"headers": VECTOR_HEADERS | {"webhook-signature": VECTOR["signature"].replace("v1,", "v1a,")}}, "signature"),
        ({"headers": VECTOR_HEADERS | {"webhook-timestamp": "soon"}}, "timestamp"),
        ({"headers": VECTOR_HEADERS | {"webhook-timestamp": "1614265331"}}, "signature"),
        ({"body": b'{"test": 2432232315}'}, "signature"),
        ({"body": b"\xff"}, "malformed"),
        ({"secrets": ()}, "signature"),
        ({"secrets": ("whsec_b3RoZXI=",)}, "signature"),
        ({"now": VECTOR_TIME + timedelta(minutes=5, seconds=1)}, "timestamp"),
        ({"now": VECTOR_TIME - timedelta(minutes=5, seconds=1)}, "timestamp"),
    ],
)
def test_bad_signatures(changes: dict[str, Any], reason: str) -> None:
    result = verify(**changes)
    assert isinstance(result, Rejection)
    assert result.reason == reason


def test_the_readme_tells_how_well_each_platform_is_proved() -> None:
    readme = (Path(__file__).parents[2] / "services" / "ingest" / "README.md").read_text()
    rows = [f"| `standard` | {standard.TITLE} | {standard.CONFIDENCE} |"]
    rows += [f"| `{name}` | {adapter.title} | {adapter.confidence} |" for name, adapter in ADAPTERS.items()]
    rows += [f"| `{name}` | `{kind.type}` | {kind.confidence} |" for name, kind in douyin.KINDS.items()]
    missing = [row for row in rows if row not in readme]
    assert missing == []
