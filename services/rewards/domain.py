"""Which deeds earn how many points, and what sign-in days amount to. Pure: values in, values out."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import blake2b
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from libs.common.days import DAY, local_day, offset_zone, runs
from libs.common.events import AnyEvent

Holder = tuple[str, str]
"""(account, subject): whoever holds points."""

CALENDAR_DAYS = 35


class LadderError(ValueError):
    """A ladder that cannot be used; `pointer` is the JSON pointer of the step."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer
        self.detail = detail


@dataclass(frozen=True)
class Ladder:
    """Points of each day of a streak; after the last step it begins anew.

    Steps may not fall. Then a day that arrives late and joins two streaks never takes anything away, so points can be
    booked as days arrive: each new day books the difference it makes, and the total is the same in any order.
    """

    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise LadderError("/steps", "needs at least one step")
        for index, step in enumerate(self.steps):
            if step < (self.steps[index - 1] if index else 0):
                raise LadderError(f"/steps/{index}", "may not be below the step before, nor below 0")

    def total(self, length: int) -> int:
        """Points of a streak of `length` days."""
        cycles, rest = divmod(length, len(self.steps))
        return cycles * sum(self.steps) + sum(self.steps[:rest])

    def difference(self, before: int, after: int) -> int:
        """What a new day adds between a streak of `before` days that ends and one of `after` days that begins there."""
        return self.total(before + 1 + after) - self.total(before) - self.total(after)

    def next_step(self, streak: int) -> int:
        """Points of the day that follows a streak of `streak` days."""
        return self.steps[streak % len(self.steps)]


@dataclass(frozen=True)
class EarnRule:
    """What one event of a type earns: fixed `points`, or a step of `ladder` for each new sign-in day.

    A change of what it earns is a new version. Events sent with a public key can be forged by anyone who has the app,
    so they earn nothing unless `client` says so.
    """

    key: str
    version: int
    event_type: str
    points: int = 0
    ladder: Ladder | None = None
    client: bool = False

    def rewards(self, trust: Literal["platform", "server", "client"]) -> bool:
        """Whether events of this trust earn."""
        return self.client or trust != "client"


SIGN_IN_LADDER = Ladder((1, 1, 1, 1, 1, 1, 6))
SIGN_IN = EarnRule("sign_in", 1, "sign_in", ladder=SIGN_IN_LADDER)
EARN_RULES = (
    SIGN_IN,
    EarnRule("follow", 1, "follow", points=10),
    EarnRule("like", 1, "like", points=1),
    EarnRule("comment", 1, "comment", points=2),
    EarnRule("share", 1, "share", points=3),
    EarnRule("live_gift", 1, "live.gift", points=5),
    EarnRule("live_fanclub", 1, "live.fanclub", points=5),
    EarnRule("survey", 1, "survey.answered", points=5),
    EarnRule("order_paid", 1, "order.paid", points=20),
)
RULE_OF_TYPE: Mapping[str, EarnRule] = {rule.event_type: rule for rule in EARN_RULES}


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


@dataclass(frozen=True, slots=True)
class Award:
    """A decision: `points` for `event` by `rule`."""

    event: AnyEvent
    rule: EarnRule
    points: int
    digest: bytes

    @property
    def holder(self) -> Holder:
        return holder_of(self.event)

    @property
    def entry_id(self) -> UUID:
        """The same for the same event and rule, whoever books it."""
        return UUID(bytes=blake2b(self.digest + self.rule.key.encode(), digest_size=16).digest())


@dataclass(slots=True)
class Earned:
    """What a list of events brings: entries to book, and sign-in days with the earliest time of a sign-in on each."""

    awards: list[Award] = field(default_factory=list)
    days: dict[tuple[str, str, date], datetime] = field(default_factory=dict)


def holder_of(event: AnyEvent) -> Holder:
    """Who did it; only of events that `earning` let through."""
    assert event.subject is not None
    return event.account, event.subject


def earning(events: Iterable[AnyEvent]) -> list[AnyEvent]:
    """The events that a rule rewards. Orders without a buyer and published content have nobody to reward."""
    found = []
    for event in events:
        rule = RULE_OF_TYPE.get(event.type)
        if rule and rule.rewards(event.trust) and event.subject and not event.subject.startswith("content:"):
            found.append(event)
    return found


def fold(events: Iterable[AnyEvent], known: dict[Holder, Runs], day_of: Callable[[AnyEvent], date]) -> Earned:
    """Apply the rules to new events that pass `earning`; `known` holds the sign-in days so far and takes in the new."""
    earned = Earned()
    for event in events:
        rule = RULE_OF_TYPE[event.type]
        points = rule.points
        if rule.ladder:
            holder = holder_of(event)
            day = day_of(event)
            earliest = earned.days.get((*holder, day), event.time)
            earned.days[*holder, day] = min(earliest, event.time)
            joined = known.setdefault(holder, Runs()).add(day)
            if joined is None:
                continue
            points = rule.ladder.difference(*joined)
        earned.awards.append(Award(event, rule, points, event.digest))
    return earned


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
