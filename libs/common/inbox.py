"""Each event counts once: the `event` table is inbox and history in one.

Written by the consumer's transaction and by HTTP writes that are events themselves (a sign-in): both ways count once.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import identity
from libs.common.events import AnyEvent

Keep = Callable[[str], bool]
"""type -> whether this service reads the event's `data` again later; otherwise it is not stored."""

INSERT = text(
    "insert into event (digest, fingerprint, account, source, id, type, subject, platform, time, timemark, received,"
    " trust, backfill, data)"
    " select digest, fingerprint, account, source, id, type, subject, platform, time, timemark, received, trust,"
    " backfill, cast(data as jsonb)"
    " from unnest(cast(:digest as bytea[]), cast(:fingerprint as bigint[]), cast(:account as text[]),"
    " cast(:source as text[]), cast(:id as text[]), cast(:type as text[]), cast(:subject as text[]),"
    " cast(:platform as text[]), cast(:time as timestamptz[]), cast(:timemark as text[]),"
    " cast(:received as timestamptz[]), cast(:trust as text[]), cast(:backfill as boolean[]), cast(:data as text[]))"
    " as n(digest, fingerprint, account, source, id, type, subject, platform, time, timemark, received, trust,"
    " backfill, data)"
    " on conflict do nothing returning digest"
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a batch brought: `new` events in their order; `repeated` identical copies; `conflicting` other contents
    under an identity that is already taken (the first one counts)."""

    new: list[AnyEvent]
    repeated: int
    conflicting: int


async def insert_new(session: AsyncSession, events: Sequence[AnyEvent], keep: Keep) -> Arrived:
    """Record `events` and tell which of them are new. Four statements for one account; the lock on its groups comes
    first, then rows in digest order."""
    if not events:
        return Arrived([], 0, 0)
    await identity.lock_for(session, events)
    first: dict[bytes, AnyEvent] = {}
    for event in events:
        first.setdefault(event.digest, event)
    rows = sorted(first.items(), key=lambda row: row[0])
    inserted = await session.execute(
        INSERT,
        {
            "digest": [digest for digest, _ in rows],
            "fingerprint": [event.fingerprint for _, event in rows],
            "account": [event.account for _, event in rows],
            "source": [event.source for _, event in rows],
            "id": [event.id for _, event in rows],
            "type": [event.type for _, event in rows],
            "subject": [event.subject for _, event in rows],
            "platform": [event.platform for _, event in rows],
            "time": [event.time for _, event in rows],
            "timemark": [event.timemark for _, event in rows],
            "received": [event.receivedtime for _, event in rows],
            "trust": [event.trust for _, event in rows],
            "backfill": [event.backfill for _, event in rows],
            # Groups are restored from links, so those are always kept.
            "data": [
                event.data_json().decode() if keep(event.type) or event.type == identity.LINKED else None
                for _, event in rows
            ],
        },
    )
    fresh = set(inserted.scalars().all())
    new = [event for digest, event in first.items() if digest in fresh]
    conflicting = 0
    if len(new) < len(events):
        conflicting = await _count_conflicts(session, events, first, fresh)
    await identity.add_subjects(
        session, ((event.account, event.subject) for event in new if event.subject and not is_content(event.subject))
    )
    return Arrived(new, len(events) - len(new) - conflicting, conflicting)


def mark_again(session: AsyncSession, digests: Set[bytes]) -> None:
    """Say that the events of these digests were applied before the database went back to an older state."""
    session.info["again"] = digests


def applied_before(session: AsyncSession) -> Set[bytes]:
    """Digests of events that this service had applied before its database went back to an older state."""
    marked: Set[bytes] = session.info.get("again", frozenset())
    return marked


def is_content(subject: str) -> bool:
    """Whether a subject names a piece of content, not a person."""
    return subject.startswith("content:")


async def _count_conflicts(
    session: AsyncSession, events: Sequence[AnyEvent], first: dict[bytes, AnyEvent], fresh: set[bytes]
) -> int:
    known = {digest: event.fingerprint for digest, event in first.items() if digest in fresh}
    old = [digest for digest in first if digest not in fresh]
    if old:
        rows = await session.execute(
            text("select digest, fingerprint from event where digest = any(cast(:digests as bytea[]))"),
            {"digests": old},
        )
        known.update((bytes(row.digest), row.fingerprint) for row in rows)
    return sum(1 for event in events if event.fingerprint != known.get(event.digest, event.fingerprint))
