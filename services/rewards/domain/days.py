"""Runs of sign-in days 签到, as the ladder of a streak 连签 needs them, and the calendar."""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import date

from libs.common.days import DAY

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


def calendar(days: Iterable[date], today: date) -> list[tuple[date, bool]]:
    """The 35 days up to `today`, oldest first, and whether each is a sign-in day."""
    signed = set(days)
    ordinal = today.toordinal()
    shown = [date.fromordinal(n) for n in range(max(1, ordinal - CALENDAR_DAYS + 1), ordinal + 1)]
    return [(day, day in signed) for day in shown]
