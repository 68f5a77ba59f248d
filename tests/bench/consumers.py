"""The four consumers: events a second through the real transactions, from memory; PostgreSQL with fsync.

Limit: the statements by which the same run wrote its rows, recorded with their values, played again by asyncpg on one
connection, one transaction a batch. Usual ways: the same use case in a transaction for each event, read from Kafka by a
plain aiokafka loop and by FastStream.
"""

import asyncio
import importlib
import itertools
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import psutil
from sqlalchemy import event as hooks

from libs.common import inbox
from libs.common.config import Account
from libs.common.consumer import Applier
from libs.common.consumer.offsets import StoredPositions
from libs.common.consumer.worker import halve
from libs.common.db import AsyncEngine, make_engine, make_sessions
from libs.common.events import EVENT_TYPES, AnyEvent, validate_event
from libs.common.kafka import Batch
from libs.common.migrate import upgrade
from libs.common.service import Service
from tests.bench import loops
from tests.bench.report import Row, count, cpu_seconds, median, share
from tests.support.folding import FakeMessage
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer
from tests.support.services import WITH_DATABASE

EVENTS = 10_000
BATCH = 500
USUAL_EVENTS = 400
USUAL_WARM_UP = 50
USUAL_WAYS: dict[str, loops.Way] = {"aiokafka loop": loops.plain, "FastStream": loops.faststream}
USERS = 3000
CLUSTER = "bench"
ACCOUNT = Account("demo", ZoneInfo("Asia/Shanghai"), "CNY", "douyin", "user")
MIX = {
    "profile": ("view", "view", "view", "like", "like", "comment", "follow", "order.paid"),
    "segmentation": ("view", "view", "view", "like", "like", "comment", "follow", "order.paid"),
    "engagement": ("follow", "follow", "follow", "unfollow"),
    "rewards": ("like", "like", "sign_in", "comment", "share", "follow", "order.paid"),
}
"""Types in the shares in which each consumer may see them; every one of them changes its tables."""

WRITES = re.compile(r"\b(insert into|delete from|update \w+ (\w+ )?set)\b")
"""`for update` does not."""

Statement = tuple[str, tuple[Any, ...]]


@dataclass
class Recorded:
    """What a run wrote: a list of statements for each batch, and how many rows each table had at the end."""

    batches: list[list[Statement]]
    rows: dict[str, int]


@dataclass
class Run:
    """Events a second, and CPU seconds per event of this process and of PostgreSQL."""

    rate: float
    cpu: float
    database_cpu: float


def make_polls(service: str) -> list[list[Batch]]:
    """The same events in every round, as polls of one topic bring them, a batch of two partitions each; the first is
    for warming up."""
    draw = random.Random(7)
    end = datetime.now(UTC) - timedelta(minutes=5)
    by_topic: dict[str, tuple[list[bytes], list[bytes]]] = {}
    for number in range(EVENTS + 2 * BATCH):
        kind = draw.choice(MIX[service])
        data: dict[str, dict[str, Any]] = {
            "view": {"content_id": f"v{number % 97}", "watch_ms": 8000, "duration_ms": 15_000},
            "like": {"content_id": f"v{number % 97}"},
            "comment": {"content_id": f"v{number % 97}", "comment_id": f"c{number}", "text": "好看"},
            "share": {"content_id": f"v{number % 97}"},
            "order.paid": {"order_id": f"o{number}", "amount_minor": 1990, "currency": "CNY"},
        }
        user = draw.randrange(USERS)
        value = validate_event(
            {
                "id": f"e{number}",
                "source": "/bench",
                "type": kind,
                "subject": f"douyin:ou_{user:05d}",
                "account": "demo",
                "time": end - timedelta(minutes=draw.randrange(60 * 24 * 30)),
                "receivedtime": end,
                "traceparent": f"00-{draw.getrandbits(128):032x}-{draw.getrandbits(64):016x}-00",
                "data": data.get(kind, {}),
            }
        ).to_json()
        by_topic.setdefault(EVENT_TYPES[kind].topic, ([], []))[user % 2].append(value)
    polls = []
    for topic, partitions in by_topic.items():
        for start in range(0, max(map(len, partitions)), BATCH):
            poll = [batch_of(topic, n, start, values) for n, values in enumerate(partitions) if values[start:]]
            polls.append(poll)
    return polls


def batch_of(topic: str, partition: int, start: int, values: Sequence[bytes]) -> Batch:
    """Up to BATCH values from `start` on."""
    records = [FakeMessage(topic, partition, start + n, v) for n, v in enumerate(values[start : start + BATCH])]
    return Batch(topic, partition, start, start + len(records), records)


async def measure(server: TestServer, rounds: int, services: Sequence[str] = WITH_DATABASE) -> list[Row]:
    """One row a consumer. `server` must run with fsync."""
    found: list[Row] = []
    broker = TestBroker()
    await broker.start()
    try:
        for name in services:
            service: Service = importlib.import_module(f"services.{name}.main").SERVICE
            template = await server.create_database()
            await upgrade(template, name)
            bench = _Bench(server, service, template.rpartition("/")[2], make_polls(name))
            recorded = await bench.record()
            topic = f"bench.{name}"
            await loops.fill(broker.bootstrap, topic, bench.usual_values())
            ours, limit = [], []
            usual: dict[str, list[Run]] = {way: [] for way in USUAL_WAYS}
            for _ in range(rounds):
                ours.append(await bench.ours())
                limit.append(await bench.limit(recorded))
                for way, consume in USUAL_WAYS.items():
                    usual[way].append(await bench.usual(consume, broker.bootstrap, topic))
            await server.drop_database(template)
            found.append(_row(name, ours, limit, usual))
    finally:
        await broker.close()
    return found


def _row(name: str, ours: list[Run], limit: list[Run], usual: dict[str, list[Run]]) -> Row:
    of_limit = median(o.rate / m.rate for o, m in zip(ours, limit, strict=True))
    times = {way: median(o.rate / u.rate for o, u in zip(ours, runs, strict=True)) for way, runs in usual.items()}
    floor = median(run.database_cpu for run in limit) * 1e6
    return Row(
        f"{name}, exactly once into PostgreSQL",
        f"{count(median(run.rate for run in ours))} events/s; {_cpu(ours)}",
        "≥ 60 % of the limit, ≥ 10 × usual",
        of_limit >= 0.6 and min(times.values()) >= 10,
        f"{count(median(run.rate for run in limit))}/s; PostgreSQL {floor:.0f} µs",
        share(of_limit),
        ", ".join(f"{way} {count(median(run.rate for run in runs))}/s ({_cpu(runs)})" for way, runs in usual.items()),
        ", ".join(f"{number:.1f} ×" for number in times.values()),
    )


def _cpu(runs: list[Run]) -> str:
    cpu, database = median(run.cpu for run in runs) * 1e6, median(run.database_cpu for run in runs) * 1e6
    return f"CPU {cpu:.0f} µs + PostgreSQL {database:.0f} µs"


class _Bench:
    def __init__(self, server: TestServer, service: Service, template: str, polls: list[list[Batch]]) -> None:
        self._server = server
        self._service = service
        self._template = template
        self._warm_up, self._polls = polls[0], polls[1:]
        self._events = sum(len(batch.records) for batch in itertools.chain(*self._polls))
        self._handle = service.make_handler(lambda _: ACCOUNT)
        assert server.server.child is not None
        self._postgres = psutil.Process(server.server.child.pid)

    async def ours(self) -> Run:
        """The real Applier, as a worker uses it on a backlog: two transactions at once."""
        async with _Database(self._server, self._template) as database:
            applier, now = await self._applier(database), datetime.now(UTC)
            await asyncio.gather(*(applier.apply(CLUSTER, [batch], now) for batch in self._warm_up))  # both connections
            with self._clock(self._events) as run:
                for poll in self._polls:
                    await asyncio.gather(*(applier.apply(CLUSTER, half, now) for half in halve(poll)))
        return run

    async def record(self) -> Recorded:
        """What a run writes, statement by statement."""
        async with _Database(self._server, self._template) as database:
            applier, now = await self._applier(database), datetime.now(UTC)
            written: list[list[Statement]] = []

            @hooks.listens_for(database.engine.sync_engine, "before_cursor_execute")
            def keep(
                _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
            ) -> None:
                if WRITES.search(statement):
                    written[-1].append((statement, tuple(parameters)))

            for batch in itertools.chain(self._warm_up, *self._polls):
                written.append([])
                await applier.apply(CLUSTER, [batch], now)
            return Recorded(written, await database.count_rows())

    async def limit(self, recorded: Recorded) -> Run:
        """The recorded statements alone; they must leave as many rows as the run did."""
        async with _Database(self._server, self._template) as database:
            await self._applier(database)  # the rows of the positions
            connection = await asyncpg.connect(database.url, server_settings={"jit": "off"})
            try:
                warm_up = len(self._warm_up)
                for statements in recorded.batches[:warm_up]:
                    await _play(connection, statements)
                with self._clock(self._events) as run:
                    for statements in recorded.batches[warm_up:]:
                        await _play(connection, statements)
            finally:
                await connection.close()
            if (rows := await database.count_rows()) != recorded.rows:
                raise AssertionError(f"the limit wrote {rows}, the consumer {recorded.rows}")
        return run

    def usual_values(self) -> list[bytes]:
        """Events for one run of a usual way, those for warming up among them."""
        values = [record.value or b"" for batch in itertools.chain(*self._polls) for record in batch.records]
        random.Random(7).shuffle(values)
        return values[: USUAL_WARM_UP + USUAL_EVENTS]

    async def usual(self, consume: loops.Way, bootstrap: str, topic: str) -> Run:
        """A transaction for each event: its row, then the use case."""
        async with _Database(self._server, self._template) as database:
            sessions, now, applied = make_sessions(database.engine), datetime.now(UTC), 0
            warm, done = asyncio.Event(), asyncio.Event()

            async def apply(event: AnyEvent) -> None:
                nonlocal applied
                async with sessions() as session, session.begin():
                    new = (await inbox.insert_new(session, [event], self._service.keep_data)).new
                    await self._handle(session, new, now)
                applied += 1
                if applied == USUAL_WARM_UP:
                    warm.set()
                if applied == USUAL_WARM_UP + USUAL_EVENTS:
                    done.set()

            async with asyncio.timeout(300), consume(bootstrap, topic, apply):
                await warm.wait()
                with self._clock(USUAL_EVENTS) as run:
                    await done.wait()
        return run

    async def _applier(self, database: "_Database") -> Applier:
        sessions = make_sessions(database.engine)
        partitions = {(batch.topic, batch.partition) for batch in itertools.chain(self._warm_up, *self._polls)}
        await StoredPositions("bench", sessions).reset(CLUSTER, dict.fromkeys(partitions, 0))
        return Applier("bench", sessions, self._handle, self._service.keep_data)

    @contextmanager
    def _clock(self, events: int) -> Iterator[Run]:
        run = Run(0, 0, 0)
        backends = self._postgres.children()
        database = sum(map(cpu_seconds, backends))
        began, used = time.perf_counter(), time.process_time()
        yield run
        run.cpu = (time.process_time() - used) / events
        run.rate = events / (time.perf_counter() - began)
        run.database_cpu = (sum(map(_cpu_or_zero, backends)) - database) / events


class _Database:
    """A fresh database with the service's tables, and an engine on it."""

    engine: AsyncEngine
    url: str

    def __init__(self, server: TestServer, template: str) -> None:
        self._server = server
        self._template = template

    async def __aenter__(self) -> "_Database":
        self.url = await self._server.create_database(template=self._template)
        await self._server.execute("checkpoint")  # making a database leaves much to write; not in our time
        self.engine = make_engine(self.url, 2)
        return self

    async def count_rows(self) -> dict[str, int]:
        """table → rows."""
        connection = await asyncpg.connect(self.url)
        try:
            names = await connection.fetch(
                "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
                " and not relispartition order by relname"
            )
            return {name: await connection.fetchval(f"select count(*) from {name}") for (name,) in names}
        finally:
            await connection.close()

    async def __aexit__(self, *_error: object) -> None:
        await self.engine.dispose()
        await self._server.drop_database(self.url)


async def _play(connection: Any, statements: list[Statement]) -> None:
    async with connection.transaction():
        for statement, parameters in statements:
            await connection.fetch(statement, *parameters)


def _cpu_or_zero(process: psutil.Process) -> float:
    try:
        return cpu_seconds(process)
    except psutil.NoSuchProcess:
        return 0.0
