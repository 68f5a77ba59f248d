"""What others are told of decisions and of what became of messages, and the counters of both."""

from collections import Counter as Count
from collections.abc import Iterable, Sequence
from datetime import datetime

from prometheus_client import Counter

from libs.common.db import AsyncSession, after_commit
from libs.common.events import AnyEvent, new_event
from services.engagement.domain.decisions import Decision
from services.engagement.domain.journeys import BUILT_IN, IN_APP

SERVICE = "engagement"
SOURCE = f"/{SERVICE}"

DECISIONS = Counter(
    "superfan_decisions_total",
    "Decisions about messages that were committed; `reason` is empty for those sent, `journey` is `custom` for those"
    " that are not built in",
    ["service", "journey", "outcome", "reason"],
)


def notices(decisions: Iterable[tuple[Decision, str | None]], now: datetime) -> list[AnyEvent]:
    """What is told of decisions, each within its trace: that an in-app message was sent, or that one was skipped. What
    is held is not told, and a message of another channel when its call has ended."""
    return [notice for decision, traceparent in decisions if (notice := _notice(decision, traceparent, now))]


def _notice(decision: Decision, traceparent: str | None, now: datetime) -> AnyEvent | None:
    journey, event = decision.journey, decision.event
    if decision.outcome == "held" or (decision.outcome == "sent" and journey.channel != IN_APP):
        return None
    state = "sent" if decision.outcome == "sent" else None
    if decision.outcome == "skipped" and decision.message_id is not None:
        state = ended_state(decision)
    return message_notice(
        decision.outcome,
        account=decision.account,
        id=decision.decision_id,
        subject=decision.subject,
        user_id=decision.user_id,
        message_id=decision.message_id,
        journey=journey.key,
        journey_version=journey.version,
        step=journey.step,
        channel=journey.channel,
        revision=decision.revision,
        reason=decision.reason,
        state=state,
        now=now,
        platform=event.platform if event else None,
        traceparent=traceparent,
    )


def ended_state(decision: Decision) -> str:
    """The state of a message that is not sent after all."""
    return "expired" if decision.reason == "expired" else "cancelled"


def message_notice(
    outcome: str,
    *,
    account: str,
    id: str,  # noqa: A002
    subject: str,
    user_id: str,
    message_id: str | None,
    journey: str,
    journey_version: int,
    step: str,
    channel: str,
    revision: int,
    reason: str | None,
    state: str | None,
    now: datetime,
    platform: str | None = None,
    traceparent: str | None = None,
) -> AnyEvent:
    """`message.sent` or `message.skipped`."""
    return new_event(
        f"message.{outcome}",
        account=account,
        source=SOURCE,
        id=id,
        subject=subject,
        time=now,
        received=now,
        platform=platform,
        traceparent=traceparent,
        data={
            "entity": f"{user_id}/{journey}",
            "revision": revision,
            "since": now,
            "user_id": user_id,
            "message_id": message_id,
            "journey": journey,
            "journey_version": journey_version,
            "step": step,
            "channel": channel,
            "reason": reason,
            "state": state,
        },
    )


def count_when_committed(session: AsyncSession, decisions: Sequence[Decision]) -> None:
    """Add to DECISIONS if and when the session commits."""
    counted = Count(
        (decision.journey.key if decision.journey.key in BUILT_IN else "custom", decision.outcome, decision.reason)
        for decision in decisions
    )

    def count() -> None:
        for (journey, outcome, reason), number in counted.items():
            DECISIONS.labels(SERVICE, journey, outcome, reason or "").inc(number)

    after_commit(session, count)
