"""Calendar days: whole local days of a zone, runs of days in a row, and streaks of sign-in days 连签."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

DAY = timedelta(days=1)


def local_day(instant: datetime, zone: tzinfo) -> date:
    """The calendar day of `instant` (with an offset) in `zone`."""
    return instant.astimezone(zone).date()


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - {"Factory", "localtime"}


def find_zone(name: object) -> ZoneInfo | None:
    """The time zone of this IANA name; None if there is none, or if it is no text."""
    return ZoneInfo(name) if isinstance(name, str) and name in _zone_names() else None


def offset_zone(minutes: int) -> tzinfo:
    """The zone that is `minutes` ahead of UTC."""
    return timezone(timedelta(minutes=minutes))


def sign_in_day(time: datetime, offset: int | None, zone: tzinfo, decides: Literal["user", "account"]) -> date:
    """The day of a sign-in: by the person's own clock (`offset` minutes ahead of UTC) if that `decides` and is known,
    else in the account's `zone`."""
    return local_day(time, offset_zone(offset) if decides == "user" and offset is not None else zone)


def runs(days: Iterable[date]) -> Iterator[tuple[date, int]]:
    """(first day, number of days) of every maximal run of days in a row, in order; repeats count once."""
    start: date | None = None
    length = 0
    for day in sorted(set(days)):
        if start is not None and day - start == length * DAY:
            length += 1
            continue
        if start is not None:
            yield start, length
        start, length = day, 1
    if start is not None:
        yield start, length


def longest_run(days: Iterable[date]) -> int:
    """The length of the longest run of days in a row; 0 without any day."""
    return max((length for _, length in runs(days)), default=0)


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
