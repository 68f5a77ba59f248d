"""A fan as he stands, and his timeline."""

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.profile.schemas.value import EXAMPLE as VALUE_EXAMPLE
from services.profile.schemas.value import Value

USER_EXAMPLE: dict[str, Any] = {
    "user_id": "usr_mfzwizltoqfi4bqxc5ubzqxrvlyhaeoz",
    "subjects": ["douyin:u42"],
    "first_seen": "2026-06-01T08:00:00Z",
    "last_seen": "2026-06-03T12:30:00Z",
    "first_follow": "2026-06-01T08:00:00Z",
    "following": True,
    "counts": {"follow": 1, "like": 3},
    "active_days": 2,
    "longest_run": 1,
    "first_active_day": "2026-06-01",
    "last_active_day": "2026-06-03",
    "value": VALUE_EXAMPLE,
}
ENTRY_EXAMPLE: dict[str, Any] = {
    "type": "follow",
    "time": "2026-06-01T08:00:00Z",
    "received": "2026-06-01T08:00:00.310000Z",
    "subject": "douyin:u42",
    "platform": "douyin",
    "source": "/douyin-demo",
    "id": "6f0b3a5c9d2e4f81",
    "trust": "platform",
    "backfill": False,
    "timemark": None,
    "data": {"acquisition": {"channel": "organic"}},
}


class User(BaseModel):
    """The full state of one fan, over all his subjects. Days are those of the account's zone."""

    model_config = ConfigDict(json_schema_extra={"example": USER_EXAMPLE})

    user_id: str = Field(description="The same in every service.")
    subjects: list[str] = Field(description="`<id space>:<id>` on each platform.")
    first_seen: datetime | None = Field(description="Time of the earliest deed; null when only notices are known.")
    last_seen: datetime | None
    first_follow: datetime | None
    following: bool = Field(description="Whether the newest follow or unfollow of any subject is a follow.")
    counts: dict[str, int] = Field(description="Events by type, of all time.")
    active_days: int = Field(description="Days with at least one active type (follow, view, like, comment, …).")
    longest_run: int = Field(description="Most active days in a row.")
    first_active_day: date | None
    last_active_day: date | None
    value: Value = Field(description="What he has bought.")


class TimelineEntry(BaseModel):
    """One event of a fan, his own or one that a service concluded."""

    model_config = ConfigDict(json_schema_extra={"example": ENTRY_EXAMPLE})

    type: str
    time: datetime = Field(description="When it happened.")
    received: datetime = Field(description="When ingest or the emitting service took it.")
    subject: str
    platform: str | None
    source: str
    id: str
    trust: str
    backfill: bool
    timemark: str | None = Field(description="`stamped` or `clamped` when ingest had to set the time.")
    data: dict[str, Any]
