"""What is decided about a trigger or a message that waited: send, hold or skip, with everything that was looked at."""

import hashlib
from base64 import b32encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Literal, NamedTuple

from libs.common.events.derived import SegmentEntered
from libs.common.events.inputs import Follow
from services.engagement.domain.follows import Key, Mark
from services.engagement.domain.gates import GATES, Gate, GateName, Intent, Policy, ask, deciding
from services.engagement.domain.journeys import Journey
from services.engagement.domain.users import Told, UserState

Outcome = Literal["sent", "held", "skipped"]
StartReason = Literal[
    "already_messaged",
    "paused",
    "backfilled",
    "first_placement",
    "rule_or_merge",
    "too_old",
    "not_following",
    "left_segment",
    "no_channel",
]
Reason = Literal[StartReason, GateName]
START_REASONS: Mapping[StartReason, str] = {
    "already_messaged": "the user has had this message, or one is on its way",
    "paused": "the journey is paused or has ended",
    "backfilled": "the event was imported as history",
    "first_placement": "the user was placed in the segment for the first time; nothing happened",
    "rule_or_merge": "a rule changed, or users were linked; nothing happened",
    "too_old": "what starts the journey is as old as the maximum age, or older",
    "not_following": "a newer unfollow of the same subject is known",
    "left_segment": "the user is no longer in the segment",
    "no_channel": "the journey's channel is not declared any more",
}
REASONS: Mapping[Reason, str] = {
    **{reason: words for reason, words in START_REASONS.items()},  # noqa: C416
    **{gate: words for gate, words in GATES.items()},  # noqa: C416
}
"""Why a message is not sent, in the order in which it is asked: first whether the journey starts, then the gates."""

STARTING_REASONS = ("event", "time_passed")
"""Reasons of a segment notice that start a journey."""

Starter = Follow | SegmentEntered
"""An event that may start a journey."""

Kinds = Callable[[str, str], str | None]
"""(account, channel) → the kind of the channel (in_app, sms, …); None when it is not declared."""


class Start(NamedTuple):
    """Whether a journey starts: `reason` is None if so; `values` holds what was looked at, up to what decided."""

    reason: StartReason | None
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one trigger, or to a message that waited: made once, never revised."""

    journey: Journey
    account: str
    subject: str
    user_id: str
    event: Starter | None
    turn: int
    revision: int
    decision_id: str
    outcome: Outcome
    reason: Reason | None
    until: datetime | None
    values: dict[str, Any]
    gates: Sequence[Gate]
    message_id: str | None
    expires_at: datetime
    kind: str | None


def since_of(event: Starter) -> datetime:
    """From when on what starts a journey is true."""
    return event.data.since if isinstance(event, SegmentEntered) else event.time


def starts(journey: Journey, event: Starter) -> bool:
    """Whether `event` is what the journey waits for."""
    if isinstance(event, SegmentEntered):
        return journey.trigger == event.type and journey.segment == event.data.segment
    return journey.trigger == event.type


def start(journey: Journey, event: Starter, now: datetime, earlier: str | None, newest: Mark | None) -> Start:
    """Start, or the first reason not to. `earlier`: a message of this journey to the user; `newest`: the newest mark of
    a follow's subject."""
    values: dict[str, Any] = {}
    if journey.once:
        values["earlier_message_id"] = earlier
        if earlier is not None:
            return Start("already_messaged", values)
    if journey.status != "live":
        return Start("paused", values | {"status": journey.status})
    values["backfill"] = event.backfill
    if event.backfill:
        return Start("backfilled", values)
    if isinstance(event, SegmentEntered):
        values |= {"initial": event.data.initial, "notice_reason": event.data.reason}
        if event.data.initial:
            return Start("first_placement", values)
        if event.data.reason not in STARTING_REASONS:
            return Start("rule_or_merge", values)
    age = now - since_of(event)
    values["age_seconds"] = age // timedelta(seconds=1)
    values["max_age_seconds"] = journey.max_age // timedelta(seconds=1)
    if age >= journey.max_age:
        return Start("too_old", values)
    if newest is not None:
        values["following"] = newest.following
        if not newest.following:
            values["unfollowed_at"] = newest.time.isoformat()
            return Start("not_following", values)
    return Start(None, values)


def decide_starts(
    events: Iterable[Starter],
    journeys_of: Mapping[str, Sequence[Journey]],
    users: Mapping[Key, UserState],
    newest: Mapping[Key, Mark],
    policies: Mapping[str, Policy],
    now: datetime,
    zone_of: Callable[[str], tzinfo],
    kind_of: Kinds,
) -> list[Decision]:
    """One decision per event and journey that it may start, in the order (time, source, id), then by journey.

    `newest` holds each follow's subject's newest mark, these events included. Subjects of one user share a UserState,
    which is brought up to date: of two messages in one batch the second sees the first.
    """
    decisions = []
    for event in sorted(events, key=lambda event: (event.time, event.source, event.id)):
        key = (event.account, event.subject)
        for journey in journeys_of[event.account]:
            if not starts(journey, event):
                continue
            user = users[key]
            mark = newest[key] if event.type == "follow" else None
            started = start(journey, event, now, user.earlier(journey.key), mark)
            decisions.append(
                decide(
                    journey,
                    user,
                    event.subject,
                    now,
                    started=started,
                    event=event,
                    policy=policies[event.account],
                    zone=zone_of(event.account),
                    kind=kind_of(event.account, journey.channel),
                )
            )
    return decisions


def decide(
    journey: Journey,
    user: UserState,
    subject: str,
    now: datetime,
    *,
    started: Start,
    event: Starter,
    policy: Policy,
    zone: tzinfo,
    kind: str | None,
) -> Decision:
    """The decision about a journey that would start now; `user` then knows of the message, if there is one."""
    run = decision_id(journey.key, event.digest)
    message = message_id(user.account, user.user_id, journey.key, journey.step, None if journey.once else run)
    expires_at = since_of(event) + journey.max_age
    outcome, reason, until, gates = _outcome(
        journey, user, message, started.reason, expires_at, policy, now, zone, kind
    )
    if outcome != "skipped":
        user.messages.append(
            Told(message, journey.key, journey.purpose, kind or "", now, now if outcome == "sent" else None, live=True)
        )
    return Decision(
        journey=journey,
        account=user.account,
        subject=subject,
        user_id=user.user_id,
        event=event,
        turn=1,
        revision=user.next_revision(journey.key),
        decision_id=run,
        outcome=outcome,
        reason=reason,
        until=until,
        values=started.values,
        gates=gates,
        message_id=None if outcome == "skipped" else message,
        expires_at=expires_at,
        kind=kind,
    )


def _outcome(
    journey: Journey,
    user: UserState,
    message: str,
    reason: StartReason | None,
    expires_at: datetime,
    policy: Policy,
    now: datetime,
    zone: tzinfo,
    kind: str | None,
) -> tuple[Outcome, Reason | None, datetime | None, Sequence[Gate]]:
    if reason is None and kind is None:
        reason = "no_channel"
    if reason is not None or kind is None:
        return "skipped", reason, None, ()
    intent = Intent(message, journey.purpose, kind, expires_at, journey.quiet)
    gates = ask(intent, user.contact(without=message), policy, now, zone)
    first = deciding(gates)
    if first is None:
        return "sent", None, None, gates
    return "held" if first.verdict == "hold" else "skipped", first.name, first.until, gates


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message whose time to be asked about again has come. `turns`: decisions made about it so far."""

    message_id: str
    run: str
    subject: str
    expires_at: datetime
    turns: int
    in_segment: bool


def decide_again(
    journey: Journey,
    status: str,
    waiting: Waiting,
    user: UserState,
    now: datetime,
    *,
    policy: Policy,
    zone: tzinfo,
    kind: str | None,
) -> Decision:
    """The decision about a message that waited, by the version it began with and the present `status` of its journey.
    `user` is brought up to date."""
    values: dict[str, Any] = {"waited_for": waiting.message_id}
    reason: StartReason | None = None
    if journey.once:
        others = [
            message
            for message in user.messages
            if message.journey == journey.key
            and message.message_id != waiting.message_id
            and message.live
            and message.at is not None
        ]
        values["earlier_message_id"] = others[0].message_id if others else None
        if others:
            reason = "already_messaged"
    if reason is None and status != "live":
        reason, values["status"] = "paused", status
    if reason is None and journey.segment:
        values["in_segment"] = waiting.in_segment
        if not waiting.in_segment:
            reason = "left_segment"
    outcome, why, until, gates = _outcome(
        journey, user, waiting.message_id, reason, waiting.expires_at, policy, now, zone, kind
    )
    user.messages = [
        message._replace(at=now if outcome == "sent" else None, live=outcome != "skipped")
        if message.message_id == waiting.message_id
        else message
        for message in user.messages
    ]
    return Decision(
        journey=journey,
        account=user.account,
        subject=waiting.subject,
        user_id=user.user_id,
        event=None,
        turn=waiting.turns + 1,
        revision=user.next_revision(journey.key),
        decision_id=f"{waiting.run}:{waiting.turns + 1}",
        outcome=outcome,
        reason=why,
        until=until,
        values=values,
        gates=gates,
        message_id=waiting.message_id,
        expires_at=waiting.expires_at,
        kind=kind,
    )


def message_id(account: str, user_id: str, journey: str, step: str, run: str | None = None) -> str:
    """The same for every attempt to send this message to this user: `msg_` and 32 characters. Without a `run` there is
    one of this journey and step for ever."""
    parts = (account, user_id, journey, step) if run is None else (account, user_id, journey, step, run)
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return "msg_" + b32encode(digest[:20]).decode().lower()


def decision_id(journey: str, event_digest: bytes) -> str:
    """The first decision about one journey and event, and the name of the run that it begins."""
    return f"{journey}:{event_digest.hex()}"
