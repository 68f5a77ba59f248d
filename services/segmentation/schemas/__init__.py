"""Bodies of segmentation's API."""

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.web import Page
from services.segmentation.domain.ladder import Rung
from services.segmentation.domain.lifecycle import State
from services.segmentation.domain.segments import Layering

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


class NetPaid(BaseModel):
    """Paid less refunded, in minor units of a currency."""

    currency: str
    net_minor: int


class LadderStep(BaseModel):
    """A rung, and since when the user stood on it."""

    rung: Rung
    since: datetime


class Ladder(BaseModel):
    """How close a user is at `as_of`, with the values that decide it. `none` before he was seen."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "user_id": USER_ID,
                "as_of": "2026-06-05T02:00:00Z",
                "rung": "customer",
                "since": "2026-06-03T08:00:00Z",
                "first_active_day": "2026-06-01",
                "following": True,
                "first_interaction": "2026-06-02T11:30:00Z",
                "net_paid": [{"currency": "CNY", "net_minor": 9900}],
                "steps": [
                    {"rung": "customer", "since": "2026-06-03T08:00:00Z"},
                    {"rung": "user", "since": "2026-06-02T11:30:00Z"},
                    {"rung": "fan", "since": "2026-06-01T08:00:00Z"},
                    {"rung": "visitor", "since": "2026-05-31T16:00:00Z"},
                ],
            }
        }
    )

    user_id: str
    as_of: datetime
    rung: Rung
    since: datetime | None = Field(description="The instant from which it is true.")
    first_active_day: date | None = Field(description="From its beginning on he is a visitor.")
    following: bool = Field(description="Whether any of his subjects follows: a fan.")
    first_interaction: datetime | None = Field(description="When he first did more than view: a user.")
    net_paid: list[NetPaid] = Field(description="More than 0 in any currency: a customer.")
    steps: list[LadderStep] = Field(description="The last 20 climbs and falls, newest first.")


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
    state: State | Rung
    since: datetime = Field(description="The instant from which he is in it; in the lifecycle a local midnight.")
    idle_days: int | None = Field(default=None, description="Lifecycle as of an instant only.")
    last_active_day: date | None = Field(default=None, description="Lifecycle as of an instant only.")
    revision: int | None = Field(default=None, description="With `known_at`: of the notice that told it.")
    decided_at: datetime | None = Field(default=None, description="With `known_at`: when it was decided.")


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


class DaySizes(BaseModel):
    """Users by segment at the end of a local day."""

    day: date
    sizes: dict[str, int]


class Sizes(BaseModel):
    """Sizes of all segments of a layering, day by day, as they were announced."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "layering": "ladder",
                "zone": "Asia/Shanghai",
                "items": [
                    {
                        "day": "2026-06-01",
                        "sizes": {
                            "ladder.visitor": 120,
                            "ladder.fan": 80,
                            "ladder.user": 31,
                            "ladder.customer": 9,
                            "ladder.super_user": 0,
                        },
                    }
                ],
            }
        }
    )

    layering: Layering
    zone: str
    items: list[DaySizes]


class Moves(BaseModel):
    """How many moves led from a segment to another one."""

    segment_from: str | None
    segment_to: str | None
    moves: int


class DayMoves(Moves):
    """The same on one local day."""

    day: date


class Flow(BaseModel):
    """The flow matrix of a layering: over all days asked about, and by day. What did not happen is left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "layering": "ladder",
                "zone": "Asia/Shanghai",
                "first_day": "2026-06-01",
                "last_day": "2026-06-30",
                "total": [{"segment_from": "ladder.fan", "segment_to": "ladder.user", "moves": 31}],
                "items": [
                    {"day": "2026-06-02", "segment_from": "ladder.fan", "segment_to": "ladder.user", "moves": 31}
                ],
            }
        }
    )

    layering: Layering
    zone: str
    first_day: date | None = Field(default=None, description="null: nothing can have been decided on the days asked.")
    last_day: date | None = None
    total: list[Moves]
    items: list[DayMoves]
