"""`superfan export events`: profile's archive as JSON lines of CloudEvents, under the identities that they had."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import asyncpg
import orjson

from libs.cli.connection import connect
from libs.cli.local.processes import LaunchError
from libs.common.events import EVENT_TYPES

PAGE = 2000
INPUTS = [name for name, event_type in EVENT_TYPES.items() if event_type.direction == "input"]
"""What came from outside. What the services concluded is not taken from outside, so it is not exported either."""

# In the order in which they came, so that what is decided on the way is decided as it was.
SELECT = (
    "select id, source, type, subject, time, account, platform, received, backfill, trust, timemark,"
    " cast(data as text) as data from event where account = $1 and type = any($2::text[])"
    " and ($3::timestamptz is null or time >= $3) and ($4::timestamptz is null or time < $4) order by received, digest"
)


async def export_events(
    data: Path | None,
    out: BinaryIO,
    account: str | None = None,
    since: str | None = None,
    until: str | None = None,
    types: Sequence[str] = (),
) -> int:
    """Write the input events of `account` (the key's, if absent) with since ≤ time < until; returns how many.

    Raises LaunchError.
    """
    if unknown := sorted(set(types) - set(INPUTS)):
        raise LaunchError(f"no input type {', '.join(unknown)}; there are {', '.join(INPUTS)}")
    async with connect(data) as connection:
        name = account or connection.account.name
        if name not in connection.config.accounts:
            raise LaunchError(f"no account {name}; there are {', '.join(connection.config.accounts)}")
        zone = connection.config.account(name).zone
        bounds = [_instant(text, zone) for text in (since, until)]
        try:
            database = await asyncpg.connect(connection.run["postgres"]["profile"], timeout=10)
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise LaunchError(f"profile's database does not answer: {error!r}; see `superfan status`") from None
    count = 0
    try:
        async with database.transaction(readonly=True):
            async for row in database.cursor(SELECT, name, list(types or INPUTS), *bounds, prefetch=PAGE):
                out.write(to_line(row))
                count += 1
    finally:
        await database.close()
    out.flush()
    return count


def to_line(row: Any) -> bytes:
    """A row of the event table as a CloudEvent, with a line feed."""
    event = {
        "specversion": "1.0",
        "id": row["id"],
        "source": row["source"],
        "type": row["type"],
        "subject": row["subject"],
        "time": row["time"],
        "account": row["account"],
        "platform": row["platform"],
        "receivedtime": row["received"],
        "backfill": row["backfill"] or None,
        "trust": row["trust"],
        "timemark": row["timemark"],
        # Read and written again: PostgreSQL writes 1e22 as an integer of 23 digits, which nobody would take.
        "data": None if row["data"] is None else orjson.loads(row["data"]),
    }
    present = {name: value for name, value in event.items() if value is not None}
    return orjson.dumps(present, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _instant(text: str | None, zone: ZoneInfo) -> datetime | None:
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise LaunchError(f"{text} is no date or time such as 2026-03-01 or 2026-03-01T09:00:00+08:00") from None
    return value if value.tzinfo else value.replace(tzinfo=zone)
