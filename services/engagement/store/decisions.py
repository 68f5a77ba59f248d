"""Decisions and the messages that they make."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.derived import SegmentEntered
from services.engagement.domain.decisions import Decision
from services.engagement.domain.gates import Gate
from services.engagement.domain.journeys import IN_APP
from services.engagement.domain.templates import variables_of


async def add_decisions(session: AsyncSession, decisions: Sequence[Decision], now: datetime) -> None:
    """Keep decisions about events with their reasons and values; one statement."""
    if not decisions:
        return
    events = [decision.event for decision in decisions]
    await session.execute(
        text(
            "insert into decision (account, subject, event_digest, journey, turn, decision_id, journey_version, step,"
            " channel, purpose, user_id, revision, outcome, reason, until, values, gates, message_id, event_type,"
            " event_source, event_id, event_time, decided_at)"
            " select account, subject, event_digest, journey, 1, decision_id, version, step, channel, purpose, user_id,"
            " revision, outcome, reason, until, cast(n.values as jsonb), cast(n.gates as jsonb), message_id,"
            " event_type, event_source, event_id, event_time, :now"
            f" from unnest({_ARRAYS}, cast(:event_digest as bytea[]), cast(:event_type as text[]),"
            " cast(:event_source as text[]), cast(:event_id as text[]), cast(:event_time as timestamptz[]))"
            f" as n({_NAMES}, event_digest, event_type, event_source, event_id, event_time)"
        ),
        {
            **_columns(decisions),
            "now": now,
            "event_digest": [event.digest if event else None for event in events],
            "event_type": [event.type if event else None for event in events],
            "event_source": [event.source if event else None for event in events],
            "event_id": [event.id if event else None for event in events],
            "event_time": [event.time if event else None for event in events],
        },
    )


async def add_later_decisions(
    session: AsyncSession, decisions: Sequence[tuple[Decision, bytes]], now: datetime
) -> None:
    """Keep decisions about messages that waited, each with the digest of the event that began it; one statement."""
    if not decisions:
        return
    await session.execute(
        text(
            "insert into decision (account, subject, event_digest, journey, turn, decision_id, journey_version, step,"
            " channel, purpose, user_id, revision, outcome, reason, until, values, gates, message_id, event_type,"
            " event_source, event_id, event_time, decided_at)"
            " select n.account, n.subject, n.digest, n.journey, n.turn, n.decision_id, n.version, n.step, n.channel,"
            " n.purpose, n.user_id, n.revision, n.outcome, n.reason, n.until, cast(n.values as jsonb),"
            " cast(n.gates as jsonb), n.message_id, d.event_type, d.event_source, d.event_id, d.event_time, :now"
            f" from unnest({_ARRAYS}, cast(:digest as bytea[]), cast(:turn as integer[]))"
            f" as n({_NAMES}, digest, turn) join decision d on d.account = n.account and d.subject = n.subject"
            " and d.event_digest = n.digest and d.journey = n.journey and d.turn = 1"
        ),
        {
            **_columns([decision for decision, _ in decisions]),
            "now": now,
            "digest": [digest for _, digest in decisions],
            "turn": [decision.turn for decision, _ in decisions],
        },
    )


_COLUMNS: dict[str, tuple[str, Any]] = {
    "account": ("text", lambda row: row.account),
    "subject": ("text", lambda row: row.subject),
    "journey": ("text", lambda row: row.journey.key),
    "decision_id": ("text", lambda row: row.decision_id),
    "version": ("integer", lambda row: row.journey.version),
    "step": ("text", lambda row: row.journey.step),
    "channel": ("text", lambda row: row.journey.channel),
    "purpose": ("text", lambda row: row.journey.purpose),
    "user_id": ("text", lambda row: row.user_id),
    "revision": ("bigint", lambda row: row.revision),
    "outcome": ("text", lambda row: row.outcome),
    "reason": ("text", lambda row: row.reason),
    "until": ("timestamptz", lambda row: row.until),
    "values": ("text", lambda row: orjson.dumps(row.values).decode()),
    "gates": ("text", lambda row: orjson.dumps([gate_json(gate) for gate in row.gates]).decode()),
    "message_id": ("text", lambda row: row.message_id),
}
_ARRAYS = ", ".join(f"cast(:{name} as {kind}[])" for name, (kind, _) in _COLUMNS.items())
_NAMES = ", ".join(_COLUMNS)


def _columns(decisions: Sequence[Decision]) -> dict[str, list[Any]]:
    return {name: [value(row) for row in decisions] for name, (_, value) in _COLUMNS.items()}


def gate_json(gate: Gate) -> dict[str, Any]:
    """A gate's answer as it is stored and told."""
    return asdict(gate)


async def add_messages(
    session: AsyncSession, decisions: Sequence[Decision], now: datetime, doubtful: Set[str] = frozenset()
) -> None:
    """Make the messages of decisions that send or hold one; one statement. In-app messages are sent by that; those of
    other channels are due at once, but never those of the decisions (ids) that are `doubtful`: they may be sent
    already."""
    rows = sorted(
        (row for row in decisions if row.outcome != "skipped"), key=lambda row: (row.account, row.user_id, row.turn)
    )
    if not rows:
        return
    sent = [row.outcome == "sent" for row in rows]
    states = [_first_state(row, doubtful) for row in rows]
    await session.execute(
        text(
            "insert into message (account, user_id, message_id, journey, step, journey_version, subject, channel, kind,"
            " purpose, run, entity, turns, state, held, created_at, let_through_at, expires_at, sent_at, variables,"
            " revision, traceparent, due_at)"
            " select account, user_id, message_id, journey, step, version, subject, channel, kind, purpose, run,"
            " entity, 1, state, state = 'planned' and not passed, :now,"
            " case when passed or state = 'unknown' then cast(:now as timestamptz) end, expires_at,"
            " case when state = 'sent' then cast(:now as timestamptz) end, cast(variables as jsonb), revision,"
            " traceparent,"
            " case when state = 'planned' then coalesce(until, :now) end"
            " from unnest(cast(:account as text[]), cast(:user_id as text[]), cast(:message_id as text[]),"
            " cast(:journey as text[]), cast(:step as text[]), cast(:version as integer[]), cast(:subject as text[]),"
            " cast(:channel as text[]), cast(:kind as text[]), cast(:purpose as text[]), cast(:run as text[]),"
            " cast(:entity as text[]), cast(:state as text[]), cast(:passed as boolean[]),"
            " cast(:expires_at as timestamptz[]), cast(:variables as text[]), cast(:revision as bigint[]),"
            " cast(:traceparent as text[]), cast(:until as timestamptz[]))"
            " as n(account, user_id, message_id, journey, step, version, subject, channel, kind, purpose, run, entity,"
            " state, passed, expires_at, variables, revision, traceparent, until)"
        ),
        {
            "now": now,
            "account": [row.account for row in rows],
            "user_id": [row.user_id for row in rows],
            "message_id": [row.message_id for row in rows],
            "journey": [row.journey.key for row in rows],
            "step": [row.journey.step for row in rows],
            "version": [row.journey.version for row in rows],
            "subject": [row.subject for row in rows],
            "channel": [row.journey.channel for row in rows],
            "kind": [row.kind for row in rows],
            "purpose": [row.journey.purpose for row in rows],
            "run": [row.decision_id for row in rows],
            "entity": [_entity(row) for row in rows],
            "state": states,
            "passed": sent,
            "expires_at": [row.expires_at for row in rows],
            "variables": [_variables(row) for row in rows],
            "revision": [row.revision for row in rows],
            "traceparent": [row.event.traceparent if row.event else None for row in rows],
            "until": [row.until for row in rows],
        },
    )


def _first_state(row: Decision, doubtful: Set[str]) -> str:
    if row.journey.channel != IN_APP and row.decision_id in doubtful:
        return "unknown"
    return "sent" if row.outcome == "sent" and row.journey.channel == IN_APP else "planned"


def _entity(row: Decision) -> str | None:
    event = row.event
    return event.data.entity if isinstance(event, SegmentEntered) else None


def _variables(row: Decision) -> str | None:
    """What the texts may name, as it is now: a message reads the same for ever."""
    if not row.journey.uses_variables or row.event is None:
        return None
    return orjson.dumps(variables_of(row.account, row.user_id, row.event)).decode()


async def page_decisions(
    session: AsyncSession,
    account: str,
    filters: Mapping[str, Any],
    before: tuple[datetime, int, str] | None,
    limit: int,
) -> list[Any]:
    """Decisions, newest first, older than `before` (decided_at, revision, decision_id); up to `limit`.

    `filters` may hold subjects, journey, outcome, reason, known_at; None stands for all.
    """
    conditions = {
        "subjects": "subject = any(cast(:subjects as text[]))",
        "journey": "journey = :journey",
        "outcome": "outcome = :outcome",
        "reason": "reason = :reason",
        "known_at": "decided_at <= :known_at",
    }
    given = {name: value for name, value in filters.items() if value is not None}
    where = " and ".join(["account = :account", *(conditions[name] for name in given)])
    if before:
        where += " and (decided_at, revision, decision_id) < (:time, :revision, :id)"
        given |= dict(zip(("time", "revision", "id"), before, strict=True))
    rows = await session.execute(
        text(
            "select decision_id, subject, user_id, journey, journey_version, step, channel, purpose, turn,"
            " outcome, reason, until, values, gates, message_id, revision, event_type, event_source, event_id,"
            " event_time, decided_at"
            f" from decision where {where}"
            " order by decided_at desc, revision desc, decision_id desc limit :limit"
        ),
        {**given, "account": account, "limit": limit},
    )
    return list(rows.all())
