"""`job rebuild` in each service: spoiled facts come back, nothing else moves, and workers may run meanwhile."""

import asyncio
import importlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from libs.common.config import ConfigFile, UnknownAccountError
from libs.common.consumer.transaction import is_retryable
from libs.common.db import Sessions, make_engine, make_sessions
from libs.common.events import AnyEvent, new_event
from libs.common.rebuild import Rebuilt, rebuild
from libs.common.service import Service
from tests.support.folding import NOW, Log, rows

ROOT = Path(__file__).parents[2]
TOML = '[accounts.demo]\n[accounts.london]\nzone = "Europe/London"\nsign_in_day = "account"\n'
DATA: dict[str, dict[str, Any]] = {
    "view": {"content_id": "c", "watch_ms": 5, "duration_ms": 10},
    "order.paid": {"order_id": "o", "amount_minor": 100, "currency": "CNY"},
    "consent.granted": {"purpose": "marketing", "channel": "sms"},
    "comment": {"comment_id": "c"},
}
KINDS = (
    *("follow", "unfollow", "view", "like", "comment", "order.paid", "consent.granted", "profile.traits"),
    *["sign_in"] * 4,
)
SPOIL = {
    "profile": (
        "delete from activity_day where count = 1",
        "update activity_day set count = count + 7",
        "insert into activity_day values ('demo', 'douyin:nobody', '2026-01-01', 'like', 3)",
        "update fan set last_seen = first_seen, following = not following, first_follow = null",
        "delete from fan where subject = 'douyin:u1'",
        "delete from alias where subject = 'douyin:u2'",
        "update alias set user_id = own_id, revision = 0 where subject = 'douyin:u1'",
        "delete from alias where subject = 'wechat.x:Ü'",
        "update activity_hour set count = count + hour + 1",
        "update watch_day set watch_ms = watch_ms + 1, completed = 0",
        "delete from sign_in_day where subject = 'douyin:u3'",
        "update trait set value = '7', verified = not verified",
        "delete from identifier where subject = 'douyin:u1'",
        "update order_state set amount_minor = 1, buyer = null",
    ),
    "segmentation": (
        "delete from active_day where subject = 'douyin:u1'",
        "delete from active_day where extract(day from day) % 2 = 0",
        "insert into active_day select account, subject, day + 9000 from active_day",
        "update following_change set following = not following where id like '%1'",
        "delete from first_interaction where subject = 'douyin:u2'",
        "update order_state set amount_minor = amount_minor + 1, buyer = 'douyin:nobody'",
        "insert into refund_state (account, platform, refund_id) values ('demo', 'douyin', 'r')",
        "update lifecycle_state set first_day = last_day, returned_day = '2020-01-01' where user_id > 'usr_h'",
    ),
    "engagement": (
        "delete from follower where subject = 'douyin:u1'",
        "update follower set following = not following, follow_time = follow_time - interval '1 day'",
        "update consent set granted = not granted, time = time - interval '1 day'",
        "delete from consent where channel = 'sms'",
        "update zone_notice set revision = revision + 1, zone = 'x'",
        "delete from zone_notice where subject = 'douyin:u1'",
    ),
    "rewards": (
        "delete from sign_in_day where subject = 'douyin:u1'",
        "update sign_in_day set time = time + interval '1 minute'",
        "insert into sign_in_day (account, subject, day, time) values ('demo', 'douyin:u9', '2026-01-01', now())",
        "update balance set points = points * 2, growth = growth + 1",
        "update order_state set amount_minor = amount_minor + 1, buyer = 'douyin:nobody'",
        "delete from balance where revision % 2 = 0",
    ),
}
FACTS = {
    "profile": (
        *("activity_day", "activity_hour", "watch_day", "sign_in_day", "fan", "trait", "identifier", "order_state"),
        "alias",
    ),
    "segmentation": ("active_day", "following_change", "first_interaction", "order_state", "alias"),
    "engagement": ("follower", "consent", "zone_notice", "alias"),
    "rewards": ("sign_in_day", "order_state", "alias"),
}
OTHERS = {
    "profile": ("refund_state", "notice_state", "zone_notice", "link_decision", "separation"),
    "segmentation": ("refund_state", "lifecycle_state", "ladder_state", "membership_change"),
    "engagement": ("message", "decision", "segment_notice", "journey"),
    "rewards": ("holder", "ledger_entry", "lot", "balance", "level_state", "refund_state"),
}
COMMON = ("event", "outbox", "dead_letter", "consumer_offset")


def random_events(seed: int, count: int) -> list[AnyEvent]:
    """A few people over three weeks: days repeat, newer and older follows meet."""
    rng = Random(seed)
    events = []
    for number in range(count):
        kind = rng.choice(KINDS)
        data = DATA.get(kind, {})
        subject = rng.choice(["douyin:u1", "douyin:u2", "douyin:u3", "wechat.x:Ü"])
        if kind == "profile.traits":
            # Two of the four are one person.
            login = "7" if subject in ("douyin:u1", "wechat.x:Ü") else subject
            data = {"traits": {"login_id": login, "city": rng.choice(["x", "y", None])}}
            data["traits"]["zone"] = rng.choice(["Europe/London", "Asia/Tokyo", "x", None])
        if kind == "sign_in" and rng.random() < 0.5:
            data = {"utc_offset_minutes": rng.choice([0, 840, -600])}
        event = new_event(
            kind,
            account=rng.choice(["demo", "demo", "london"]),
            source=rng.choice(["/a", "/B"]),
            id=f"{seed}-{number}",
            subject=subject,
            platform="douyin",
            time=NOW - timedelta(minutes=rng.randint(0, 21 * 24 * 60)),
            received=NOW,
            data=data,
            trust=rng.choice(["platform", "server", "server", "client"]),
        )
        event.backfill = rng.random() < 0.2
        events.append(event)
    content: dict[str, Any] = {"account": "demo", "source": "/a", "time": NOW, "received": NOW}
    events.append(new_event("content.published", id="v", subject="content:v", data={"content_id": "v"}, **content))
    thin = {"order_id": "thin"}
    events.append(new_event("order.paid", id="thin", subject=None, platform="doudian", data=thin, **content))
    for subject in ("douyin:u1", "wechat.x:Ü"):
        about = {"entity": f"{subject}/traits", "revision": seed + 1, "since": NOW, "user_id": "usr_1"}
        zone = {"traits": {"zone": rng.choice(["Europe/London", "Asia/Tokyo", None])}}
        events.append(
            new_event("profile.updated", id=f"{subject}/{seed}", subject=subject, data=about | zone, **content)
        )
    return events


@dataclass
class Database:
    """A service's database and what fills it."""

    service: Service
    url: str
    sessions: Sessions
    config: ConfigFile
    log: Log

    async def rebuild(self) -> Rebuilt:
        return await rebuild(self.url, self.service.facts, self.config.account, NOW + timedelta(days=1))

    async def snapshot(self, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
        names = tables or (*FACTS[self.service.name], *OTHERS[self.service.name], *COMMON)
        return {name: await rows(self.sessions, name, "*") for name in names}

    async def execute(self, *statements: str) -> None:
        async with self.sessions() as session, session.begin():
            for statement in statements:
                await session.execute(text(statement))


Make = Callable[[str], Awaitable[Database]]


@pytest.fixture
async def make(service_database: Callable[[str], Awaitable[str]], tmp_path: Path) -> AsyncIterator[Make]:
    engines = []

    async def make(name: str) -> Database:
        service: Service = importlib.import_module(f"services.{name}.main").SERVICE
        (tmp_path / "superfan.toml").write_text(TOML)
        config = ConfigFile(tmp_path / "superfan.toml", name)
        url = await service_database(name)
        engines.append(make_engine(url, 6))
        sessions = make_sessions(engines[-1])
        log = Log(name, sessions, service.make_handler(config.account), service.keep_data)
        return Database(service, url, sessions, config, log)

    yield make
    for engine in engines:
        await engine.dispose()


@pytest.mark.parametrize("name", SPOIL)
async def test_spoiled_facts_come_back_and_nothing_else_moves(make: Make, name: str) -> None:
    database = await make(name)
    for seed in range(3):
        await database.log.apply(random_events(seed, 150))
    before = await database.snapshot()
    assert all(before[table] for table in FACTS[name])
    for statement in SPOIL[name]:
        spoiled = await database.snapshot()
        await database.execute(statement)
        assert await database.snapshot() != spoiled, f"changes nothing: {statement}"
    done = await database.rebuild()
    assert await database.snapshot() == before
    assert done.announced == 0
    assert done.events
    assert sum(done.changed.values())
    again = await database.rebuild()
    assert (again.events, again.announced, sum(again.changed.values())) == (done.events, 0, 0)


@pytest.mark.parametrize("name", SPOIL)
async def test_a_worker_may_run_meanwhile(make: Make, name: str) -> None:
    """Batches of four partitions against rebuilds without a pause: the same facts as without any rebuild."""
    database, undisturbed = await make(name), await make(name)
    batches = [[random_events(seed, 20) for seed in range(start, 60, 4)] for start in range(4)]
    working = True

    async def work(partition: int) -> None:
        for events in batches[partition]:
            # A rebuild may last longer than a batch waits for it.
            await database.log.apply(events, partition=partition, patient=True)

    async def disturb() -> int:
        count = 0
        while working:
            await database.rebuild()
            count += 1
        return count

    rebuilding = asyncio.create_task(disturb())
    await asyncio.gather(*map(work, range(4)))
    working = False
    assert await rebuilding > 1
    for partition in batches:
        for events in partition:
            await undisturbed.log.apply(events)
    assert await database.snapshot(*FACTS[name]) == await undisturbed.snapshot(*FACTS[name])
    assert (await database.snapshot("dead_letter"))["dead_letter"] == []
    last = await database.rebuild()
    assert (last.announced, sum(last.changed.values())) == (0, 0)


async def test_writers_wait_and_readers_do_not(make: Make) -> None:
    """The lock that a rebuild holds: a batch fails in the way that is tried again, a reader sees what was there."""
    database = await make("profile")
    await database.log.apply(random_events(0, 20))
    engine = make_engine(database.url, 1, patient=True)
    async with make_sessions(engine)() as session, session.begin():
        await session.execute(text("lock table event, activity_day, fan in share row exclusive mode"))
        await session.execute(text("delete from fan"))
        assert (await database.snapshot("fan"))["fan"]
        with pytest.raises(Exception, match="lock timeout") as caught:
            await database.log.apply(random_events(1, 20))
        assert is_retryable(caught.value)
    await engine.dispose()


async def test_an_account_that_is_not_configured_changes_nothing(make: Make) -> None:
    database = await make("profile")
    await database.log.apply(random_events(0, 20))
    await database.execute("delete from fan", "update event set account = 'gone' where subject = 'douyin:u1'")
    before = await database.snapshot()
    with pytest.raises(UnknownAccountError):
        await database.rebuild()
    assert await database.snapshot() == before


async def test_the_role(make: Make) -> None:
    database = await make("engagement")
    await database.log.apply(random_events(0, 50))
    before = await database.snapshot()
    await database.execute("delete from follower")
    env = {
        "SUPERFAN_CONFIG": str(database.config.path),
        "SUPERFAN_KAFKA": "127.0.0.1:1",
        "SUPERFAN_ENGAGEMENT_PG_URL": database.url,
        "SUPERFAN_LOG_FORMAT": "json",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.engagement", *arguments]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)

    done = await asyncio.to_thread(run, "job", "rebuild")
    assert done.returncode == 0, done.stderr
    assert await database.snapshot() == before
    assert '"rebuilt"' in done.stdout + done.stderr
    assert (await asyncio.to_thread(run, "job", "nothing")).returncode == 2
