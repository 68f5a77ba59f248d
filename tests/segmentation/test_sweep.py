"""Users who move because a day has passed: the database against the pure rule, looked at day by day."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from libs.common.config import Account
from libs.common.db import Sessions
from libs.common.events import AnyEvent, parse_event
from libs.common.identity import user_id_of
from services.segmentation.consumer import keep_data, make_handler
from services.segmentation.domain.lifecycle import Placement, lifecycle
from services.segmentation.domain.segments import midnight, segment_key
from services.segmentation.store.due import read_oldest_flip
from services.segmentation.usecases.lifecycle import move_due
from tests.segmentation.conftest import account_of
from tests.segmentation.support import LIFECYCLE_MOVES, event, link, notices, told
from tests.support.folding import NOW, Log, empty, rows

DEMO = account_of("demo")
PAIR = ("douyin:u1", "wechat:w1")
U1, U2 = user_id_of("demo", PAIR[0]), user_id_of("demo", "douyin:u2")
USER_OF = {PAIR[0]: U1, PAIR[1]: U1, "douyin:u2": U2}
DAY = timedelta(days=1)
STATE = "user_id, state, since, flips_on"


async def sweep(sessions: Sessions, now: datetime, limit: int = 5000, account: Account = DEMO) -> int:
    """Steps until nothing is due; returns how many rows were looked at."""
    total = 0
    while True:
        async with sessions() as session, session.begin():
            count = await move_due(session, account, now.astimezone(account.zone).date(), now, limit)
        total += count
        if not count:
            return total


class Model:
    """Looks at every user whenever the service may, by the pure rule."""

    def __init__(self) -> None:
        self.days: dict[str, set[date]] = defaultdict(set)
        self.state: dict[str, Placement] = {}
        self.moves: dict[str, list[tuple[str | None, str, datetime]]] = defaultdict(list)

    def look(self, user: str, today: date) -> None:
        before = self.state.get(user)
        after = lifecycle(self.days[user], today)
        ahead = min((day for day in self.days[user] if day > today), default=None)
        flips_on = min((day for day in (after.flips_on, ahead) if day), default=None)
        self.state[user] = replace(after, flips_on=flips_on)
        came_from = segment_key("lifecycle", before.state) if before else None
        goes_to = segment_key("lifecycle", after.state)
        if came_from != goes_to:
            assert goes_to is not None
            assert after.since_day is not None
            self.moves[user].append((came_from, goes_to, midnight(after.since_day, DEMO.zone)))


ticks = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1, 1, 6, 7, 8, 23, 31, 45]),  # days that pass before
        st.lists(
            st.tuples(st.sampled_from(sorted(USER_OF)), st.sampled_from([-9, -1, 0, 0, 0, 1, 8, 9, 31, 40])), max_size=3
        ),
        st.booleans(),  # whether the sweep comes by
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks)
async def test_the_same_moves_as_the_pure_rule(
    sessions: Sessions, history: list[tuple[int, list[tuple[str, int]], bool]]
) -> None:
    await empty(sessions)
    await link(sessions, "demo", U1, *PAIR)
    log = Log("segmentation", sessions, make_handler(account_of), keep_data)
    model = Model()
    now = NOW
    for number, (passed, deeds, swept) in enumerate(history):
        now += passed * DAY
        today = now.astimezone(DEMO.zone).date()
        batch: list[AnyEvent] = []
        for subject, ago in deeds:
            day = today - ago * DAY
            made = event(f"e{number}-{len(batch)}", ago, subject=subject, now=now)
            batch.append(made)
            model.days[USER_OF[subject]].add(day)
        known = await rows(sessions, "active_day", "subject, day")
        await log.apply(batch, now=now)
        for user in {USER_OF[subject] for subject, ago in deeds if (subject, today - ago * DAY) not in known}:
            model.look(user, today)
        if swept:
            await sweep(sessions, now, limit=1)
            for user in model.state:
                model.look(user, today)
        assert await rows(sessions, "dead_letter", "reason") == []
        wanted = [
            (
                user,
                placement.state,
                midnight(placement.since_day, DEMO.zone) if placement.since_day else None,
                placement.flips_on,
            )
            for user, placement in model.state.items()
        ]
        assert await rows(sessions, "lifecycle_state", STATE) == sorted(wanted, key=repr)
    await check_history(sessions, {user: model.moves[user] for user in model.state})


async def check_history(sessions: Sessions, moves: dict[str, list[tuple[str | None, str, datetime]]]) -> None:
    """The moves kept and the notices are these, in this order, and no revision is missing or twice."""
    for user, his in moves.items():
        kept = [
            row
            for row in await rows(sessions, LIFECYCLE_MOVES, "user_id, revision, segment_from, segment_to, since")
            if row[0] == user
        ]
        assert [row[2:] for row in sorted(kept, key=lambda row: row[1])] == his
        wanted = []
        for number, (came_from, goes_to, since) in enumerate(his):
            if came_from:
                wanted.append(("segment.left", came_from, 2 * number, since))
            wanted.append(("segment.entered", goes_to, 2 * number + 1, since))
        assert [
            (n["type"], n["data"]["segment"], n["data"]["revision"], datetime.fromisoformat(n["data"]["since"]))
            for n in await notices(sessions, user)
        ] == wanted


async def test_every_midnight_of_a_silent_user(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 0)])
    for day in range(1, 45):
        assert await sweep(sessions, NOW + day * DAY) == (1 if day in (7, 8, 31) else 0), day
    began = datetime(2026, 6, 14, 16, tzinfo=UTC)
    assert [(*told(n), datetime.fromisoformat(n["data"]["since"])) for n in await notices(sessions)] == [
        ("segment.entered", "lifecycle.new", 1, "event", True, began),
        ("segment.left", "lifecycle.new", 2, "time_passed", False, began + 7 * DAY),
        ("segment.entered", "lifecycle.active", 3, "time_passed", False, began + 7 * DAY),
        ("segment.left", "lifecycle.active", 4, "time_passed", False, began + 8 * DAY),
        ("segment.entered", "lifecycle.dormant", 5, "time_passed", False, began + 8 * DAY),
        ("segment.left", "lifecycle.dormant", 6, "time_passed", False, began + 31 * DAY),
        ("segment.entered", "lifecycle.lost", 7, "time_passed", False, began + 31 * DAY),
    ]


async def test_who_changed_several_times_while_nobody_looked_moves_once(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 0)])
    assert await sweep(sessions, NOW + 40 * DAY) == 1
    assert [told(notice)[:3] for notice in (await notices(sessions))[1:]] == [
        ("segment.left", "lifecycle.new", 2),
        ("segment.entered", "lifecycle.lost", 3),
    ]
    assert await rows(sessions, LIFECYCLE_MOVES, "revision, segment_from, segment_to, reason, initial") == [
        (1, None, "lifecycle.new", "event", True),
        (3, "lifecycle.new", "lifecycle.lost", "time_passed", False),
    ]


async def test_midnight_is_the_accounts(sessions: Sessions, log: Log) -> None:
    """One second before and one after the midnight at which 8 June + 7 days begins in Shanghai; UTC is not there."""
    await log.apply([event("a", 0), event("b", 0, account="utc")])
    before = datetime(2026, 6, 21, 15, 59, 59, tzinfo=UTC)
    assert await sweep(sessions, before) == 0
    assert await sweep(sessions, before + timedelta(seconds=2)) == 1
    assert await sweep(sessions, before + timedelta(seconds=2), account=account_of("utc")) == 0
    assert await sweep(sessions, before + timedelta(hours=8, seconds=2), account=account_of("utc")) == 1


async def test_a_day_dated_ahead_is_placed_when_it_comes(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", -1)])
    assert await sweep(sessions, NOW) == 0
    assert await sweep(sessions, NOW + DAY) == 1
    (notice,) = await notices(sessions)
    assert told(notice) == ("segment.entered", "lifecycle.new", 1, "time_passed", True)
    assert await rows(sessions, "lifecycle_state", "state, flips_on") == [("new", (NOW + 8 * DAY).date())]


async def test_a_notice_reads_like_one_of_the_event_path(sessions: Sessions, log: Log) -> None:
    """The sweep writes its JSON in SQL. Nothing but the cause and the hour may differ."""
    subject = 'douyin:名字"\\'
    late = NOW + 8 * DAY + timedelta(microseconds=123456)
    await log.apply([event("a", 0, subject=subject)])
    await sweep(sessions, late)
    swept = (await outbox_values(sessions))[1:]
    await empty(sessions)
    # With another event before it, the event path tells the same move.
    again = Log("segmentation", sessions, make_handler(account_of), keep_data)
    await again.apply([event("a", 0, subject=subject)])
    await again.apply([event("b", 1, subject=subject)], now=late)
    told_by_event = (await outbox_values(sessions))[1:]
    assert [key for key, _ in swept] == [key for key, _ in told_by_event]
    for (_, ours), (_, theirs) in zip(swept, told_by_event, strict=True):
        assert ours.data.reason == theirs.data.reason == "time_passed"  # type: ignore[union-attr]
        assert ours == theirs


async def outbox_values(sessions: Sessions) -> list[tuple[bytes, AnyEvent]]:
    async with sessions() as session:
        found = (await session.execute(text("select key, topic, value from outbox order by id"))).all()
    events = [(bytes(row.key), parse_event(bytes(row.value))) for row in found]
    assert [row.topic for row in found] == [made.topic for _, made in events]
    assert [key for key, _ in events] == [made.key for _, made in events]
    return [pair for pair in events if pair[1].id.split("/")[1] == "lifecycle"]


@pytest.mark.parametrize(
    ("zone", "flip"),
    [("America/Havana", date(2026, 11, 1)), ("Africa/Cairo", date(2026, 4, 24)), ("Asia/Shanghai", date(2026, 6, 22))],
    ids=["midnight comes twice", "midnight does not exist", "plain"],
)
async def test_since_is_the_midnight_that_the_event_path_takes(sessions: Sessions, zone: str, flip: date) -> None:
    account = replace(DEMO, zone=ZoneInfo(zone))
    log = Log("segmentation", sessions, make_handler(lambda _: account), keep_data)
    noon = datetime(flip.year, flip.month, flip.day, 12, tzinfo=account.zone).astimezone(UTC)
    first = noon - 7 * DAY
    await log.apply([event("a", 0, now=first)], now=first)
    assert await sweep(sessions, noon, account=account) == 1
    assert await rows(sessions, "lifecycle_state", "state, since") == [("active", midnight(flip, account.zone))]


async def fill(sessions: Sessions, users: int) -> None:
    log = Log("segmentation", sessions, make_handler(account_of), keep_data)
    await log.apply([event(f"e{n}", 0, subject=f"douyin:{n}") for n in range(users)])


async def test_two_sweeps_at_once_move_each_user_once(sessions: Sessions) -> None:
    await fill(sessions, 300)
    looked_at = await asyncio.gather(*(sweep(sessions, NOW + 8 * DAY, limit=7) for _ in range(4)))
    # One may stop while the others hold the rest.
    assert sum(looked_at) == 300
    assert len([count for count in looked_at if count]) > 1
    moves = await rows(sessions, LIFECYCLE_MOVES, "user_id, revision, segment_to")
    assert len(moves) == 600
    assert len(set(moves)) == 600
    assert {(revision, segment) for _, revision, segment in moves} == {(1, "lifecycle.new"), (3, "lifecycle.dormant")}
    assert len({notice["id"] for notice in await notices(sessions)}) == len(await notices(sessions)) == 900


async def test_a_sweep_that_dies_before_its_commit_leaves_nothing(sessions: Sessions) -> None:
    await fill(sessions, 30)
    before = await rows(sessions, "lifecycle_state", STATE)
    now = NOW + 8 * DAY
    async with sessions() as session:
        assert await move_due(session, DEMO, now.date(), now, 20) == 20
        pid = (await session.execute(text("select pg_backend_pid()"))).scalar_one()
        async with sessions() as other:
            await other.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(SQLAlchemyError):
            await session.commit()
    assert await rows(sessions, "lifecycle_state", STATE) == before
    assert len(await notices(sessions)) == 30
    assert await sweep(sessions, now, 20) == 30
    assert await sweep(sessions, now, 20) == 0
    assert len({notice["id"] for notice in await notices(sessions)}) == len(await notices(sessions)) == 90


async def test_rows_that_another_transaction_holds_are_left_for_the_next_round(sessions: Sessions) -> None:
    await fill(sessions, 10)
    now = NOW + 8 * DAY
    async with sessions() as session:
        held = user_id_of("demo", "douyin:3")
        await session.execute(text("select 1 from lifecycle_state where user_id = :id for update"), {"id": held})
        assert await sweep(sessions, now) == 9
    async with sessions() as session:
        assert await read_oldest_flip(session, "demo", now.date()) == (NOW + 7 * DAY).date()
    assert await sweep(sessions, now) == 1
    async with sessions() as session:
        assert await read_oldest_flip(session, "demo", now.date()) is None


async def test_sweeps_and_events_of_the_same_users_at_once(sessions: Sessions) -> None:
    """Two topics, two sweeps, many midnights: no deadlock, no revision missing or twice, everybody where he belongs."""
    await link(sessions, "demo", U1, *PAIR)
    logs = [Log("segmentation", sessions, make_handler(account_of), keep_data) for _ in range(2)]
    days: dict[str, set[date]] = defaultdict(set)
    subjects = [*PAIR, *(f"douyin:u{n}" for n in range(2, 12))]
    user_of = {subject: USER_OF.get(subject) or user_id_of("demo", subject) for subject in subjects}
    now = NOW
    for number in range(150):
        now += (1, 7, 3, 1, 9, 1, 24)[number % 7] * DAY
        today = now.astimezone(DEMO.zone).date()
        batches: list[list[AnyEvent]] = [[], []]
        for place, subject in enumerate(subjects):
            if (number + place) % (2 + place % 5) == 0:
                ago = (number * 7 + place * 3) % 11
                kind = ("like", "view")[place % 2]
                batches[place % 2].append(event(f"{number}-{place}", ago, type=kind, subject=subject, now=now))
                days[user_of[subject]].add(today - ago * DAY)
        batches[1].reverse()
        await asyncio.gather(
            sweep(sessions, now, limit=3),
            *(log.apply(batch, now=now) for log, batch in zip(logs, batches, strict=True) if batch),
            sweep(sessions, now, limit=2),
        )
        await sweep(sessions, now)
        found = await rows(sessions, "lifecycle_state", "user_id, state, since")
        wanted = []
        for user, his in days.items():
            placement = lifecycle(his, today)
            assert placement.since_day is not None
            wanted.append((user, placement.state, midnight(placement.since_day, DEMO.zone)))
        assert found == sorted(wanted, key=repr)

    assert await rows(sessions, "dead_letter", "reason") == []
    everything = await notices(sessions)
    for user in days:
        told_him = [notice for notice in everything if notice["data"]["user_id"] == user]
        assert [notice["data"]["revision"] for notice in told_him] == list(range(1, len(told_him) + 1))
        for entered, left in zip(told_him[::2], told_him[1::2], strict=False):
            assert (entered["type"], left["type"]) == ("segment.entered", "segment.left")
            assert entered["data"]["segment"] == left["data"]["segment"]
    reasons = {notice["data"]["reason"] for notice in everything}
    assert reasons == {"event", "time_passed"}
