"""Messages that waited for a gate: asked again when their time has come."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from libs.common import outbox
from libs.common.db import AsyncSession
from libs.common.identity import lock_groups
from libs.common.leases import Claimed, settle
from services.engagement.domain.decisions import Decision, Waiting, decide_again
from services.engagement.domain.journeys import IN_APP, Journey
from services.engagement.domain.users import UserState
from services.engagement.store import decisions as decisions_store
from services.engagement.store import journeys, messages, users
from services.engagement.store.policies import read_policies
from services.engagement.tables import message
from services.engagement.usecases.starting import AccountOf, kind_of
from services.engagement.usecases.telling import count_when_committed, ended_state, notices


async def ask_again(session: AsyncSession, claimed: Sequence[Claimed], now: datetime, account_of: AccountOf) -> None:
    """Decide about messages that waited, by the versions that they began with; those that are no longer held by this
    process are left alone. The number of statements does not grow with the messages."""
    accounts = {claim.row.account for claim in claimed}
    await lock_groups(session, accounts)
    subjects = [(claim.row.account, claim.row.subject) for claim in claimed]
    await users.lock_users(session, subjects)
    versions = await journeys.read_versions(
        session, {(claim.row.account, claim.row.journey, claim.row.journey_version) for claim in claimed}
    )
    in_effect = await journeys.read_in_effect(session, accounts)
    policies = await read_policies(session, accounts)
    states = await users.read_users(
        session,
        subjects,
        {journey.key for journey in versions.values()},
        {journey.key for journey in versions.values() if journey.once},
        now - max(found.policy.memory for found in policies.values()),
    )
    segments = await messages.read_segments(
        session,
        {
            (claim.row.account, entity)
            for claim in claimed
            for entity in _entities(claim, states[claim.row.account, claim.row.subject])
        },
    )

    decided: list[tuple[Claimed, Decision]] = []
    for claim in claimed:
        row = claim.row
        user = states[row.account, row.subject]
        journey = versions[row.account, row.journey, row.journey_version]
        account = account_of(row.account)
        waiting = Waiting(
            message_id=row.message_id,
            run=row.run,
            subject=row.subject,
            expires_at=row.expires_at,
            turns=row.turns,
            in_segment=_in_segment(claim, user, journey, segments),
        )
        decision = decide_again(
            journey,
            _status(in_effect[row.account], row.journey),
            waiting,
            user,
            now,
            policy=policies[row.account].policy,
            zone=account.zone,
            kind=kind_of(account, row.channel),
        )
        decided.append((claim, decision))
    await _write(session, decided, now)


async def _write(session: AsyncSession, decided: Sequence[tuple[Claimed, Decision]], now: datetime) -> None:
    held = {
        claim.key
        for claim in await settle(session, message, [(claim, _due_at(decision, now)) for claim, decision in decided])
    }
    kept = [(claim, decision) for claim, decision in decided if claim.key in held]
    await messages.write_again(session, [(claim, _become(claim, decision, now)) for claim, decision in kept])
    told = [(claim, decision) for claim, decision in kept if _is_news(claim, decision)]
    await decisions_store.add_later_decisions(
        session, [(decision, bytes.fromhex(claim.row.run.rpartition(":")[2])) for claim, decision in told], now
    )
    await outbox.add(session, notices([(decision, claim.row.traceparent) for claim, decision in told], now))
    count_when_committed(session, [decision for _, decision in told])


def _is_news(claim: Claimed, decision: Decision) -> bool:
    """A message that failed and may be tried again was decided about before; all else is a decision."""
    return claim.row.state == "planned" or decision.outcome != "sent"


def _due_at(decision: Decision, now: datetime) -> datetime | None:
    if decision.outcome == "sent":
        return None if decision.journey.channel == IN_APP else now
    return decision.until


def _become(claim: Claimed, decision: Decision, now: datetime) -> dict[str, Any]:
    row = claim.row
    news = _is_news(claim, decision)
    values: dict[str, Any] = {
        "state": row.state,
        "held": decision.outcome == "held",
        "let_through_at": row.let_through_at,
        "sent_at": None,
        "turns": decision.turn if news else row.turns,
        "revision": decision.revision if news else row.revision,
    }
    if decision.outcome == "sent":
        values["let_through_at"] = row.let_through_at or now
        if decision.journey.channel == IN_APP:
            values |= {"state": "sent", "sent_at": now}
    elif decision.outcome == "skipped" and row.state != "unknown":
        values["state"] = ended_state(decision)
    return values


def _entities(claim: Claimed, user: UserState) -> list[str]:
    """What segmentation may call the user's place: by his present id, and by the one of the notice."""
    entity = claim.row.entity
    return [f"{user.user_id}/{entity.partition('/')[2]}", entity] if entity else []


def _in_segment(claim: Claimed, user: UserState, journey: Journey, segments: dict[tuple[str, str], str | None]) -> bool:
    known = [key for entity in _entities(claim, user) if (key := (claim.row.account, entity)) in segments]
    return bool(known) and segments[known[0]] == journey.segment


def _status(in_effect: Sequence[Journey], key: str) -> str:
    return next((journey.status for journey in in_effect if journey.key == key), "ended")
