"""The gates that stand between an intent and a person, asked in one order, each with the values it used.

Now and the zones are arguments. Every gate is asked every time, so that an answer tells all of them; the first one that
does not let pass decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta, tzinfo
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from services.engagement.domain.consents import Word, may_reach

GateName = Literal["consent", "expired", "quiet_hours", "minimum_gap", "frequency_cap"]
GATES: Mapping[GateName, str] = {
    "consent": "the user does not allow this purpose on this channel",
    "expired": "the message is older than its maximum age",
    "quiet_hours": "it is night where the user is, and the message would not keep until morning or is to be dropped",
    "minimum_gap": "another message came shortly before, and this one would be too old after the gap",
    "frequency_cap": "there were as many messages as the cap allows, and this one would not keep until it has room",
}
"""In the order in which they are asked, with what it means when one stops a message."""

Verdict = Literal["pass", "hold", "stop"]
QuietOutcome = Literal["wait", "drop"]
TRANSACTIONAL = "transactional"


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `most` messages in any `window` that ends now, of a purpose or all, on a channel or all."""

    window: timedelta
    most: int
    purpose: str | None = None
    channel: str | None = None

    def counts(self, purpose: str, channel: str) -> bool:
        """Whether a message of this purpose and channel falls under the cap."""
        return self.purpose in (None, purpose) and self.channel in (None, channel)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """No `channels` between `start` and `end` of the user's day; after `end` they go out spread over `spread`."""

    start: time = time(22)
    end: time = time(8)
    spread: timedelta = timedelta(minutes=30)
    channels: tuple[str, ...] = ("push", "sms", "dm", "phone")

    def cover(self, clock: time) -> bool:
        """Whether this time of day is quiet; `end` itself is not."""
        if self.start <= self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end


@dataclass(frozen=True, slots=True)
class Policy:
    """How much contact one person gets."""

    quiet: QuietHours = QuietHours()
    gap: timedelta = timedelta(hours=4)
    caps: tuple[Cap, ...] = (
        Cap(timedelta(days=1), 1, purpose="marketing"),
        Cap(timedelta(days=7), 3, purpose="marketing"),
    )

    @property
    def memory(self) -> timedelta:
        """How long ago a message may be and still matter."""
        return max([self.gap, *(cap.window for cap in self.caps)])


DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Intent:
    """A message that is about to be sent. `channel` is the kind of channel: sms, in_app, …"""

    message_id: str
    purpose: str
    channel: str
    expires_at: datetime
    quiet: QuietOutcome = "wait"


class Sent(NamedTuple):
    """A message that the user got, or may have got."""

    at: datetime
    purpose: str
    channel: str


@dataclass(slots=True)
class Contact:
    """What is known of a user over all his subjects. `zone`: his own time zone, None when it is not known."""

    following: bool = False
    consents: Mapping[tuple[str, str], Word] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    zone: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate's answer. `until`: when to ask again, for `hold`; it lies before the expiry."""

    name: GateName
    verdict: Verdict
    values: dict[str, Any]
    until: datetime | None = None


def ask(intent: Intent, contact: Contact, policy: Policy, now: datetime, zone: tzinfo) -> list[Gate]:
    """The answers of all gates, in order. `zone` is the account's, for users whose own is not known."""
    allowed, values = may_reach(intent.purpose, intent.channel, contact.consents, following=contact.following)
    return [
        Gate("consent", "pass" if allowed else "stop", values),
        Gate(
            "expired",
            "pass" if now < intent.expires_at else "stop",
            {"expires_at": intent.expires_at.isoformat()},
        ),
        _quiet_hours(intent, policy.quiet, now, contact.zone, zone),
        _minimum_gap(intent, contact.sent, policy.gap, now),
        _frequency_caps(intent, contact.sent, policy.caps, now),
    ]


def deciding(gates: Sequence[Gate]) -> Gate | None:
    """The first gate that does not let pass."""
    return next((gate for gate in gates if gate.verdict != "pass"), None)


def _hold(intent: Intent, name: GateName, until: datetime, values: dict[str, Any]) -> Gate:
    values["until"] = until.isoformat()
    return Gate(name, "hold", values, until) if until < intent.expires_at else Gate(name, "stop", values)


def _quiet_hours(intent: Intent, quiet: QuietHours, now: datetime, own: tzinfo | None, accounts: tzinfo) -> Gate:
    name: GateName = "quiet_hours"
    if intent.channel not in quiet.channels:
        return Gate(name, "pass", {"applies": False, "channel": intent.channel})
    zone = own or accounts
    local = now.astimezone(zone)
    values: dict[str, Any] = {
        "applies": True,
        "zone": str(zone),
        "zone_of": "user" if own else "account",
        "local_time": local.strftime("%H:%M:%S"),
        "quiet_from": quiet.start.strftime("%H:%M"),
        "quiet_until": quiet.end.strftime("%H:%M"),
    }
    end = quiet_until(now, quiet, zone)
    if end == now:
        return Gate(name, "pass", values)
    if intent.quiet == "drop":
        return Gate(name, "stop", values | {"outcome": "drop"})
    # Within the spread, but not so late that the message would expire over it.
    latest = max(end, intent.expires_at - timedelta(minutes=1))
    return _hold(intent, name, min(end + spread(intent.message_id, quiet.spread), latest), values)


def quiet_until(now: datetime, quiet: QuietHours, zone: tzinfo) -> datetime:
    """The first instant from `now` on that is not quiet in `zone`; `now` itself when it is not.

    While the zone's offset stays the same, local time passes as time does; where it changes, the clock is read again.
    """
    at = now
    while True:
        local = at.astimezone(zone)
        clock = local.time()
        if not quiet.cover(clock):
            return at
        passed = timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second, microseconds=clock.microsecond)
        left = (timedelta(hours=quiet.end.hour, minutes=quiet.end.minute) - passed) % timedelta(days=1)
        at = _offset_change(at, at + left, zone) or at + left


def _offset_change(start: datetime, end: datetime, zone: tzinfo) -> datetime | None:
    """The first second in (start, end] at which the zone's offset is another than at `start`; None if there is none.
    Offsets change at whole seconds, and not twice in a night."""

    def offset(at: datetime) -> timedelta | None:
        return at.astimezone(zone).utcoffset()

    before = offset(start)
    if offset(end) == before:
        return None
    low, high = start.replace(microsecond=0), end
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if offset(middle) == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def spread(message_id: str, over: timedelta) -> timedelta:
    """Whole seconds from 0 to below `over`, the same for every attempt at a message."""
    number = int.from_bytes(blake2b(message_id.encode(), digest_size=8).digest())
    return timedelta(seconds=number % max(1, over // timedelta(seconds=1)))


def _minimum_gap(intent: Intent, sent: Sequence[Sent], gap: timedelta, now: datetime) -> Gate:
    name: GateName = "minimum_gap"
    values: dict[str, Any] = {"gap_seconds": gap // timedelta(seconds=1)}
    if intent.purpose == TRANSACTIONAL:
        return Gate(name, "pass", values | {"exempt": True})
    last = max((message.at for message in sent if message.purpose != TRANSACTIONAL), default=None)
    values["last_message_at"] = last.isoformat() if last else None
    if last is None or now >= last + gap:
        return Gate(name, "pass", values)
    return _hold(intent, name, last + gap, values)


def _frequency_caps(intent: Intent, sent: Sequence[Sent], caps: Sequence[Cap], now: datetime) -> Gate:
    name: GateName = "frequency_cap"
    if intent.purpose == TRANSACTIONAL:
        return Gate(name, "pass", {"exempt": True})
    asked: list[dict[str, Any]] = []
    free_at: datetime | None = None
    for cap in caps:
        if not cap.counts(intent.purpose, intent.channel):
            continue
        inside = sorted(
            message.at
            for message in sent
            if message.purpose != TRANSACTIONAL
            and cap.counts(message.purpose, message.channel)
            and message.at > now - cap.window
        )
        asked.append(
            {
                "window_seconds": cap.window // timedelta(seconds=1),
                "most": cap.most,
                "purpose": cap.purpose,
                "channel": cap.channel,
                "count": len(inside),
            }
        )
        if len(inside) >= cap.most:
            room = inside[len(inside) - cap.most] + cap.window
            free_at = max(free_at or room, room)
    if free_at is None:
        return Gate(name, "pass", {"caps": asked})
    return _hold(intent, name, free_at, {"caps": asked})
