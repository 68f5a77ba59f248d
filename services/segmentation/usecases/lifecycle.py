"""The lifecycle 生命周期 as it is announced: moved by events, by the passing of time, by links, after a rebuild."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime

from libs.common import identity
from libs.common.config import Account
from libs.common.days import DAY, local_day
from libs.common.db import AsyncSession, after_commit
from libs.common.events import AnyEvent
from services.segmentation.domain.lifecycle import DEFAULT, State, lifecycle, sum_up
from services.segmentation.domain.segments import midnight, segment_key
from services.segmentation.store import UserKey, corrections, due
from services.segmentation.store.lifecycle import StateRow, lock_states, read_days, update_states
from services.segmentation.usecases import SERVICE
from services.segmentation.usecases.moves import MOVES, Cause, Move, find_change, revision_in, steps, tell

CORRECTED_AT_ONCE = 1000


async def place(
    session: AsyncSession,
    causes: Mapping[UserKey, Mapping[date, AnyEvent]],
    now: datetime,
    account_of: Callable[[str], Account],
) -> tuple[set[UserKey], list[Move]]:
    """Place users with these new active days where they belong; returns whose first active day is another now, and the
    moves that are to be told.

    Transactions of one user in several topics meet at his locked row. The days are read after the lock, so whichever
    of them comes last sees the days of all.
    """
    rows = await lock_states(session, causes)
    days = await read_days(session, causes)
    updated, moves, begun = [], [], set()
    for row in rows:
        key = (row.account, row.user_id)
        after, move = _decide(row, days[key], causes[key], now, account_of(row.account))
        updated.append(after)
        if move:
            moves.append(move)
        if after.first_day != row.first_day:
            begun.add(key)
    await update_states(session, updated)
    return begun, moves


async def place_merged(
    session: AsyncSession, users: Mapping[UserKey, Cause], now: datetime, account_of: Callable[[str], Account]
) -> list[Move]:
    """Place users whose subjects have changed where they belong; who is part of another user now, nowhere. Returns the
    moves that are to be told."""
    rows = await lock_states(session, users)
    days = await read_days(session, users)
    updated, moves = [], []
    for row in rows:
        key = (row.account, row.user_id)
        after = _placed(row, days.get(key, []), now, account_of(row.account))
        updated.append(after)
        if change := find_change("lifecycle", row, after, "merged"):
            moves.append(Move(change, users[key]))
    await update_states(session, updated)
    return moves


async def move_due(session: AsyncSession, account: Account, today: date, now: datetime, limit: int = 5000) -> int:
    """Move up to `limit` users of `account` whose state changes by the passing of time alone, to where they belong
    on `today`; returns how many were looked at, 0 when none is left that no other transaction holds.

    Whoever changed several times while nobody looked moves once. A user with an event at the same time is either left
    to the transaction that holds his row, or that one waits and goes on from here.
    """
    await identity.lock_groups(session, [account.name])
    users = await due.lock_due(session, account.name, today, limit)
    if not users:
        return 0
    first = min(users.values())
    days = [first + n * DAY for n in range((today - first).days + 1)]
    midnights = {day: midnight(day, account.zone) for day in days}
    moves = await due.move_due(session, account.name, users, today, now, midnights, DEFAULT, source=f"/{SERVICE}")
    after_commit(session, lambda: _count_due(moves))
    return len(users)


def _count_due(moves: Iterable[tuple[State, State, int]]) -> None:
    for state_from, state_to, count in moves:
        for direction, segment in steps(segment_key("lifecycle", state_from), segment_key("lifecycle", state_to)):
            MOVES.labels(SERVICE, segment, direction, "time_passed").inc(count)


async def correct(session: AsyncSession, now: datetime, account_of: Callable[[str], Account]) -> int:
    """After a rebuild of the active days: put right what is kept of each user, and tell where the state announced did
    not follow from his days even when it was announced. Returns how many moved.

    Where only time has passed since, the sweep moves him.
    """
    wrong = await corrections.find_wrong(session, DEFAULT)
    moved = 0
    for start in range(0, len(wrong), CORRECTED_AT_ONCE):
        subjects = dict(wrong[start : start + CORRECTED_AT_ONCE])
        rows = await lock_states(session, subjects)
        days = await read_days(session, subjects)
        updated, moves = [], []
        for row in rows:
            key = (row.account, row.user_id)
            after = _corrected(row, days.get(key, []), now, account_of(row.account))
            updated.append(after)
            if change := find_change("lifecycle", row, after, "rule_changed"):
                moves.append(Move(change, Cause(subjects[key])))
        await update_states(session, updated)
        await tell(session, moves)
        moved += len(moves)
    return moved


def _decide(
    row: StateRow, days: list[date], causes: Mapping[date, AnyEvent], now: datetime, account: Account
) -> tuple[StateRow, Move | None]:
    """The row as it must become, and the move if the state differs from the one announced."""
    after = _placed(row, days, now, account)
    if after.revision == row.revision:
        return after, None
    # Had he come to be here without these events, only nobody had looked?
    assert after.updated_at is not None
    today = local_day(after.updated_at, account.zone)
    without = lifecycle((day for day in days if day not in causes), today)
    change = find_change("lifecycle", row, after, "time_passed" if without.state == after.state else "event")
    cause = causes[max(causes)]
    assert change is not None
    assert cause.subject is not None
    return after, Move(
        change, Cause(cause.subject, cause.traceparent, all(event.backfill for event in causes.values()))
    )


def _placed(row: StateRow, days: Collection[date], now: datetime, account: Account) -> StateRow:
    """The row of a user with these active days as it must be at `now`."""
    # A transaction may have waited for another one that began after it, across a midnight: time never runs back.
    now = max(now, row.updated_at or now)
    today = local_day(now, account.zone)
    activity = sum_up(days)
    placement = lifecycle(days, today)
    # An event may be dated tomorrow where clocks differ: then there is something to look at on that day.
    ahead = min((day for day in days if day > today), default=None)
    return StateRow(
        account=row.account,
        user_id=row.user_id,
        first_day=activity.first if activity else None,
        last_day=activity.last if activity else None,
        returned_day=activity.returned if activity else None,
        state=placement.state,
        since=midnight(placement.since_day, account.zone) if placement.since_day else None,
        flips_on=min((day for day in (placement.flips_on, ahead) if day), default=None),
        revision=revision_in("lifecycle", row, placement.state, now),
        updated_at=now,
    )


def _corrected(row: StateRow, days: list[date], now: datetime, account: Account) -> StateRow:
    then = row.updated_at or now
    was_right = lifecycle(days, local_day(then, account.zone)).state == row.state
    return _placed(row, days, then if was_right else now, account)
