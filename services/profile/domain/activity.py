"""What a fan's events amount to. Pure: events in, differences out; the same for any order and repetition."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from typing import Literal, Protocol

from libs.common.days import sign_in_day
from libs.common.events import ACTIVE_TYPES, EVENT_TYPES, AnyEvent

FOLLOWING = {"follow": True, "unfollow": False}

DayCount = tuple[str, str, date, str]
"""(account, subject, local day, event type)"""
HourCount = tuple[str, str, date, int]
"""(account, subject, local day, hour 0 to 23)"""
DayKey = tuple[str, str, date]
"""(account, subject, local day)"""
LONGEST_WATCH_MS = 24 * 60 * 60 * 1000
"""More than a day cannot be watched at once; players that left a tab open report it."""


class Calendar(Protocol):
    """By which clock an account counts days."""

    @property
    def zone(self) -> tzinfo: ...

    @property
    def sign_in_day(self) -> Literal["user", "account"]: ...


@dataclass(slots=True)
class Seen:
    """One subject's firsts and lasts. `follow` is the newest follow or unfollow by (time, source, id)."""

    first_seen: datetime
    last_seen: datetime
    first_follow: datetime | None = None
    follow: tuple[datetime, str, str, bool] | None = None

    def add(self, event: AnyEvent) -> None:
        """Take one more event into account."""
        self.first_seen = min(self.first_seen, event.time)
        self.last_seen = max(self.last_seen, event.time)
        following = FOLLOWING.get(event.type)
        if following is None:
            return
        if following:
            self.first_follow = min(self.first_follow or event.time, event.time)
        stamp = (event.time, event.source, event.id, following)
        self.follow = max(self.follow or stamp, stamp)


@dataclass(slots=True)
class Watched:
    """Sums over views, in milliseconds. `measured` views told how long their content is (`duration_ms` in all), and
    were watched for `within_ms` of it; `completed` were watched to the end."""

    watch_ms: int = 0
    measured: int = 0
    completed: int = 0
    within_ms: int = 0
    duration_ms: int = 0

    def add(self, watch_ms: int, duration_ms: int) -> None:
        """Take in one view."""
        watch_ms, duration_ms = min(watch_ms, LONGEST_WATCH_MS), min(duration_ms, LONGEST_WATCH_MS)
        self.watch_ms += watch_ms
        if duration_ms:
            self.measured += 1
            self.completed += watch_ms >= duration_ms
            self.within_ms += min(watch_ms, duration_ms)
            self.duration_ms += duration_ms


@dataclass(slots=True)
class Difference:
    """What a list of events adds to the facts: counts by day and type, deeds of active types by hour, views by day,
    sign-in days, firsts and lasts by (account, subject)."""

    counts: Counter[DayCount] = field(default_factory=Counter)
    hours: Counter[HourCount] = field(default_factory=Counter)
    watched: dict[DayKey, Watched] = field(default_factory=dict)
    sign_ins: set[DayKey] = field(default_factory=set)
    seen: dict[tuple[str, str], Seen] = field(default_factory=dict)


def fold(events: Iterable[AnyEvent], account_of: Callable[[str], Calendar]) -> Difference:
    """Sum up what fans did. Events without a person, and notices of other services, are no deeds of a fan."""
    difference = Difference()
    for event in events:
        if not is_deed(event):
            continue
        assert event.subject is not None
        key = (event.account, event.subject)
        account = account_of(event.account)
        local = event.time.astimezone(account.zone)
        day = local.date()
        difference.counts[*key, day, event.type] += 1
        if event.type in ACTIVE_TYPES:
            difference.hours[*key, day, local.hour] += 1
        if event.type == "view":
            watched = difference.watched.setdefault((*key, day), Watched())
            watched.add(event.data.watch_ms, event.data.duration_ms)
        elif event.type == "sign_in":
            offset = event.data.utc_offset_minutes
            difference.sign_ins.add((*key, sign_in_day(event.time, offset, account.zone, account.sign_in_day)))
        seen = difference.seen.get(key)
        if seen is None:
            seen = difference.seen[key] = Seen(event.time, event.time)
        seen.add(event)
    return difference


def is_deed(event: AnyEvent) -> bool:
    """Whether a person did this, as opposed to something that another service concluded."""
    return (
        event.subject is not None
        and not event.subject.startswith("content:")
        and EVENT_TYPES[event.type].direction == "input"
    )


@dataclass(frozen=True, slots=True)
class Portrait:
    """What a user's facts say, over all his subjects."""

    first_seen: datetime | None
    last_seen: datetime | None
    first_follow: datetime | None
    following: bool
    counts: dict[str, int]
    active_days: list[date]


def portray(seen: Iterable[Seen], counts: Iterable[tuple[date, str, int]]) -> Portrait:
    """Merge the facts of all subjects of one user; `counts` are (local day, event type, number)."""
    seen = list(seen)
    totals: Counter[str] = Counter()
    days = set()
    for day, event_type, count in counts:
        totals[event_type] += count
        if event_type in ACTIVE_TYPES:
            days.add(day)
    newest = max((row.follow for row in seen if row.follow), default=None)
    return Portrait(
        first_seen=min((row.first_seen for row in seen), default=None),
        last_seen=max((row.last_seen for row in seen), default=None),
        first_follow=min((row.first_follow for row in seen if row.first_follow), default=None),
        following=newest is not None and newest[3],
        counts=dict(sorted(totals.items())),
        active_days=sorted(days),
    )
