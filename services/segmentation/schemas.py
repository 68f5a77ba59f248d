"""Bodies of segmentation's API."""

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.web import Page
from services.segmentation.domain import State

USER_ID = "usr_mfzwizltoqfi4bqxc5ubzqxrvlyhaeoz"
SEGMENT_EXAMPLE: dict[str, Any] = {
    "key": "lifecycle.returned",
    "layering": "lifecycle",
    "name": "回流",
    "description": "came back after having been dormant, less than 7 days ago",
    "size": 12,
}
MEMBER_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "state": "returned",
    "since": "2026-05-31T16:00:00Z",
    "idle_days": 2,
    "last_active_day": "2026-06-03",
}
MEMBERSHIP_EXAMPLE: dict[str, Any] = {
    "segment": "lifecycle.returned",
    "layering": "lifecycle",
    "since": "2026-05-31T16:00:00Z",
    "revision": 3,
    "decided_at": "2026-06-01T08:00:00.352000Z",
}
CHANGE_EXAMPLE: dict[str, Any] = {
    "segment_from": "lifecycle.dormant",
    "segment_to": "lifecycle.returned",
    "layering": "lifecycle",
    "reason": "event",
    "initial": False,
    "since": "2026-05-31T16:00:00Z",
    "revision": 3,
    "decided_at": "2026-06-01T08:00:00.352000Z",
}


class Thresholds(BaseModel):
    """The thresholds that were used, in local days."""

    quiet_days: int = Field(description="Idle for more than this is dormant 沉睡; new and returned last this long.")
    lost_days: int = Field(description="Idle for more than this is lost 流失.")


class Lifecycle(BaseModel):
    """Where a user is in his lifecycle at `as_of`, with the values that decide it. Days are the account's."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": USER_ID,
                "as_of": "2026-06-05T02:00:00Z",
                "day": "2026-06-05",
                "zone": "Asia/Shanghai",
                "state": "returned",
                "since": "2026-05-31T16:00:00Z",
                "flips_on": "2026-06-08",
                "idle_days": 2,
                "active_days": 9,
                "first_active_day": "2026-04-01",
                "last_active_day": "2026-06-03",
                "returned_day": "2026-06-01",
                "thresholds": {"quiet_days": 7, "lost_days": 30},
            }
        }
    )

    user_id: str
    as_of: datetime
    day: date = Field(description="The local day of `as_of`; active days up to it count.")
    zone: str = Field(description="The account's time zone.")
    state: State = Field(description="`none` before the first active day.")
    since: datetime | None = Field(description="The local midnight from which the state is true.")
    flips_on: date | None = Field(description="The next day on which the state changes if nothing happens.")
    idle_days: int | None = Field(description="Days from the last active day to `day`.")
    active_days: int
    first_active_day: date | None
    last_active_day: date | None
    returned_day: date | None = Field(description="The newest active day before which he had been dormant.")
    thresholds: Thresholds


class Segment(BaseModel):
    """A segment and how many users are in it."""

    model_config = ConfigDict(json_schema_extra={"example": SEGMENT_EXAMPLE})

    key: str
    layering: str = Field(description="A user is in at most one segment of a layering.")
    name: str
    description: str
    size: int


class Segments(BaseModel):
    """All segments with their sizes at one moment."""

    as_of: datetime
    day: date = Field(description="The local day of `as_of` in the account's zone.")
    items: list[Segment]


class Member(BaseModel):
    """A user in a segment, and what puts him there."""

    model_config = ConfigDict(json_schema_extra={"example": MEMBER_EXAMPLE})

    user_id: str
    state: State
    since: datetime = Field(description="The local midnight from which he is in it.")
    idle_days: int
    last_active_day: date


class Membership(BaseModel):
    """A segment that a user was announced to be in."""

    model_config = ConfigDict(json_schema_extra={"example": MEMBERSHIP_EXAMPLE})

    segment: str
    layering: str
    since: datetime
    revision: int = Field(description="Of the notice that told it.")
    decided_at: datetime


class MembershipChange(BaseModel):
    """A move between two segments of a layering, as it was decided."""

    model_config = ConfigDict(json_schema_extra={"example": CHANGE_EXAMPLE}, from_attributes=True)

    segment_from: str | None = Field(description="null: the first placement.")
    segment_to: str | None
    layering: str
    reason: Literal["event", "time_passed", "rule_changed", "merged"]
    initial: bool = Field(description="The first placement of this user; it starts no message.")
    since: datetime | None = Field(description="The instant from which it is true.")
    revision: int = Field(description="Of the last notice of this move.")
    decided_at: datetime


class Memberships(Page[MembershipChange]):
    """`current`: the segments last announced by `known_at`; `items`: how that came, newest first."""

    user_id: str
    known_at: datetime
    current: list[Membership]
