"""The fold against the database: whatever the order, repetition and split, the rows are those of a plain model."""

from collections import Counter
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.config import ConfigFile
from libs.common.days import streak_of
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.identity import user_id_of
from services.rewards import consumer
from services.rewards.main import SERVICE
from services.rewards.store.audit import audit
from tests.support.folding import NOW, Log, arrivals, empty, rows
from tests.support.realdata import load_events, load_expected

TOML = """
[accounts.demo]
[accounts.fixed]
sign_in_day = "account"
zone = "America/New_York"
"""
START = NOW - timedelta(days=30)
POINTS = {"follow": 10, "like": 1, "comment": 2, "share": 3, "live.gift": 5, "live.fanclub": 5, "order.paid": 20}
DATA: dict[str, dict[str, Any]] = {
    "comment": {"comment_id": "c"},
    "share": {"content_id": "v"},
    "live.gift": {"room_id": "r", "gift_id": "g", "count": 2, "value_minor": 100, "currency": "CNY"},
    "live.fanclub": {"room_id": "r", "action": "join", "level": 1},
    "survey.answered": {"survey_id": "s", "answers": []},
    "message": {"message_id": "m", "direction": "in"},
}
ORDER = {"amount_minor": 100, "currency": "CNY"}
KEYS = {"live.gift": "live_gift", "live.fanclub": "live_fanclub", "order.paid": "order_paid"}


def make(type_: str, number: int, **changes: Any) -> AnyEvent:
    fields: dict[str, Any] = {
        "account": "demo",
        "source": "/t",
        "subject": "douyin:u1",
        "time": NOW,
        "received": NOW,
        "data": DATA.get(type_, {}) or ({**ORDER, "order_id": f"o{number}"} if type_.startswith("order.") else {}),
        **changes,
    }
    return new_event(type_, id=str(number), **fields)


WALLETS = "ledger_entry where book = 'wallet'"
KINDS = ["sign_in"] * 18 + [*POINTS, "unfollow", "message", "order.completed"]


@st.composite
def event_lists(draw: st.DrawFn) -> list[AnyEvent]:
    """Mostly sign-ins within two weeks, so that days repeat and runs meet; other deeds, unpaid ones, public keys.

    Drawn from a seed: lists that hypothesis grows element by element stay too short for runs of a week.
    """
    rng = Random(draw(st.integers(0, 2**32)))
    events = []
    for number in range(draw(st.integers(0, 80))):
        kind = rng.choice(KINDS)
        offset = rng.choice([None, 0, 840, -600]) if kind == "sign_in" else None
        events.append(
            make(
                kind,
                number,
                account=rng.choice(["demo"] * 5 + ["fixed"]),
                subject=rng.choice(["douyin:u1"] * 6 + ["douyin:u2", "wechat.x:Ü"]),
                time=START + timedelta(hours=rng.randint(0, 12 * 24)),
                trust=rng.choice(["platform"] + ["server"] * 5 + ["client"]),
                **({} if offset is None else {"data": {"utc_offset_minutes": offset}}),
            )
        )
    rng.shuffle(events)
    return events


def model_days(events: list[AnyEvent]) -> dict[tuple[str, str, date], datetime]:
    days: dict[tuple[str, str, date], datetime] = {}
    for event in events:
        if event.type != "sign_in" or event.trust == "client":
            continue
        minutes = event.data.utc_offset_minutes
        if event.account == "fixed":
            minutes = -4 * 60  # New York in summer
        local = event.time.astimezone(timezone(timedelta(minutes=8 * 60 if minutes is None else minutes)))
        key = (event.account, event.subject or "", local.date())
        days[key] = min(days.get(key, event.time), event.time)
    return days


def model_points(events: list[AnyEvent]) -> dict[tuple[str, str, str], int]:
    """Points by (account, subject, rule): fixed ones, and each sign-in day by its place in its run."""
    totals: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        if event.trust != "client" and event.type in POINTS:
            totals[event.account, event.subject or "", KEYS.get(event.type, event.type)] += POINTS[event.type]
    days = model_days(events)
    for account, subject, day in days:
        place = 1
        while (account, subject, day - timedelta(days=place)) in days:
            place += 1
        totals[account, subject, "sign_in"] += 6 if place % 7 == 0 else 1
    return dict(totals)


async def check_invariants(sessions: Sessions) -> None:
    """Entries add up to the balance, the revision counts them, every entry's event is there, notices agree."""
    balances = {
        (a, ref): (p, n) for a, ref, p, n in await rows(sessions, "balance", "account, account_ref, points, revision")
    }
    sums: dict[tuple[str, Any], tuple[int, int]] = {}
    for account, ref, points in await rows(sessions, WALLETS, "account, account_ref, points"):
        before = sums.get((account, ref), (0, 0))
        sums[account, ref] = (before[0] + points, before[1] + 1)
    assert sums == balances
    async with sessions() as session:
        found = await audit(session, None)
    assert found
    assert set(found.values()) == {0}, found
    assert not await rows(
        sessions,
        "ledger_entry e left join event v on v.digest = e.event_digest where v.digest is null",
        "transaction_id",
    )
    assert await rows(sessions, "dead_letter", "reason") == []


async def totals_by_rule(sessions: Sessions) -> dict[tuple[str, str, str], int]:
    found = await rows(
        sessions,
        "ledger_entry join holder using (account, account_ref) group by account, subject, rule",
        "account, subject, rule, cast(sum(points) as bigint)",
    )
    return {(account, subject, rule): points for account, subject, rule, points in found}


async def notices(sessions: Sessions) -> list[dict[str, Any]]:
    """Of points, in the order in which they were added."""
    told = [orjson.loads(value) for _, value in sorted(await rows(sessions, "outbox", "id, value"))]
    return [notice for notice in told if notice["type"] == "points.awarded"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    file: Path = tmp_path_factory.mktemp("rewards") / "superfan.toml"
    file.write_text(TOML)
    return ConfigFile(file, "rewards")


def log_of(sessions: Sessions, config: ConfigFile) -> Log:
    return Log("rewards", sessions, consumer.make_handler(config.account), SERVICE.keep_data)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=event_lists(), data=st.data())
async def test_any_arrival_of_the_same_events_gives_the_same(
    database: Sessions, config: ConfigFile, events: list[AnyEvent], data: st.DataObject
) -> None:
    await empty(database)
    log = log_of(database, config)
    for batch in data.draw(arrivals(events)):
        await log.apply(batch)
    days = {(a, s, d): time for a, s, d, time in await rows(database, "sign_in_day", "account, subject, day, time")}
    assert days == model_days(events)
    assert await totals_by_rule(database) == model_points(events)
    await check_invariants(database)
    told = await notices(database)
    assert len(told) == len(await rows(database, WALLETS, "transaction_id"))
    newest: dict[tuple[str, str], Any] = {}
    for notice in sorted(told, key=lambda notice: notice["data"]["revision"]):
        newest[notice["account"], notice["subject"]] = notice["data"]["balance"]
    points: Counter[tuple[str, str]] = Counter()
    for (account, subject, _), total in model_points(events).items():
        points[account, subject] += total
    assert newest == dict(points), "whoever keeps the highest revision knows the balance"


async def test_a_day_keeps_the_time_of_its_earliest_sign_in(sessions: Sessions, config: ConfigFile) -> None:
    log = log_of(sessions, config)
    for number, hours in enumerate((2, 3, 1)):
        await log.apply([make("sign_in", number, time=NOW - timedelta(hours=hours))])
    assert await rows(sessions, "sign_in_day", "time") == [(NOW - timedelta(hours=3),)]
    assert await rows(sessions, WALLETS, "points, event_time") == [(1, NOW - timedelta(hours=2))]


async def test_a_batch_tells_each_entry_with_its_reason(sessions: Sessions, config: ConfigFile) -> None:
    first, second = make("follow", 1), make("sign_in", 2, time=NOW - timedelta(hours=1), platform="douyin")
    old = make("like", 3)
    old.backfill = True
    await log_of(sessions, config).apply([first, second, old])
    told = {notice["data"]["rule"]: notice for notice in await notices(sessions)}
    # One batch a topic, in the order of the topics' first events.
    assert {rule: (n["data"]["revision"], n["data"]["points"], n["data"]["balance"]) for rule, n in told.items()} == {
        "follow": (1, 10, 10),
        "sign_in": (2, 1, 11),
        "like": (3, 1, 12),
    }
    notice = told["sign_in"]
    assert notice["type"] == "points.awarded"
    assert notice["subject"] == "douyin:u1"
    assert notice["platform"] == "douyin"
    assert notice["data"]["caused_by"] == second.digest.hex()
    assert notice["data"]["since"] == "2026-06-15T11:00:00Z"
    assert notice["data"]["user_id"] == notice["data"]["entity"] == user_id_of("demo", "douyin:u1")
    assert notice["data"]["rule_version"] == 1
    assert notice["id"] == notice["data"]["entry_id"]
    assert [told[rule]["backfill"] for rule in ("follow", "like")] == [False, True]


async def test_the_ledger_names_no_person(sessions: Sessions, config: ConfigFile) -> None:
    await log_of(sessions, config).apply([make("follow", 1), make("follow", 2, subject="douyin:u2")])
    refs = await rows(sessions, "holder", "account_ref")
    assert len(set(refs)) == 2
    async with sessions() as session:
        columns = await session.execute(
            text("select column_name from information_schema.columns where table_name in ('ledger_entry', 'balance')")
        )
        assert not {"subject", "user_id"} & set(columns.scalars())


async def test_nobody_is_rewarded_for_what_names_nobody(sessions: Sessions, config: ConfigFile) -> None:
    thin = make("order.paid", 1, subject=None, platform="doudian", data={"order_id": "o1"})
    content = make("content.published", 2, subject="content:v1", data={"content_id": "v1"})
    odd = make("like", 3, subject="content:v1")
    await log_of(sessions, config).apply([thin, content, odd])
    assert await rows(sessions, WALLETS, "points") == []
    await check_invariants(sessions)


async def test_only_the_offset_of_sign_ins_is_stored(sessions: Sessions, config: ConfigFile) -> None:
    await log_of(sessions, config).apply([make("sign_in", 1, data={"utc_offset_minutes": 60}), make("comment", 2)])
    assert await rows(sessions, "event", "type, data") == [("comment", None), ("sign_in", {"utc_offset_minutes": 60})]
    assert SERVICE.keep_data("sign_in")


@pytest.mark.parametrize(
    ("account", "days_field", "longest_field", "points_field"),
    [("fixed", "days_cn", "longest_cn", "points_cn"), ("user", "days_local", "longest_local", None)],
)
async def test_real_sign_ins(
    sessions: Sessions, tmp_path: Path, account: str, days_field: str, longest_field: str, points_field: str | None
) -> None:
    """Commit times of a public history as sign-ins; pandas' answers, by Shanghai's days and by the person's own."""
    raw = load_events("tigerbeetle")
    file = tmp_path / "superfan.toml"
    file.write_text('[accounts.fixed]\nsign_in_day = "account"\n[accounts.user]\n')
    log = log_of(sessions, ConfigFile(file, "rewards"))
    events = [
        new_event(
            "sign_in",
            account=account,
            source=event["source"],
            id=event["id"],
            subject=event["subject"],
            time=datetime.fromisoformat(event["time"]),
            received=NOW,
            data=event["data"],
        )
        for event in raw
    ]
    for start in range(0, len(events), 1000):
        await log.apply(events[start : start + 1000])

    days: dict[str, list[date]] = {}
    for subject, day in await rows(sessions, "sign_in_day", "subject, day"):
        days.setdefault(subject.removeprefix("tigerbeetle:"), []).append(day)
    points = {
        subject.removeprefix("tigerbeetle:"): total
        for (_, subject, _), total in (await totals_by_rule(sessions)).items()
    }
    expected = load_expected("checkins_tigerbeetle_dev_users")
    assert len(days) == len(expected) == 149
    differences = []
    for row in expected:
        author = row["author"]
        streak = streak_of(days[author], max(days[author]))
        found = [streak.days, streak.longest, *([points[author]] if points_field else [])]
        wanted = [int(row[field]) for field in (days_field, longest_field, points_field) if field]
        if found != wanted:
            differences.append((author, found, wanted))
    assert differences == []
    await check_invariants(sessions)
