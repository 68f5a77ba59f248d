"""Deliveries as Douyin Open Platform makes them: for the simulator, the command line and tests."""

import hashlib
from datetime import datetime
from typing import Any

import orjson


def sign(body: bytes, secret: str) -> dict[str, str]:
    """The headers with which `body` is delivered."""
    return {
        "Content-Type": "application/json",
        "X-Douyin-Signature": hashlib.sha1(secret.encode() + body, usedforsecurity=False).hexdigest(),
        "Msg-Id": hashlib.sha256(body).hexdigest()[:32],
    }


def challenge(number: int) -> bytes:
    """The probe that is sent when a callback address is saved."""
    return orjson.dumps({"event": "verify_webhook", "client_key": "", "content": {"challenge": number}})


def follow(open_id: str, at: datetime) -> bytes:
    """A fan follows the account."""
    return _body("new_follow_action", open_id, _as_text(action_type=1, action_time=int(at.timestamp())))


def like(open_id: str, item_id: str, at: datetime) -> bytes:
    """A fan likes a video."""
    return _body("new_video_digg", open_id, _as_text(action_type=1, action_time=int(at.timestamp()), item_id=item_id))


def comment(open_id: str, item_id: str, comment_id: str, text: str, at: datetime, reply_to: str = "") -> bytes:
    """A fan comments on a video, or answers the comment `reply_to`."""
    content = {
        "comment_id": comment_id,
        "comment_user_id": open_id,
        "content": text,
        "create_time": int(at.timestamp()),
        "digg_count": 0,
        "reply_comment_total": 0,
        "reply_to_comment_id": reply_to,
        "reply_to_item_id": item_id,
        "at_user_id": "",
    }
    return _body("item_comment_reply", open_id, content)


def message(open_id: str, message_id: str, text: str, at: datetime, *, outgoing: bool = False) -> bytes:
    """A private message from the fan to the account, or (`outgoing`) the other way."""
    content = {
        "conversation_short_id": f"conversation-{open_id}",
        "server_message_id": message_id,
        "conversation_type": 1,
        "message_type": "text",
        "text": text,
        "create_time": int(at.timestamp() * 1000),
        "source": "",
        "user_infos": [{"open_id": open_id, "nick_name": "", "avatar": ""}],
    }
    if outgoing:
        return _body("im_send_msg", ACCOUNT_OPEN_ID, content, receiver=open_id)
    return _body("im_receive_msg", open_id, content)


def authorize(open_id: str, scopes: list[str], log_id: str, *, revoked: bool = False) -> bytes:
    """A user allows the app to read their data, or (`revoked`) no longer."""
    return _body("unauthorize" if revoked else "authorize", open_id, {"scopes": scopes}, log_id=log_id)


def create_video(item_id: str) -> bytes:
    """The account publishes a video."""
    return _body("create_video", ACCOUNT_OPEN_ID, {"item_id": item_id, "share_id": "", "has_default_hashtag": False})


ACCOUNT_OPEN_ID = "account-open-id"


def _as_text(**content: Any) -> str:
    return orjson.dumps(content).decode()


def _body(event: str, sender: str, content: Any, receiver: str = ACCOUNT_OPEN_ID, log_id: str = "") -> bytes:
    body = {
        "event": event,
        "client_key": "awdemo0000000000",
        "from_user_id": sender,
        "to_user_id": receiver,
        "content": content,
        "log_id": log_id,
    }
    return orjson.dumps(body)
