"""The lifecycle 生命周期 of a user. Pure: a function of his active days and the day asked about, nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

from libs.common.days import DAY
from libs.common.events import ACTIVE_TYPES, AnyEvent

State = Literal["none", "new", "active", "returned", "dormant", "lost"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """In local days. Idle for more than `quiet` is dormant, for more than `lost` is lost; one is new, or returned,
    for `quiet` days."""

    quiet: int = 7
    lost: int = 30


DEFAULT = Thresholds()


@dataclass(frozen=True, slots=True)
class Activity:
    """All of a user's active days that his state depends on. `returned` is the newest active day before which he had
    been dormant."""

    first: date
    last: date
    returned: date | None


@dataclass(frozen=True, slots=True)
class Placement:
    """The state on a day, the day from which it is true, and the next day on which it changes if nothing happens."""

    state: State
    since_day: date | None
    flips_on: date | None


NOWHERE = Placement("none", None, None)


def lifecycle(days: Iterable[date], on: date, thresholds: Thresholds = DEFAULT) -> Placement:
    """The state on the day `on` of a user with these active days; days after `on` are ignored."""
    return place(sum_up((day for day in days if day <= on), thresholds), on, thresholds)


def sum_up(days: Iterable[date], thresholds: Thresholds = DEFAULT) -> Activity | None:
    """What matters of `days` (any order, any repetition); None without any."""
    ordered = sorted(set(days))
    if not ordered:
        return None
    returned = None
    for index in range(len(ordered) - 1, 0, -1):
        # Dormant on the day before: more than `quiet` days since the active day before that.
        if (ordered[index] - ordered[index - 1]).days - 1 > thresholds.quiet:
            returned = ordered[index]
            break
    return Activity(ordered[0], ordered[-1], returned)


def place(activity: Activity | None, on: date, thresholds: Thresholds = DEFAULT) -> Placement:
    """The state on `on`, which is not before `activity.last`."""
    if activity is None:
        return NOWHERE
    becomes_dormant = activity.last + (thresholds.quiet + 1) * DAY
    becomes_lost = activity.last + (thresholds.lost + 1) * DAY
    if on >= becomes_lost:
        return Placement("lost", becomes_lost, None)
    if on >= becomes_dormant:
        return Placement("dormant", becomes_dormant, becomes_lost)
    # Not dormant since he came, or came back: otherwise there would be a newer return.
    came = activity.returned or activity.first
    becomes_active = came + thresholds.quiet * DAY
    if on < becomes_active:
        return Placement("returned" if activity.returned else "new", came, becomes_active)
    return Placement("active", becomes_active, becomes_dormant)


def is_activity(event: AnyEvent) -> bool:
    """Whether `event` makes its day an active day of a person. An order without a buyer is nobody's."""
    return event.type in ACTIVE_TYPES and event.subject is not None and not event.subject.startswith("content:")
