"""Linking subjects that are one person, by evidence or by word, and taking them apart again.

All of it runs under the exclusive lock on the account's groups. The event table is written before `alias`, as
everywhere, so that a rebuild can wait for what has begun.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter

from libs.common import inbox, outbox
from libs.common.config import Account
from libs.common.db import AsyncSession, after_commit
from libs.common.events import AnyEvent, new_event
from libs.common.identity import User, fold_links, lock_groups, resolve, user_id_of
from libs.common.revisions import next_revision
from services.profile.domain import links
from services.profile.domain.links import Conflict, Decision, Group
from services.profile.store import links as store

SERVICE = "profile"
SOURCE = f"/{SERVICE}"

DECISIONS = Counter(
    "superfan_link_decisions_total",
    "Committed decisions about identifiers and links: linked, dropped or unlinked, and why",
    ["service", "outcome", "why"],
)


class ConflictError(Exception):
    """The subjects cannot be one person; `conflict` says which limit is in the way."""

    def __init__(self, conflict: Conflict) -> None:
        super().__init__(conflict.why)
        self.conflict = conflict


class NotOfUserError(Exception):
    """Not a part of the user's subjects: some are not his, or none would be left."""


@dataclass(frozen=True, slots=True)
class LinkedUser:
    """A user as he stands now; `revision` 0 when he was never linked."""

    user_id: str
    subjects: list[str]
    revision: int


async def link_by_evidence(
    session: AsyncSession, events: list[AnyEvent], now: datetime, account_of: Callable[[str], Account]
) -> None:
    """Keep the identifiers that `events` show, and link those who share one. Its statements do not grow with events."""
    shown = [one for event in events for one in links.shown_by(event, account_of(event.account).id_space)]
    if not shown:
        return
    await store.add_identifiers(session, (one for one in shown if not links.is_blocked(one.identifier.value)))
    evidence = links.by_time(one for one in shown if links.KINDS[one.identifier.kind].links)
    if not evidence:
        return
    groups = await store.read_groups(session, {one.key for one in evidence}, {one.identifier for one in evidence})
    decisions: dict[str, list[Decision]] = defaultdict(list)
    for one in evidence:
        decision = groups.show(one)
        if decision:
            decisions[one.identifier.account].append(decision)
    for account, made in sorted(decisions.items()):
        await store.add_decisions(session, account, made, now)
    await _tell(session, groups.changed(), now)
    after_commit(session, lambda: _count([decision for made in decisions.values() for decision in made]))


async def fold_identifiers(session: AsyncSession, events: list[AnyEvent], account_of: Callable[[str], Account]) -> None:
    """The facts alone, as a rebuild needs them."""
    shown = [one for event in events for one in links.shown_by(event, account_of(event.account).id_space)]
    await store.add_identifiers(session, (one for one in shown if not links.is_blocked(one.identifier.value)))


async def link(
    session: AsyncSession, account: str, subjects: Sequence[str], evidence: str, reason: str, key_id: str, now: datetime
) -> LinkedUser:
    """Make `subjects`, which may be new, one user, also those that were taken apart. Raises ConflictError."""
    await lock_groups(session, [account], exclusive=True)
    groups = await store.read_groups(session, {(account, subject) for subject in subjects})
    whole = groups.of[account, subjects[0]]
    for subject in subjects[1:]:
        other = groups.of[account, subject]
        if other is not whole:
            conflict = groups.conflict(whole, other, explicit=True)
            if conflict:
                raise ConflictError(conflict)
            groups.merge(whole, other)
    if whole.changed:
        values = {"evidence": evidence, "reason": reason, "subjects": sorted(whole.subjects)}
        decisions = [Decision(subject, None, "linked", "explicit", values) for subject in subjects]
        # Locks are taken as everywhere: the event table first.
        await _tell(session, [whole], now)
        await store.add_decisions(session, account, decisions, now, key_id)
        await store.lift_separations(session, account, sorted(whole.subjects))
        after_commit(session, lambda: _count(decisions))
    return await _read(session, account, subjects[0])


async def unlink(
    session: AsyncSession, account: str, ref: str, subjects: Sequence[str], reason: str, key_id: str, now: datetime
) -> list[LinkedUser]:
    """Take `subjects` out of the user: they stay together as a user of their own, and no evidence links the two again.

    Returns the user that is left and the one taken out. Raises UnknownUserError, NotOfUserError.
    """
    await lock_groups(session, [account], exclusive=True)
    user = await resolve(session, account, ref)
    taken = sorted(set(subjects))
    rest = [subject for subject in user.subjects if subject not in taken]
    if not rest or not set(taken) <= set(user.subjects):
        raise NotOfUserError
    revision = await store.read_revision(session, account, user.user_id)
    parts = [Group(account, set(part), revision, changed=True) for part in (rest, taken)]
    await _tell(session, parts, now)
    values = {"reason": reason, "left": rest}
    common = await store.read_common_identifiers(session, account, taken, rest)
    decisions = [Decision(subject, identifier, "unlinked", "explicit", values) for identifier, subject in common]
    decisions += [Decision(subject, None, "unlinked", "explicit", values) for subject in taken]
    await store.add_decisions(session, account, decisions, now, key_id)
    await store.add_separations(session, account, links.parting(user.subjects, taken), now, reason)
    after_commit(session, lambda: _count(decisions))
    return [await _read(session, account, part[0]) for part in (rest, taken)]


async def _tell(session: AsyncSession, groups: Sequence[Group], now: datetime) -> None:
    """Record and publish each whole group with a revision above all before, and regroup its subjects."""
    told = [_event(group, now) for group in groups]
    if told:
        await inbox.insert_new(session, told, lambda _type: True)
        await fold_links(session, told)
        await outbox.add(session, told)


def _event(group: Group, now: datetime) -> AnyEvent:
    user_id, subject = min((user_id_of(group.account, subject), subject) for subject in group.subjects)
    revision = next_revision(group.revision, now)
    cause = group.changed_by
    event = new_event(
        "profile.linked",
        account=group.account,
        source=SOURCE,
        id=f"{user_id}/{revision}",
        subject=subject,
        time=now,
        received=now,
        data={
            "entity": user_id,
            "revision": revision,
            "since": cause.time if cause else now,
            "user_id": user_id,
            "subjects": sorted(group.subjects),
        },
        traceparent=cause.traceparent if cause else None,
    )
    event.backfill = cause is not None and cause.backfill
    return event


async def _read(session: AsyncSession, account: str, ref: str) -> LinkedUser:
    user: User = await resolve(session, account, ref)
    return LinkedUser(user.user_id, list(user.subjects), await store.read_revision(session, account, user.user_id))


def _count(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        DECISIONS.labels(SERVICE, decision.outcome, decision.why).inc()
