"""One look into the database of a service."""

import time
from dataclasses import dataclass

from libs.cli.doctor.finding import first_line


@dataclass(frozen=True)
class Unreachable:
    """A database that could not be read."""

    service: str
    reason: str


@dataclass(frozen=True)
class Database:
    """`revision` is None without tables. `clock_apart`: seconds that its clock is ahead of this machine's, the travel
    time taken out. `offsets`: next offset by (topic, partition), by cluster. `dead_letters`: how many, by error."""

    service: str
    major: int
    clock_apart: float
    revision: str | None
    offsets: dict[str, dict[tuple[str, int], int]]
    outbox: int
    outbox_age: float
    dead_letters: dict[str, int]


async def read_database(service: str, url: str) -> Database | Unreachable:
    """What the doctor wants to know; tables that are missing count as empty."""
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=10, command_timeout=20)
    except Exception as error:
        return Unreachable(service, first_line(error))
    try:
        before = time.time()
        now = float(await connection.fetchval("select extract(epoch from clock_timestamp())"))
        half_way = (before + time.time()) / 2
        tables = set(
            await connection.fetchval(
                "select coalesce(array_agg(relname::text), '{}') from pg_class"
                " where relnamespace = current_schema()::regnamespace"
            )
        )

        async def rows(table: str, statement: str) -> list[asyncpg.Record]:
            return list(await connection.fetch(statement)) if table in tables else []

        revision = await rows("alembic_version", "select version_num from alembic_version")
        offsets: dict[str, dict[tuple[str, int], int]] = {}
        for row in await rows(
            "consumer_offset", "select cluster_id, topic, partition, next_offset from consumer_offset"
        ):
            offsets.setdefault(row["cluster_id"], {})[row["topic"], row["partition"]] = row["next_offset"]
        outbox = await rows(
            "outbox",
            "select count(*) as waiting, coalesce(extract(epoch from now() - min(created_at)), 0)::float8 as age"
            " from outbox",
        )
        letters = await rows(
            "dead_letter",
            "select error, count(*) as number from dead_letter group by error order by number desc, error",
        )
        return Database(
            service,
            connection.get_server_version().major,
            now - half_way,
            revision[0]["version_num"] if revision else None,
            offsets,
            outbox[0]["waiting"] if outbox else 0,
            outbox[0]["age"] if outbox else 0.0,
            {row["error"]: row["number"] for row in letters},
        )
    except Exception as error:
        return Unreachable(service, first_line(error))
    finally:
        await connection.close()
