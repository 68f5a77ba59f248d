"""Identifiers, what was decided about them, and the groups of subjects that came of it.

Everything but `add_identifiers` needs the exclusive lock on the groups of the accounts (`libs.common.identity`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.profile.domain.links import Decision, Group, Groups, Identifier, Known, Outcome, Shown, SubjectKey

SUBJECTS = "unnest(cast(:accounts as text[]), cast(:subjects as text[])) as n(account, subject)"


async def add_identifiers(session: AsyncSession, shown: Iterable[Shown]) -> None:
    """Widen the times at which subjects showed identifiers; one statement, commutative."""
    facts: dict[tuple[Identifier, str], list[Any]] = {}
    for one in shown:
        fact = facts.setdefault((one.identifier, one.subject), [one.time, one.time, one.trust])
        fact[:2] = min(fact[0], one.time), max(fact[1], one.time)
        if one.trust == "platform":
            fact[2] = one.trust
    if not facts:
        return
    rows = sorted((*identifier, subject, *fact) for (identifier, subject), fact in facts.items())
    names = ("account", "kind", "space", "value", "subject", "first_time", "last_time", "trust")
    await session.execute(
        text(
            f"insert into identifier as i ({', '.join(names)})"
            " select * from unnest(cast(:account as text[]), cast(:kind as text[]), cast(:space as text[]),"
            " cast(:value as text[]), cast(:subject as text[]), cast(:first_time as timestamptz[]),"
            " cast(:last_time as timestamptz[]), cast(:trust as text[]))"
            " on conflict (account, kind, space, value, subject) do update set"
            " first_time = least(i.first_time, excluded.first_time),"
            " last_time = greatest(i.last_time, excluded.last_time),"
            " trust = case when 'platform' in (i.trust, excluded.trust) then 'platform' else 'server' end"
        ),
        {name: [row[number] for row in rows] for number, name in enumerate(names)},
    )


async def read_groups(
    session: AsyncSession, subjects: Collection[SubjectKey], identifiers: Collection[Identifier] = ()
) -> Groups:
    """The groups of `subjects`, and of those whom one of `identifiers` linked, with all that decides whether they may
    become one. A subject that is not known yet is a group of its own. Four statements."""
    decided = await _read_decided(session, identifiers)
    holders = {
        (identifier.account, subject)
        for identifier, outcomes in decided.items()
        for subject, outcome in outcomes.items()
        if outcome == "linked"
    }
    groups = await _read_members(session, {*subjects, *holders})
    keys = {(group.account, subject): group for group in groups for subject in group.subjects}
    wanted = _subjects(keys)
    held = await session.execute(
        text(
            "select distinct on (d.account, d.subject, d.kind, d.space, d.value)"
            " d.account, d.subject, d.kind, d.space, d.value, d.outcome"
            f" from link_decision d join {SUBJECTS} on d.account = n.account and d.subject = n.subject"
            " where d.kind is not null order by d.account, d.subject, d.kind, d.space, d.value, d.id desc"
        ),
        wanted,
    )
    for row in held:
        if row.outcome == "linked":
            keys[row.account, row.subject].held[row.kind, row.space].add(row.value)
    apart = await session.execute(
        text(
            "select s.account, s.subject, s.other from separation s"
            f" join {SUBJECTS} on s.account = n.account and s.subject = n.subject"
        ),
        wanted,
    )
    return Groups(groups, decided, [tuple(row) for row in apart])


async def _read_decided(
    session: AsyncSession, identifiers: Collection[Identifier]
) -> dict[Identifier, dict[str, Outcome]]:
    decided: dict[Identifier, dict[str, Outcome]] = defaultdict(dict)
    if not identifiers:
        return decided
    wanted = sorted(identifiers)
    rows = await session.execute(
        text(
            "select distinct on (d.account, d.kind, d.space, d.value, d.subject)"
            " d.account, d.kind, d.space, d.value, d.subject, d.outcome from link_decision d"
            " join unnest(cast(:accounts as text[]), cast(:kinds as text[]), cast(:spaces as text[]),"
            " cast(:values as text[])) as n(account, kind, space, value)"
            " on d.account = n.account and d.kind = n.kind and d.space = n.space and d.value = n.value"
            " order by d.account, d.kind, d.space, d.value, d.subject, d.id desc"
        ),
        {
            "accounts": [one.account for one in wanted],
            "kinds": [one.kind for one in wanted],
            "spaces": [one.space for one in wanted],
            "values": [one.value for one in wanted],
        },
    )
    for row in rows:
        decided[Identifier(row.account, row.kind, row.space, row.value)][row.subject] = row.outcome
    return decided


async def _read_members(session: AsyncSession, subjects: Collection[SubjectKey]) -> list[Group]:
    rows = await session.execute(
        text(
            "select a.account, a.user_id, a.subject, a.revision from alias a join ("
            f" select distinct b.account, b.user_id from alias b join {SUBJECTS}"
            " on b.account = n.account and b.subject = n.subject"
            ") u on u.account = a.account and u.user_id = a.user_id"
        ),
        _subjects(subjects),
    )
    groups: dict[tuple[str, str], Group] = {}
    known = set()
    for row in rows:
        group = groups.setdefault((row.account, row.user_id), Group(row.account, set()))
        group.subjects.add(row.subject)
        group.revision = max(group.revision, row.revision)
        known.add((row.account, row.subject))
    new = [Group(account, {subject}) for account, subject in sorted(set(subjects) - known)]
    return [*groups.values(), *new]


async def add_decisions(
    session: AsyncSession, account: str, decisions: Sequence[Decision], now: datetime, decided_by: str | None = None
) -> None:
    """Keep what was decided, in this order; one statement."""
    if not decisions:
        return
    await session.execute(
        text(
            "insert into link_decision (account, subject, kind, space, value, outcome, why, detail, source, event_id,"
            " decided_by, decided_at)"
            " select :account, subject, kind, space, value, outcome, why, cast(given as jsonb), source, event_id,"
            " :decided_by, :now"
            " from unnest(cast(:subjects as text[]), cast(:kinds as text[]), cast(:spaces as text[]),"
            " cast(:values as text[]), cast(:outcomes as text[]), cast(:whys as text[]), cast(:given as text[]),"
            " cast(:sources as text[]), cast(:event_ids as text[])) with ordinality"
            " as n(subject, kind, space, value, outcome, why, given, source, event_id, number) order by number"
        ),
        {
            "account": account,
            "now": now,
            "decided_by": decided_by,
            "subjects": [one.subject for one in decisions],
            "kinds": [one.identifier and one.identifier.kind for one in decisions],
            "spaces": [one.identifier and one.identifier.space for one in decisions],
            "values": [one.identifier and one.identifier.value for one in decisions],
            "outcomes": [one.outcome for one in decisions],
            "whys": [one.why for one in decisions],
            "given": [orjson.dumps(one.values).decode() for one in decisions],
            "sources": [one.cause and one.cause.source for one in decisions],
            "event_ids": [one.cause and one.cause.id for one in decisions],
        },
    )


async def add_separations(
    session: AsyncSession, account: str, pairs: Sequence[tuple[str, str]], now: datetime, reason: str
) -> None:
    """Keep `pairs` (both ways) apart until a link is made over REST."""
    await session.execute(
        text(
            "insert into separation (account, subject, other, since, reason)"
            " select :account, subject, other, :now, :reason"
            " from unnest(cast(:subjects as text[]), cast(:others as text[])) as n(subject, other)"
            " on conflict do nothing"
        ),
        {
            "account": account,
            "now": now,
            "reason": reason,
            "subjects": [pair[0] for pair in pairs],
            "others": [pair[1] for pair in pairs],
        },
    )


async def lift_separations(session: AsyncSession, account: str, subjects: Sequence[str]) -> None:
    """Forget that any two of `subjects` were taken apart."""
    await session.execute(
        text(
            "delete from separation where account = :account and subject = any(cast(:subjects as text[]))"
            " and other = any(cast(:subjects as text[]))"
        ),
        {"account": account, "subjects": subjects},
    )


async def read_common_identifiers(
    session: AsyncSession, account: str, taken: Sequence[str], rest: Sequence[str]
) -> list[tuple[Identifier, str]]:
    """(identifier, subject of `taken`) of every identifier that links one of `taken` with one of `rest`."""
    rows = await session.execute(
        text(
            "with newest as (select distinct on (subject, kind, space, value) subject, kind, space, value, outcome"
            " from link_decision where account = :account and kind is not null"
            " and subject = any(cast(:taken as text[]) || cast(:rest as text[]))"
            " order by subject, kind, space, value, id desc),"
            " linking as (select * from newest where outcome = 'linked')"
            " select l.kind, l.space, l.value, l.subject from linking l where l.subject = any(cast(:taken as text[]))"
            " and exists (select 1 from linking o where o.subject = any(cast(:rest as text[]))"
            " and (o.kind, o.space, o.value) = (l.kind, l.space, l.value)) order by 1, 2, 3, 4"
        ),
        {"account": account, "taken": taken, "rest": rest},
    )
    return [(Identifier(account, row.kind, row.space, row.value), row.subject) for row in rows]


async def read_identifiers(session: AsyncSession, account: str, subjects: Sequence[str]) -> list[Known]:
    """The identifiers that `subjects` showed."""
    rows = await session.execute(
        text(
            "select kind, space, value, subject, first_time, last_time, trust from identifier"
            " where account = :account and subject = any(cast(:subjects as text[]))"
            ' order by kind, space, value collate "C", subject collate "C"'
        ),
        {"account": account, "subjects": subjects},
    )
    return [Known(*row) for row in rows]


async def read_linked(session: AsyncSession, account: str, subjects: Sequence[str]) -> set[tuple[str, str, str, str]]:
    """(subject, kind, space, value) of the identifiers that link `subjects`."""
    rows = await session.execute(
        text(
            "select distinct on (subject, kind, space, value) subject, kind, space, value, outcome from link_decision"
            " where account = :account and subject = any(cast(:subjects as text[])) and kind is not null"
            " order by subject, kind, space, value, id desc"
        ),
        {"account": account, "subjects": subjects},
    )
    return {(row.subject, row.kind, row.space, row.value) for row in rows if row.outcome == "linked"}


async def read_decisions(session: AsyncSession, account: str, subjects: Sequence[str], limit: int) -> list[Any]:
    """The newest decisions about `subjects`, newest first."""
    rows = await session.execute(
        text(
            "select subject, kind, space, value, outcome, why, detail, source, event_id, decided_by, decided_at"
            " from link_decision where account = :account and subject = any(cast(:subjects as text[]))"
            " order by id desc limit :limit"
        ),
        {"account": account, "subjects": subjects, "limit": limit},
    )
    return list(rows.all())


async def read_separations(session: AsyncSession, account: str, subjects: Sequence[str]) -> list[Any]:
    """From whom `subjects` are kept apart, since when and why."""
    rows = await session.execute(
        text(
            "select subject, other, since, reason from separation"
            " where account = :account and subject = any(cast(:subjects as text[]))"
            ' order by subject collate "C", other collate "C"'
        ),
        {"account": account, "subjects": subjects},
    )
    return list(rows.all())


async def read_revision(session: AsyncSession, account: str, user_id: str) -> int:
    """The highest revision with which any subject of the user was told; 0 when he was never linked."""
    revision = await session.scalar(
        text("select max(revision) from alias where account = :account and user_id = :user_id"),
        {"account": account, "user_id": user_id},
    )
    return int(revision or 0)


def _subjects(keys: Iterable[SubjectKey]) -> dict[str, list[str]]:
    pairs = sorted(keys)
    return {"accounts": [account for account, _ in pairs], "subjects": [subject for _, subject in pairs]}
