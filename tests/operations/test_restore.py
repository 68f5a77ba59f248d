"""One service's database goes back to a dump of an hour ago, and the topics are read on: as if nothing had happened."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.consumer.worker import group_of
from libs.common.kafka.admin import admin_client
from tests.support.postgres import TestServer
from tests.support.services import WITH_DATABASE, System

ACCOUNT = "demo"
NOW = datetime.now(UTC).replace(microsecond=0)
DUMPED = NOW - timedelta(hours=1)

FACTS = {
    "profile": (
        *("activity_day", "activity_hour", "watch_day", "sign_in_day", "fan", "order_state", "refund_state", "trait"),
        *("identifier", "separation"),
    ),
    "segmentation": ("active_day", "following_change", "first_interaction", "order_state", "refund_state"),
    "engagement": ("follower", "consent"),
    "rewards": ("sign_in_day", "order_state", "refund_state"),
}
ALSO = {
    "profile": "select account, family, entity, type, since, data - '{revision,initial,reason}'::text[]"
    " from notice_state",
    "segmentation": "select account, user_id, first_day, last_day, returned_day, state, since, flips_on, null, null"
    " from lifecycle_state union all select account, user_id, null, null, null, state, since, null, null, null"
    " from ladder_state",
    "engagement": "select account, user_id, message_id, journey, subject, channel, run, state, null from message"
    " union all select account, user_id, decision_id, journey, subject, outcome, reason, null, null from decision",
    "rewards": "select e.account, subject, transaction_id, leg, book, e.points, rule, reason, remaining"
    " from ledger_entry e left join holder h using (account_ref) left join lot on lot_id = transaction_id"
    " union all select account, user_id, null, level, null, null, null, null, peak from level_state",
}
"""What else must come back, without the moment at which it was told and the random names of wallets and lots."""
ROUNDS = [("segmentation",), ("profile", "rewards"), ("engagement",)]
"""What goes back, alone or together."""
PAGE = Path(__file__).parents[2] / "docs" / "operations" / "restore.md"
EVENTS = (
    "select id, fingerprint, type, subject, time, received, trust, backfill, data from event where source = '/restore'"
)
"""Notices are told anew, under new ids."""


def deed(kind: str, person: int, minutes: float, **data: Any) -> dict[str, Any]:
    """`minutes` after the dump (before it when negative)."""
    return {
        "specversion": "1.0",
        "id": f"{kind}-{person}-{minutes}",
        "source": "/restore",
        "type": kind,
        "subject": f"douyin:r{person}",
        "platform": "douyin",
        "time": (DUMPED + timedelta(minutes=minutes)).isoformat(),
        "data": data,
    }


def order(kind: str, person: int, minutes: float, amount: int, **data: Any) -> dict[str, Any]:
    return deed(f"order.{kind}", person, minutes, amount_minor=amount, currency="CNY", **data)


DAYS = 24 * 60
BEFORE = [
    *(deed("follow", person, -person) for person in range(8)),
    *(deed("like", person, -person * 9 * DAYS, content_id="c1") for person in range(8)),
    *(deed("comment", person, -5, content_id="c1", comment_id=f"c{person}") for person in range(4)),
    *(order("paid", person, -DAYS, 19_900, order_id=f"o{person}") for person in range(3)),
    deed("sign_in", 1, -DAYS),
    deed("profile.traits", 2, -10, traits={"login_id": "L2"}),
]
AFTER = [
    *(deed("follow", person, person) for person in range(8, 12)),
    deed("unfollow", 0, 5),
    *(deed("share", person, 10 + person, content_id="c2") for person in (5, 6, 7, 9)),
    order("paid", 4, 12, 100_000, order_id="o4"),
    order("refunded", 1, 13, 19_900, order_id="o1", refund_id="f1"),
    deed("sign_in", 1, 14),
    deed("sign_in", 9, 15),
    deed("profile.traits", 3, 16, traits={"login_id": "L2"}),
    deed("profile.traits", 6, 17, traits={"zone": "Europe/Paris"}),
    deed("consent.granted", 2, 18, purpose="marketing", channel="sms"),
]
LATER = [
    deed("follow", 12, 50),
    deed("like", 7, 51, content_id="c3"),
    order("paid", 9, 52, 5_000, order_id="o9"),
    order("paid", 6, 53, 5_000, order_id="o6"),
    deed("unfollow", 8, 54),
]


@pytest.fixture(scope="module")
async def system(pg_server: TestServer) -> AsyncIterator[System]:
    system = System(pg_server, {ACCOUNT: {"zone": "Asia/Shanghai"}})
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def applied(system: System) -> None:
    """Until everything is applied, and Kafka has been told so: that is how a restored database is found out."""
    await system.applied()
    async with admin_client(system.broker.bootstrap) as admin, asyncio.timeout(60):
        for service in WITH_DATABASE:
            rows = await system.query(service, "select topic, partition, next_offset from consumer_offset")
            for topic in {row[0] for row in rows}:
                stored = {partition: offset for name, partition, offset in rows if name == topic and offset}
                told: dict[int, int] = {}
                while told != stored:
                    offsets = await admin.list_consumer_group_offsets(group_of(service, topic))
                    told = {tp.partition: at.offset for tp, at in offsets.items() if at.offset}
                    await asyncio.sleep(0.05)


async def state(system: System, service: str) -> dict[str, list[str]]:
    """Every fact, and what follows from facts, whenever it was found out."""
    tables = {name: f'select * from "{name}"' for name in FACTS[service]} | {"also": ALSO[service], "event": EVENTS}
    rows = {name: await system.query(service, statement) for name, statement in tables.items()}
    return {name: sorted(repr(row) for row in found) for name, found in rows.items()}


async def run(server: TestServer, program: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        server.server.programs / program, *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


async def restore(system: System, server: TestServer, service: str, dump: Path) -> None:
    """As docs/operations/restore.md says: stop, an empty database, the dump, start."""
    await system.children[service].stop()
    url = system.databases[service]
    await server.drop_database(url)
    await server.execute(f'create database "{url.rpartition("/")[2]}"')
    await run(server, "pg_restore", "--exit-on-error", "--no-owner", "--dbname", url, str(dump))
    if service == "engagement":
        (statement,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
        await system.query(service, statement)
    await system.http.aclose()  # its connections are to the process that has ended
    system.http = httpx.AsyncClient(timeout=30)
    await system.spawn(service)
    await system.wait_ready([service])


async def test_a_restored_database_catches_up(system: System, pg_server: TestServer, tmp_path: Path) -> None:
    await system.post(ACCOUNT, BEFORE)
    await applied(system)
    dumps = {service: tmp_path / f"{service}.dump" for service in WITH_DATABASE}
    for service, dump in dumps.items():
        await run(pg_server, "pg_dump", "--format=custom", "--file", str(dump), system.databases[service])
    await system.post(ACCOUNT, AFTER)
    await applied(system)
    unbroken = {service: await state(system, service) for service in WITH_DATABASE}

    for lost in ROUNDS:
        for service in lost:
            await restore(system, pg_server, service, dumps[service])
        await applied(system)
        for service in lost:
            assert await system.metric(service, "superfan_records_again_total") > 0, service
        for other in WITH_DATABASE:
            for table, rows in (await state(system, other)).items():
                differing = sorted(set(rows) ^ set(unbroken[other][table]))
                assert not differing, (lost, other, table, differing)

    # What the others knew of a service is not newer than what it tells from now on.
    await system.post(ACCOUNT, LATER)
    await applied(system)
    announced = dict(
        await system.query(
            "segmentation",
            "select user_id || '/lifecycle', 'lifecycle.' || state from lifecycle_state where state <> 'none'"
            " union select user_id || '/ladder', 'ladder.' || state from ladder_state where state <> 'none'",
        )
    )
    assert dict(await system.query("engagement", "select entity, segment from segment_notice")) == announced
    groups = "select subject, user_id from alias where subject like 'douyin:r%'"
    linked = sorted(await system.query("profile", groups))
    for service in WITH_DATABASE[1:]:
        assert sorted(await system.query(service, groups)) == linked, service
