"""Journeys that accounts have stored, and the built-in ones that stand until they do."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.engagement.domain.journeys import BUILT_IN, Journey, journey_of

_COLUMNS = "account, key, version, status, definition, action, changed_at, changed_by"

_CACHE_SIZE = 10_000
_cache: dict[tuple[str, str, int, datetime], Journey] = {}
"""Versions never change, so what was read once is kept."""


async def read_in_effect(session: AsyncSession, accounts: Iterable[str]) -> dict[str, list[Journey]]:
    """The journeys of each account that are live or paused, by key: of each the newest version that is no draft.

    One statement; one more when there is a version that this process has not seen.
    """
    names = sorted(set(accounts))
    rows = (
        await session.execute(
            text(
                "select distinct on (account, key) account, key, version, changed_at from journey"
                " where account = any(cast(:accounts as text[])) and status <> 'draft'"
                " order by account, key, version desc"
            ),
            {"accounts": names},
        )
    ).all()
    unseen = [row for row in rows if tuple(row) not in _cache]
    if unseen:
        if len(_cache) + len(unseen) > _CACHE_SIZE:
            _cache.clear()
        found = await _read(session, [(row.account, row.key, row.version) for row in rows])
        for account, journey in found:
            assert journey.changed_at is not None
            _cache[account, journey.key, journey.version, journey.changed_at] = journey
    journeys = {name: dict(BUILT_IN) for name in names}
    for row in rows:
        journeys[row.account][row.key] = _cache[row.account, row.key, row.version, row.changed_at]
    return {
        name: [journey for _, journey in sorted(by_key.items()) if journey.status != "ended"]
        for name, by_key in journeys.items()
    }


async def read_versions(
    session: AsyncSession, wanted: Collection[tuple[str, str, int]]
) -> dict[tuple[str, str, int], Journey]:
    """The journeys of these (account, key, version), stored or built in."""
    stored = {(account, journey.key, journey.version): journey for account, journey in await _read(session, wanted)}
    return {
        (account, key, version): stored.get((account, key, version)) or BUILT_IN[key]
        for account, key, version in wanted
        if (account, key, version) in stored or (key in BUILT_IN and BUILT_IN[key].version == version)
    }


async def read_newest(session: AsyncSession, account: str, keys: Collection[str] | None = None) -> list[Journey]:
    """The newest version of each journey of an account, drafts too, by key."""
    rows = await session.execute(
        text(
            f"select distinct on (key) {_COLUMNS} from journey where account = :account"
            " and (cast(:keys as text[]) is null or key = any(cast(:keys as text[])))"
            " order by key, version desc"
        ),
        {"account": account, "keys": None if keys is None else sorted(keys)},
    )
    stored = {row.key: _journey(row) for row in rows}
    built_in = {key: journey for key, journey in BUILT_IN.items() if keys is None or key in keys}
    return [journey for _, journey in sorted({**built_in, **stored}.items())]


async def page_history(session: AsyncSession, account: str, key: str, before: int | None, limit: int) -> list[Journey]:
    """The versions of a journey, newest first, below version `before`; the built-in one is the last."""
    rows = await session.execute(
        text(
            f"select {_COLUMNS} from journey where account = :account and key = :key"
            " and (cast(:before as integer) is null or version < :before) order by version desc limit :limit"
        ),
        {"account": account, "key": key, "before": before, "limit": limit},
    )
    found = [_journey(row) for row in rows]
    built_in = BUILT_IN.get(key)
    if built_in is not None and len(found) < limit and (before is None or built_in.version < before):
        found.append(built_in)
    return found


async def lock_journey(session: AsyncSession, account: str, key: str) -> None:
    """Nobody else changes this journey until the commit."""
    await session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"journey {account} {key}"}
    )


async def add_version(session: AsyncSession, account: str, journey: Journey) -> None:
    """Store a version. Its number must be new."""
    await session.execute(
        text(
            "insert into journey (account, key, version, status, definition, action, changed_at, changed_by) values"
            " (:account, :key, :version, :status, cast(:definition as jsonb), :action, :changed_at, :changed_by)"
        ),
        {
            "account": account,
            "key": journey.key,
            "version": journey.version,
            "status": journey.status,
            "definition": orjson.dumps(journey.definition()).decode(),
            "action": journey.action,
            "changed_at": journey.changed_at,
            "changed_by": journey.changed_by,
        },
    )


async def _read(session: AsyncSession, wanted: Collection[tuple[str, str, int]]) -> Sequence[tuple[str, Journey]]:
    if not wanted:
        return []
    rows = await session.execute(
        text(
            f"select {_COLUMNS} from journey join unnest(cast(:accounts as text[]), cast(:keys as text[]),"
            " cast(:versions as integer[])) as n(account, key, version) using (account, key, version)"
        ),
        {
            "accounts": [account for account, _, _ in wanted],
            "keys": [key for _, key, _ in wanted],
            "versions": [version for _, _, version in wanted],
        },
    )
    return [(row.account, _journey(row)) for row in rows]


def _journey(row: Any) -> Journey:
    return journey_of(row.key, row.version, row.status, row.definition, row.changed_at, row.changed_by, row.action)
