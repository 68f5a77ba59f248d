"""The behaviour portrait 行为画像: what a person does, when, and how long he watches. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

from libs.common.events import ACTIVE_TYPES
from services.profile.domain.activity import Watched

WINDOWS: Sequence[int | None] = (None, 7, 30, 90)
"""Days up to today, today included; None is all time."""


@dataclass(slots=True)
class Window:
    """Sums over the last `days` days."""

    days: int | None
    first_day: date | None
    counts: Counter[str] = field(default_factory=Counter)
    active: set[date] = field(default_factory=set)
    watched: Watched = field(default_factory=Watched)

    def holds(self, day: date) -> bool:
        """Whether `day` lies in it, the days after today aside."""
        return self.first_day is None or day >= self.first_day


def windows(
    counts: Iterable[tuple[date, str, int]], watched: Iterable[tuple[date, Watched]], today: date
) -> list[Window]:
    """The portrait of each window; `counts` are (local day, event type, number), nothing later than `today`."""
    found = [Window(days, None if days is None else _days_before(today, days - 1)) for days in WINDOWS]
    for day, event_type, number in counts:
        for window in found:
            if window.holds(day):
                window.counts[event_type] += number
                if event_type in ACTIVE_TYPES:
                    window.active.add(day)
    for day, sums in watched:
        for window in found:
            if window.holds(day):
                total = window.watched
                total.watch_ms += sums.watch_ms
                total.measured += sums.measured
                total.completed += sums.completed
                total.within_ms += sums.within_ms
                total.duration_ms += sums.duration_ms
    return found


def _days_before(day: date, days: int) -> date:
    """The calendar begins with day 1."""
    return date.fromordinal(max(1, day.toordinal() - days))


def histogram(hours: Iterable[tuple[int, int, int]]) -> list[list[int]]:
    """Seven weekdays, Monday first, of 24 hours each, from (weekday, hour, number)."""
    table = [[0] * 24 for _ in range(7)]
    for weekday, hour, number in hours:
        table[weekday][hour] += number
    return table


def typical_hour(table: Sequence[Sequence[int]]) -> int | None:
    """The hour with the most deeds over all weekdays, the earlier of two alike; None without any."""
    by_hour = [sum(day[hour] for day in table) for hour in range(24)]
    return max(range(24), key=lambda hour: (by_hour[hour], -hour)) if any(by_hour) else None
