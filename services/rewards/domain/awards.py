"""From deeds to awards: which rule gives how much, and how much of it the caps leave."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from libs.common.days import local_day
from libs.common.events import AnyEvent
from libs.common.orders.domain import Order
from services.rewards.domain.days import Runs
from services.rewards.domain.rules import (
    EARNING_TYPES,
    MOST_POINTS,
    Period,
    Rules,
    RuleVersion,
    StreakRule,
    points_of,
)

Holder = tuple[str, str]
"""(account, subject): whoever holds points."""

UserKey = tuple[str, str]
"""(account, user id)"""

BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, tzinfo=UTC)
"""No deed is before the one, nor at or after the other."""


@dataclass(frozen=True, slots=True)
class Deed:
    """What may earn: `event` made it known, `holder` did it, at `time`. `seed` tells one deed from another: however
    often and by whatever events it becomes known, it earns once by each rule. `reference` names the order, if it is
    one."""

    event: AnyEvent
    digest: bytes
    holder: Holder
    time: datetime
    seed: bytes
    amount: tuple[int, str] | None = None
    reference: str | None = None

    @property
    def type(self) -> str:
        """The event type that rules name."""
        return "order.paid" if self.reference else self.event.type


class Window(NamedTuple):
    """A period of one user and rule in which a cap counts: [start, end)."""

    account: str
    user_id: str
    rule: str
    start: datetime
    end: datetime


@dataclass(slots=True)
class Award:
    """A decision: `points` for `deed` by `rule`, which would have given `wanted` but for the cap of a period."""

    deed: Deed
    rule: RuleVersion
    wanted: int
    points: int
    capped_by: Period | None = None
    transaction_id: UUID = field(init=False)
    """The same for the same deed and rule, whoever books it."""

    def __post_init__(self) -> None:
        self.transaction_id = transaction_id_of(self.deed.seed, self.rule.key)

    @property
    def growth(self) -> int:
        return self.points * self.rule.rule.growth_per_point


def transaction_id_of(seed: bytes, name: str) -> UUID:
    """The id of the one transaction that books `name` for what `seed` stands for."""
    return UUID(bytes=blake2b(seed + name.encode(), digest_size=16).digest())


def deed_of(event: AnyEvent) -> Deed:
    """An event that is a deed by itself; it names a subject."""
    assert event.subject is not None
    amount = (event.data.value_minor, event.data.currency) if event.type == "live.gift" else None
    digest = event.digest
    return Deed(event, digest, (event.account, event.subject), event.time, digest, amount)


def deed_of_order(order: Order, event: AnyEvent) -> Deed:
    """A paid order whose buyer and amount are known; `event` is the one that completed it."""
    assert order.buyer is not None
    assert order.paid_time is not None
    assert order.amount_minor is not None
    assert order.currency is not None
    seed = blake2b("\0".join(("order", *order.key)).encode(), digest_size=16).digest()
    return Deed(
        event,
        event.digest,
        (order.account, order.buyer),
        order.paid_time,
        seed,
        (order.amount_minor, order.currency),
        reference="/".join(part for part in (order.platform, order.order_id) if part),
    )


def is_whole(order: Order | None) -> bool:
    """Whether all is known that an order needs to earn: that it is paid, by whom, and how much."""
    return order is not None and None not in (order.paid_time, order.buyer, order.amount_minor, order.currency)


def is_deed(event: AnyEvent) -> bool:
    """Whether an event may earn by itself. Orders earn as a whole, content has nobody to reward, and what a public key
    says is no sign-in day."""
    return (
        event.type in EARNING_TYPES
        and event.type != "order.paid"
        and event.subject is not None
        and not event.subject.startswith("content:")
        and (event.type != "sign_in" or event.trust != "client")
    )


def judge(deeds: Iterable[Deed], rules: Mapping[str, Rules]) -> list[Award]:
    """What deeds other than sign-ins earn by each account's `rules`, before any cap."""
    awards = []
    for deed in deeds:
        for version in rules[deed.holder[0]].judge(deed.type, deed.time):
            assert not isinstance(version.rule, StreakRule)
            points = points_of(version.rule, deed.event.trust, deed.amount)
            if points:
                awards.append(Award(deed, version, points, points))
    return awards


@dataclass(slots=True)
class SignedIn:
    """What sign-ins bring: awards, the days with the earliest time of a sign-in on each, and how many were new."""

    awards: list[Award] = field(default_factory=list)
    days: dict[tuple[str, str, date], datetime] = field(default_factory=dict)
    new_days: int = 0


def sign_in(
    deeds: Iterable[Deed],
    rules: Mapping[str, Rules],
    known: dict[Holder, Runs],
    day_of: Callable[[AnyEvent], date],
) -> SignedIn:
    """Judge sign-ins; `known` holds the sign-in days so far and takes in the new ones."""
    found = SignedIn()
    for deed in deeds:
        day = day_of(deed.event)
        key = (*deed.holder, day)
        found.days[key] = min(found.days.get(key, deed.time), deed.time)
        joined = known.setdefault(deed.holder, Runs()).add(day)
        if joined is None:
            continue
        found.new_days += 1
        for version in rules[deed.holder[0]].judge(deed.type, deed.time):
            assert isinstance(version.rule, StreakRule)
            points = min(MOST_POINTS, version.rule.ladder.difference(*joined))
            found.awards.append(Award(deed, version, points, points))
    return found


class Caps:
    """The caps that bear on awards. Made first, so that `windows` can be looked up; `apply` then cuts the awards."""

    def __init__(
        self, awards: Iterable[Award], user_of: Mapping[Holder, str], zone_of: Callable[[str], ZoneInfo]
    ) -> None:
        self.windows: set[Window] = set()
        self._limits: list[tuple[Award, list[tuple[Period, int, Window]]]] = []
        for award in awards:
            rule = award.rule.rule
            limits = [] if isinstance(rule, StreakRule) else rule.caps.limits()
            if not limits:
                continue
            account = award.deed.holder[0]
            day = local_day(award.deed.time, zone_of(account))
            found = []
            for period, most in limits:
                start, end = period_of(period, day, zone_of(account))
                found.append((period, most, Window(account, user_of[award.deed.holder], award.rule.key, start, end)))
            self.windows.update(window for _, _, window in found)
            self._limits.append((award, found))

    def apply(self, used: Mapping[Window, int]) -> None:
        """Cut the awards to what is left in their windows, in their order; `used` says what was booked before."""
        so_far = dict(used)
        for award, limits in self._limits:
            for period, most, window in limits:
                left = max(0, most - so_far.get(window, 0))
                if left < award.points:
                    award.points, award.capped_by = left, period
            for _, _, window in limits:
                so_far[window] = so_far.get(window, 0) + award.points


def period_of(period: Period, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The calendar period around a local day, as [start, end)."""
    if period == "total":
        return BEGINNING, END
    first = day.toordinal()
    if period == "day":
        last = first
    elif period == "week":
        first -= day.weekday()
        last = first + 6
    else:
        first -= day.day - 1
        following = date.fromordinal(min(first + 31, date.max.toordinal()))
        last = first + 30 if following.month == day.month else following.toordinal() - following.day
    return midnight(first, zone), midnight(last + 1, zone)


def midnight(ordinal: int, zone: ZoneInfo) -> datetime:
    """The instant at which the local day of this ordinal begins; the ends of time near the ends of the calendar."""
    if ordinal <= date.min.toordinal():
        return BEGINNING
    if ordinal >= date.max.toordinal():
        return END
    return datetime.combine(date.fromordinal(ordinal), datetime.min.time(), zone).astimezone(UTC)
