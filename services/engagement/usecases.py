"""engagement's business actions."""

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import Counter

from libs.common import outbox
from libs.common.db import AsyncSession, after_commit
from libs.common.events import AnyEvent, new_event
from services.engagement import domain, store
from services.engagement.domain import WELCOME, Decision

SERVICE = "engagement"
SOURCE = f"/{SERVICE}"

DECISIONS = Counter(
    "superfan_decisions_total",
    "Decisions about messages that were committed; `reason` is empty for those sent",
    ["service", "journey", "outcome", "reason"],
)


async def handle_follows(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
    """Note who follows, and decide about the welcome of every follow among new `events`.

    Seven statements at most, whatever the number of events.
    """
    newest = await store.add_follows(session, domain.fold_follows(events))
    follows = [event for event in events if event.type == WELCOME.trigger]
    if not follows:
        return
    users = await store.lock_users(
        session, ((event.account, event.subject) for event in follows if event.subject), WELCOME.key
    )
    decisions = domain.decide_welcomes(follows, now, newest, users)
    await store.add_messages(session, WELCOME, [row for row in decisions if row.outcome == "sent"], now)
    await store.add_decisions(session, WELCOME, decisions, now)
    await outbox.add(session, [_notice(decision, now) for decision in decisions])
    after_commit(session, lambda: _count(decisions))


def _notice(decision: Decision, now: datetime) -> AnyEvent:
    return new_event(
        f"message.{decision.outcome}",
        account=decision.follow.account,
        source=SOURCE,
        id=decision.decision_id,
        subject=decision.subject,
        time=now,
        received=now,
        platform=decision.follow.platform,
        traceparent=decision.follow.traceparent,
        data={
            "entity": f"{decision.user_id}/{WELCOME.key}",
            "revision": decision.revision,
            "since": now,
            "user_id": decision.user_id,
            "message_id": decision.message_id,
            "journey": WELCOME.key,
            "step": WELCOME.step,
            "channel": WELCOME.channel,
            "reason": decision.verdict.reason,
        },
    )


def _count(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        DECISIONS.labels(SERVICE, WELCOME.key, decision.outcome, decision.verdict.reason or "").inc()
