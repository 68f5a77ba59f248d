"""All SQL on dead letters.

A letter belongs to the account that its JSON names, else to the one in its Kafka key. One without either is nobody's:
its bytes are shown to nobody, because they may be anybody's.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import AnyEvent, identity_digest
from libs.common.kafka import Message
from libs.common.telemetry import trace_id_of

_ACCOUNT = re.compile(r"[a-z0-9-]{1,40}")
_COLUMNS = (
    'digest, account, type, topic, partition, "offset", key, value, error, reason, attempts, first_at, last_at,'
    " edited_at"
)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that could not be applied; `event` is None when it could not even be read."""

    record: Message
    event: AnyEvent | None
    error: Exception


@dataclass(frozen=True, slots=True)
class Letter:
    """A row; `account` is None for nobody's letter. `edited_at` is when its event was last corrected."""

    digest: bytes
    account: str | None
    type: str | None
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    error: str
    reason: str
    attempts: int
    first_at: datetime
    last_at: datetime
    edited_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attributes:
    """What can be read of an event, however wrong the rest of it is."""

    account: str | None
    source: str | None
    id: str | None
    type: str | None
    trust: str | None


def read_attributes(value: bytes | None, key: bytes | None) -> Attributes:
    """The attributes that are text which can be stored; the account comes from the Kafka key when JSON has none."""
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        document = None
    found: dict[str, str] = {}
    if isinstance(document, dict):
        for name in ("account", "source", "id", "type", "trust"):
            item = document.get(name)
            if isinstance(item, str) and 0 < len(item) <= 200 and "\0" not in item:
                found[name] = item
    account = found.get("account", "")
    if not _ACCOUNT.fullmatch(account):
        account = (key or b"").partition(b"/")[0].decode("ascii", "replace")
    return Attributes(
        account=account if _ACCOUNT.fullmatch(account) else None,
        source=found.get("source"),
        id=found.get("id"),
        type=found.get("type"),
        trust=found.get("trust"),
    )


def trace_id_in(value: bytes | None) -> str | None:
    """The id of the trace that the event belongs to, if that can be read."""
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    found = document.get("traceparent") if isinstance(document, dict) else None
    return trace_id_of(found) if isinstance(found, str) else None


def _digest(attributes: Attributes, value: bytes | None) -> bytes:
    """The event's identity where it can be read, else that of the bytes."""
    if attributes.account and attributes.source and attributes.id:
        return identity_digest(attributes.account, attributes.source, attributes.id)
    return hashlib.blake2b(value or b"", digest_size=16).digest()


async def add(session: AsyncSession, cluster_id: str, refused: Sequence[Refused], now: datetime) -> None:
    """Keep what was refused, a row an event: one that comes again counts up its attempts and keeps its value.

    Each row notes how many records the service has passed in all, so that "of the last 1,000 events" can be told.
    """
    found: dict[bytes, tuple[Refused, Attributes]] = {}
    for item in refused:
        attributes = read_attributes(item.record.value, item.record.key)
        found[_digest(attributes, item.record.value)] = (item, attributes)
    if not found:
        return
    rows = sorted(found.items(), key=lambda row: row[0])
    await session.execute(
        text(
            'insert into dead_letter (digest, account, type, topic, partition, "offset", key, value, error, reason,'
            " first_at, last_at, position)"
            ' select digest, account, type, topic, partition, "offset", key, value, error, reason, :now, :now,'
            " (select sum(next_offset) from consumer_offset where cluster_id = :cluster)"
            " from unnest(cast(:digest as bytea[]), cast(:account as text[]), cast(:type as text[]),"
            " cast(:topic as text[]), cast(:partition as int[]), cast(:offset as bigint[]), cast(:key as bytea[]),"
            " cast(:value as bytea[]), cast(:error as text[]), cast(:reason as text[]))"
            ' as n(digest, account, type, topic, partition, "offset", key, value, error, reason)'
            " on conflict (digest) do update set attempts = dead_letter.attempts + 1, last_at = excluded.last_at,"
            " error = excluded.error, reason = excluded.reason, position = excluded.position"
        ),
        {
            "now": now,
            "cluster": cluster_id,
            "digest": [digest for digest, _ in rows],
            "account": [attributes.account for _, (_, attributes) in rows],
            "type": [attributes.type for _, (_, attributes) in rows],
            "topic": [item.record.topic for _, (item, _) in rows],
            "partition": [item.record.partition for _, (item, _) in rows],
            "offset": [item.record.offset for _, (item, _) in rows],
            "key": [item.record.key for _, (item, _) in rows],
            "value": [item.record.value for _, (item, _) in rows],
            "error": [type(item.error).__name__ for _, (item, _) in rows],
            "reason": [reason_of(item.error) for _, (item, _) in rows],
        },
    )


def reason_of(error: Exception) -> str:
    """An error's text as it is stored."""
    return str(error).replace("\0", "")[:2000]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters; None stands for any. `since` <= first_at < `until`."""

    type: str | None = None
    error: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page(
    session: AsyncSession,
    account: str,
    which: Filter,
    before: tuple[datetime, bytes] | None,
    limit: int,
    *,
    with_nobodys: bool,
) -> list[Letter]:
    """Letters of `account`, and nobody's if wanted, that came first before (first_at, digest); newest first."""
    rows = await session.execute(
        text(
            f"select {_COLUMNS} from dead_letter"
            " where (account = :account or (:with_nobodys and account is null))"
            " and (cast(:type as text) is null or type = :type)"
            " and (cast(:error as text) is null or error = :error)"
            " and (cast(:topic as text) is null or topic = :topic)"
            " and (cast(:since as timestamptz) is null or first_at >= :since)"
            " and (cast(:until as timestamptz) is null or first_at < :until)"
            " and (cast(:at as timestamptz) is null or (first_at, digest) < (:at, cast(:digest as bytea)))"
            " order by first_at desc, digest desc limit :limit"
        ),
        {
            "account": account,
            "with_nobodys": with_nobodys,
            "type": which.type,
            "error": which.error,
            "topic": which.topic,
            "since": which.since,
            "until": which.until,
            "at": before[0] if before else None,
            "digest": before[1] if before else None,
            "limit": limit,
        },
    )
    return [_letter(row) for row in rows]


MOST_COUNTED = 1001


async def count_waiting(session: AsyncSession) -> int:
    """How many letters there are, of all accounts; counted to 1,001."""
    counting = text("select count(*) from (select 1 from dead_letter limit :most) l")
    return int(await session.scalar(counting, {"most": MOST_COUNTED}) or 0)


async def find(session: AsyncSession, account: str, digest: bytes) -> Letter | None:
    """The letter, if it is the account's or nobody's."""
    row = (
        await session.execute(
            text(
                f"select {_COLUMNS} from dead_letter where digest = :digest and (account = :account or account is null)"
            ),
            {"digest": digest, "account": account},
        )
    ).one_or_none()
    return None if row is None else _letter(row)


def _letter(row: Any) -> Letter:
    return Letter(**row._mapping)


async def edit(session: AsyncSession, letter: Letter, event: AnyEvent, now: datetime) -> bool:
    """Put `event` in the letter's place; False when the letter has changed or gone since it was read."""
    return await _change(
        session,
        letter,
        "update dead_letter set value = :new_value, type = :type, edited_at = :now",
        {"new_value": event.to_json(), "type": event.type, "now": now},
    )


async def fail(session: AsyncSession, letter: Letter, error: Exception, now: datetime) -> bool:
    """Note another attempt that failed; False when the letter has changed or gone since it was read."""
    return await _change(
        session,
        letter,
        "update dead_letter set attempts = attempts + 1, last_at = :now, error = :error, reason = :reason",
        {"now": now, "error": type(error).__name__, "reason": reason_of(error)},
    )


async def remove(session: AsyncSession, letter: Letter) -> bool:
    """Delete the letter; False when it has changed or gone since it was read."""
    return await _change(session, letter, "delete from dead_letter", {})


async def _change(session: AsyncSession, letter: Letter, statement: str, values: dict[str, Any]) -> bool:
    result = await session.execute(
        text(f"{statement} where digest = :digest and value is not distinct from cast(:value as bytea) returning 1"),
        {"digest": letter.digest, "value": letter.value, **values},
    )
    return result.first() is not None


async def is_applied(session: AsyncSession, account: str, digest: bytes) -> bool:
    """Whether the service has an event of this identity in its history."""
    row = await session.execute(
        text("select 1 from event where digest = :digest and account = :account"),
        {"digest": digest, "account": account},
    )
    return row.first() is not None
