"""Bodies of RFM."""

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events import EventTime, Whole
from services.segmentation.domain.rfm import CutKind, RfmClass
from services.segmentation.schemas import USER_ID

VALUES_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "r_days": 12,
    "f_orders": 5,
    "m_minor": 43100,
    "r_score": 5,
    "f_score": 4,
    "m_score": 4,
    "rfm_class": "111",
    "class_name": "重要价值",
}
RUN_EXAMPLE: dict[str, Any] = {
    "version": 2,
    "as_of": "2026-06-30T16:00:00Z",
    "day": "2026-07-01",
    "zone": "Asia/Shanghai",
    "currency": "CNY",
    "window_days": 365,
    "cut": "mean",
    "users": 4,
    "previous": 1,
    "created_at": "2026-07-01T02:00:00Z",
}
RESULT_EXAMPLE: dict[str, Any] = {
    "orders_in_other_currencies": 0,
    "cuts": {
        "r_days": {"value": 40.5, "numerator": 81, "denominator": 2},
        "f_orders": {"value": 2.25, "numerator": 9, "denominator": 4},
        "m_minor": {"value": 20000.0, "numerator": 20000, "denominator": 1},
    },
    "scores": {
        "r": [{"score": 5, "lowest": 2, "highest": 12, "users": 2}],
        "f": [{"score": 1, "lowest": 1, "highest": 1, "users": 2}],
        "m": [{"score": 4, "lowest": 43100, "highest": 43100, "users": 1}],
    },
    "classes": [{"rfm_class": "111", "name": "重要价值", "users": 1}],
    "migrations": [{"class_from": "101", "class_to": "111", "users": 1}],
}


class FixedCuts(BaseModel):
    """Thresholds of your own: R <= r_days, F > f_orders, M > m_minor are good."""

    r_days: Annotated[int, Whole(0, 10**6)]
    f_orders: Annotated[int, Whole(0, 10**9)]
    m_minor: Annotated[int, Whole(-(10**15), 10**15)]


class RfmQuestion(BaseModel):
    """What to score, and how to divide."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"as_of": "2026-07-01T00:00:00+08:00", "window_days": 365, "cut": "mean"}},
    )

    as_of: EventTime | None = Field(default=None, description="Orders paid and refunds made by then; now when absent.")
    window_days: Annotated[int, Whole(1, 36_500)] | None = Field(
        default=365, description="The last so many local days, that of `as_of` included; null: all time."
    )
    cut: Literal["mean", "median"] | FixedCuts = Field(
        default="mean", description="What divides the eight classes: mean, median, or fixed thresholds."
    )


class Cut(BaseModel):
    """A threshold: rounded, and exactly as a fraction."""

    value: float
    numerator: int
    denominator: int


class Cuts(BaseModel):
    """R <= r_days, F > f_orders, M > m_minor are good."""

    r_days: Cut
    f_orders: Cut
    m_minor: Cut


class ScoreRange(BaseModel):
    """The values that got a score, and how many users have them. Scores that nobody got are left out."""

    score: int
    lowest: int
    highest: int
    users: int


class Scores(BaseModel):
    """By measure: days since the last paid order, paid orders, net spend in minor units."""

    r: list[ScoreRange]
    f: list[ScoreRange]
    m: list[ScoreRange]


class ClassSize(BaseModel):
    """How many users are in a class."""

    rfm_class: RfmClass
    name: str
    users: int


class Migration(BaseModel):
    """How many users went from a class of the run before to one of this run; null: not scored there."""

    class_from: RfmClass | None
    class_to: RfmClass | None
    users: int


class RfmRun(BaseModel):
    """A run of RFM. It stays as it was, whatever becomes known later."""

    model_config = ConfigDict(json_schema_extra={"example": RUN_EXAMPLE})

    version: int = Field(description="Counts up per account.")
    as_of: datetime
    day: date = Field(description="The local day of `as_of`, from which R counts back.")
    zone: str
    currency: str = Field(description="Only what was paid in it counts for M.")
    window_days: int | None = Field(description="null: all time.")
    cut: CutKind
    users: int = Field(description="N: users who have paid an order in the window.")
    previous: int | None = Field(
        description="The run before with the same window and kind of cut, with which `migrations` compares."
    )
    created_at: datetime


class RfmResult(RfmRun):
    """A run with what it found."""

    model_config = ConfigDict(json_schema_extra={"example": {**RUN_EXAMPLE, **RESULT_EXAMPLE}})

    orders_in_other_currencies: int = Field(description="Paid orders that count for R and F, but not for M.")
    cuts: Cuts
    scores: Scores
    classes: list[ClassSize]
    migrations: list[Migration] = Field(description="Empty when there is no run before.")


class RfmValues(BaseModel):
    """What a run made of a user."""

    model_config = ConfigDict(json_schema_extra={"example": VALUES_EXAMPLE})

    user_id: str = Field(description="The user as he was known when the run was made.")
    r_days: int = Field(description="Local days since the last paid order.")
    f_orders: int = Field(description="Paid orders, those for nothing included, fully refunded ones not.")
    m_minor: int = Field(description="Net spend in minor units of the account's currency; may be negative.")
    r_score: int
    f_score: int
    m_score: int
    rfm_class: RfmClass = Field(description="R, F and M, 1 = good.")
    class_name: str


class UserRfm(RfmValues):
    """The values of a user, with the run that made them."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**VALUES_EXAMPLE, "run": RUN_EXAMPLE, "cuts": RESULT_EXAMPLE["cuts"]}}
    )

    run: RfmRun
    cuts: Cuts
