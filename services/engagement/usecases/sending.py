"""Messages of channels other than the inbox: what is noted before and after each call.

A message is noted as `sending` before its call is made. Whoever finds it so later knows that the call may have been
made: it goes out again, under the same id, only where the receiver takes an id once.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import orjson
from prometheus_client import Counter

from libs.common import outbox
from libs.common.config import Channel
from libs.common.db import AsyncSession, after_commit
from libs.common.identity import lock_groups
from libs.common.leases import Backoff, Claimed, claim, settle
from services.engagement.domain.journeys import Journey
from services.engagement.domain.templates import TemplateError, render
from services.engagement.store import journeys, messages
from services.engagement.tables import message
from services.engagement.usecases.telling import SERVICE, message_notice

LEASE = timedelta(seconds=60)
"""Longer than any call may take."""
BACKOFF = Backoff(timedelta(seconds=5), timedelta(minutes=10))

MESSAGES = Counter(
    "superfan_messages_total",
    "Calls of channels that ended, by the state that the message took",
    ["service", "kind", "state"],
)

FinalState = Literal["sent", "unknown", "expired", "cancelled"]


class Answer(NamedTuple):
    """How a call ended. `failed`: it is certain that the message was not taken; `unknown`: nobody knows."""

    outcome: Literal["sent", "failed", "unknown"]
    detail: str | None = None


async def claim_held(session: AsyncSession, now: datetime, limit: int) -> list[Claimed]:
    """Take up to `limit` messages whose time to be asked about again has come."""
    return await claim(session, message, now, LEASE, limit, message.c.held)


async def claim_for(session: AsyncSession, channel: Channel, now: datetime, limit: int) -> list[Claimed]:
    """Take up to `limit` messages that are to be sent by `channel` now."""
    return await claim(
        session,
        message,
        now,
        LEASE,
        limit,
        ~message.c.held,
        message.c.account == channel.account,
        message.c.channel == channel.id,
    )


async def claim_stranded(session: AsyncSession, now: datetime, limit: int) -> list[Claimed]:
    """Take up to `limit` messages that have expired in a channel that is not declared any more, or never came to."""
    return await claim(session, message, now, LEASE, limit, ~message.c.held, message.c.expires_at <= now)


async def begin(session: AsyncSession, claimed: Claimed, channel: Channel | None, now: datetime) -> bytes | None:
    """The body of the call that is to be made, noted as `sending`; or None when none is to be made: the message has
    expired, nobody knows whether it was sent and the channel would send it twice, or somebody else holds it."""
    row = claimed.row
    maybe_sent = row.state in ("sending", "unknown")
    if now >= row.expires_at:
        await _end(session, claimed, "unknown" if maybe_sent else "expired", now)
        return None
    if channel is None or (maybe_sent and not channel.idempotent):
        await _end(session, claimed, "unknown" if maybe_sent else "expired", now)
        return None
    version = (row.account, row.journey, row.journey_version)
    journey = (await journeys.read_versions(session, {version}))[version]
    try:
        body = _body(claimed, channel, journey)
    except TemplateError as error:
        await _end(session, claimed, "cancelled", now, str(error))
        return None
    return body if await messages.begin_sending(session, claimed) else None


def _body(claimed: Claimed, channel: Channel, journey: Journey) -> bytes:
    row = claimed.row
    return orjson.dumps(
        {
            "type": "message",
            "timestamp": row.created_at,
            "data": {
                "message_id": row.message_id,
                "account": row.account,
                "user_id": row.user_id,
                "subject": row.subject,
                "journey": row.journey,
                "journey_version": row.journey_version,
                "step": row.step,
                "channel": channel.id,
                "kind": row.kind,
                "purpose": row.purpose,
                "texts": {lang: render(text, row.variables)._asdict() for lang, text in journey.texts.items()},
                "expires_at": row.expires_at,
            },
        },
        option=orjson.OPT_UTC_Z,
    )


async def finish(
    session: AsyncSession, claimed: Claimed, channel: Channel, answer: Answer, now: datetime, jitter: float
) -> None:
    """Note how the call ended. What failed is asked about again by all gates after a pause; `jitter` from 0 to 1."""
    if answer.outcome == "sent":
        await _end(session, claimed, "sent", now)
    elif answer.outcome == "unknown" and not channel.idempotent:
        await _end(session, claimed, "unknown", now, answer.detail)
    else:
        again = min(now + BACKOFF.after(claimed.attempts, jitter), claimed.row.expires_at)
        if await settle(session, message, [(claimed, again)]):
            failed = answer.outcome == "failed"
            values = {
                "state": answer.outcome,
                "held": failed,
                "let_through_at": None if failed else claimed.row.let_through_at,
                "sent_at": None,
                "failure": answer.detail,
                "revision": claimed.row.revision,
            }
            await messages.end_sending(session, claimed, values)
            after_commit(session, MESSAGES.labels(SERVICE, claimed.row.kind, answer.outcome).inc)


async def _end(
    session: AsyncSession, claimed: Claimed, state: FinalState, now: datetime, failure: str | None = None
) -> None:
    row = claimed.row
    await lock_groups(session, [row.account])
    revision = await messages.next_revision(session, claimed)
    if not await settle(session, message, [(claimed, None)]):
        return
    reached = state in ("sent", "unknown")
    values: Mapping[str, Any] = {
        "state": state,
        "held": False,
        "let_through_at": row.let_through_at,
        "sent_at": now if state == "sent" else None,
        "failure": failure,
        "revision": revision,
    }
    await messages.end_sending(session, claimed, values)
    notice = message_notice(
        "sent" if reached else "skipped",
        account=row.account,
        id=f"{row.message_id}:{state}",
        subject=row.subject,
        user_id=row.user_id,
        message_id=row.message_id,
        journey=row.journey,
        journey_version=row.journey_version,
        step=row.step,
        channel=row.channel,
        revision=revision,
        reason=None if reached else "expired" if state == "expired" else "template",
        state=state,
        now=now,
        traceparent=row.traceparent,
    )
    await outbox.add(session, [notice])
    after_commit(session, MESSAGES.labels(SERVICE, row.kind, state).inc)
