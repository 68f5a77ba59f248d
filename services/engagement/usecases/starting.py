"""What events bring: facts, and journeys that start."""

from collections.abc import Callable
from datetime import datetime

from libs.common import outbox
from libs.common.config import Account
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.events.derived import SegmentEntered
from libs.common.events.inputs import Follow
from libs.common.identity import fold_links
from libs.common.inbox import applied_before
from services.engagement.domain.consents import fold_consents
from services.engagement.domain.decisions import Decision, Starter, decide_starts, starts
from services.engagement.domain.follows import fold_follows
from services.engagement.domain.journeys import IN_APP
from services.engagement.domain.segments import newest_notices
from services.engagement.domain.zones import newest_zones
from services.engagement.store import decisions as decisions_store
from services.engagement.store import facts, journeys, users
from services.engagement.store.policies import read_policies
from services.engagement.usecases.telling import count_when_committed, notices

AccountOf = Callable[[str], Account]


async def handle_events(session: AsyncSession, events: list[AnyEvent], now: datetime, account_of: AccountOf) -> None:
    """Note links, follows, consents, zones and segments, and decide about every journey that new `events` may start.

    The number of statements does not grow with the events.
    """
    await fold_links(session, events)
    newest = await facts.add_follows(session, fold_follows(events))
    await facts.add_consents(session, fold_consents(events))
    await facts.note_zones(session, newest_zones(events))
    news = await facts.note_segments(session, newest_notices(events))
    triggers: list[Starter] = [event for event in events if isinstance(event, Follow)]
    triggers += [event for event in news if isinstance(event, SegmentEntered)]
    if not triggers:
        return
    journeys_of = await journeys.read_in_effect(session, (event.account for event in triggers))
    pairs = [(event, journey) for event in triggers for journey in journeys_of[event.account] if starts(journey, event)]
    if not pairs:
        return
    triggers = list({event.digest: event for event, _ in pairs}.values())
    wanted = [journey for _, journey in pairs]
    subjects = [(event.account, event.subject) for event in triggers]
    await users.lock_users(session, subjects)
    policies = await read_policies(session, (event.account for event in triggers))
    states = await users.read_users(
        session,
        subjects,
        {journey.key for journey in wanted},
        {journey.key for journey in wanted if journey.once},
        now - max(found.policy.memory for found in policies.values()),
    )
    decisions = decide_starts(
        triggers,
        journeys_of,
        states,
        newest,
        {account: found.policy for account, found in policies.items()},
        now,
        zone_of=lambda account: account_of(account).zone,
        kind_of=lambda account, channel: kind_of(account_of(account), channel),
    )
    again = applied_before(session)
    doubtful = {
        decision.decision_id
        for decision in decisions
        if decision.event and decision.event.digest in again and not _may_repeat(account_of, decision)
    }
    await decisions_store.add_messages(session, decisions, now, doubtful)
    await decisions_store.add_decisions(session, decisions, now)
    told = [(decision, decision.event.traceparent if decision.event else None) for decision in decisions]
    await outbox.add(session, notices(told, now))
    count_when_committed(session, decisions)


def _may_repeat(account_of: AccountOf, decision: Decision) -> bool:
    """Whether a second sending of the same message reaches nobody twice."""
    channel = account_of(decision.account).channels.get(decision.journey.channel)
    return channel is None or channel.idempotent


def kind_of(account: Account, channel: str) -> str | None:
    """The kind of one of the account's channels; None when it is not declared."""
    if channel == IN_APP:
        return IN_APP
    declared = account.channels.get(channel)
    return declared.kind if declared else None
