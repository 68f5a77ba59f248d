"""The sweep as a worker runs it, by the real clock: it waits for a full outbox and outlives a failing database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from libs.common import sweep as sweeping
from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.kafka import Producer
from libs.common.outbox import Relay
from libs.common.sweep import SWEEP_ERRORS, SWEEP_OLDEST, SWEEP_ROWS, Sweep
from services.segmentation.main import SERVICE
from tests.segmentation.support import event
from tests.support.folding import Log, rows


@pytest.fixture
def relay(sessions: Sessions) -> Relay:
    """Not started: what is told stays in the outbox."""
    return Relay("segmentation", sessions, Producer("127.0.0.1:1", "test"))


@pytest.fixture
def sweep(sessions: Sessions, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setattr(sweeping, "POLL_SECONDS", 0.02)
    (tmp_path / "superfan.toml").write_text("[accounts.demo]\n[accounts.utc]\nzone = 'UTC'\n")
    assert SERVICE.due_work is not None
    return Sweep(
        "segmentation", ConfigFile(tmp_path / "superfan.toml", "segmentation"), sessions, relay, SERVICE.due_work
    )


@pytest.fixture
async def due(log: Log) -> None:
    """Two users in two accounts who have been dormant for two days, only nobody has looked."""
    then = datetime.now(UTC) - timedelta(days=10)
    await log.apply([event("a", 0, now=then), event("b", 0, account="utc", now=then)], now=then)


@asynccontextmanager
async def running(sweep: Sweep) -> AsyncIterator[None]:
    task = asyncio.create_task(sweep.run())
    yield
    await sweep.stop()
    await task


async def states(sessions: Sessions) -> list[str]:
    return [row[1] for row in await rows(sessions, "lifecycle_state", "account, state")]


async def until_moved(sessions: Sessions) -> None:
    async with asyncio.timeout(60):
        while await states(sessions) != ["dormant", "dormant"]:
            await asyncio.sleep(0.02)


def value(metric: object) -> float:
    return metric.labels("segmentation")._value.get()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.usefixtures("due")
async def test_every_account_is_swept_and_counted(sessions: Sessions, sweep: Sweep) -> None:
    swept = value(SWEEP_ROWS)
    await sweep.sweep_all()
    assert await states(sessions) == ["dormant", "dormant"]
    assert value(SWEEP_ROWS) == swept + 2
    assert value(SWEEP_OLDEST) == 3, "7 days after his first day he should have become active"
    await sweep.sweep_all()
    assert value(SWEEP_OLDEST) == 0


@pytest.mark.usefixtures("due")
async def test_a_full_outbox_makes_it_wait(sessions: Sessions, sweep: Sweep, relay: Relay) -> None:
    relay.full = True
    async with running(sweep):
        await asyncio.sleep(0.5)
        assert await states(sessions) == ["new", "new"]
        relay.full = False
        await until_moved(sessions)


@pytest.mark.usefixtures("due")
async def test_it_goes_on_when_the_database_is_whole_again(sessions: Sessions, sweep: Sweep) -> None:
    failed = value(SWEEP_ERRORS)
    await rename(sessions, "membership_change", "away")
    async with running(sweep):
        async with asyncio.timeout(60):
            while value(SWEEP_ERRORS) < failed + 2:
                await asyncio.sleep(0.02)
        assert await states(sessions) == ["new", "new"]
        await rename(sessions, "away", "membership_change")
        await until_moved(sessions)


async def rename(sessions: Sessions, before: str, after: str) -> None:
    async with sessions() as session, session.begin():
        await session.execute(text(f"alter table {before} rename to {after}"))
