"""The rules by themselves."""

from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.days import DAY, Streak, runs, sign_in_day, streak_of
from libs.common.events import EVENT_TYPES
from services.rewards.domain.days import Runs, calendar
from services.rewards.domain.errors import DefinitionError
from services.rewards.domain.ladder import Ladder
from services.rewards.domain.rules import BUILT_IN, EARNING_TYPES, SIGN_IN, StreakRule

assert isinstance(SIGN_IN.rule, StreakRule)
SIGN_IN_LADDER = SIGN_IN.rule.ladder
SHANGHAI = ZoneInfo("Asia/Shanghai")
FIRST = date(2026, 2, 20)
lengths = st.integers(0, 100)
ladders = st.builds(
    lambda steps, longer: Ladder(tuple(sorted(steps)), None if longer is None else len(steps) + longer),
    st.lists(st.integers(0, 50), min_size=1, max_size=31),
    st.none() | st.integers(0, 10),
)
day_sets = st.sets(st.integers(0, 60).map(lambda n: FIRST + n * DAY), max_size=40)


def test_a_week_of_sign_ins_ends_with_a_bonus() -> None:
    assert [SIGN_IN_LADDER.total(n) for n in (0, 1, 6, 7, 8, 13, 14, 15)] == [0, 1, 6, 12, 13, 18, 24, 25]
    assert [SIGN_IN_LADDER.next_step(n) for n in (0, 5, 6, 7, 13)] == [1, 1, 6, 1, 6]


@given(ladders, lengths, lengths)
def test_joining_two_streaks_never_takes_points_away(ladder: Ladder, before: int, after: int) -> None:
    assert ladder.difference(before, after) >= 0
    assert ladder.difference(before, after) >= ladder.steps[0]


@given(ladders, lengths)
def test_days_in_order_earn_the_steps_of_the_ladder(ladder: Ladder, length: int) -> None:
    assert ladder.difference(length, 0) == ladder.next_step(length)
    assert ladder.total(length) == sum(ladder.next_step(n) for n in range(length))


@pytest.mark.parametrize(
    ("steps", "cycle", "pointer"),
    [
        ((), 7, "/steps"),
        ((1, 2, 1), 7, "/steps/2"),
        ((5, 1), None, "/steps/1"),
        ((-1, 2), 7, "/steps/0"),
        ((1, 1, 1, 1, 1, 1, 6, 1), 30, "/steps/7"),
        ((1, 1, 1), 2, "/cycle"),
    ],
)
def test_a_ladder_that_falls_is_refused(steps: tuple[int, ...], cycle: int | None, pointer: str) -> None:
    with pytest.raises(DefinitionError) as error:
        Ladder(steps, cycle)
    assert error.value.pointer == pointer


@given(ladders, day_sets, st.randoms(use_true_random=False), st.integers(0, 40))
def test_days_in_any_order_earn_the_same(ladder: Ladder, days: set[date], random: Random, split: int) -> None:
    """Some days are known as runs, as the store reads them; the others arrive shuffled, each of them twice."""
    order = sorted(days)
    random.shuffle(order)
    stored, arriving = order[:split], [*order[split:], *order[split:]]
    random.shuffle(arriving)
    points = sum(ladder.total(length) for _, length in runs(stored))
    known = Runs(runs(stored))
    for day in arriving:
        joined = known.add(day)
        points += ladder.difference(*joined) if joined else 0
    assert points == sum(ladder.total(length) for _, length in runs(days))
    assert all(known.add(day) is None for day in days)


def test_a_day_between_two_runs_tells_both() -> None:
    known = Runs([(FIRST, 3), (FIRST + 4 * DAY, 2)])
    assert known.add(FIRST + DAY) is None
    assert known.add(FIRST + 3 * DAY) == (3, 2)
    assert known.add(FIRST + 6 * DAY) == (6, 0)
    assert known.add(FIRST - DAY) == (0, 7)
    assert known.add(FIRST + 20 * DAY) == (0, 0)


def test_the_streak_lives_until_a_day_is_missed() -> None:
    days = [FIRST, FIRST + 2 * DAY, FIRST + 3 * DAY]
    last = FIRST + 3 * DAY
    assert streak_of(days, last) == Streak(2, 2, 3, last)
    assert streak_of(days, last + DAY).current == 2
    assert streak_of(days, last + 2 * DAY).current == 0
    assert streak_of(days, last - DAY).current == 2, "somebody east of the account's zone is a day ahead"
    assert streak_of([], last) == Streak(0, 0, 0, None)


@given(day_sets.filter(bool))
def test_a_streak_is_counted_back_day_by_day(days: set[date]) -> None:
    today = max(days)
    expected = 0
    while today - expected * DAY in days:
        expected += 1
    streak = streak_of(days, today)
    assert streak.current == expected
    assert streak.days == len(days)
    assert streak.longest >= streak.current


def test_the_calendar_shows_five_weeks() -> None:
    shown = calendar([FIRST, FIRST - 50 * DAY], FIRST + DAY)
    assert len(shown) == 35
    assert shown[-2:] == [(FIRST, True), (FIRST + DAY, False)]
    assert sum(signed for _, signed in shown) == 1
    assert calendar([], date(1, 1, 2)) == [(date(1, 1, 1), False), (date(1, 1, 2), False)]


def test_whose_clock_decides_the_day() -> None:
    evening = datetime(2026, 6, 15, 20, tzinfo=UTC)
    assert sign_in_day(evening, -300, SHANGHAI, "user") == date(2026, 6, 15)
    assert sign_in_day(evening, None, SHANGHAI, "user") == date(2026, 6, 16)
    assert sign_in_day(evening, -300, SHANGHAI, "account") == date(2026, 6, 16)
    assert sign_in_day(evening, 0, SHANGHAI, "user") == date(2026, 6, 15), "an offset of 0 is an offset"
    assert sign_in_day(evening + timedelta(hours=14), 840, SHANGHAI, "user") == date(2026, 6, 17)


def test_the_last_step_holds_on_until_the_cycle_ends() -> None:
    month, endless = Ladder((1, 2, 5), 30), Ladder((1, 2, 5), None)
    assert [month.next_step(n) for n in (0, 1, 2, 3, 29, 30, 31)] == [1, 2, 5, 5, 5, 1, 2]
    assert [endless.next_step(n) for n in (0, 1, 2, 3, 29, 30, 400)] == [1, 2, 5, 5, 5, 5, 5]
    assert month.total(60) == 2 * (1 + 2 + 28 * 5)


def test_every_rule_is_for_one_known_type_and_pays() -> None:
    types = [rule.rule.event_type for rule in BUILT_IN.values()]
    assert len(set(types)) == len(types)
    assert set(types) == EARNING_TYPES
    assert {name for name, kind in EVENT_TYPES.items() if kind.direction == "input"} >= EARNING_TYPES
    orders = {name for name in EVENT_TYPES if name.startswith("order.")}
    assert EARNING_TYPES | orders == EVENT_TYPES["points.awarded"].model.caused_by, "the graph of types is told right"
    for version in BUILT_IN.values():
        version.rule.check()
        assert not getattr(version.rule, "client", False)
