"""Sign-in days 签到 and the streaks 连签 that they make."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from libs.common.days import DAY, local_day, offset_zone, runs

CALENDAR_DAYS = 35


class Runs:
    """One subject's sign-in days, as (first day, number of days) of each run of days in a row."""

    def __init__(self, known: Iterable[tuple[date, int]] = ()) -> None:
        ordered = sorted(known)
        self._first = [first for first, _ in ordered]
        self._length = [length for _, length in ordered]

    def add(self, day: date) -> tuple[int, int] | None:
        """Take in `day`: the lengths of the runs that it follows and precedes; None when it was known."""
        at = bisect_right(self._first, day)
        before = after = 0
        if at:
            distance = (day - self._first[at - 1]).days
            if distance < self._length[at - 1]:
                return None
            if distance == self._length[at - 1]:
                before = distance
        if at < len(self._first) and self._first[at] - day == DAY:
            after = self._length[at]
            del self._first[at], self._length[at]
        if before:
            self._length[at - 1] = before + 1 + after
        else:
            self._first.insert(at, day)
            self._length.insert(at, 1 + after)
        return before, after


def sign_in_day(time: datetime, offset: int | None, zone: ZoneInfo, decides: Literal["user", "account"]) -> date:
    """The day of a sign-in: by the person's own clock (`offset` minutes ahead of UTC) if that `decides` and is known,
    else in the account's `zone`."""
    return local_day(time, offset_zone(offset) if decides == "user" and offset is not None else zone)


@dataclass(frozen=True, slots=True)
class Streak:
    """What sign-in days amount to: the streak alive, the longest one, and how many days in all."""

    current: int
    longest: int
    days: int
    last_day: date | None


def streak_of(days: Iterable[date], today: date) -> Streak:
    """The streak is alive when its last day is `today`, the day before, or (by another clock) later."""
    found = list(runs(days))
    if not found:
        return Streak(0, 0, 0, None)
    first, length = found[-1]
    last = first + (length - 1) * DAY
    return Streak(
        current=length if today - last <= DAY else 0,
        longest=max(length for _, length in found),
        days=sum(length for _, length in found),
        last_day=last,
    )


def calendar(days: Iterable[date], today: date) -> list[tuple[date, bool]]:
    """The 35 days up to `today`, oldest first, and whether each is a sign-in day."""
    signed = set(days)
    ordinal = today.toordinal()
    shown = [date.fromordinal(n) for n in range(max(1, ordinal - CALENDAR_DAYS + 1), ordinal + 1)]
    return [(day, day in signed) for day in shown]
