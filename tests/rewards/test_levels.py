"""Levels: a pure function of growth by day; what is stored of it follows, whatever the order; links; due days."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.identity import user_id_of
from services.rewards.domain.levels import (
    BUILT_IN,
    Kept,
    Level,
    LevelTable,
    Standing,
    Tables,
    TableVersion,
    judge,
)
from services.rewards.jobs import DUE_WORK
from services.rewards.usecases.definitions import put_table
from tests.rewards.support import deed, linked, log_of
from tests.support.folding import empty, rows

FIRST = date(2024, 1, 1)
DAY = timedelta(days=1)
SHANGHAI = ZoneInfo("Asia/Shanghai")
STATE = "user_id, level, reached_on, flips_on"


def table(*steps: int, window: str = "rolling", window_days: int = 30, hold_days: int = 40) -> LevelTable:
    levels = [Level(key=f"l{n}", name=f"L{n}", growth=step) for n, step in enumerate((0, *steps))]
    return LevelTable(levels=levels, window=window, window_days=window_days, hold_days=hold_days)


def tables_of(*versions: tuple[date | None, LevelTable]) -> Tables:
    tables = Tables(())
    tables.versions = [TableVersion(n, made, since) for n, (since, made) in enumerate(versions, 1)]
    return tables


def day_by_day(growth: dict[date, int], tables: Tables, today: date) -> tuple[int, date | None, date | None]:
    """The same rules, said day by day: (level, reached on, judged again on)."""
    level, reached, until = 0, None, None
    touched = set(growth) | set(tables.changes())
    day = min(touched, default=today)
    while day <= today:
        now = tables.on(day).table
        counts = sum(
            points
            for when, points in growth.items()
            if when <= day and (now.window == "all_time" or day - when < now.window_days * DAY)
        )
        rank = max(n for n, step in enumerate(now.levels) if step.growth <= counts)
        if day in touched or day == until:
            level = min(level, len(now.levels) - 1)
            if rank > level or day == until:
                level, reached = rank, day
                until = day + now.hold_days * DAY if rank else None
        day += DAY
    return level, reached, until


growths = st.dictionaries(st.integers(0, 150).map(lambda n: FIRST + n * DAY), st.integers(0, 60), max_size=15)
some_tables = st.sampled_from(
    [
        tables_of((None, table(50, 100, 200))),
        tables_of((None, table(50, 100, window="all_time", hold_days=28))),
        tables_of((None, table(50, 100, 200)), (FIRST + 60 * DAY, table(20, 300))),
        tables_of(
            (None, table(100)), (FIRST + 30 * DAY, table(30, 60, 90, hold_days=31)), (FIRST + 90 * DAY, table(70))
        ),
    ]
)


@given(growths, some_tables, st.integers(0, 250))
def test_it_is_what_comes_of_going_day_by_day(growth: dict[date, int], tables: Tables, days: int) -> None:
    today = FIRST + days * DAY
    standing = judge(growth, tables, today)
    assert (standing.level, standing.reached_on, standing.judged_on) == day_by_day(growth, tables, today)
    for later in range(1, 60):
        if standing.flips_on and today + later * DAY >= standing.flips_on:
            break
        assert judge(growth, tables, today + later * DAY).level == standing.level, "nothing changes before it flips"


@given(growths, growths, some_tables, st.integers(0, 250))
def test_what_is_kept_never_says_that_nothing_changes_when_something_does(
    growth: dict[date, int], more: dict[date, int], tables: Tables, days: int
) -> None:
    today = FIRST + days * DAY
    before = judge(growth, tables, today)
    kept = Kept(before.level, before.reached_on, before.flips_on, before.peak, tables.newest)
    added = {day: points for day, points in more.items() if points}
    if not added:
        return
    after = judge({day: growth.get(day, 0) + added.get(day, 0) for day in growth.keys() | added.keys()}, tables, today)
    sure = kept.with_growth(added, tables, today)
    if sure:
        assert (sure.level, sure.reached_on, sure.flips_on) == (after.level, after.reached_on, after.flips_on)
        assert sure.peak >= after.peak


def test_up_at_once_and_down_a_year_later() -> None:
    tables = Tables(())
    growth = {FIRST: 600}
    assert judge(growth, tables, FIRST) == Standing(2, FIRST, FIRST + 365 * DAY, FIRST + 365 * DAY, 600, 600)
    assert judge(growth, tables, FIRST + 364 * DAY).level == 2
    fallen = judge(growth, tables, FIRST + 365 * DAY)
    assert (fallen.level, fallen.reached_on, fallen.flips_on, fallen.growth) == (0, FIRST + 365 * DAY, None, 0)
    kept = judge(growth | {FIRST + 200 * DAY: 520}, tables, FIRST + 365 * DAY)
    assert (kept.level, kept.reached_on) == (2, FIRST + 365 * DAY), "confirmed for another year"


def test_a_growth_of_tomorrow_waits_for_tomorrow() -> None:
    standing = judge({FIRST + DAY: 100}, Tables(()), FIRST)
    assert (standing.level, standing.flips_on) == (0, FIRST + DAY)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    file: Path = tmp_path_factory.mktemp("levels") / "superfan.toml"
    file.write_text("[accounts.demo]\n")
    return ConfigFile(file, "rewards")


async def told(sessions: Sessions) -> list[dict[str, object]]:
    found = [orjson.loads(value) for _, value in sorted(await rows(sessions, "outbox", "id, value"))]
    return [event["data"] for event in found if event["type"] == "level.changed"]


async def sweep(sessions: Sessions, config: ConfigFile, now: datetime) -> int:
    """All that is due, as the worker does it."""
    today, count = now.astimezone(SHANGHAI).date(), 0
    while True:
        async with sessions() as session, session.begin():
            if await DUE_WORK.oldest(session, "demo", today) is None:
                return count
            count += await DUE_WORK.step(session, config.account("demo"), today, now)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_what_is_stored_is_what_follows_from_the_ledger(
    database: Sessions, config: ConfigFile, seed: int
) -> None:
    """Orders, late ones too, over two years of simulated time; sweeps; links; a new table: the level told last is the
    one that the ledger gives."""
    await empty(database)
    rng = Random(seed)
    log = log_of(database, config)
    subjects = ["douyin:u1", "douyin:u2", "wechat.x:u3"]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    revision = 1
    groups = [{subject} for subject in subjects]
    tables = Tables(())
    for number in range(25):
        now += timedelta(days=rng.choice([0, 1, 20, 60]), hours=rng.randint(0, 30))
        action = rng.choice(["earn"] * 5 + ["link", "sweep", "table"])
        if action == "earn":
            events = [
                deed(
                    "share",
                    f"{number}.{n}",
                    rng.choice(subjects),
                    now - timedelta(days=rng.choice([0, 0, 0, 5, 100, 400])),
                    content_id="v",
                )
                for n in range(rng.choice([1, 5, 30, 60]))
            ]
            await log.apply(events, now=now)
        elif action == "link":
            revision += 1
            one, two = rng.sample(subjects, 2)
            group = next(group for group in groups if one in group)
            other = next(group for group in groups if two in group)
            groups = [kept for kept in groups if kept not in (group, other)]
            changed = [{one}, group - {one}] if group is other else [group | other]
            groups += changed
            await log.apply([deed("unfollow", f"{number}.{s}", s, now) for s in subjects], now=now)
            await log.apply([linked(revision, *members) for members in changed], now=now)
        elif action == "table" and tables.newest == 1:
            made = table(60, 150, 400, window_days=200, hold_days=100)
            async with database() as session, session.begin():
                day = now.astimezone(SHANGHAI).date()
                stored = await put_table(session, "demo", made, day, 1, now, "test")
                tables = Tables([stored])
        await sweep(database, config, now)
        await check_states(database, tables, groups, now)
    assert await rows(database, "dead_letter", "reason") == []


async def check_states(database: Sessions, tables: Tables, groups: list[set[str]], now: datetime) -> None:
    today = now.astimezone(SHANGHAI).date()
    growth: dict[str, dict[date, int]] = {}
    booked = await rows(
        database, "ledger_entry join holder using (account, account_ref)", "subject, event_time, growth"
    )
    for subject, time, points in booked:
        of_subject = growth.setdefault(subject, {})
        of_subject[time.astimezone(SHANGHAI).date()] = of_subject.get(time.astimezone(SHANGHAI).date(), 0) + points
    states = {user: rest for user, *rest in await rows(database, "level_state", STATE)}
    notices = await told(database)
    for group in groups:
        user = min(user_id_of("demo", subject) for subject in group)
        days: dict[date, int] = {}
        for subject in group:
            for day, points in growth.get(subject, {}).items():
                days[day] = days.get(day, 0) + points
        standing = judge(days, tables, today)
        if user in states:
            assert states[user] == [standing.level, standing.reached_on, standing.flips_on]
        else:
            assert standing.level == 0
        of_user = [notice for notice in notices if notice["entity"] == f"{user}/level"]
        revisions = [int(str(notice["revision"])) for notice in of_user]
        assert revisions == sorted(set(revisions))
        assert (of_user[-1]["rank"] if of_user else 0) == standing.level


async def test_a_level_over_rest(api: httpx.AsyncClient, sessions: Sessions, config: ConfigFile) -> None:
    now = datetime.now(UTC)
    log = log_of(sessions, config)
    await log.apply([deed("share", n, time=now - timedelta(days=2), content_id="v") for n in range(30)], now=now)
    await log.apply([deed("follow", 1, time=now)], now=now)
    path = "/v1/users/douyin:u1/level"
    today = now.astimezone(SHANGHAI).date()
    found = (await api.get(path)).json()
    assert found == {
        "user_id": user_id_of("demo", "douyin:u1"),
        "rank": 1,
        "level": "v1",
        "name": "V1",
        "growth": 100,
        "reached_on": today.isoformat(),
        "judged_again_on": (today + 365 * DAY).isoformat(),
        "next": {"level": "v2", "name": "V2", "growth": 500, "missing": 400},
        "counted_from": (today - 364 * DAY).isoformat(),
        "by_rule": {"follow": 10, "share": 90},
        "table_version": 1,
    }
    before = (await api.get(path, params={"known_at": (now - timedelta(minutes=1)).isoformat()})).json()
    assert (before["rank"], before["growth"], before["by_rule"]) == (0, 0, {})
    later = (await api.get(path, params={"known_at": (now + timedelta(days=366)).isoformat()})).json()
    assert (later["rank"], later["growth"]) == (0, 0)
    notice = (await told(sessions))[-1]
    assert {name: notice[name] for name in ("rank", "rank_before", "level", "growth", "reason")} == {
        "rank": 1,
        "rank_before": 0,
        "level": "v1",
        "growth": 100,
        "reason": "event",
    }


async def test_linked_users_share_a_level_and_unlinked_ones_have_their_own_again(
    api: httpx.AsyncClient, sessions: Sessions, config: ConfigFile
) -> None:
    log = log_of(sessions, config)
    subjects = ("douyin:u1", "douyin:u2")
    now = datetime.now(UTC)
    await log.apply(
        [deed("share", f"{s}{n}", s, now - timedelta(days=9), content_id="v") for s in subjects for n in range(20)],
        now=now,
    )
    await log.apply([deed("sign_in", f"{s}", s, now - timedelta(days=at)) for at, s in enumerate(subjects)], now=now)

    async def answers() -> list[object]:
        found: list[object] = []
        for subject in subjects:
            level = (await api.get(f"/v1/users/{subject}/level")).json()
            points = (await api.get(f"/v1/users/{subject}/points")).json()
            lots = (await api.get(f"/v1/users/{subject}/lots")).json()["items"]
            streak = (await api.get(f"/v1/users/{subject}/streak")).json()
            found.append([level, points, sorted(lot["lot_id"] for lot in lots), streak["current"], streak["days"]])
        return found

    alone = await answers()
    await log.apply([linked(2, *subjects)], now=now)
    one, two = await answers()
    assert one == two
    assert one[0]["level"] == "v1"  # type: ignore[index]
    assert (one[1]["balance"], len(one[2]), one[3:]) == (122, 42, [2, 2])  # type: ignore[index]
    await log.apply([linked(3, subjects[0]), linked(3, subjects[1])], now=now)
    assert await answers() == alone
    assert [notice["reason"] for notice in await told(sessions)] == ["merged", "merged"]
    assert BUILT_IN.version == 1
