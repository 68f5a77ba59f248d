"""Several connections decide about one user at once: one welcome, one decision per follow, no deadlock."""

import asyncio
from collections import Counter

from sqlalchemy import text

from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent
from libs.common.identity import user_id_of
from libs.common.inbox import insert_new
from services.engagement.consumer import keep_data
from services.engagement.usecases.starting import handle_events
from tests.engagement.support import HOUR, account_of, event, link, make_log
from tests.support.folding import NOW, Log, rows

ROUNDS = 300
WAITING = text("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")


async def decisions(sessions: Sessions) -> dict[str, list[tuple[str, int]]]:
    """user id → (outcome, revision) of every decision, sorted by revision."""
    found: dict[str, list[tuple[str, int]]] = {}
    for user_id, outcome, revision in await rows(sessions, "decision", "user_id, outcome, revision"):
        found.setdefault(user_id, []).append((outcome, revision))
    return {user_id: sorted(made, key=lambda row: row[1]) for user_id, made in found.items()}


async def check(sessions: Sessions, users: int, follows: int) -> None:
    """Each of `users` has had `follows` decisions, the first of which sent his only message."""
    assert await rows(sessions, "dead_letter", "reason") == []
    expected = [("sent", 1), *(("skipped", number) for number in range(2, follows + 1))]
    found = await decisions(sessions)
    assert len(found) == users
    assert all(made == expected for made in found.values())
    assert Counter(row[0] for row in await rows(sessions, "message", "user_id")) == Counter(found.keys())
    assert len(await rows(sessions, "outbox", "id")) == users * follows


async def test_two_subjects_of_one_user_follow_at_once(sessions: Sessions, log: Log) -> None:
    """They lie in different partitions, so two transactions decide about one user."""
    for number in range(ROUNDS):
        one, two = f"douyin:u{number}", f"wechat.x:o{number}"
        await link(sessions, "demo", one, two)
        await asyncio.gather(
            log.apply([event(f"{number}a", subject=one)], partition=0),
            log.apply([event(f"{number}b", subject=two)], partition=1),
        )
    await check(sessions, ROUNDS, 2)


async def test_the_second_waits_for_the_first_and_sees_what_it_decided(sessions: Sessions) -> None:
    """Not a clash that is repaired by trying again: the lock comes before the look at what had been decided."""
    one, two = event("a", 2 * HOUR), event("b", subject="wechat.x:o1")
    await link(sessions, "demo", "douyin:u1", "wechat.x:o1")

    async def decide(session: AsyncSession, follow: AnyEvent) -> None:
        await insert_new(session, [follow], keep_data)
        await handle_events(session, [follow], NOW, account_of)

    async def decide_and_commit(follow: AnyEvent) -> None:
        async with sessions() as session, session.begin():
            await decide(session, follow)

    async with sessions() as session, session.begin():
        await decide(session, one)
        second = asyncio.create_task(decide_and_commit(two))
        async with asyncio.timeout(10), sessions() as watcher:
            while not (await watcher.execute(WAITING)).scalar_one():
                await watcher.rollback()
                assert not second.done()
    await second
    await check(sessions, 1, 2)


async def test_two_follows_of_one_subject_at_once(sessions: Sessions, log: Log) -> None:
    """A copy under another id, as when a batch is sent again with new ids; the subject is new in both transactions."""
    for number in range(ROUNDS):
        subject = f"douyin:u{number}"
        await asyncio.gather(
            log.apply([event(f"{number}a", subject=subject)], partition=0),
            log.apply([event(f"{number}b", subject=subject)], partition=1),
        )
    await check(sessions, ROUNDS, 2)


async def test_one_follow_twice_at_once(sessions: Sessions, log: Log) -> None:
    for number in range(ROUNDS):
        follow = event(str(number), subject=f"douyin:u{number}")
        await asyncio.gather(log.apply([follow], partition=0), log.apply([follow], partition=1))
    await check(sessions, ROUNDS, 1)


async def test_batches_of_the_same_users_in_opposite_order(sessions: Sessions, log: Log) -> None:
    """Rows are locked in one order whatever the order of events: a deadlock would surface as an error here."""
    people = 8
    pairs = [(f"douyin:u{number}", f"wechat.x:o{number}") for number in range(people)]
    for pair in pairs[::2]:
        await link(sessions, "demo", *pair)
    rounds = 40
    for number in range(rounds):
        there = [event(f"{number}a{subject}", subject=subject) for pair in pairs for subject in pair]
        back = [event(f"{number}b{subject}", subject=subject) for pair in reversed(pairs) for subject in pair]
        gone = [event(f"{number}c{pair[1]}", HOUR * 2, type="unfollow", subject=pair[1]) for pair in reversed(pairs)]
        await asyncio.gather(
            log.apply(there, partition=0), log.apply([*gone, *back], partition=1), log.apply(gone[::-1], partition=2)
        )
    found = await decisions(sessions)
    linked = {min(user_id_of("demo", subject) for subject in pair) for pair in pairs[::2]}
    assert len(found) == people // 2 + people
    for user_id, made in found.items():
        follows = rounds * 2 * (2 if user_id in linked else 1)
        assert [revision for _, revision in made] == list(range(1, follows + 1))
        assert [outcome for outcome, _ in made] == ["sent"] + ["skipped"] * (follows - 1)
    assert len(await rows(sessions, "message", "message_id")) == len(found)
    assert await rows(sessions, "dead_letter", "reason") == []


async def test_a_second_log_of_the_same_events_changes_nothing(sessions: Sessions) -> None:
    """The broker was wiped, or a worker reads from the beginning: partitions other than before, the same events."""
    follows = [event(str(number), subject=f"douyin:u{number % 20}") for number in range(60)]
    first, second = make_log(sessions), make_log(sessions)
    await asyncio.gather(
        *(first.apply(follows[shift::3], partition=shift) for shift in range(3)),
        *(second.apply(follows[shift::2], partition=10 + shift) for shift in range(2)),
    )
    await check(sessions, 20, 3)
