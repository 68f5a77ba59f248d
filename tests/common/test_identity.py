"""Groups of subjects: what links say, in any order; who may change them, and when."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.identity import (
    GroupChange,
    UnknownUserError,
    changes_groups,
    fold_links,
    lock_for,
    lock_groups,
    resolve,
    restore,
    user_id_of,
)
from tests.support.folding import NOW, Log, arrivals, empty, rows
from tests.support.postgres import TestServer

SUBJECTS = ("douyin:a", "douyin:B", "wechat.x:é", "app:c", "app:d")
WRONG = (
    "delete from alias where subject in ('douyin:B', 'wechat.x:é')",
    "update alias set user_id = own_id, revision = 0",
    "update alias set user_id = 'usr_wrong' where revision > 0",
    "delete from alias",
)


@pytest.fixture(scope="module")
async def database(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("segmentation") as sessions:
        yield sessions


@pytest.fixture
async def sessions(database: Sessions) -> Sessions:
    await empty(database)
    return database


def linked(subjects: tuple[str, ...], revision: int, account: str = "demo") -> AnyEvent:
    user_id, subject = min((user_id_of(account, subject), subject) for subject in subjects)
    return new_event(
        "profile.linked",
        account=account,
        source="/profile",
        id=f"{user_id}/{revision}",
        subject=subject,
        time=NOW,
        received=NOW,
        data={
            "entity": user_id,
            "revision": revision,
            "since": NOW,
            "user_id": user_id,
            "subjects": sorted(subjects),
        },
    )


def event(event_type: str, subject: str = "douyin:a", **changes: Any) -> AnyEvent:
    fields = {"account": "demo", "source": "/t", "id": "x", "time": NOW, "received": NOW, "data": {}, **changes}
    return new_event(event_type, subject=subject, **fields)


@st.composite
def histories(draw: st.DrawFn) -> list[AnyEvent]:
    """What profile tells while subjects are linked and taken apart: each step gives every resulting group a revision
    above all that its subjects had."""
    told = []
    for account in ("demo", "other"):
        groups = [frozenset([subject]) for subject in SUBJECTS]
        revision = 0
        for _ in range(draw(st.integers(0, 5))):
            one, other = draw(st.sampled_from(groups)), draw(st.sampled_from(groups))
            whole = one | other
            parts = [whole]
            if len(one) > 1 and draw(st.booleans()):
                whole = one
                taken = frozenset(draw(st.lists(st.sampled_from(sorted(one)), min_size=1, max_size=len(one) - 1)))
                parts = [taken, one - taken]
            groups = [group for group in groups if not group & whole] + parts
            for part in parts:
                revision += 1
                told.append(linked(tuple(part), revision, account))
    return told


def groups_after(told: list[AnyEvent]) -> dict[tuple[str, str], tuple[str, int]]:
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for link in sorted(told, key=lambda link: link.data.revision):  # type: ignore[union-attr]
        for subject in link.data.subjects:  # type: ignore[union-attr]
            found[link.account, subject] = (link.data.user_id, link.data.revision)  # type: ignore[union-attr]
    return found


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), told=histories(), wrong=st.sampled_from(WRONG))
async def test_any_order_and_repetition_of_links(
    database: Sessions, data: st.DataObject, told: list[AnyEvent], wrong: str
) -> None:
    await empty(database)
    changes: list[GroupChange] = []

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        changes.extend(await fold_links(session, events))

    log = Log("segmentation", database, handle, lambda _: False)
    for batch in data.draw(arrivals(told)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    expected = groups_after(told)
    table = {(account, subject, user_id_of(account, subject), *found) for (account, subject), found in expected.items()}
    assert set(await rows(database, "alias", "account, subject, own_id, user_id, revision")) == table
    async with database() as session:
        for (account, subject), (user_id, _) in expected.items():
            group = tuple(sorted(s for (a, s), found in expected.items() if a == account and found[0] == user_id))
            for ref in (subject, user_id_of(account, subject)):
                user = await resolve(session, account, ref)
                assert (user.user_id, user.subjects) == (user_id, group)
    # The last that was said of each user is how he is; of whom nothing was said, nothing has changed.
    last = {(change.account, change.user_id): change.subjects_after for change in changes}
    for account, user_id in {(account, user_id) for (account, _), (user_id, _) in expected.items()}:
        group = tuple(sorted(s for (a, s), found in expected.items() if (a, found[0]) == (account, user_id)))
        assert last.get((account, user_id), group[:1]) == group

    # What was lost comes back from the events, and a second time nothing is to do.
    async with database() as session, session.begin():
        await session.execute(text(wrong))
        await restore(session)
        assert await restore(session) == 0
    assert set(await rows(database, "alias", "account, subject, own_id, user_id, revision")) == table


async def test_what_a_change_says(sessions: Sessions) -> None:
    (a, first), (b, second), (_, third) = sorted((user_id_of("demo", subject), subject) for subject in SUBJECTS)[:3]
    pair, all_three = tuple(sorted((second, third))), tuple(sorted((first, second, third)))

    async def fold(*links: AnyEvent) -> list[GroupChange]:
        async with sessions() as session, session.begin():
            await lock_groups(session, ["demo"], exclusive=True)
            return await fold_links(session, links)

    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "insert into alias (account, subject, own_id, user_id)"
                " select 'demo', s, u, u from unnest(cast(:s as text[]), cast(:u as text[])) as n(s, u)"
            ),
            {"s": [first, second], "u": [a, b]},
        )
    assert await fold(event("follow")) == []
    # The second was known, the third was not.
    together = linked(pair, 1)
    assert await fold(together) == [GroupChange("demo", b, pair, (b,))]
    assert await fold(together, together) == []
    assert await fold(linked(all_three, 2)) == [GroupChange("demo", a, all_three, (a, b))]
    apart = [linked((first,), 3), linked(pair, 4)]
    assert await fold(*apart) == [
        GroupChange("demo", a, (first,), (a,)),
        GroupChange("demo", b, pair, (a,)),
    ]
    assert await fold(together, *apart, linked(all_three, 2)) == []
    async with sessions() as session:
        with pytest.raises(UnknownUserError):
            await resolve(session, "other", first)


def test_what_may_change_groups() -> None:
    traits = {"traits": {"union_id": "u", "city": "x"}}
    assert changes_groups(linked(SUBJECTS[:2], 1))
    assert changes_groups(event("profile.traits", data=traits))
    assert changes_groups(event("profile.traits", data={"traits": {"login_id": "u"}}, trust="platform"))
    assert not changes_groups(event("profile.traits", data=traits, trust="client"))
    assert not changes_groups(event("profile.traits", data={"traits": {"city": "x"}}))
    assert not changes_groups(event("follow"))


async def test_whoever_changes_groups_is_alone_in_its_account(sessions: Sessions) -> None:
    """Batches go on side by side; a link waits for them, and they for it; another account does not matter."""
    like, link = event("like"), linked(SUBJECTS[:2], 1)
    order: list[str] = []

    async def take(name: str, *events: AnyEvent) -> None:
        async with sessions() as session, session.begin():
            await lock_for(session, events)
            order.append(name)

    async with sessions() as one, sessions() as two:
        await lock_for(one, [like])
        await asyncio.wait_for(lock_for(two, [like, event("like", account="other")]), 10)
        waiting = asyncio.create_task(take("link", like, link))
        await _until_waiting(sessions)
        await asyncio.wait_for(take("other", linked(SUBJECTS[:2], 1, "third")), 10)
        assert order == ["other"]
        await one.rollback()
        await two.rollback()
    await waiting
    assert order == ["other", "link"]
    async with sessions() as one:
        await lock_groups(one, ["demo", "other"], exclusive=True)
        waiting = asyncio.create_task(take("like", like))
        await _until_waiting(sessions)
        assert order == ["other", "link"]
        await one.rollback()
    await waiting


async def test_links_and_poison_in_many_batches_at_once(sessions: Sessions) -> None:
    """Batches that must be cut in halves hold all their locks before the first half: nobody ends in a circle."""

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await fold_links(session, events)
        await asyncio.sleep(0)
        if any(found.id == "poison" for found in events):
            raise ValueError("poison")

    async def work(partition: int) -> None:
        log = Log("segmentation", sessions, handle, lambda _: False)
        accounts = ["demo", "other"] if partition % 2 else ["other", "demo"]
        for number in range(10):
            some = [
                event("like", id=f"{partition}-{number}", account=accounts[0]),
                event("like", id=f"{partition}-{number}", account=accounts[1]),
                event("like", id="poison", source=f"/{partition}/{number}", account=accounts[1]),
                event("like", id=f"{partition}-{number}-", account=accounts[0]),
            ]
            raw = [*some, linked(SUBJECTS[:2], 2 * number + 1, accounts[1])]
            raw.append(linked(SUBJECTS[1:3], 2 * number + 2, accounts[0]))
            by_topic = [found.to_json() for found in raw]
            await log.apply(by_topic, partition=partition, now=NOW + timedelta(seconds=number))

    await asyncio.gather(*map(work, range(4)))
    assert len(await rows(sessions, "event", "id")) == 4 * 10 * 3 + 40
    assert len(await rows(sessions, "dead_letter", "reason")) == 40


async def _until_waiting(sessions: Sessions) -> None:
    async with asyncio.timeout(10), sessions() as session:
        while not await session.scalar(
            text("select count(*) from pg_locks where locktype = 'advisory' and not granted")
        ):
            await asyncio.sleep(0.01)
