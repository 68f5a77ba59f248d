"""What would be decided now, without any effect."""

from datetime import datetime

from libs.common.config import Account
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent, new_event
from libs.common.events.derived import SegmentEntered
from libs.common.events.inputs import Follow
from libs.common.identity import User
from services.engagement.domain.decisions import Decision, Starter, decide, start
from services.engagement.domain.journeys import Journey
from services.engagement.store import journeys, users
from services.engagement.store.policies import read_policies
from services.engagement.usecases.journeys import unknown_journey
from services.engagement.usecases.starting import kind_of


async def preview_decision(session: AsyncSession, account: Account, user: User, key: str, now: datetime) -> Decision:
    """The decision if the trigger of the journey came `now`. Raises Problem 404 for a journey that is not in effect."""
    in_effect = (await journeys.read_in_effect(session, [account.name]))[account.name]
    journey = next((journey for journey in in_effect if journey.key == key), None)
    if journey is None:
        raise unknown_journey(key)
    subject = user.subjects[0]
    policy = (await read_policies(session, [account.name]))[account.name].policy
    states = await users.read_users(
        session,
        [(account.name, subject)],
        [key],
        [key] if journey.once else [],
        now - policy.memory,
    )
    state = states[account.name, subject]
    event = _trigger(journey, account.name, user.user_id, subject, now)
    return decide(
        journey,
        state,
        subject,
        now,
        started=start(journey, event, now, state.earlier(key), None),
        event=event,
        policy=policy,
        zone=account.zone,
        kind=kind_of(account, journey.channel),
    )


def _trigger(journey: Journey, account: str, user_id: str, subject: str, now: datetime) -> Starter:
    data = (
        {
            "entity": f"{user_id}/preview",
            "revision": 1,
            "since": now,
            "user_id": user_id,
            "segment": journey.segment,
            "reason": "event",
            "initial": False,
        }
        if journey.segment
        else {}
    )
    event: AnyEvent = new_event(
        journey.trigger,
        account=account,
        source="/preview",
        id="preview",
        subject=subject,
        time=now,
        received=now,
        data=data,
    )
    assert isinstance(event, Follow | SegmentEntered)
    return event
