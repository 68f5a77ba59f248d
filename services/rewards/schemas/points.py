"""Balances, entries, lots, spending and adjusting."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events import Id, Whole
from services.rewards.domain.rules import MOST_POINTS
from services.rewards.schemas import ENTRY_ID, SPENT_ID, USER_ID

POINTS_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "balance": 8,
    "revision": 5,
    "by_rule": {"follow": 10, "sign_in": 3, "spend": -5},
}
EVENT_EXAMPLE: dict[str, Any] = {
    "source": "/douyin-demo",
    "id": "6f0b3a5c9d2e4f81",
    "type": "follow",
    "time": "2026-06-01T08:00:00Z",
}
ENTRY_EXAMPLE: dict[str, Any] = {
    "entry_id": ENTRY_ID,
    "points": 10,
    "rule": "follow",
    "rule_version": 1,
    "time": "2026-06-01T08:00:00Z",
    "created_at": "2026-06-01T08:00:00.540000Z",
    "legs": [
        {"book": "wallet", "subject": "douyin:u42", "points": 10},
        {"book": "issued", "subject": None, "points": -10},
    ],
    "event": EVENT_EXAMPLE,
    "request_id": None,
    "made_by": None,
    "reason": None,
    "reference": None,
    "wanted": None,
}
LOT_EXAMPLE: dict[str, Any] = {
    "lot_id": ENTRY_ID,
    "subject": "douyin:u42",
    "rule": "follow",
    "granted": 10,
    "remaining": 5,
    "earned_at": "2026-06-01T08:00:00Z",
    "spendable_from": "2026-06-01T08:00:00.540000Z",
    "expires_at": None,
}
DONE_EXAMPLE: dict[str, Any] = {
    "entry_id": SPENT_ID,
    "user_id": USER_ID,
    "points": -5,
    "balance": 8,
    "lots": [{"lot_id": ENTRY_ID, "points": 5}],
    "created_at": "2026-06-04T10:00:00Z",
}
WHY_EXAMPLE: dict[str, Any] = {
    **ENTRY_EXAMPLE,
    "rule_definition": {
        "kind": "fixed",
        "event_type": "follow",
        "points": 10,
        "active": True,
        "client": False,
        "min_amount": None,
        "caps": {"day": None, "week": None, "month": None, "total": None},
        "growth_per_point": 1,
    },
    "lot": {name: LOT_EXAMPLE[name] for name in ("lot_id", "granted", "remaining", "earned_at", "expires_at")},
    "spent_on": [
        {
            "entry_id": SPENT_ID,
            "points": 5,
            "rule": "spend",
            "reason": "redeemed",
            "reference": "mug-17",
            "created_at": "2026-06-04T10:00:00Z",
        }
    ],
    "paid_from": [],
}


class Points(BaseModel):
    """A user's points, over all his subjects."""

    model_config = ConfigDict(json_schema_extra={"example": POINTS_EXAMPLE})

    user_id: str
    balance: int = Field(description="The sum of all entries.")
    revision: int = Field(description="The number of entries.")
    by_rule: dict[str, int] = Field(
        description="Points by the rule that gave them; `spend` and `adjustment` are what was spent and adjusted."
    )


class Cause(BaseModel):
    """The event that earned the points, or that made known that they were earned."""

    source: str
    id: str
    type: str
    time: datetime = Field(description="When it happened.")


class Leg(BaseModel):
    """One side of an entry. The legs of an entry sum to 0."""

    book: Literal["wallet", "issued", "spent", "adjusted"] = Field(
        description="`wallet`: of a subject; the others are the program's."
    )
    subject: str | None = Field(description="Whose wallet it is.")
    points: int


class Entry(BaseModel):
    """Points given or taken once, and why."""

    model_config = ConfigDict(json_schema_extra={"example": ENTRY_EXAMPLE})

    entry_id: UUID
    points: int = Field(description="What the user got, over all his subjects; below 0 if they were taken.")
    rule: str = Field(description="Key of the earn rule; `spend`; or `adjustment`.")
    rule_version: int
    time: datetime = Field(description="When they were earned, spent or adjusted; caps and levels go by it.")
    created_at: datetime = Field(description="When it was booked.")
    legs: list[Leg]
    event: Cause | None = Field(description="What earned them; null for what was done over REST.")
    request_id: str | None = Field(description="Idempotency-Key of the request that made it.")
    made_by: str | None = Field(description="Id of the API key that asked for it.")
    reason: str | None = Field(description="`cap_day` and the like for an award that a cap cut; else as it was given.")
    reference: str | None = Field(description="The order, as `platform/order id`; else as it was given.")
    wanted: int | None = Field(description="What it would have been without the cap.")


class LotOfEntry(BaseModel):
    """The points that an entry granted, and what is left of them."""

    lot_id: UUID
    granted: int
    remaining: int
    earned_at: datetime
    expires_at: datetime | None


class Lot(LotOfEntry):
    """Points of one grant. What expires first, then what is oldest, is spent first."""

    model_config = ConfigDict(json_schema_extra={"example": LOT_EXAMPLE})

    subject: str
    rule: str = Field(description="What granted them.")
    spendable_from: datetime


class SpentOn(BaseModel):
    """What a lot was spent on."""

    entry_id: UUID
    points: int
    rule: str
    reason: str | None
    reference: str | None
    created_at: datetime


class PaidFrom(BaseModel):
    """A lot that paid; its id is that of the entry that granted it."""

    lot_id: UUID
    points: int
    rule: str = Field(description="What had granted them.")
    earned_at: datetime


class Why(Entry):
    """One entry with everything behind it."""

    model_config = ConfigDict(json_schema_extra={"example": WHY_EXAMPLE})

    rule_definition: dict[str, Any] | None = Field(description="The version of the rule that judged it.")
    lot: LotOfEntry | None = Field(description="The points that it granted.")
    spent_on: list[SpentOn] = Field(description="What its lot was spent on.")
    paid_from: list[PaidFrom] = Field(description="Which lots it was paid from.")


class Spend(BaseModel):
    """Points to be spent."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"points": 5, "reason": "redeemed", "reference": "mug-17"}}
    )

    points: Annotated[int, Whole(1, MOST_POINTS)]
    reason: Id = Field(description="Why, in a few words.")
    reference: Id | None = Field(None, description="What for: an order, a redemption, …")


class Adjust(BaseModel):
    """Points to be given, or, below 0, to be taken."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"points": 50, "reason": "goodwill after a late delivery"}}
    )

    points: Annotated[int, Whole(-MOST_POINTS, MOST_POINTS)]
    reason: Id = Field(description="Why, in a few words.")
    reference: Id | None = None


class LotPart(BaseModel):
    """How much a lot paid, or was given."""

    model_config = ConfigDict(from_attributes=True)

    lot_id: UUID
    points: int


class Done(BaseModel):
    """What was booked, and where the user stands after it."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": DONE_EXAMPLE})

    entry_id: UUID = Field(validation_alias="transaction_id")
    user_id: str
    points: int = Field(description="Below 0 if they were taken.")
    balance: int
    lots: list[LotPart]
    created_at: datetime
