"""Bodies of engagement's API."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.engagement.domain import JourneyKey, Lang, Outcome, Reason

USER_ID = "usr_mfzwizltoqfi4bqxc5ubzqxrvlyhaeoz"
MESSAGE_EXAMPLE: dict[str, Any] = {
    "message_id": "msg_3qz5n2c7wq2y6kzv4m4bq3f6o7x5t2da",
    "subject": "douyin:u42",
    "journey": "welcome",
    "journey_version": 1,
    "step": "hello",
    "channel": "in_app",
    "lang": "en",
    "title": "Welcome!",
    "body": "Thank you for following us. Sign in every day to collect points; news reaches you first.",
    "created_at": "2026-06-01T08:00:00.352000Z",
}
DECISION_EXAMPLE: dict[str, Any] = {
    "decision_id": "welcome:5f0c1b6de94b7c0a8c3f1e2d4b5a6978",
    "user_id": USER_ID,
    "subject": "douyin:u42",
    "journey": "welcome",
    "journey_version": 1,
    "step": "hello",
    "channel": "in_app",
    "purpose": "service",
    "outcome": "skipped",
    "reason": "too_old",
    "values": {"earlier_message_id": None, "backfill": False, "age_seconds": 90000, "max_age_seconds": 86400},
    "message_id": None,
    "revision": 1,
    "event": {"source": "/douyin-demo", "id": "6f0b3a5c9d2e4f81", "time": "2026-06-01T08:00:00Z"},
    "decided_at": "2026-06-02T09:00:00.352000Z",
}
JOURNEY_EXAMPLE: dict[str, Any] = {
    "key": "welcome",
    "version": 1,
    "trigger": "follow",
    "max_age_seconds": 86400,
    "purpose": "service",
    "channel": "in_app",
    "step": "hello",
    "texts": {"en": {"title": "Welcome!", "body": "Thank you for following us."}},
    "reasons": {"too_old": "the follow is as old as the maximum age, or older"},
}


class Message(BaseModel):
    """A message in a user's in-app inbox."""

    model_config = ConfigDict(json_schema_extra={"example": MESSAGE_EXAMPLE})

    message_id: str
    subject: str = Field(description="The subject whose event caused it.")
    journey: str
    journey_version: int
    step: str
    channel: str
    lang: Lang
    title: str
    body: str
    created_at: datetime


class CausingEvent(BaseModel):
    """The event that was decided about."""

    source: str
    id: str
    time: datetime


class Decision(BaseModel):
    """Whether a message was sent because of an event, and why. Made once on what was known then, never revised."""

    model_config = ConfigDict(json_schema_extra={"example": DECISION_EXAMPLE})

    decision_id: str
    user_id: str = Field(description="The user's id when it was decided.")
    subject: str
    journey: str
    journey_version: int
    step: str
    channel: str
    purpose: str
    outcome: Outcome
    reason: Reason | None = Field(description="Why it was skipped; null when it was sent.")
    values: dict[str, Any] = Field(description="What was looked at, up to the question that decided.")
    message_id: str | None = Field(description="The message that was sent.")
    revision: int = Field(description="Counts the decisions of this user and journey.")
    event: CausingEvent
    decided_at: datetime


class Text(BaseModel):
    """What the user reads, in one language."""

    title: str
    body: str


class Journey(BaseModel):
    """A message, what starts it, and what may hold it back."""

    model_config = ConfigDict(json_schema_extra={"example": JOURNEY_EXAMPLE})

    key: JourneyKey
    version: int
    trigger: str = Field(description="Type of the event that starts it.")
    max_age_seconds: int = Field(description="An event of this age or older starts nothing.")
    purpose: str
    channel: str
    step: str
    texts: dict[Lang, Text]
    reasons: dict[Reason, str] = Field(description="Why it is not sent, in the order in which it is asked.")


class Journeys(BaseModel):
    """All journeys in their present version."""

    items: list[Journey]
