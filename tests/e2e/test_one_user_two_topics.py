"""One user's events lie in several topics, so in several transactions at once: no lost update, no deadlock."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from tests.support.folding import NOW, Log, rows
from tests.support.postgres import TestServer
from tests.support.services import WITH_DATABASE

ROUNDS = 250
"""For each of the four services: 1,000 rounds in all."""

USERS = ("douyin:a", "douyin:b", "douyin:c")


@pytest.fixture
async def sessions(request: pytest.FixtureRequest, pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of(request.getfixturevalue("service")) as sessions:
        yield sessions


def make(event_type: str, number: int, user: str) -> AnyEvent:
    order = {"order_id": f"o{number}-{user}", "amount_minor": 5, "currency": "CNY"}
    data = order if event_type == "order.paid" else {}
    return new_event(
        event_type,
        account="demo",
        source="/t",
        id=f"{event_type}-{number}-{user}",
        subject=user,
        platform="douyin",
        time=NOW - timedelta(minutes=number),
        received=NOW,
        data=data,
    )


@pytest.mark.parametrize("service", WITH_DATABASE)
async def test_batches_of_several_topics_at_once(service: str, sessions: Sessions, tmp_path: Path) -> None:
    (tmp_path / "superfan.toml").write_text("[accounts.demo]\n")
    config = ConfigFile(tmp_path / "superfan.toml", service)
    parts = importlib.import_module(f"services.{service}.main").SERVICE
    logs = [Log(service, sessions, parts.make_handler(config.account), parts.keep_data) for _ in range(3)]
    types = ("follow", "like", "order.paid")
    for number in range(ROUNDS):
        # Each topic names the users in another order, as arrivals do.
        await asyncio.gather(
            *(
                log.apply([make(event_type, number, user) for user in USERS[shift:] + USERS[:shift]])
                for shift, (log, event_type) in enumerate(zip(logs, types, strict=True))
            )
        )
    assert await rows(sessions, "dead_letter", "reason") == []
    assert len(await rows(sessions, "event", "id")) == ROUNDS * len(types) * len(USERS)
    await CHECKS[service](sessions)


async def check_profile(sessions: Sessions) -> None:
    found = await rows(sessions, "activity_day", "subject, type, count")
    totals: dict[tuple[str, str], int] = {}
    for subject, event_type, count in found:
        totals[subject, event_type] = totals.get((subject, event_type), 0) + count
    assert totals == {(user, kind): ROUNDS for user in USERS for kind in ("follow", "like", "order.paid")}


async def check_segmentation(sessions: Sessions) -> None:
    assert await rows(sessions, "lifecycle_state", "state") == [("new",)] * len(USERS)
    moves = await rows(sessions, "membership_change where layering = 'lifecycle'", "segment_to")
    assert moves == [("lifecycle.new",)] * len(USERS)


async def check_engagement(sessions: Sessions) -> None:
    assert len(await rows(sessions, "decision", "decision_id")) == ROUNDS * len(USERS)
    assert len(await rows(sessions, "message", "message_id")) == len(USERS)


async def check_rewards(sessions: Sessions) -> None:
    entries = await rows(sessions, "ledger_entry where book = 'wallet'", "account_ref, points")
    assert len(entries) == ROUNDS * len(USERS) * 3
    sums: dict[object, int] = {}
    for account_ref, points in entries:
        sums[account_ref] = sums.get(account_ref, 0) + points
    assert sums == dict(await rows(sessions, "balance", "account_ref, points"))


CHECKS = {
    "profile": check_profile,
    "segmentation": check_segmentation,
    "engagement": check_engagement,
    "rewards": check_rewards,
}
