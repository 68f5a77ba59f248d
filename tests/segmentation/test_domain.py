"""The lifecycle against the words of its definition, day by day."""

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.days import DAY, local_day
from libs.common.events import ACTIVE_TYPES, new_event
from services.segmentation.domain.lifecycle import DEFAULT, NOWHERE, Placement, Thresholds, is_activity, lifecycle
from services.segmentation.domain.segments import midnight

BEGIN = date(2026, 1, 1)


def day(number: int) -> date:
    return BEGIN + number * DAY


def state_by_the_book(days: Collection[date], on: date, t: Thresholds) -> str:
    """The definition, sentence by sentence."""
    past = sorted(d for d in days if d <= on)
    if not past:
        return "none"
    idle = (on - past[-1]).days
    if idle > t.lost:
        return "lost"
    if t.quiet < idle <= t.lost:
        return "dormant"
    if past[0] > on - t.quiet * DAY:
        return "new"
    for before, d in pairwise(past):
        if d > on - t.quiet * DAY and before <= d - (t.quiet + 2) * DAY:
            return "returned"
    assert idle <= t.quiet
    return "active"


def placement_by_the_book(days: Collection[date], on: date, t: Thresholds) -> Placement:
    """`since` by stepping back to the first day of the same state, `flips_on` by stepping on to the next other one."""
    past = [d for d in days if d <= on]
    state = state_by_the_book(past, on, t)
    if state == "none":
        return NOWHERE
    since = on
    while state_by_the_book(past, since - DAY, t) == state:
        since -= DAY
    ahead = (on + n * DAY for n in range(1, t.lost + 10))
    flips_on = next((d for d in ahead if state_by_the_book(past, d, t) != state), None)
    return Placement(state, since, flips_on)  # type: ignore[arg-type]


# Gaps near the thresholds are what matters, so days are drawn as gaps.
gaps = st.lists(st.one_of(st.integers(0, 3), st.integers(5, 10), st.integers(28, 34)), max_size=10)


@given(gaps, st.integers(-3, 150), st.randoms(use_true_random=False))
def test_equals_the_definition(gaps: list[int], on: int, random: object) -> None:
    days = [day(sum(gaps[: n + 1])) for n in range(len(gaps))]
    expected = placement_by_the_book(days, day(on), DEFAULT)
    assert lifecycle(days, day(on)) == expected
    shuffled = days + days[:3]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert lifecycle(shuffled, day(on)) == expected


@given(st.sets(st.integers(0, 40), max_size=8), st.integers(0, 60), st.integers(1, 6), st.integers(1, 12))
def test_equals_the_definition_for_other_thresholds(numbers: set[int], on: int, quiet: int, more: int) -> None:
    thresholds = Thresholds(quiet, quiet + more)
    days = {day(number) for number in numbers}
    assert lifecycle(days, day(on), thresholds) == placement_by_the_book(days, day(on), thresholds)


@pytest.mark.parametrize(
    ("active", "on", "state", "since", "flips_on"),
    [
        ([], 0, "none", None, None),
        ([5], 4, "none", None, None),
        ([0], 0, "new", 0, 7),
        ([0], 6, "new", 0, 7),
        ([0], 7, "active", 7, 8),
        ([0], 8, "dormant", 8, 31),
        ([0], 30, "dormant", 8, 31),
        ([0], 31, "lost", 31, None),
        ([0, 6], 8, "active", 7, 14),
        ([0, 8], 8, "active", 7, 16),  # idle for 7 days is not dormant, so this is no return
        ([0, 9], 9, "returned", 9, 16),
        ([0, 9], 15, "returned", 9, 16),
        ([0, 9], 16, "active", 16, 17),
        ([0, 40], 40, "returned", 40, 47),
        ([0, 9, 18], 20, "returned", 18, 25),
    ],
)
def test_boundaries(active: list[int], on: int, state: str, since: int | None, flips_on: int | None) -> None:
    placement = lifecycle([day(number) for number in active], day(on))
    assert placement.state == state
    assert placement.since_day == (None if since is None else day(since))
    assert placement.flips_on == (None if flips_on is None else day(flips_on))


def test_what_makes_a_day_active() -> None:
    def event(event_type: str, subject: str | None, **data: object) -> bool:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        return is_activity(
            new_event(
                event_type, account="a", source="/t", id="1", subject=subject, time=now, received=now, data=data,
                platform="douyin",
            )
        )  # fmt: skip

    assert event("follow", "douyin:u1")
    assert not event("unfollow", "douyin:u1")
    assert not event("survey.answered", "douyin:u1", survey_id="s", answers=[])
    assert event("order.paid", "douyin:u1", order_id="o1", amount_minor=1, currency="CNY")
    assert not event("order.paid", None, order_id="o1"), "nobody is known to have bought it"
    assert not event("like", "content:c1"), "a piece of content is no person"
    assert "unfollow" not in ACTIVE_TYPES


@given(
    st.sampled_from(["Asia/Shanghai", "UTC", "America/Sao_Paulo", "Africa/Cairo", "Asia/Kathmandu"]),
    st.dates(date(1990, 1, 1), date(2030, 1, 1)),
)
def test_a_day_begins_at_its_first_instant(zone: str, on: date) -> None:
    """Also where clocks jump at midnight."""
    begin = midnight(on, ZoneInfo(zone))
    assert local_day(begin, ZoneInfo(zone)) == on
    assert local_day(begin - timedelta(seconds=1), ZoneInfo(zone)) == on - DAY
