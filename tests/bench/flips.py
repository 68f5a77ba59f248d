"""100,000 users whose state flips at midnight, among many and among few.

The same 100,000 flips are made in a database of 1,000,000 users and in one of 100,000, by the sweep and the relay as a
worker runs them, on a PostgreSQL with fsync and a Kafka on this machine. Each takes two notices.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import asyncpg
import psutil

from libs.common.config import ConfigFile
from libs.common.db import make_engine, make_sessions
from libs.common.kafka import Producer, end_offsets
from libs.common.migrate import upgrade
from libs.common.outbox import Relay
from libs.common.sweep import Sweep
from services.segmentation.main import SERVICE
from tests.bench.report import Row, count, cpu_seconds, median, share
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer

DUE, MANY = 100_000, 1_000_000
ZONE = "Asia/Shanghai"
CONFIG = f'[accounts.demo]\nzone = "{ZONE}"\n'

# Ids are as random as the real ones; who is due is spread over the whole table.
FILL = [
    """insert into alias (account, subject, own_id, user_id)
       select 'demo', 'douyin:u' || n, 'usr_' || md5(n::text), 'usr_' || md5(n::text)
       from generate_series(1, $1::int) n""",
    """insert into lifecycle_state
       select 'demo', 'usr_' || md5(n::text), $2::date - 100, $2 - ago, null, 'active', now() - interval '93 days',
           $2 - ago + 8, 1, now() - interval '9 days'
       from (select n, case when n % ($1::int / $3::int) = 0 then 8 else 1 + n % 7 end as ago
             from generate_series(1, $1::int) n) users""",
]


@dataclass(frozen=True)
class Flips:
    """Seconds until all flips were committed, and all notices published; seconds of processor time until then."""

    committed: float
    published: float
    cpu: float


async def fill(server: TestServer, users: int, today: date) -> str:
    """The name of a database with so many users of whom 100,000 are due."""
    url = await server.create_database()
    await upgrade(url, "segmentation")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(FILL[0].replace("$1", str(users)))
        await connection.execute(
            FILL[1].replace("$1", str(users)).replace("$2", f"date '{today}'").replace("$3", str(DUE))
        )
        for table_name in ("alias", "lifecycle_state"):
            await connection.execute(f"vacuum (analyze) {table_name}")
    finally:
        await connection.close()
    return url.rpartition("/")[2]


async def flip(server: TestServer, template: str, bootstrap: str, config: ConfigFile) -> Flips:
    """One round in a copy of the database `template`."""
    url = await server.create_database(template)
    await server.execute("checkpoint")
    engine = make_engine(url, 8)
    sessions = make_sessions(engine)
    producer = Producer(bootstrap, "flips", linger_ms=5)
    relay = Relay("segmentation", sessions, producer)
    assert SERVICE.due_work is not None
    sweep = Sweep("segmentation", config, sessions, relay, SERVICE.due_work)
    watching = await asyncpg.connect(url)
    postmaster = psutil.Process(watching.get_server_pid()).parent()
    assert postmaster is not None
    try:
        await producer.start()
        stored = sum((await end_offsets(bootstrap, ["superfan.segments"])).values())
        await relay.start()
        cpu, began = cpu_of(postmaster), time.monotonic()
        await sweep.sweep_all()
        committed = time.monotonic() - began
        while await watching.fetchval("select exists (select from outbox)"):
            await asyncio.sleep(0.02)
        published, cpu = time.monotonic() - began, cpu_of(postmaster) - cpu
        moved = await watching.fetchval("select count(*) from membership_change where segment_to = 'lifecycle.dormant'")
        told = sum((await end_offsets(bootstrap, ["superfan.segments"])).values()) - stored
        if (moved, told) != (DUE, 2 * DUE):
            raise AssertionError(f"{moved} users moved, {told} notices published")
        return Flips(committed, published, cpu)
    finally:
        await relay.stop()
        await producer.stop()
        await watching.close()
        await engine.dispose()
        await server.drop_database(url)


def cpu_of(postmaster: psutil.Process) -> float:
    """Processor time of PostgreSQL, ended backends too, and of this process."""
    total = cpu_seconds(psutil.Process()) + sum(postmaster.cpu_times()[2:4])
    for process in (postmaster, *postmaster.children()):
        try:
            total += cpu_seconds(process)
        except psutil.NoSuchProcess:
            continue
    return total


async def measure(server: TestServer, rounds: int) -> list[Row]:
    """The rows of the result; few and many take turns."""
    broker = TestBroker()
    await broker.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "superfan.toml"
            path.write_text(CONFIG)
            config = ConfigFile(path, "segmentation")
            today = datetime.now(UTC).astimezone(config.account("demo").zone).date()
            templates = {users: await fill(server, users, today) for users in (DUE, MANY)}
            found: dict[int, list[Flips]] = {users: [] for users in templates}
            for _ in range(rounds):
                for users, template in templates.items():
                    found[users].append(await flip(server, template, broker.bootstrap, config))
                    print(f"  {users:,} users: {found[users][-1]}", flush=True)
    finally:
        await broker.close()
    committed, published, cpu = (
        {users: median(getattr(one, name) for one in rounds) for users, rounds in found.items()}
        for name in ("committed", "published", "cpu")
    )
    among = f"{DUE:,} midnight flips among {MANY:,} users"
    return [
        Row(
            f"{among}, committed",
            f"{committed[MANY]:.1f} s ({count(DUE / committed[MANY])}/s)",
            "< 30 s",
            committed[MANY] < 30,
            limit=f"{committed[DUE]:.1f} s among {DUE:,}",
            of_limit=share(committed[MANY] / committed[DUE]),
        ),
        Row(
            f"{among}, published",
            f"{published[MANY]:.1f} s",
            "< 60 s",
            published[MANY] < 60,
            limit=f"{published[DUE]:.1f} s among {DUE:,}",
            of_limit=share(published[MANY] / published[DUE]),
        ),
        Row(
            f"{among}, processor time of PostgreSQL and the worker",
            f"{cpu[MANY]:.1f} s",
            "≤ 120 %",
            cpu[MANY] <= 1.2 * cpu[DUE],
            limit=f"{cpu[DUE]:.1f} s among {DUE:,}",
            of_limit=share(cpu[MANY] / cpu[DUE]),
        ),
    ]
