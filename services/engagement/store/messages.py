"""Messages after their first decision: read, asked again, sent."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.leases import Claimed


async def page_messages(
    session: AsyncSession,
    account: str,
    subjects: list[str],
    filters: Mapping[str, str | None],
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Any]:
    """Messages to `subjects`, newest first, older than `before` (created_at, message_id); up to `limit`. `filters` may
    hold channel and state."""
    given = {name: value for name, value in filters.items() if value is not None}
    where = "".join(f" and {name} = :{name}" for name in given)
    rows = await session.execute(
        text(
            "select message_id, subject, journey, journey_version, step, channel, purpose, state, held, created_at,"
            " sent_at, expires_at, failure, variables, attempts, case when held then due_at end as held_until"
            " from message where account = :account and subject = any(cast(:subjects as text[]))"
            " and (cast(:time as timestamptz) is null or (created_at, message_id) < (:time, cast(:id as text)))"
            f"{where} order by created_at desc, message_id desc limit :limit"
        ),
        {
            **given,
            "account": account,
            "subjects": subjects,
            "time": before[0] if before else None,
            "id": before[1] if before else None,
            "limit": limit,
        },
    )
    return list(rows.all())


async def read_segments(
    session: AsyncSession, entities: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str | None]:
    """The segment that each known (account, entity) is in."""
    pairs = sorted(set(entities))
    rows = await session.execute(
        text(
            "select s.account, s.entity, s.segment from segment_notice s"
            " join unnest(cast(:accounts as text[]), cast(:entities as text[])) as n(account, entity)"
            " on s.account = n.account and s.entity = n.entity"
        ),
        {"accounts": [pair[0] for pair in pairs], "entities": [pair[1] for pair in pairs]},
    )
    return {(row.account, row.entity): row.segment for row in rows}


async def write_again(session: AsyncSession, rows: Sequence[tuple[Claimed, dict[str, Any]]]) -> None:
    """Write what became of messages that were asked about again. Each dict holds state, held, let_through_at, sent_at,
    turns and revision. One statement."""
    if not rows:
        return
    await session.execute(
        text(
            "update message m set state = n.state, held = n.held, let_through_at = n.let_through_at,"
            " sent_at = n.sent_at, turns = n.turns, revision = n.revision"
            " from unnest(cast(:accounts as text[]), cast(:users as text[]), cast(:messages as text[]),"
            " cast(:state as text[]), cast(:held as boolean[]), cast(:let_through_at as timestamptz[]),"
            " cast(:sent_at as timestamptz[]), cast(:turns as integer[]), cast(:revision as bigint[]))"
            " as n(account, user_id, message_id, state, held, let_through_at, sent_at, turns, revision)"
            " where m.account = n.account and m.user_id = n.user_id and m.message_id = n.message_id"
        ),
        {
            **_keys([claimed for claimed, _ in rows]),
            **{
                name: [values[name] for _, values in rows]
                for name in ("state", "held", "let_through_at", "sent_at", "turns", "revision")
            },
        },
    )


def _keys(rows: Sequence[Claimed]) -> dict[str, list[Any]]:
    return {
        name: [claimed.key[index] for claimed in rows] for index, name in enumerate(("accounts", "users", "messages"))
    }


async def begin_sending(session: AsyncSession, claimed: Claimed) -> bool:
    """Note that the call is about to be made; False when somebody else holds the message now."""
    found = await session.execute(
        text(
            "update message set state = 'sending' where account = :account and user_id = :user_id"
            " and message_id = :message_id and lease = :lease returning 1"
        ),
        {**_key(claimed), "lease": claimed.lease},
    )
    return found.first() is not None


async def end_sending(session: AsyncSession, claimed: Claimed, values: Mapping[str, Any]) -> None:
    """Write what became of a call: state, held, let_through_at, sent_at, failure; and, where something is to be told,
    the next revision of the user and journey, which it returns through the row. Its lease must have been settled."""
    await session.execute(
        text(
            "update message set state = :state, held = :held, let_through_at = cast(:let_through_at as timestamptz),"
            " sent_at = cast(:sent_at as timestamptz), failure = :failure, revision = :revision"
            " where account = :account and user_id = :user_id and message_id = :message_id"
        ),
        {**_key(claimed), **values},
    )


async def next_revision(session: AsyncSession, claimed: Claimed) -> int:
    """The next revision of the message's user and journey, under the lock of that user until the commit."""
    row = claimed.row
    await session.execute(
        text("select 1 from alias where account = :account and own_id = :user_id for no key update"),
        {"account": row.account, "user_id": row.user_id},
    )
    highest = await session.scalar(
        text(
            "select greatest(0, (select max(revision) from decision where account = :account and user_id = :user_id"
            " and journey = :journey), (select max(revision) from message where account = :account"
            " and user_id = :user_id and journey = :journey))"
        ),
        {"account": row.account, "user_id": row.user_id, "journey": row.journey},
    )
    return int(highest or 0) + 1


def _key(claimed: Claimed) -> dict[str, Any]:
    account, user_id, message_id = claimed.key
    return {"account": account, "user_id": user_id, "message_id": message_id}
