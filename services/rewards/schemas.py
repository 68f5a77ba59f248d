"""Bodies of rewards' API."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events.inputs import SignInData

USER_ID = "usr_pzk3vejgs6bqi3mwhfd5qbjamranai3u"
SIGNED_IN_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "day": "2026-06-03",
    "points": 1,
    "streak": 3,
    "longest": 3,
    "balance": 13,
    "already_signed_in": False,
}
POINTS_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "balance": 13,
    "revision": 4,
    "by_rule": {"follow": 10, "sign_in": 3},
}
ENTRY_EXAMPLE: dict[str, Any] = {
    "entry_id": "5d0a3e0c-6a3f-b0d1-3a0b-6a4f0a9d6e21",
    "points": 10,
    "rule": "follow",
    "rule_version": 1,
    "subject": "douyin:u42",
    "created_at": "2026-06-01T08:00:00.540000Z",
    "event": {"source": "/douyin-demo", "id": "6f0b3a5c9d2e4f81", "type": "follow", "time": "2026-06-01T08:00:00Z"},
}
STREAK_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "current": 3,
    "longest": 3,
    "days": 3,
    "last_day": "2026-06-03",
    "next_day_points": 1,
    "calendar": [{"day": "2026-06-02", "signed_in": True}, {"day": "2026-06-03", "signed_in": True}],
}
RULES_EXAMPLE: dict[str, Any] = {
    "items": [
        {"key": "sign_in", "version": 1, "event_type": "sign_in", "ladder": [1, 1, 1, 1, 1, 1, 6], "client": False},
        {"key": "follow", "version": 1, "event_type": "follow", "points": 10, "client": False},
    ]
}


class SignIn(SignInData):
    """A sign-in of now; without a body the account's zone decides the day."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"utc_offset_minutes": 480}})


class SignedIn(BaseModel):
    """What a sign-in earned, and where the user stands after it."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": SIGNED_IN_EXAMPLE})

    user_id: str
    day: date = Field(description="The day that was signed in for.")
    points: int = Field(description="What this sign-in earned; 0 when the day was signed in for already.")
    streak: int = Field(description="Days in a row, up to this day.")
    longest: int = Field(description="The longest streak ever.")
    balance: int
    already_signed_in: bool = Field(description="The day counted before; nothing was changed.")


class Points(BaseModel):
    """A user's points, over all his subjects."""

    model_config = ConfigDict(json_schema_extra={"example": POINTS_EXAMPLE})

    user_id: str
    balance: int = Field(description="The sum of all entries.")
    revision: int = Field(description="The number of entries.")
    by_rule: dict[str, int] = Field(description="Points by the rule that gave them.")


class Cause(BaseModel):
    """The event that earned the points."""

    source: str
    id: str
    type: str
    time: datetime = Field(description="When it happened.")


class Entry(BaseModel):
    """Points given once, and why."""

    model_config = ConfigDict(json_schema_extra={"example": ENTRY_EXAMPLE})

    entry_id: UUID
    points: int
    rule: str
    rule_version: int
    subject: str = Field(description="Which of the user's subjects earned them.")
    created_at: datetime = Field(description="When they were given.")
    event: Cause


class CalendarDay(BaseModel):
    day: date
    signed_in: bool


class Streak(BaseModel):
    """What a user's sign-in days amount to, over all his subjects."""

    model_config = ConfigDict(json_schema_extra={"example": STREAK_EXAMPLE})

    user_id: str
    current: int = Field(description="Days in a row; 0 when neither this day nor the one before was signed in for.")
    longest: int
    days: int = Field(description="All sign-in days.")
    last_day: date | None
    next_day_points: int = Field(description="What the next sign-in in time earns.")
    calendar: list[CalendarDay] = Field(description="35 days up to this one, oldest first.")


class EarnRule(BaseModel):
    """What events of one type earn."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    version: int
    event_type: str
    points: int | None = Field(None, description="For each event.")
    ladder: list[int] | None = Field(None, description="For each day in a row; after the last step it begins anew.")
    client: bool = Field(description="Whether events that were sent with a public key earn.")


class EarnRules(BaseModel):
    """All rules in force."""

    model_config = ConfigDict(json_schema_extra={"example": RULES_EXAMPLE})

    items: list[EarnRule]
