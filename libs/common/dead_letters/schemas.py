"""Bodies of the dead letters' routes."""

import base64
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from libs.common.dead_letters import store, usecases
from libs.common.events import EventTime, Id, Whole, find_unstorable
from libs.common.web import encode_cursor

LETTER_ID = "0f343b0931126a20f133d67c2b018a3b"
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "6f0b3a5c9d2e4f81",
    "source": "/douyin-demo",
    "type": "follow",
    "subject": "douyin:u42",
    "time": "2026-06-01T08:00:00Z",
    "receivedtime": "2026-06-01T08:00:00.310000Z",
    "account": "demo",
    "platform": "douyin",
    "trust": "platform",
    "data": {},
}
SUMMARY: dict[str, Any] = {
    "id": LETTER_ID,
    "readable": True,
    "type": "follow",
    "topic": "superfan.follows",
    "partition": 3,
    "offset": 1207,
    "error": "ValidationError",
    "reason": "1 validation error for Follow\ndata.acquisition.channel\n  Input should be a valid string",
    "attempts": 1,
    "first_at": "2026-06-01T08:00:00.352000Z",
    "last_at": "2026-06-01T08:00:00.352000Z",
    "edited_at": None,
}


class Summary(BaseModel):
    """A dead letter without its content."""

    model_config = ConfigDict(json_schema_extra={"example": SUMMARY})

    id: str = Field(description="stays the same for all copies of one event")
    readable: bool = Field(
        description="false: it names no account, so its content and reason are shown to nobody and it can only be "
        "dropped; topic, partition and offset find it in Kafka"
    )
    type: str | None
    topic: str
    partition: int
    offset: int
    error: str = Field(description="kind of the error")
    reason: str | None = Field(description="what went wrong at the last attempt")
    attempts: int
    first_at: datetime
    last_at: datetime
    edited_at: datetime | None


class Shown(Summary):
    """A dead letter with its content."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**SUMMARY, "key": "demo/douyin:u42", "value": EVENT, "value_base64": None}}
    )

    key: str | None = Field(description="Kafka's key; what is not UTF-8 is replaced")
    value: Any = Field(description="the event; null when it is not JSON")
    value_base64: str | None = Field(description="the bytes, when they are not JSON")


class Which(BaseModel):
    """Which letters; what is left out does not matter."""

    model_config = ConfigDict(extra="forbid")

    type: Id | None = None
    error: Id | None = None
    topic: Id | None = None
    since: EventTime | None = Field(None, description="first written at or after")
    until: EventTime | None = Field(None, description="first written before")


class RedriveMany(BaseModel):
    """Up to `limit` letters are tried, newest first."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"filter": {"type": "follow"}, "limit": 100}}
    )

    filter: Which = Which()
    limit: Annotated[int, Whole(1, 1000)] = 100


class DropMany(RedriveMany):
    """Up to `limit` letters are deleted for good, newest first."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"filter": {"error": "UnknownAccountError"}, "reason": "account was closed"}},
    )

    reason: Id = Field(description="why, for the log")


class Drop(BaseModel):
    """Why a letter goes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "a test of the platform's"}})

    reason: Id = Field(description="why, for the log")


class Result(BaseModel):
    """What became of a letter."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"id": LETTER_ID, "outcome": "applied", "error": None, "reason": None}}
    )

    id: str
    outcome: Literal["applied", "already_applied", "failed", "dropped", "unknown", "changed"] = Field(
        description="already_applied: it counts, and not again; unknown, changed: somebody else was faster"
    )
    error: str | None = Field(description="kind of the error, when it failed")
    reason: str | None = Field(description="what went wrong, when it failed")


class Results(BaseModel):
    """What became of each letter."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [{"id": LETTER_ID, "outcome": "applied", "error": None, "reason": None}],
                "counts": {"applied": 1},
                "next_cursor": None,
            }
        }
    )

    items: list[Result]
    counts: dict[str, int] = Field(description="letters by outcome")
    next_cursor: str | None = Field(description="pass it as `cursor` to go on; null when all are done")


def summary(letter: store.Letter) -> Summary:
    return Summary(**_fields(letter))


def shown(letter: store.Letter) -> Shown:
    key = value = encoded = None
    if letter.account is not None:
        key = letter.key.decode("utf-8", "replace") if letter.key is not None else None
        value, encoded = _content(letter.value or b"")
    return Shown(**_fields(letter), key=key, value=value, value_base64=encoded)


def _fields(letter: store.Letter) -> dict[str, Any]:
    readable = letter.account is not None
    return {
        "id": letter.digest.hex(),
        "readable": readable,
        "type": letter.type if readable else None,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "error": letter.error,
        "reason": letter.reason if readable else None,
        "attempts": letter.attempts,
        "first_at": letter.first_at,
        "last_at": letter.last_at,
        "edited_at": letter.edited_at,
    }


def _content(value: bytes) -> tuple[Any, str | None]:
    try:
        document = orjson.loads(value)
        if find_unstorable(document) is None and _depth(document) <= MOST_LEVELS:
            return document, None
    except orjson.JSONDecodeError:
        pass
    return None, base64.b64encode(value).decode()


MOST_LEVELS = 100
"""As deep as a body may be: what is shown can be sent back, and deeper ones no encoder is asked to write."""


def _depth(value: Any) -> int:
    levels, level = 0, [value]
    while level:
        levels += 1
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return levels


def result(done: usecases.Result) -> Result:
    return Result(id=done.digest.hex(), outcome=done.outcome, error=done.error, reason=done.reason)


def results(many: usecases.Many) -> Results:
    counts: dict[str, int] = {}
    for done in many.results:
        counts[done.outcome] = counts.get(done.outcome, 0) + 1
    cursor = encode_cursor((many.last[0], many.last[1].hex())) if many.last else None
    return Results(items=[result(done) for done in many.results], counts=counts, next_cursor=cursor)
