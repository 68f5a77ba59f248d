"""The behaviour portrait 行为画像, traits 基础画像, and the overview for an app."""

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

BEHAVIOUR_EXAMPLE: dict[str, Any] = {
    "user_id": "usr_mfzwizltoqfi4bqxc5ubzqxrvlyhaeoz",
    "as_of": "2026-06-30T12:00:00Z",
    "today": "2026-06-30",
    "windows": [
        {
            "days": 7,
            "first_day": "2026-06-24",
            "counts": {"like": 3, "view": 8},
            "active_days": 2,
            "views_per_active_day": 4.0,
            "watch_ms": 182000,
            "completed_views": 5,
            "completion_rate": 0.625,
            "watched_share": 0.8,
        }
    ],
    "hours": [[0] * 20 + [6, 2, 0, 0], *[[0] * 24] * 4, [0] * 21 + [3, 0, 0], [0] * 24],
    "typical_hour": 20,
}
TRAIT_EXAMPLE: dict[str, Any] = {
    "value": "成都",
    "trust": "server",
    "source": "fan-app",
    "event_id": "6f0b3a5c9d2e4f81",
    "time": "2026-06-01T08:00:00Z",
}
OVERVIEW_EXAMPLE: dict[str, Any] = {
    "user_id": "usr_mfzwizltoqfi4bqxc5ubzqxrvlyhaeoz",
    "subjects": ["douyin:u42"],
    "as_of": "2026-06-30T12:00:00Z",
    "following": True,
    "first_seen": "2026-06-01T08:00:00Z",
    "last_seen": "2026-06-29T12:30:00Z",
    "traits": {"city": TRAIT_EXAMPLE},
    "lifecycle": {"segment": "lifecycle.active", "since": "2026-06-07T16:00:00Z", "told_at": "2026-06-07T16:00:02Z"},
    "ladder": {"segment": "ladder.user", "since": "2026-06-02T09:00:00Z", "told_at": "2026-06-02T09:00:01Z"},
    "segments": [
        {"segment": "ladder.user", "since": "2026-06-02T09:00:00Z", "told_at": "2026-06-02T09:00:01Z"},
        {"segment": "lifecycle.active", "since": "2026-06-07T16:00:00Z", "told_at": "2026-06-07T16:00:02Z"},
    ],
    "level": {
        "level": "silver",
        "name": "银卡",
        "rank": 1,
        "growth": 120,
        "since": "2026-06-20T09:00:00Z",
        "told_at": "2026-06-20T09:00:01Z",
    },
    "balance": {"points": 86, "told_at": "2026-06-29T12:30:01Z"},
    "streak": {"current": 3, "longest": 5, "days": 12, "last_day": "2026-06-30"},
    "last_message": {
        "journey": "welcome",
        "step": "welcome",
        "channel": "in_app",
        "message_id": "9d0f7a52-6d3e-5a52-9c8b-2f1f5b0f9b11",
        "since": "2026-06-01T08:00:00Z",
        "told_at": "2026-06-01T08:00:01Z",
    },
}


class Window(BaseModel):
    """What a fan did in the last days, today included."""

    days: int | None = Field(description="7, 30 or 90; null for all time.")
    first_day: date | None = Field(description="The first day of the window; null for all time.")
    counts: dict[str, int] = Field(description="Events by type.")
    active_days: int = Field(description="Days with at least one active type.")
    views_per_active_day: float | None
    watch_ms: int = Field(description="Milliseconds watched; a single view counts a day at most.")
    completed_views: int = Field(description="Views as long as their content, or longer.")
    completion_rate: float | None = Field(description="completed ÷ views that told a duration; null without any.")
    watched_share: float | None = Field(description="How much of the content was watched, on average by its length.")


class Behaviour(BaseModel):
    """What a fan does, when, and how long he watches, over all his subjects. Days and hours are those of the account's
    zone."""

    model_config = ConfigDict(json_schema_extra={"example": BEHAVIOUR_EXAMPLE})

    user_id: str
    as_of: datetime
    today: date = Field(description="The local day of `as_of`, which counts in full.")
    windows: list[Window] = Field(description="All time, 7, 30 and 90 days.")
    hours: list[list[int]] = Field(
        description="Events of active types by weekday, Monday first, and hour 0 to 23; of all time."
    )
    typical_hour: int | None = Field(description="The hour with the most of them; null without any.")


class Trait(BaseModel):
    """What is known, who said it, and when it was so."""

    model_config = ConfigDict(json_schema_extra={"example": TRAIT_EXAMPLE})

    value: Any = Field(description="Any JSON. Phone, e-mail, address, id number and real name are masked.")
    trust: str = Field(description="`client` (a public key) stands only where no `platform` or `server` said anything.")
    source: str
    event_id: str
    time: datetime


class Placement(BaseModel):
    """Where the user is in a layering."""

    segment: str
    since: datetime = Field(description="From when it is true.")
    told_at: datetime = Field(description="When segmentation told it.")


class Level(BaseModel):
    level: str
    name: str
    rank: int
    growth: int = Field(description="Growth value when it was told.")
    since: datetime
    told_at: datetime = Field(description="When rewards told it.")


class Balance(BaseModel):
    points: int = Field(description="Over all subjects of the user.")
    told_at: datetime | None = Field(description="When rewards told the last change; null when there was none.")


class Streak(BaseModel):
    """Sign-ins, counted by profile itself."""

    current: int = Field(description="Days in a row up to today or yesterday.")
    longest: int
    days: int
    last_day: date | None


class LastMessage(BaseModel):
    journey: str
    step: str
    channel: str
    message_id: str | None
    since: datetime = Field(description="When what it was sent for happened.")
    told_at: datetime = Field(description="When engagement told that it was sent.")


class Overview(BaseModel):
    """One fan for an app, in one call. What other services concluded is as they last told it."""

    model_config = ConfigDict(json_schema_extra={"example": OVERVIEW_EXAMPLE})

    user_id: str
    subjects: list[str]
    as_of: datetime = Field(description="When this was put together.")
    following: bool
    first_seen: datetime | None
    last_seen: datetime | None
    traits: dict[str, Trait]
    lifecycle: Placement | None
    ladder: Placement | None
    segments: list[Placement] = Field(description="All segments that he is in, these two among them.")
    level: Level | None
    balance: Balance
    streak: Streak
    last_message: LastMessage | None
