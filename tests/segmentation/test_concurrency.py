"""One user's events in two topics at the same time: whoever commits last has seen the days of both."""

import asyncio
from datetime import date
from typing import Any

from sqlalchemy import text

from libs.common.db import Sessions
from libs.common.identity import user_id_of
from libs.common.inbox import insert_new
from services.segmentation.consumer import keep_data, make_handler
from services.segmentation.domain.ladder import stand
from services.segmentation.domain.lifecycle import lifecycle, sum_up
from services.segmentation.store.ladder import read_facts
from services.segmentation.usecases.record import record
from tests.segmentation.conftest import account_of
from tests.segmentation.support import deed, event, link, linked, notices, told
from tests.support.folding import NOW, Log, rows

ROUNDS = 300
PAIR = ("douyin:u1", "wechat:u1")
U1, U2 = user_id_of("demo", "douyin:u1"), user_id_of("demo", "douyin:u2")


async def test_the_one_who_waits_reads_the_days_of_the_other(sessions: Sessions) -> None:
    """The first transaction has decided and not committed when the second one arrives."""
    await link(sessions, "demo", U1, *PAIR)
    first, second = event("a", 0, subject=PAIR[0]), event("b", 20, type="view", subject=PAIR[1])
    async with sessions() as one, sessions() as two:
        await insert_new(one, [first], keep_data)
        await record(one, [first], NOW, account_of)

        async def run_second() -> None:
            await insert_new(two, [second], keep_data)
            await record(two, [second], NOW, account_of)
            await two.commit()

        waiting = asyncio.create_task(run_second())
        await until_somebody_waits(sessions)
        await one.commit()
        await waiting
    assert await rows(sessions, "lifecycle_state", "user_id, state") == [(U1, "returned")]
    assert [told(notice)[:3] for notice in await notices(sessions)] == [
        ("segment.entered", "lifecycle.new", 1),
        ("segment.left", "lifecycle.new", 2),
        ("segment.entered", "lifecycle.returned", 3),
    ]


async def until_somebody_waits(sessions: Sessions) -> None:
    async with sessions() as session:
        while not (await session.execute(text("select count(*) from pg_locks where not granted"))).scalar_one():
            await asyncio.sleep(0.005)


async def test_many_rounds(sessions: Sessions) -> None:
    """Two users in opposite order in two topics, over two subjects: no deadlock, no day forgotten, no step left out."""
    await link(sessions, "demo", U1, *PAIR)
    logs = [Log("segmentation", sessions, make_handler(account_of), keep_data) for _ in range(2)]
    days: dict[str, set[date]] = {U1: set(), U2: set()}
    for number in range(ROUNDS):
        # Gaps of all sizes, from long ago on, so that the state keeps changing.
        ago = 5000 - number * 9 - number % 4
        batches = [
            [event(f"v{number}", ago, type="view"), event(f"v{number}-2", ago - 1, type="view", subject="douyin:u2")],
            [event(f"f{number}-2", ago, subject="douyin:u2"), event(f"f{number}", ago - 2, subject="wechat:u1")],
        ]
        now = NOW.fromtimestamp(max(e.time for batch in batches for e in batch).timestamp(), NOW.tzinfo)
        await asyncio.gather(*(log.apply(batch, now=now) for log, batch in zip(logs, batches, strict=True)))
        for made in [made for batch in batches for made in batch]:
            user = U2 if made.subject == "douyin:u2" else U1
            days[user].add(made.time.astimezone(account_of("demo").zone).date())
        found = await rows(sessions, "lifecycle_state", "user_id, first_day, last_day, returned_day, state")
        wanted = []
        for user, his in days.items():
            activity = sum_up(his)
            assert activity is not None
            today = now.astimezone(account_of("demo").zone).date()
            wanted.append((user, activity.first, activity.last, activity.returned, lifecycle(his, today).state))
        assert found == sorted(wanted, key=repr)

    assert await rows(sessions, "dead_letter", "reason") == []
    for user in days:
        moves = await notices(sessions, user)
        assert [notice["data"]["revision"] for notice in moves] == list(range(1, len(moves) + 1))
        assert len(moves) > 3


async def test_four_topics_at_once(sessions: Sessions) -> None:
    """Follows, interactions, orders and links of the same few users: no deadlock, and everybody where he belongs."""
    logs = [Log("segmentation", sessions, make_handler(account_of), keep_data) for _ in range(4)]
    money: dict[str, Any] = {"order_id": "o", "amount_minor": 5, "currency": "CNY"}
    for number in range(60):
        pair = (f"douyin:a{number % 5}", f"wechat:a{number % 5}")
        order = [
            deed(f"p{number}-{n}", 1, "order.paid", s, **{**money, "order_id": f"{number}-{n}"})
            for n, s in enumerate(pair)
        ]
        back = [
            deed(f"r{number}-{n}", 1, "order.refunded", s, refund_id="r", **{**money, "order_id": f"{number}-{n}"})
            for n, s in enumerate(pair)
        ]
        batches = [
            [deed(f"f{number}-{s}", 2, "follow" if number % 3 else "unfollow", s) for s in pair],
            [event(f"l{number}-{s}", number % 40, subject=s) for s in reversed(pair)],
            [*order, *(back if number % 2 else [])],
            [linked(3 * number + 1, *pair)]
            if number % 4
            else [linked(3 * number + n + 1, s) for n, s in enumerate(pair)],
        ]
        await asyncio.gather(*(log.apply(batch) for log, batch in zip(logs, batches, strict=True)))
    assert await rows(sessions, "dead_letter", "reason") == []
    users = {("demo", user) for (user,) in await rows(sessions, "alias", "user_id")}
    async with sessions() as session:
        facts = await read_facts(session, users, lambda name: account_of(name).zone)
    rungs = {user: state for user, state in await rows(sessions, "ladder_state", "user_id, state") if state != "none"}
    assert rungs == {user: stand(found).rung for (_, user), found in facts.items()}
    for user in {user for (user,) in await rows(sessions, "alias", "own_id")}:
        for layering in ("lifecycle", "ladder"):
            revisions = [notice["data"]["revision"] for notice in await notices(sessions, user, layering)]
            assert revisions == list(range(1, len(revisions) + 1))
