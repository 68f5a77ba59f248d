"""What a fan's events amount to. Pure: events in, differences out; the same for any order and repetition."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo

from libs.common.days import local_day
from libs.common.events import ACTIVE_TYPES, EVENT_TYPES, AnyEvent

FOLLOWING = {"follow": True, "unfollow": False}

DayCount = tuple[str, str, date, str]
"""(account, subject, local day, event type)"""


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
class Difference:
    """What a list of events adds to the facts: counts by day, firsts and lasts by (account, subject)."""

    counts: Counter[DayCount] = field(default_factory=Counter)
    seen: dict[tuple[str, str], Seen] = field(default_factory=dict)


def fold(events: Iterable[AnyEvent], zone_of: Callable[[str], tzinfo]) -> Difference:
    """Sum up what fans did. Events without a person, and notices of other services, are no deeds of a fan."""
    difference = Difference()
    for event in events:
        if not is_deed(event):
            continue
        assert event.subject is not None
        key = (event.account, event.subject)
        difference.counts[*key, local_day(event.time, zone_of(event.account)), event.type] += 1
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
