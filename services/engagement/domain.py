"""Who is welcomed and why. Pure: events and what is known in, facts and decisions out."""

import hashlib
from base64 import b32encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from libs.common.events import AnyEvent

Key = tuple[str, str]
"""(account, subject)"""

Lang = Literal["zh", "en"]
JourneyKey = Literal["welcome"]
Outcome = Literal["sent", "skipped"]
Reason = Literal["already_welcomed", "backfilled", "too_old", "not_following"]
REASONS: Mapping[Reason, str] = {
    "already_welcomed": "the user has had this message",
    "backfilled": "the follow was imported as history",
    "too_old": "the follow is as old as the maximum age, or older",
    "not_following": "a newer unfollow of the same subject is known",
}
"""Why a welcome is not sent, in the order in which it is asked."""

FOLLOWING = {"follow": True, "unfollow": False}


class Text(NamedTuple):
    """What the fan reads. The texts of a version never change, so a message is rendered when it is read."""

    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Journey:
    """A message and what starts it. A change gets a new version; decisions keep the version they were made by."""

    key: JourneyKey
    version: int
    trigger: str
    max_age: timedelta
    purpose: str
    channel: str
    step: str
    texts: Mapping[Lang, Text]


WELCOME = Journey(
    key="welcome",
    version=1,
    trigger="follow",
    max_age=timedelta(hours=24),
    purpose="service",
    channel="in_app",
    step="hello",
    texts={
        "zh": Text("欢迎关注！", "感谢你的关注。每天来签到可以攒积分，新内容会第一时间告诉你。"),
        "en": Text(
            "Welcome!", "Thank you for following us. Sign in every day to collect points; news reaches you first."
        ),
    },
)
JOURNEYS: Mapping[str, Mapping[int, Journey]] = {"welcome": {1: WELCOME}}
"""Every version that a stored decision or message may name; the newest one is in use."""


class Mark(NamedTuple):
    """A follow or unfollow of a subject; the greatest one tells whether he follows now."""

    time: datetime
    source: str
    id: str
    following: bool


@dataclass(slots=True)
class Follower:
    """What a list of follows and unfollows says about one subject."""

    newest: Mark
    first_follow: datetime | None = None


def fold_follows(events: Iterable[AnyEvent]) -> dict[Key, Follower]:
    """The newest mark and first follow of each subject; the same for any order and repetition."""
    followers: dict[Key, Follower] = {}
    for event in events:
        following = FOLLOWING.get(event.type)
        if following is None:
            continue
        assert event.subject is not None
        mark = Mark(event.time, event.source, event.id, following)
        follower = followers.setdefault((event.account, event.subject), Follower(mark))
        follower.newest = max(follower.newest, mark)
        if following:
            follower.first_follow = min(follower.first_follow or event.time, event.time)
    return followers


@dataclass(slots=True)
class UserState:
    """What had been decided about a user: the message of the journey that he has, and how many decisions there are."""

    user_id: str
    message_id: str | None = None
    revision: int = 0


class Verdict(NamedTuple):
    """`reason` is None when the message is sent; `values` holds what was looked at, up to the question that decided."""

    reason: Reason | None
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one follow event: made once, never revised."""

    follow: AnyEvent
    subject: str
    user_id: str
    revision: int
    verdict: Verdict
    message_id: str | None

    @property
    def outcome(self) -> Outcome:
        return "skipped" if self.verdict.reason else "sent"

    @property
    def decision_id(self) -> str:
        return decision_id(WELCOME.key, self.follow.digest)


def decide_welcomes(
    follows: Iterable[AnyEvent], now: datetime, newest: Mapping[Key, Mark], users: Mapping[Key, UserState]
) -> list[Decision]:
    """One decision per follow event, in the order (time, source, id).

    `newest` holds each subject's newest mark, these events included. Subjects of one user share a UserState, which is
    brought up to date.
    """
    decisions = []
    for follow in sorted(follows, key=lambda event: (event.time, event.source, event.id)):
        assert follow.subject is not None
        key = (follow.account, follow.subject)
        user = users[key]
        verdict = decide_welcome(follow, now, user.message_id, newest[key])
        message = None
        if verdict.reason is None:
            message = user.message_id = message_id(follow.account, user.user_id, WELCOME.key, WELCOME.step)
        user.revision += 1
        decisions.append(Decision(follow, follow.subject, user.user_id, user.revision, verdict, message))
    return decisions


def decide_welcome(follow: AnyEvent, now: datetime, earlier_message: str | None, newest: Mark) -> Verdict:
    """Send, or the first reason not to. `newest` is the newest mark of the follow's subject."""
    values: dict[str, Any] = {"earlier_message_id": earlier_message}
    if earlier_message is not None:
        return Verdict("already_welcomed", values)
    values["backfill"] = follow.backfill
    if follow.backfill:
        return Verdict("backfilled", values)
    age = now - follow.time
    values["age_seconds"] = age // timedelta(seconds=1)
    values["max_age_seconds"] = WELCOME.max_age // timedelta(seconds=1)
    if age >= WELCOME.max_age:
        return Verdict("too_old", values)
    values["following"] = newest.following
    if not newest.following:
        values["unfollowed_at"] = newest.time.isoformat()
        return Verdict("not_following", values)
    return Verdict(None, values)


def message_id(account: str, user_id: str, journey: str, step: str) -> str:
    """The same for every attempt to send this message to this user: `msg_` and 32 characters."""
    digest = hashlib.sha256("\0".join((account, user_id, journey, step)).encode()).digest()
    return "msg_" + b32encode(digest[:20]).decode().lower()


def decision_id(journey: str, event_digest: bytes) -> str:
    """One per journey and event."""
    return f"{journey}:{event_digest.hex()}"
