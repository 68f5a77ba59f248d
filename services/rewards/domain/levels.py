"""Levels 等级: a pure function of the growth value 成长值 of each day, so that late facts and links converge."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events import Id, Whole
from services.rewards.domain.errors import DefinitionError

MOST_GROWTH = 10**15


class Level(BaseModel):
    """A rank and the growth value that it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Id
    name: Id
    growth: Annotated[int, Whole(0, MOST_GROWTH)]


class LevelTable(BaseModel):
    """All levels of an account, the lowest first; everybody has at least the first, which needs no growth value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    levels: list[Level] = Field(min_length=1, max_length=100)
    window: Literal["rolling", "all_time"] = Field(
        "rolling", description="Which growth value counts: that of the last 365 days, or all of it."
    )
    window_days: Annotated[int, Whole(1, 3660)] = Field(365, description="Length of the rolling window.")
    hold_days: Annotated[int, Whole(28, 3660)] = Field(
        365, description="So many days after the local day on which a level was reached, it is judged again."
    )

    def check(self) -> None:
        """Raises DefinitionError."""
        if self.levels[0].growth:
            raise DefinitionError("/levels/0/growth", "the first level must need 0")
        for index, (below, level) in enumerate(pairwise(self.levels), 1):
            if level.growth <= below.growth:
                raise DefinitionError(f"/levels/{index}/growth", "must be above that of the level before")
            if level.key in {other.key for other in self.levels[:index]}:
                raise DefinitionError(f"/levels/{index}/key", "another level has this key")

    def rank(self, growth: int) -> int:
        """The index of the highest level that `growth` reaches."""
        return max(0, bisect_right([level.growth for level in self.levels], growth) - 1)


@lru_cache(maxsize=1024)
def parse_table(definition: str) -> LevelTable:
    """A stored definition."""
    return LevelTable.model_validate_json(definition)


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One version of an account's table, in force from the local day `effective_from` (None: always)."""

    version: int
    table: LevelTable
    effective_from: date | None = None
    created_at: datetime | None = None
    created_by: str | None = None


BUILT_IN = TableVersion(
    1,
    LevelTable(
        levels=[
            Level(key="v0", name="V0", growth=0),
            Level(key="v1", name="V1", growth=100),
            Level(key="v2", name="V2", growth=500),
            Level(key="v3", name="V3", growth=2000),
            Level(key="v4", name="V4", growth=10_000),
        ]
    ),
)


class Tables:
    """All versions of an account's level table, by the day."""

    def __init__(self, stored: Iterable[TableVersion]) -> None:
        self.versions = [BUILT_IN, *sorted(stored, key=lambda found: found.version)]

    @property
    def newest(self) -> int:
        return self.versions[-1].version

    @property
    def first_step(self) -> int:
        """The least growth value that can lift anybody, by any version."""
        return min(
            (version.table.levels[1].growth for version in self.versions if len(version.table.levels) > 1),
            default=2**63 - 1,
        )

    def on(self, day: date) -> TableVersion:
        """The version in force on a local day: the newest that had taken effect."""
        return next(
            version
            for version in reversed(self.versions)
            if version.effective_from is None or version.effective_from <= day
        )

    def changes(self) -> list[date]:
        """The days on which a version takes effect."""
        return [version.effective_from for version in self.versions if version.effective_from]


@dataclass(frozen=True, slots=True)
class Standing:
    """A user's level on a day and what it rests on.

    `reached_on` is the day on which the level began or was last confirmed (None: there never was anything to judge),
    `judged_on` the day on which it is judged again, `flips_on` the next day on which anything can change by itself.
    `growth` is the growth value that counts on the day; `peak` the most that counted on any day since `reached_on`.
    """

    level: int
    reached_on: date | None
    judged_on: date | None
    flips_on: date | None
    growth: int
    peak: int


def judge(growth_of: Mapping[date, int], tables: Tables, today: date) -> Standing:
    """The level on `today` of whoever earned `growth_of` growth value on each day.

    Up at once on the day whose growth reaches a higher level, or on which a table makes it enough; held `hold_days`;
    judged again on that day, on which it falls to what then counts, or is confirmed. A later day than `today` changes
    nothing yet.
    """
    days = sorted(growth_of)
    totals = list(accumulate((growth_of[day] for day in days), initial=0))
    changes = tables.changes()
    looked_at = sorted(day for day in {*days, *changes} if day <= today)
    later = [day for day in (*days, *changes) if day > today]

    level, peak = 0, 0
    reached: date | None = None
    until: date | None = None
    at = 0
    while True:
        upcoming = looked_at[at] if at < len(looked_at) else None
        if until is not None and until <= today and (upcoming is None or until <= upcoming):
            day = until
        elif upcoming is not None:
            day = upcoming
        else:
            break
        if day == upcoming:
            at += 1
        table = tables.on(day).table
        counts = counting(days, totals, table, day)
        rank = table.rank(counts)
        level = min(level, len(table.levels) - 1)
        if rank > level or day == until:
            level, reached, peak = rank, day, 0
            until = day_after(day, table.hold_days) if rank else None
        peak = max(peak, counts)
    flips = min((day for day in (until, *later) if day is not None), default=None)
    return Standing(level, reached, until, flips, counting(days, totals, tables.on(today).table, today), peak)


def counting(days: Sequence[date], totals: Sequence[int], table: LevelTable, day: date) -> int:
    """The growth value that counts on `day`: of sorted `days`, whose running `totals` begin with 0."""
    upto = totals[bisect_right(days, day)]
    if table.window == "all_time":
        return upto
    before = day_after(day, -table.window_days)
    return upto - (totals[bisect_right(days, before)] if before else 0)


def day_after(day: date, days: int) -> date | None:
    """The day so many days later; None beyond the ends of the calendar."""
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return None


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a user's standing: enough to know, for most deeds, that nothing changes."""

    level: int
    reached_on: date | None
    flips_on: date | None
    peak: int
    table_version: int

    def with_growth(self, added: Mapping[date, int], tables: Tables, today: date) -> "Kept | None":
        """The same with growth `added` by day, if it is sure that the standing stays; None if it has to be judged."""
        if self.table_version != tables.newest or any(growth < 0 for growth in added.values()):
            return None
        if (self.flips_on and self.flips_on <= today) or max(added) > today:
            return None
        if self.reached_on and min(added) < self.reached_on:
            return None
        peak = self.peak + sum(added.values())
        if any(
            peak >= version.table.levels[self.level + 1].growth
            for version in tables.versions
            if self.level + 1 < len(version.table.levels)
        ):
            return None
        return replace(self, peak=peak)
