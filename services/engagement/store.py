"""All SQL of engagement. Rows are written in key order; reads run over all subjects of a user."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.engagement.domain import Decision, Follower, Journey, Key, Mark, UserState

_SUBJECTS = "unnest(cast(:accounts as text[]), cast(:subjects as text[])) as n(account, subject)"


async def add_follows(session: AsyncSession, followers: Mapping[Key, Follower]) -> dict[Key, Mark]:
    """Bring follower rows up to date and tell the newest mark of each; one statement, commutative."""
    if not followers:
        return {}
    rows = sorted(followers.items())
    marks = [follower.newest for _, follower in rows]
    result = await session.execute(
        text(
            "insert into follower as f"
            " (account, subject, follow_time, follow_source, follow_id, following, first_follow)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]),"
            " cast(:follow_time as timestamptz[]), cast(:follow_source as text[]), cast(:follow_id as text[]),"
            " cast(:following as boolean[]), cast(:first_follow as timestamptz[]))"
            " on conflict (account, subject) do update set"
            " first_follow = least(f.first_follow, excluded.first_follow),"
            f" follow_time = {_newer('follow_time')}, follow_source = {_newer('follow_source')},"
            f" follow_id = {_newer('follow_id')}, following = {_newer('following')}"
            " returning account, subject, follow_time, follow_source, follow_id, following"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "follow_time": [mark.time for mark in marks],
            "follow_source": [mark.source for mark in marks],
            "follow_id": [mark.id for mark in marks],
            "following": [mark.following for mark in marks],
            "first_follow": [follower.first_follow for _, follower in rows],
        },
    )
    return {
        (row.account, row.subject): Mark(row.follow_time, row.follow_source, row.follow_id, row.following)
        for row in result
    }


def _newer(column: str) -> str:
    """SQL for the column's value from the newer mark (time, source, id); text is compared as bytes, as in Python."""
    return (
        'case when (excluded.follow_time, excluded.follow_source collate "C", excluded.follow_id collate "C")'
        ' > (f.follow_time, f.follow_source collate "C", f.follow_id collate "C")'
        f" then excluded.{column} else f.{column} end"
    )


async def lock_users(session: AsyncSession, subjects: Iterable[Key], journey: str) -> dict[Key, UserState]:
    """What has been decided about the users of `subjects`; nobody else decides about them until the commit.

    The lock is the alias row of a user's representative: all subjects of a user share it. Subjects of one user share
    one UserState.
    """
    keys = sorted(set(subjects))
    parameters = {"accounts": [key[0] for key in keys], "subjects": [key[1] for key in keys], "journey": journey}
    await session.execute(
        text(
            f"select 1 from alias r join (select distinct a.account, a.user_id from {_SUBJECTS}"
            " join alias a on a.account = n.account and a.subject = n.subject) u"
            " on u.account = r.account and u.user_id = r.own_id"
            " order by r.account, r.own_id for no key update of r"
        ),
        {"accounts": parameters["accounts"], "subjects": parameters["subjects"]},
    )
    # A statement of its own: it sees what was committed while the first one waited. A message counts when it went to
    # this user id or to any subject that is now his, so neither a merge nor an unmerge brings a second one.
    # `limit 1` keeps the planner at index look-ups while the tables have no statistics yet.
    rows = await session.execute(
        text(
            "select n.account, n.subject, a.user_id, coalesce(own.message_id, other.message_id) as message_id,"
            " coalesce(d.revision, 0) as revision"
            f" from {_SUBJECTS} join alias a on a.account = n.account and a.subject = n.subject"
            " left join lateral (select m.message_id from message m"
            " where m.account = a.account and m.user_id = a.user_id and m.journey = :journey"
            " order by m.step limit 1) own on true"
            " left join lateral (select found.message_id from alias g cross join lateral"
            " (select m.message_id from message m where m.account = g.account and m.subject = g.subject"
            " and m.journey = :journey order by m.created_at limit 1) found"
            " where g.account = a.account and g.user_id = a.user_id and own.message_id is null limit 1) other on true"
            " left join lateral (select d.revision from decision d"
            " where d.account = a.account and d.user_id = a.user_id and d.journey = :journey"
            " order by d.revision desc limit 1) d on true"
        ),
        parameters,
    )
    users: dict[tuple[str, str], UserState] = {}
    return {
        (row.account, row.subject): users.setdefault(
            (row.account, row.user_id), UserState(row.user_id, row.message_id, row.revision)
        )
        for row in rows
    }


async def add_messages(session: AsyncSession, journey: Journey, sent: Sequence[Decision], now: datetime) -> None:
    """Put messages into the in-app inbox; one statement."""
    if not sent:
        return
    rows = sorted(sent, key=lambda decision: (decision.follow.account, decision.user_id))
    await session.execute(
        text(
            "insert into message (account, user_id, journey, step, message_id, journey_version, subject, channel,"
            " created_at)"
            " select account, user_id, :journey, :step, message_id, :version, subject, :channel, :now"
            " from unnest(cast(:account as text[]), cast(:user_id as text[]), cast(:message_id as text[]),"
            " cast(:subject as text[])) as n(account, user_id, message_id, subject)"
        ),
        {
            "journey": journey.key,
            "step": journey.step,
            "version": journey.version,
            "channel": journey.channel,
            "now": now,
            "account": [row.follow.account for row in rows],
            "user_id": [row.user_id for row in rows],
            "message_id": [row.message_id for row in rows],
            "subject": [row.subject for row in rows],
        },
    )


async def add_decisions(session: AsyncSession, journey: Journey, rows: Sequence[Decision], now: datetime) -> None:
    """Keep decisions with their reasons and values; one statement."""
    await session.execute(
        text(
            "insert into decision (account, subject, event_digest, journey, decision_id, journey_version, step,"
            " channel, purpose, user_id, revision, outcome, reason, values, message_id, event_source,"
            " event_id, event_time, decided_at)"
            " select account, subject, event_digest, :journey, decision_id, :version, :step,"
            " :channel, :purpose, user_id, revision, outcome, reason, cast(n.values as jsonb), message_id,"
            " event_source, event_id, event_time, :now"
            " from unnest(cast(:account as text[]), cast(:subject as text[]), cast(:event_digest as bytea[]),"
            " cast(:decision_id as text[]), cast(:user_id as text[]), cast(:revision as bigint[]),"
            " cast(:outcome as text[]), cast(:reason as text[]), cast(:values as text[]),"
            " cast(:message_id as text[]), cast(:event_source as text[]), cast(:event_id as text[]),"
            " cast(:event_time as timestamptz[]))"
            " as n(account, subject, event_digest, decision_id, user_id, revision, outcome, reason, values,"
            " message_id, event_source, event_id, event_time)"
        ),
        {
            "journey": journey.key,
            "version": journey.version,
            "step": journey.step,
            "channel": journey.channel,
            "purpose": journey.purpose,
            "now": now,
            "account": [row.follow.account for row in rows],
            "subject": [row.subject for row in rows],
            "event_digest": [row.follow.digest for row in rows],
            "decision_id": [row.decision_id for row in rows],
            "user_id": [row.user_id for row in rows],
            "revision": [row.revision for row in rows],
            "outcome": [row.outcome for row in rows],
            "reason": [row.verdict.reason for row in rows],
            "values": [orjson.dumps(row.verdict.values).decode() for row in rows],
            "message_id": [row.message_id for row in rows],
            "event_source": [row.follow.source for row in rows],
            "event_id": [row.follow.id for row in rows],
            "event_time": [row.follow.time for row in rows],
        },
    )


async def page_messages(
    session: AsyncSession, account: str, subjects: list[str], before: tuple[datetime, str] | None, limit: int
) -> list[Any]:
    """Messages to `subjects`, newest first, older than `before` (created_at, message_id); up to `limit`."""
    rows = await session.execute(
        text(
            "select message_id, subject, journey, journey_version, step, channel, created_at from message"
            " where account = :account and subject = any(cast(:subjects as text[]))"
            " and (cast(:time as timestamptz) is null or (created_at, message_id) < (:time, cast(:id as text)))"
            " order by created_at desc, message_id desc limit :limit"
        ),
        {
            "account": account,
            "subjects": subjects,
            "time": before[0] if before else None,
            "id": before[1] if before else None,
            "limit": limit,
        },
    )
    return list(rows.all())


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
            "select decision_id, subject, user_id, journey, journey_version, step, channel, purpose,"
            " outcome, reason, values, message_id, revision, event_source, event_id, event_time, decided_at"
            f" from decision where {where}"
            " order by decided_at desc, revision desc, decision_id desc limit :limit"
        ),
        {**given, "account": account, "limit": limit},
    )
    return list(rows.all())
