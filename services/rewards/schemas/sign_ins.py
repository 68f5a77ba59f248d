"""Sign-ins and streaks."""

from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events.inputs import SignInData
from services.rewards.schemas import USER_ID

SIGNED_IN_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "day": "2026-06-03",
    "points": 1,
    "streak": 3,
    "longest": 3,
    "balance": 13,
    "already_signed_in": False,
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
    next_day_points: int = Field(description="What the next sign-in in time earns, by the rules in force.")
    calendar: list[CalendarDay] = Field(description="35 days up to this one, oldest first.")
