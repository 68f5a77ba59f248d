"""Earn rules, levels and the audit."""

import re
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from libs.common.events import EventTime
from services.rewards.domain import levels, rules
from services.rewards.schemas import USER_ID

FIXED: dict[str, Any] = {
    "kind": "fixed",
    "event_type": "comment",
    "points": 2,
    "caps": {"day": 10, "month": 100},
    "growth_per_point": 1,
}
STORED: dict[str, Any] = {
    "kind": "fixed",
    "event_type": "comment",
    "active": True,
    "points": 2,
    "client": False,
    "min_amount": None,
    "caps": {"day": 10, "week": None, "month": 100, "total": None},
    "growth_per_point": 1,
}
RULE_EXAMPLE: dict[str, Any] = {
    "key": "comment",
    "version": 2,
    "effective_from": "2026-06-01T00:00:00Z",
    "created_at": "2026-05-28T09:12:00Z",
    "created_by": "back-office",
    "built_in": False,
    "rule": STORED,
}
TABLE: dict[str, Any] = {
    "levels": [
        {"key": "v0", "name": "V0", "growth": 0},
        {"key": "v1", "name": "V1", "growth": 100},
        {"key": "v2", "name": "V2", "growth": 500},
    ],
    "window": "rolling",
    "window_days": 365,
    "hold_days": 365,
}
TABLE_EXAMPLE: dict[str, Any] = {
    "version": 2,
    "effective_from": "2026-06-01",
    "created_at": "2026-05-28T09:12:00Z",
    "created_by": "back-office",
    "built_in": False,
    "table": TABLE,
}
LEVEL_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "rank": 1,
    "level": "v1",
    "name": "V1",
    "growth": 130,
    "reached_on": "2026-06-03",
    "judged_again_on": "2027-06-03",
    "next": {"level": "v2", "name": "V2", "growth": 500, "missing": 370},
    "counted_from": "2025-06-04",
    "by_rule": {"follow": 10, "order_paid": 120},
    "table_version": 1,
}
AUDIT_EXAMPLE: dict[str, Any] = {
    "correct": True,
    "checks": [
        {
            "name": "balance_entry_differences",
            "description": "wallets whose balance is not the sum of their entries",
            "wrong": 0,
        }
    ],
}


def _iso_day(value: object) -> object:
    if not isinstance(value, str | None) or (value is not None and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value)):
        raise ValueError("Input should be a date such as 2026-06-01")
    return value


class RuleBody(BaseModel):
    """A new version of a rule."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"rule": FIXED, "effective_from": None}})

    rule: rules.Rule
    effective_from: EventTime | None = Field(
        None, description="Deeds from then on are judged by it, whenever they become known; now if absent."
    )


class RuleVersion(BaseModel):
    """One version of an earn rule."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": RULE_EXAMPLE})

    key: str
    version: int
    effective_from: datetime | None = Field(description="null: always.")
    created_at: datetime | None
    created_by: str | None = Field(description="Id of the API key that stored it.")
    built_in: bool
    rule: rules.Rule


class RuleVersions(BaseModel):
    """Rules, or versions of one."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [RULE_EXAMPLE]}})

    items: list[RuleVersion]


class TableBody(BaseModel):
    """A new version of the table of levels."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"table": TABLE, "effective_from": None}})

    table: levels.LevelTable
    effective_from: Annotated[date | None, BeforeValidator(_iso_day)] = Field(
        None, description="Local day from which it judges; today if absent."
    )


class TableVersion(BaseModel):
    """One version of the table of levels."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": TABLE_EXAMPLE})

    version: int
    effective_from: date | None = Field(description="null: always.")
    created_at: datetime | None
    created_by: str | None = Field(description="Id of the API key that stored it.")
    built_in: bool
    table: levels.LevelTable


class TableVersions(BaseModel):
    """All versions of the table."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [TABLE_EXAMPLE]}})

    items: list[TableVersion]


class NextLevel(BaseModel):
    """The level above, and what is missing."""

    level: str
    name: str
    growth: int
    missing: int


class UserLevel(BaseModel):
    """A user's level, over all his subjects, and why."""

    model_config = ConfigDict(json_schema_extra={"example": LEVEL_EXAMPLE})

    user_id: str
    rank: int = Field(description="0 for the lowest.")
    level: str
    name: str
    growth: int = Field(description="Growth value 成长值 that counts today.")
    reached_on: date | None = Field(description="Local day on which the level began, or was last confirmed.")
    judged_again_on: date | None = Field(description="Until then it is kept, whatever happens; null for the lowest.")
    next: NextLevel | None = Field(description="null on the highest.")
    counted_from: date | None = Field(description="First local day whose growth value counts; null: all.")
    by_rule: dict[str, int] = Field(description="Growth value that counts, by the rule that gave it.")
    table_version: int


class Check(BaseModel):
    """One check of the ledger against itself."""

    name: str
    description: str
    wrong: int = Field(description="Rows that are wrong; must be 0.")


class Audit(BaseModel):
    """The ledger of the account checked against itself, now."""

    model_config = ConfigDict(json_schema_extra={"example": AUDIT_EXAMPLE})

    correct: bool
    checks: list[Check]
