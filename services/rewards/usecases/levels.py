"""Levels 等级: told when they change; always computed from the growth value of each day."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Literal
from uuid import UUID

from libs.common import identity, outbox
from libs.common.config import Account
from libs.common.days import local_day
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent, new_event
from libs.common.identity import GroupChange
from libs.common.revisions import next_revision
from services.rewards.domain import levels as domain
from services.rewards.domain.awards import Award, Holder, UserKey
from services.rewards.domain.levels import Kept, Tables
from services.rewards.store import definitions, holders, ledger
from services.rewards.store import levels as store
from services.rewards.store.ledger import NOTHING, Balance
from services.rewards.store.levels import LevelState
from services.rewards.usecases import SOURCE

AccountOf = Callable[[str], Account]
Reason = Literal["event", "time_passed", "rule_changed", "merged"]
UNKNOWN = Kept(0, None, None, 0, 0)


async def follow(
    session: AsyncSession,
    booked: Iterable[Award],
    locked: holders.Locked,
    balances: Mapping[tuple[str, UUID], Balance],
    now: datetime,
    account_of: AccountOf,
) -> list[AnyEvent]:
    """What the growth value of `booked` does to levels: notices of those that changed.

    Whoever has less than the first step in all has no level to look at; for most others what is kept tells that nothing
    changes. Only the rest is judged.
    """
    added: defaultdict[UserKey, defaultdict[date, int]] = defaultdict(lambda: defaultdict(int))
    causes: dict[UserKey, Award] = {}
    for award in booked:
        if award.growth:
            user = locked.user(award.deed.holder)
            added[user][local_day(award.deed.time, account_of(user[0]).zone)] += award.growth
            causes[user] = award
    if not added:
        return []
    tables = await definitions.read_tables(session, {account for account, _ in added})
    users = {
        user
        for user in added
        if sum(balances.get((user[0], locked.ref(holder)), NOTHING).growth for holder in locked.of_user[user])
        >= tables[user[0]].first_step
    }
    if not users:
        return []
    states = await store.read_states(session, users)
    unchanged = []
    for user in sorted(users & states.keys()):
        state = states[user]
        today = local_day(max(now, state.updated_at), account_of(user[0]).zone)
        kept = state.kept.with_growth(added[user], tables[user[0]], today)
        if kept:
            users.remove(user)
            if kept != state.kept:
                unchanged.append(replace(state, kept=kept))
    await store.write_states(session, unchanged)
    return await _judge(session, dict.fromkeys(users, "event"), states, tables, now, account_of, locked.of_user, causes)


async def judge_due(session: AsyncSession, account: Account, today: date, now: datetime, limit: int = 1000) -> int:
    """Judge up to `limit` users of `account` whose day has come; returns how many were looked at."""
    await identity.lock_groups(session, [account.name])
    due = await store.find_due(session, account.name, today, limit)
    if not due:
        return 0
    locked = await holders.lock(session, await holders.find_subjects(session, account.name, due))
    users = {(account.name, user_id) for user_id in due}
    await store.rest(
        session, account.name, [user_id for account_, user_id in users if not locked.of_user[account_, user_id]]
    )
    alive = {user for user in users if locked.of_user[user]}
    states = {
        user: state
        for user, state in (await store.read_states(session, alive)).items()
        if state.kept.flips_on and state.kept.flips_on <= today
    }
    tables = await definitions.read_tables(session, [account.name])
    newest = tables[account.name].newest
    changed = {user for user, state in states.items() if state.kept.table_version != newest}
    reasons: dict[UserKey, Reason] = {user: "rule_changed" if user in changed else "time_passed" for user in states}
    told = await _judge(session, reasons, states, tables, now, lambda _: account, locked.of_user, {})
    await outbox.add(session, told)
    return len(due)


async def regroup(session: AsyncSession, changes: list[GroupChange], now: datetime, account_of: AccountOf) -> None:
    """After links and unlinks: judge the users as they are now. Nothing is booked."""
    if not changes:
        return
    subjects = [(change.account, subject) for change in changes for subject in change.subjects_after]
    locked = await holders.lock(session, subjects)
    users = {(change.account, change.user_id) for change in changes}
    gone: defaultdict[str, set[str]] = defaultdict(set)
    for change in changes:
        gone[change.account] |= {
            user_id for user_id in change.former_user_ids if (change.account, user_id) not in users
        }
    for account, user_ids in sorted(gone.items()):
        await store.rest(session, account, user_ids)
    balances = await ledger.read_balances(
        session, [(user[0], locked.ref(holder)) for user in users for holder in locked.of_user[user]]
    )
    tables = await definitions.read_tables(session, {account for account, _ in users})
    states = await store.read_states(session, users)
    judged = {
        user
        for user in users
        if user in states
        or sum(balances.get((user[0], locked.ref(holder)), NOTHING).growth for holder in locked.of_user[user])
        >= tables[user[0]].first_step
    }
    told = await _judge(session, dict.fromkeys(judged, "merged"), states, tables, now, account_of, locked.of_user, {})
    await outbox.add(session, told)


async def _judge(
    session: AsyncSession,
    users: Mapping[UserKey, Reason],
    states: Mapping[UserKey, LevelState],
    tables: Mapping[str, Tables],
    now: datetime,
    account_of: AccountOf,
    subjects: Mapping[UserKey, list[Holder]],
    causes: Mapping[UserKey, Award],
) -> list[AnyEvent]:
    """Judge locked `users`, each for a reason, by all that is booked; keep what came of it, and return the notices."""
    if not users:
        return []
    zones = {user: account_of(user[0]).zone for user in sorted(users)}
    growth = await store.read_growth(session, {user: zone.key for user, zone in zones.items()})
    written, told = [], []
    for user, zone in zones.items():
        before = states.get(user) or LevelState(user, UNKNOWN, 0, now)
        # A transaction may have waited for another one that began after it, across a midnight: time never runs back.
        at = max(now, before.updated_at)
        standing = domain.judge(growth[user], tables[user[0]], local_day(at, zone))
        moved = standing.level != before.kept.level
        kept = Kept(standing.level, standing.reached_on, standing.flips_on, standing.peak, tables[user[0]].newest)
        after = LevelState(user, kept, next_revision(before.revision, at) if moved else before.revision, at)
        written.append(after)
        if moved:
            cause = causes.get(user)
            since = datetime.combine(standing.reached_on or local_day(at, zone), time(), zone).astimezone(UTC)
            if cause and local_day(cause.deed.time, zone) == standing.reached_on:
                since = cause.deed.time
            levels = tables[user[0]].on(local_day(at, zone)).table.levels
            notice = new_event(
                "level.changed",
                account=user[0],
                source=SOURCE,
                id=f"{user[1]}/level/{after.revision}",
                subject=cause.deed.holder[1] if cause else subjects[user][0][1],
                time=at,
                received=at,
                traceparent=cause.deed.event.traceparent if cause else None,
                data={
                    "entity": f"{user[1]}/level",
                    "revision": after.revision,
                    "since": since,
                    "user_id": user[1],
                    "rank": standing.level,
                    "rank_before": before.kept.level,
                    "level": levels[standing.level].key,
                    "name": levels[standing.level].name,
                    "growth": standing.growth,
                    "reason": users[user],
                },
            )
            notice.backfill = bool(cause and cause.deed.event.backfill)
            told.append(notice)
    await store.write_states(session, written)
    return told
