"""Moves between segments: remembered, and told to the others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from prometheus_client import Counter

from libs.common import outbox
from libs.common.db import AsyncSession, after_commit
from libs.common.events import AnyEvent, new_event
from libs.common.revisions import next_revision
from services.segmentation.domain.segments import Layering, segment_key
from services.segmentation.store.moves import MembershipChange, add_changes
from services.segmentation.usecases import SERVICE

MOVES = Counter(
    "superfan_segment_moves_total",
    "Moves of users that were committed, direction `entered` or `left`",
    ["service", "segment", "direction", "reason"],
)


class Announced(Protocol):
    """A row of `lifecycle_state` or `ladder_state`."""

    @property
    def account(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def since(self) -> datetime | None: ...
    @property
    def revision(self) -> int: ...
    @property
    def updated_at(self) -> datetime | None: ...


class Cause(NamedTuple):
    """What brought a move up: a subject of the user, the trace of the event, and whether imported history alone did."""

    subject: str
    traceparent: str | None = None
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """A user's change of segment."""

    change: MembershipChange
    cause: Cause


def revision_in(layering: Layering, row: Announced, state: str, now: datetime) -> int:
    """The revision of a row that is announced in `state` at `now`: each of the notices of a move has one of its own."""
    left, entered = segment_key(layering, row.state), segment_key(layering, state)
    if left == entered:
        return row.revision
    return next_revision(row.revision, now) + (left is not None and entered is not None)


def find_change(layering: Layering, row: Announced, after: Announced, reason: str) -> MembershipChange | None:
    """The move from `row` to `after`, if there is one."""
    left, entered = segment_key(layering, row.state), segment_key(layering, after.state)
    if left == entered:
        return None
    assert after.updated_at is not None
    return MembershipChange(
        account=row.account,
        user_id=row.user_id,
        layering=layering,
        revision=after.revision,
        segment_from=left,
        segment_to=entered,
        reason=reason,
        initial=row.revision == 0,
        since=after.since,
        decided_at=after.updated_at,
    )


async def tell(session: AsyncSession, moves: Sequence[Move]) -> None:
    """Add the moves to the history, and their notices to the outbox."""
    await add_changes(session, [move.change for move in moves])
    await outbox.add(session, [notice for move in moves for notice in _notices(move)])
    after_commit(session, lambda: _count(moves))


def steps(left: str | None, entered: str | None) -> list[tuple[str, str]]:
    """(direction, segment) of a change, one for each notice."""
    return [(direction, key) for direction, key in (("left", left), ("entered", entered)) if key]


def _count(moves: Iterable[Move]) -> None:
    for change in (move.change for move in moves):
        for direction, segment in steps(change.segment_from, change.segment_to):
            MOVES.labels(SERVICE, segment, direction, change.reason).inc()


def _notices(move: Move) -> Iterator[AnyEvent]:
    change = move.change
    entity = f"{change.user_id}/{change.layering}"
    told = steps(change.segment_from, change.segment_to)
    for revision, (direction, segment) in enumerate(told, change.revision - len(told) + 1):
        notice = new_event(
            f"segment.{direction}",
            account=change.account,
            source=f"/{SERVICE}",
            id=f"{entity}/{revision}",
            subject=move.cause.subject,
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
            traceparent=move.cause.traceparent,
        )
        notice.backfill = move.cause.backfill
        yield notice
