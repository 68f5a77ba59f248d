"""What is known of a person without counting: traits, and the newest notices of the other services."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.profile.domain.notices import Notice, NoticeKey
from services.profile.domain.traits import Told, Trait, TraitKey

TOLD = "verified, time, source, event_id"


async def add_traits(session: AsyncSession, traits: Mapping[TraitKey, Trait]) -> None:
    """Keep what is believed of each trait; one statement, commutative."""
    if not traits:
        return
    rows = sorted(traits.items(), key=lambda row: row[0])
    await session.execute(
        text(
            f"insert into trait as t (account, subject, name, {TOLD}, trust, value)"
            " select account, subject, name, verified, time, source, event_id, trust, cast(value as jsonb)"
            " from unnest(cast(:account as text[]), cast(:subject as text[]), cast(:name as text[]),"
            " cast(:verified as boolean[]), cast(:time as timestamptz[]), cast(:source as text[]),"
            " cast(:event_id as text[]), cast(:trust as text[]), cast(:value as text[]))"
            f" as n(account, subject, name, {TOLD}, trust, value)"
            " on conflict (account, subject, name) do update set"
            f" ({TOLD}, trust, value) = (excluded.verified, excluded.time, excluded.source, excluded.event_id,"
            " excluded.trust, excluded.value)"
            ' where (excluded.verified, excluded.time, excluded.source collate "C", excluded.event_id collate "C")'
            ' > (t.verified, t.time, t.source collate "C", t.event_id collate "C")'
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "name": [key[2] for key, _ in rows],
            "verified": [trait.told.verified for _, trait in rows],
            "time": [trait.told.time for _, trait in rows],
            "source": [trait.told.source for _, trait in rows],
            "event_id": [trait.told.event_id for _, trait in rows],
            "trust": [trait.trust for _, trait in rows],
            "value": [orjson.dumps(trait.value).decode() for _, trait in rows],
        },
    )


async def read_traits(session: AsyncSession, account: str, subjects: Sequence[str]) -> list[tuple[str, Trait]]:
    """(name, trait) of all `subjects`."""
    rows = await session.execute(
        text(
            f"select name, {TOLD}, trust, value from trait"
            " where account = :account and subject = any(cast(:subjects as text[]))"
        ),
        {"account": account, "subjects": subjects},
    )
    return [
        (row.name, Trait(Told(row.verified, row.time, row.source, row.event_id), row.trust, row.value)) for row in rows
    ]


async def add_notices(session: AsyncSession, notices: Mapping[NoticeKey, Notice]) -> None:
    """Keep the newest notice of each thing; one statement, commutative."""
    if not notices:
        return
    rows = sorted(notices.items(), key=lambda row: row[0])
    await session.execute(
        text(
            "insert into notice_state as s (account, family, entity, revision, source, event_id, user_id, type, since,"
            " time, data)"
            " select account, family, entity, revision, source, event_id, user_id, type, since, time,"
            " cast(data as jsonb)"
            " from unnest(cast(:account as text[]), cast(:family as text[]), cast(:entity as text[]),"
            " cast(:revision as bigint[]), cast(:source as text[]), cast(:event_id as text[]),"
            " cast(:user_id as text[]), cast(:type as text[]), cast(:since as timestamptz[]),"
            " cast(:time as timestamptz[]), cast(:data as text[]))"
            " as n(account, family, entity, revision, source, event_id, user_id, type, since, time, data)"
            " on conflict (account, family, entity) do update set"
            " (revision, source, event_id, user_id, type, since, time, data) = (excluded.revision, excluded.source,"
            " excluded.event_id, excluded.user_id, excluded.type, excluded.since, excluded.time, excluded.data)"
            ' where (excluded.revision, excluded.source collate "C", excluded.event_id collate "C")'
            ' > (s.revision, s.source collate "C", s.event_id collate "C")'
        ),
        {
            "account": [key[0] for key, _ in rows],
            "family": [key[1] for key, _ in rows],
            "entity": [key[2] for key, _ in rows],
            "revision": [notice.revision for _, notice in rows],
            "source": [notice.source for _, notice in rows],
            "event_id": [notice.id for _, notice in rows],
            "user_id": [notice.user_id for _, notice in rows],
            "type": [notice.type for _, notice in rows],
            "since": [notice.since for _, notice in rows],
            "time": [notice.time for _, notice in rows],
            "data": [orjson.dumps(notice.data).decode() for _, notice in rows],
        },
    )


async def read_notices(session: AsyncSession, account: str, user_ids: Sequence[str]) -> list[tuple[str, str, Notice]]:
    """(family, entity, notice) of everything that was told of one of `user_ids`, or is one of them."""
    rows = await session.execute(
        text(
            "select family, entity, revision, source, event_id, user_id, type, since, time, data from notice_state"
            " where account = :account and user_id = any(cast(:user_ids as text[]))"
            " union select family, entity, revision, source, event_id, user_id, type, since, time, data"
            " from notice_state"
            " where account = :account and family = 'points' and entity = any(cast(:user_ids as text[]))"
        ),
        {"account": account, "user_ids": user_ids},
    )
    found: list[Any] = [tuple(row) for row in rows]
    return [(row[0], row[1], Notice(*row[2:])) for row in found]
