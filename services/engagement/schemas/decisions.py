"""Decisions, made and previewed."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.engagement.domain.decisions import Outcome, Reason
from services.engagement.domain.gates import GateName, Verdict
from services.engagement.schemas.journeys import NO_NUL, Key
from services.engagement.schemas.messages import USER_ID

GATES_EXAMPLE: list[dict[str, Any]] = [
    {
        "name": "consent",
        "verdict": "pass",
        "until": None,
        "values": {"purpose": "marketing", "channel": "sms", "rule": "record", "granted": True},
    },
    {"name": "expired", "verdict": "pass", "until": None, "values": {"expires_at": "2026-06-03T14:30:00+00:00"}},
    {
        "name": "quiet_hours",
        "verdict": "hold",
        "until": "2026-06-02T00:11:07Z",
        "values": {
            "applies": True,
            "zone": "Asia/Shanghai",
            "zone_of": "account",
            "local_time": "22:30:00",
            "quiet_from": "22:00",
            "quiet_until": "08:00",
        },
    },
]
DECISION_EXAMPLE: dict[str, Any] = {
    "decision_id": "welcome:5f0c1b6de94b7c0a8c3f1e2d4b5a6978",
    "user_id": USER_ID,
    "subject": "douyin:u42",
    "journey": "welcome",
    "journey_version": 1,
    "step": "hello",
    "channel": "in_app",
    "purpose": "service",
    "turn": 1,
    "outcome": "skipped",
    "reason": "too_old",
    "until": None,
    "values": {"earlier_message_id": None, "backfill": False, "age_seconds": 90000, "max_age_seconds": 86400},
    "gates": [],
    "message_id": None,
    "revision": 1,
    "event": {"type": "follow", "source": "/douyin-demo", "id": "6f0b3a5c9d2e4f81", "time": "2026-06-01T08:00:00Z"},
    "decided_at": "2026-06-02T09:00:00.352000Z",
}
PREVIEW_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "journey": "reactivation",
    "journey_version": 3,
    "channel": "sms-gateway",
    "purpose": "marketing",
    "as_of": "2026-06-01T14:30:00Z",
    "outcome": "held",
    "reason": "quiet_hours",
    "until": "2026-06-02T00:11:07Z",
    "values": {"backfill": False, "age_seconds": 0, "max_age_seconds": 172800},
    "gates": GATES_EXAMPLE,
}


class Gate(BaseModel):
    """One gate's answer, with the values it used."""

    name: GateName
    verdict: Verdict = Field(description="`hold`: asked again at `until`; `stop`: not sent.")
    until: datetime | None = None
    values: dict[str, Any]


class CausingEvent(BaseModel):
    """The event that was decided about."""

    type: str
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
    turn: int = Field(description="Counts the decisions about this event and journey: a held message is asked again.")
    outcome: Outcome = Field(description="`sent`: handed to its channel; `held`: asked again at `until`.")
    reason: Reason | None = Field(description="Why it was skipped or held; null when it was sent.")
    until: datetime | None
    values: dict[str, Any] = Field(description="What was looked at before the gates, up to the question that decided.")
    gates: list[Gate] = Field(description="Every gate in order, when it came to them; the first not to pass decided.")
    message_id: str | None = Field(description="The message that was sent or held.")
    revision: int = Field(description="Counts what is told of this user and journey.")
    event: CausingEvent
    decided_at: datetime


class PreviewRequest(BaseModel):
    """Whom and what to decide about."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"user": "douyin:u42", "journey": "reactivation"}}
    )

    user: str = Field(min_length=1, max_length=200, pattern=NO_NUL, description="a user id or any subject")
    journey: Key


class PreviewedDecision(BaseModel):
    """What would be decided if the journey's trigger came now. Nothing is kept or sent."""

    model_config = ConfigDict(json_schema_extra={"example": PREVIEW_EXAMPLE})

    user_id: str
    journey: str
    journey_version: int
    channel: str
    purpose: str
    as_of: datetime
    outcome: Outcome
    reason: Reason | None
    until: datetime | None
    values: dict[str, Any]
    gates: list[Gate] = Field(description="Every gate in order, when it came to them.")
