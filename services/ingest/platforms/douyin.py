"""Douyin Open Platform 抖音开放平台: webhooks of an app, and a signer that makes deliveries like theirs.

The signature covers nothing but the body, without a time: a captured delivery can be sent again for ever. So the
event's id is made of the signed body alone, and the replay is the same event. `Msg-Id` is not signed and not used.
SHA-1 with the secret in front can be extended by an attacker, but the glue bytes are no JSON: the reader is strict.
"""

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from libs.common.events import Problem
from services.ingest.domain.strict_json import MalformedJsonError, find_flaws, read
from services.ingest.platforms.adapter import Adapter, Confidence, Delivery, Events, Flawed, Handshake, Rejection


class Received(NamedTuple):
    """A delivery in parts: open ids of both sides ("" = not told), the content, and the request's log id."""

    event: str
    sender: str
    receiver: str
    content: dict[str, Any]
    log_id: str


class Kind(NamedTuple):
    """One event name of the platform. `convert` gives the event's fields and what its id is made of, None to ignore."""

    type: str
    confidence: Confidence
    convert: Callable[[Received], tuple[dict[str, Any], Any] | None]


def receive(delivery: Delivery) -> Handshake | Rejection | Flawed | Events:
    """Check and convert one delivery. A challenge is answered unsigned too: nobody knows whether Douyin signs it."""
    if delivery.method != "POST":
        return Rejection("method", "Douyin sends everything by POST.", 404)
    signed = _is_signed(delivery)
    if not signed and b"verify_webhook" not in delivery.body:
        return _UNSIGNED
    try:
        document = read(delivery.body)
    except MalformedJsonError as error:
        return Rejection("malformed", f"The body is not JSON: {error}.", 400) if signed else _UNSIGNED
    flaws = [] if document.clean else find_flaws(document.value, exact_ids=True)
    body = document.value if isinstance(document.value, dict) and not flaws else {}
    if body.get("event") == "verify_webhook":
        return _handshake(body)
    if not signed:
        return _UNSIGNED
    if flaws:
        return Flawed(document.value, flaws)
    if not isinstance(body.get("event"), str):
        return Rejection("malformed", "The body names no event.", 400)
    return _convert(body)


_UNSIGNED = Rejection("signature", "X-Douyin-Signature is not valid.")


def _is_signed(delivery: Delivery) -> bool:
    given = delivery.headers.get("x-douyin-signature", "").lower().encode()
    return any(hmac.compare_digest(_digest(delivery.body, secret), given) for secret in delivery.secrets)


def _digest(body: bytes, secret: str) -> bytes:
    return hashlib.sha1(secret.encode() + body, usedforsecurity=False).hexdigest().encode()


def _handshake(body: dict[str, Any]) -> Handshake | Rejection:
    challenge = (_content(body) or {}).get("challenge")
    if isinstance(challenge, bool) or not isinstance(challenge, int | str) or len(str(challenge)) > 200:
        return Rejection("malformed", "The challenge is neither a number nor a text.", 400)
    return Handshake(orjson.dumps({"challenge": challenge}))


def _convert(body: dict[str, Any]) -> Events | Flawed:
    kind = KINDS.get(body["event"])
    content = _content(body)
    if kind is None:
        return Events([], (body["event"],))
    if content is None:
        return Flawed(body, [Problem("/content", "Input should be an object, or the text of one")])
    received = Received(
        event=body["event"],
        sender=_text(body.get("from_user_id")) or "",
        receiver=_text(body.get("to_user_id")) or "",
        content=content,
        log_id=_text(body.get("log_id")) or "",
    )
    converted = kind.convert(received)
    if converted is None:
        return Events([], (received.event,))
    fields, identity = converted
    semantic = orjson.dumps([received.event, received.sender, received.receiver, identity], option=orjson.OPT_SORT_KEYS)
    digest = hashlib.blake2b(semantic, digest_size=16).hexdigest()
    return Events([{"type": kind.type, "id": f"{received.event}:{digest}", **fields}])


def _content(body: dict[str, Any]) -> dict[str, Any] | None:
    """An object, or the text of one: which of the two depends on the event and on the version of the page."""
    content = body.get("content")
    if isinstance(content, str):
        try:
            document = read(content.encode())
        except MalformedJsonError:
            return None
        content = document.value if document.clean or not find_flaws(document.value, exact_ids=True) else None
    return content if isinstance(content, dict) else None


def _text(value: Any) -> Any:
    """Ids may come as numbers; "" stands for absent. Anything else is left to be refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value == "" else value


def _content_id(value: Any) -> Any:
    """Item ids hold slashes, which a subject `content:<id>` may not."""
    text = _text(value)
    return text.replace("/", "%2F") if isinstance(text, str) else text


def _time(value: Any, per_second: int = 1) -> Any:
    """RFC 3339 from seconds (or parts of them) since 1970; what is none is left to be refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    try:
        return datetime.fromtimestamp(value / per_second, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return value


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _follow(received: Received) -> tuple[dict[str, Any], Any] | None:
    # No page tells of an unfollow: any other action is unknown.
    if received.content.get("action_type") != 1:
        return None
    time = _time(received.content.get("action_time"))
    return _present(user=received.sender or None, time=time, data={}), received.content


def _like(received: Received) -> tuple[dict[str, Any], Any] | None:
    content = received.content
    if content.get("action_type") != 1:
        return None
    data = _present(content_id=_content_id(content.get("item_id")))
    return _present(user=received.sender or None, time=_time(content.get("action_time")), data=data), content


def _comment(received: Received) -> tuple[dict[str, Any], Any]:
    content = received.content
    data = _present(
        comment_id=_text(content.get("comment_id")),
        content_id=_content_id(content.get("reply_to_item_id")),
        reply_to=_text(content.get("reply_to_comment_id")),
        text=content.get("content"),
    )
    user = _text(content.get("comment_user_id")) or received.sender or None
    # The rest of the content, such as its number of likes, may differ when it is told again.
    return _present(user=user, time=_time(content.get("create_time")), data=data), [data.get("comment_id")]


def _message(direction: str) -> Callable[[Received], tuple[dict[str, Any], Any]]:
    def convert(received: Received) -> tuple[dict[str, Any], Any]:
        content = received.content
        data = _present(
            message_id=_text(content.get("server_message_id")),
            conversation_id=_text(content.get("conversation_short_id")),
            direction=direction,
            text=_text(content.get("text")),
            message_type=content.get("message_type"),
        )
        fan = received.sender if direction == "in" else received.receiver
        time = _time(content.get("create_time"), per_second=1000)
        return _present(user=fan or None, time=time, data=data), [data.get("message_id")]

    return convert


def _consent(received: Received) -> tuple[dict[str, Any], Any]:
    scopes = received.content.get("scopes")
    data: dict[str, Any] = {"purpose": "platform_data", "channel": "douyin"}
    if isinstance(scopes, list):
        data["scopes"] = scopes
    # The only sort without a time or an id of its own: without the log id, a consent given again would be taken for a
    # repeat of the first. Should a retry have another log id, the same state is written twice, which changes nothing.
    return _present(user=received.sender or None, data=data), [received.content, received.log_id]


def _published(received: Received) -> tuple[dict[str, Any], Any] | None:
    content_id = _content_id(received.content.get("item_id"))
    if not isinstance(content_id, str):
        return None
    fields = {"subject": f"content:{content_id}", "data": {"content_id": content_id}}
    return fields, [content_id]


KINDS: dict[str, Kind] = {
    "new_follow_action": Kind("follow", "legacy", _follow),
    "new_video_digg": Kind("like", "legacy", _like),
    "item_comment_reply": Kind("comment", "legacy", _comment),
    "im_receive_msg": Kind("message", "formula only", _message("in")),
    "im_send_msg": Kind("message", "formula only", _message("out")),
    "authorize": Kind("consent.granted", "formula only", _consent),
    "unauthorize": Kind("consent.revoked", "formula only", _consent),
    "create_video": Kind("content.published", "formula only", _published),
}

ADAPTER = Adapter("Douyin Open Platform 抖音开放平台", "formula only", receive)
