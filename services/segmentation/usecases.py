"""segmentation's business actions; shared by whatever brings events."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from prometheus_client import Counter

from libs.common import outbox
from libs.common.config import Account
from libs.common.days import DAY, local_day
from libs.common.db import AsyncSession, after_commit
from libs.common.events import AnyEvent, new_event
from services.segmentation import domain, store
from services.segmentation.store import ActiveDay, MembershipChange, StateRow, UserKey, corrections, due

SERVICE = "segmentation"

CORRECTED_AT_ONCE = 1000

MOVES = Counter(
    "superfan_segment_moves_total",
    "Moves of users that were committed, direction `entered` or `left`",
    ["service", "segment", "direction", "reason"],
)


@dataclass(frozen=True, slots=True)
class Move:
    """A user's change of segment, a subject of his, the trace of the event that brought it up, if one did, and whether
    it came of imported history only."""

    change: MembershipChange
    subject: str
    traceparent: str | None = None
    backfill: bool = False


async def record_activity(
    session: AsyncSession, events: list[AnyEvent], now: datetime, account_of: Callable[[str], Account]
) -> None:
    """Add the active days in `events` to the facts; move the users who have a new one to where they belong now.

    Transactions of one user in several topics meet at his locked state row. The days are read after the lock, so
    whichever of them comes last sees the days of all.
    """
    causes: dict[ActiveDay, AnyEvent] = {}
    for event in filter(domain.is_activity, events):
        assert event.subject is not None
        key = (event.account, event.subject, local_day(event.time, account_of(event.account).zone))
        if key not in causes or (causes[key].backfill and not event.backfill):
            causes[key] = event
    new = await store.add_days(session, causes)
    if new:
        await _place_users(session, {key: causes[key] for key in new}, now, account_of)


async def move_due(session: AsyncSession, account: Account, today: date, now: datetime, limit: int = 5000) -> int:
    """Move up to `limit` users of `account` whose state changes by the passing of time alone, to where they belong
    on `today`; returns how many were looked at, 0 when none is left that no other transaction holds.

    Whoever changed several times while nobody looked moves once. A user with an event at the same time is either left
    to the transaction that holds his row, or that one waits and goes on from here.
    """
    users = await due.lock_due(session, account.name, today, limit)
    if not users:
        return 0
    first = min(users.values())
    days = [first + n * DAY for n in range((today - first).days + 1)]
    midnights = {day: domain.midnight(day, account.zone) for day in days}
    moves = await due.move_due(
        session, account.name, users, today, now, midnights, domain.DEFAULT, source=f"/{SERVICE}"
    )
    after_commit(session, lambda: _count_due(moves))
    return len(users)


def _count_due(moves: Iterable[tuple[domain.State, domain.State, int]]) -> None:
    for state_from, state_to, count in moves:
        for direction, segment in _steps(domain.segment_key(state_from), domain.segment_key(state_to)):
            MOVES.labels(SERVICE, segment, direction, "time_passed").inc(count)


async def _place_users(
    session: AsyncSession, new: Mapping[ActiveDay, AnyEvent], now: datetime, account_of: Callable[[str], Account]
) -> None:
    user_of = await store.find_users(session, {(account, subject) for account, subject, _ in new})
    causes: dict[UserKey, dict[date, AnyEvent]] = defaultdict(dict)
    for (account, subject, day), event in new.items():
        causes[account, user_of[account, subject]][day] = event
    rows = await store.lock_states(session, causes)
    days = await store.read_days(session, causes)

    updated, moves = [], []
    for row in rows:
        key = (row.account, row.user_id)
        after, move = _decide(row, days[key], causes[key], now, account_of(row.account))
        updated.append(after)
        if move:
            moves.append(move)
    await store.update_states(session, updated)
    await store.add_changes(session, [move.change for move in moves])
    await _tell(session, moves)


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
    without = domain.lifecycle((day for day in days if day not in causes), today)
    change = _change(row, after, "time_passed" if without.state == after.state else "event")
    cause = causes[max(causes)]
    assert change is not None
    assert cause.subject is not None
    return after, Move(change, cause.subject, cause.traceparent, all(event.backfill for event in causes.values()))


def _placed(row: StateRow, days: list[date], now: datetime, account: Account) -> StateRow:
    """The row of a user with these active days as it must be at `now`."""
    # A transaction may have waited for another one that began after it, across a midnight: time never runs back.
    now = max(now, row.updated_at or now)
    today = local_day(now, account.zone)
    activity = domain.sum_up(days)
    placement = domain.lifecycle(days, today)
    # An event may be dated tomorrow where clocks differ: then there is something to look at on that day.
    ahead = min((day for day in days if day > today), default=None)
    flips_on = min((day for day in (placement.flips_on, ahead) if day), default=None)
    since = domain.midnight(placement.since_day, account.zone) if placement.since_day else None
    left, entered = domain.segment_key(row.state), domain.segment_key(placement.state)
    # Each of the two notices has a revision of its own.
    revision = row.revision if left == entered else row.revision + sum(key is not None for key in (left, entered))
    return StateRow(
        account=row.account,
        user_id=row.user_id,
        first_day=activity.first if activity else None,
        last_day=activity.last if activity else None,
        returned_day=activity.returned if activity else None,
        state=placement.state,
        since=since,
        flips_on=flips_on,
        revision=revision,
        updated_at=now,
    )


def _change(row: StateRow, after: StateRow, reason: str) -> MembershipChange | None:
    """The move from `row` to `after`, if there is one."""
    left, entered = domain.segment_key(row.state), domain.segment_key(after.state)
    if left == entered:
        return None
    assert after.updated_at is not None
    return MembershipChange(
        account=row.account,
        user_id=row.user_id,
        layering=domain.LAYERING,
        revision=after.revision,
        segment_from=left,
        segment_to=entered,
        reason=reason,
        initial=row.revision == 0,
        since=after.since,
        decided_at=after.updated_at,
    )


def _steps(left: str | None, entered: str | None) -> list[tuple[str, str]]:
    return [(direction, key) for direction, key in (("left", left), ("entered", entered)) if key]


async def _tell(session: AsyncSession, moves: Sequence[Move]) -> None:
    await outbox.add(session, [notice for move in moves for notice in _notices(move)])
    after_commit(session, lambda: _count(moves))


def _count(moves: Iterable[Move]) -> None:
    for change in (move.change for move in moves):
        for direction, segment in _steps(change.segment_from, change.segment_to):
            MOVES.labels(SERVICE, segment, direction, change.reason).inc()


def _notices(move: Move) -> Iterator[AnyEvent]:
    change = move.change
    entity = f"{change.user_id}/{change.layering}"
    steps = _steps(change.segment_from, change.segment_to)
    for revision, (direction, segment) in enumerate(steps, change.revision - len(steps) + 1):
        notice = new_event(
            f"segment.{direction}",
            account=change.account,
            source=f"/{SERVICE}",
            id=f"{entity}/{revision}",
            subject=move.subject,
            time=change.decided_at,
            received=change.decided_at,
            data={
                "segment": segment,
                "entity": entity,
                "revision": revision,
                "since": change.since or change.decided_at,
                "reason": change.reason,
                "initial": change.initial,
                "user_id": change.user_id,
            },
            traceparent=move.traceparent,
        )
        notice.backfill = move.backfill
        yield notice


async def fold_activity(session: AsyncSession, events: list[AnyEvent], account_of: Callable[[str], Account]) -> None:
    """The active days in `events` alone, as a rebuild needs them: nobody is moved."""
    days = {
        (event.account, event.subject, local_day(event.time, account_of(event.account).zone))
        for event in filter(domain.is_activity, events)
        if event.subject is not None
    }
    await store.add_days(session, days)


async def correct_states(session: AsyncSession, now: datetime, account_of: Callable[[str], Account]) -> int:
    """After a rebuild of the active days: put right what is kept of each user, and tell where the state announced did
    not follow from his days even when it was announced. Returns how many moved.

    Where only time has passed since, the sweep moves him.
    """
    wrong = await corrections.find_wrong(session, domain.DEFAULT)
    moved = 0
    for start in range(0, len(wrong), CORRECTED_AT_ONCE):
        subjects = dict(wrong[start : start + CORRECTED_AT_ONCE])
        rows = await store.lock_states(session, subjects)
        days = await store.read_days(session, subjects)
        updated, moves = [], []
        for row in rows:
            key = (row.account, row.user_id)
            after, change = _correct(row, days.get(key, []), now, account_of(row.account))
            updated.append(after)
            if change:
                moves.append(Move(change, subjects[key]))
        await store.update_states(session, updated)
        await store.add_changes(session, [move.change for move in moves])
        await _tell(session, moves)
        moved += len(moves)
    return moved


def _correct(
    row: StateRow, days: list[date], now: datetime, account: Account
) -> tuple[StateRow, MembershipChange | None]:
    then = row.updated_at or now
    was_right = domain.lifecycle(days, local_day(then, account.zone)).state == row.state
    after = _placed(row, days, then if was_right else now, account)
    return after, _change(row, after, "rule_changed")
