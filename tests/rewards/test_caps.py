"""Caps: exact in any period, zone and order, and under workers that all want the same last point."""

import asyncio
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from services.rewards.domain.awards import BEGINNING, END, Award, Caps, deed_of, period_of
from services.rewards.domain.rules import FixedRule, Period, RuleVersion, parse_rule
from services.rewards.usecases.definitions import put_rule
from tests.rewards.support import check_ledger, deed, linked, log_of
from tests.support.folding import NOW, rows

SHANGHAI, NEW_YORK = ZoneInfo("Asia/Shanghai"), ZoneInfo("America/New_York")
WORKERS = 16
USER = "case subject when 'douyin:u2' then 2 else 1 end"


@pytest.mark.parametrize(
    ("period", "day", "first", "last"),
    [
        ("day", date(2026, 3, 8), date(2026, 3, 8), date(2026, 3, 8)),
        ("week", date(2026, 3, 8), date(2026, 3, 2), date(2026, 3, 8)),
        ("week", date(2026, 1, 1), date(2025, 12, 29), date(2026, 1, 4)),
        ("month", date(2026, 2, 1), date(2026, 2, 1), date(2026, 2, 28)),
        ("month", date(2024, 2, 29), date(2024, 2, 1), date(2024, 2, 29)),
        ("month", date(2026, 12, 31), date(2026, 12, 1), date(2026, 12, 31)),
        ("month", date(2026, 1, 31), date(2026, 1, 1), date(2026, 1, 31)),
        ("month", date(2026, 4, 30), date(2026, 4, 1), date(2026, 4, 30)),
    ],
)
def test_periods_are_those_of_the_calendar(period: Period, day: date, first: date, last: date) -> None:
    for zone in (SHANGHAI, NEW_YORK):
        start, end = period_of(period, day, zone)
        assert start.astimezone(zone) == datetime.combine(first, datetime.min.time(), zone)
        assert end.astimezone(zone) == datetime.combine(last + timedelta(days=1), datetime.min.time(), zone)


def test_a_day_of_daylight_saving_has_the_hours_it_has() -> None:
    for day, hours in ((date(2026, 3, 8), 23), (date(2026, 11, 1), 25), (date(2026, 6, 1), 24)):
        start, end = period_of("day", day, NEW_YORK)
        assert end - start == timedelta(hours=hours)


def test_the_ends_of_the_calendar_have_periods_too() -> None:
    for day in (date(1, 1, 1), date(1, 1, 2), date(1, 1, 3), date(9999, 12, 29), date(9999, 12, 30)):
        for period in ("day", "week", "month"):
            start, end = period_of(period, day, SHANGHAI)
            assert BEGINNING <= start < end <= END
    assert period_of("total", date(2026, 1, 1), SHANGHAI) == (BEGINNING, END)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=25),
    st.none() | st.integers(0, 12),
    st.none() | st.integers(0, 30),
    st.none() | st.integers(0, 60),
    st.randoms(use_true_random=False),
)
def test_nested_caps_give_the_same_total_in_any_order(
    wanted: list[tuple[int, int]], day: int | None, month: int | None, total: int | None, random: Random
) -> None:
    """Days lie within months and these within all time, so whatever comes first, as much is given in the end."""
    rule = FixedRule.model_validate(
        {"kind": "fixed", "event_type": "like", "points": 1, "caps": {"day": day, "month": month, "total": total}}
    )
    totals = set()
    for _ in range(3):
        random.shuffle(wanted)
        awards = [
            Award(deed_of(deed("like", n, time=NOW + timedelta(days=on))), RuleVersion("like", 1, rule), points, points)
            for n, (on, points) in enumerate(wanted)
        ]
        caps = Caps(awards, {("demo", "douyin:u1"): "usr_1"}, lambda _: SHANGHAI)
        caps.apply({})
        totals.add(sum(award.points for award in awards))
        assert all((award.points < award.wanted) == (award.capped_by is not None) for award in awards)
        by_day: dict[date, int] = {}
        for award in awards:
            on = award.deed.time.astimezone(SHANGHAI).date()
            by_day[on] = by_day.get(on, 0) + award.points
        assert day is None or max(by_day.values(), default=0) <= day
    assert len(totals) == 1


async def test_sixteen_workers_give_exactly_the_cap(sessions: Sessions, tmp_path: Path) -> None:
    (tmp_path / "superfan.toml").write_text("[accounts.demo]\n")
    config = ConfigFile(tmp_path / "superfan.toml", "rewards")
    rule = parse_rule('{"kind": "fixed", "event_type": "like", "points": 3, "caps": {"day": 50}}')
    async with sessions() as session, session.begin():
        await put_rule(session, "demo", "like", rule, NOW - timedelta(days=9), None, NOW, "test")
    both, alone = ("douyin:u1", "wechat.x:u1"), "douyin:u2"
    await log_of(sessions, config).apply(
        [*(deed("unfollow", subject, subject) for subject in (*both, alone)), linked(2, *both)], partition=99
    )
    logs = [log_of(sessions, config) for _ in range(WORKERS)]

    async def work(worker: int) -> None:
        for batch in range(2):
            events = [
                deed("like", f"{worker}.{batch}.{n}", subject, NOW - timedelta(hours=24 * (n % 2), minutes=worker))
                for n, subject in enumerate([*both, alone] * 2)
            ]
            for _ in range(5):  # as a worker does: what the database could not do now is tried again
                try:
                    await logs[worker].apply(events, partition=worker)
                    break
                except Exception as error:
                    if "timeout" not in repr(error).lower():
                        raise

    await asyncio.gather(*(work(worker) for worker in range(WORKERS)))
    got = await rows(
        sessions,
        "ledger_entry e join holder h using (account, account_ref) where e.rule = 'like'"
        f" group by {USER}, cast(event_time at time zone 'Asia/Shanghai' as date)",
        f"{USER}, cast(sum(points) as bigint), count(*)",
    )
    # One user of two subjects, one of one; two days each.
    assert [(user, points) for user, points, _ in got] == [(1, 50), (1, 50), (2, 50), (2, 50)]
    assert sum(count for _, _, count in got) == WORKERS * 2 * 6, "what a cap kept back is visible, with 0 points"
    capped = await rows(sessions, "ledger_entry where reason = 'cap_day' and leg = 0", "points, wanted")
    assert {(0, 3), (2, 3)} == set(capped)
    await check_ledger(sessions)
