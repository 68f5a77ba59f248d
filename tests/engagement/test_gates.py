"""The gates against a plain model: zones, both nights on which the clock is moved, windows to the second."""

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.engagement.domain.consents import Word
from services.engagement.domain.gates import (
    DEFAULT_POLICY,
    GATES,
    Cap,
    Contact,
    Gate,
    Intent,
    Policy,
    QuietHours,
    Sent,
    ask,
    deciding,
    quiet_until,
    spread,
)

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NIGHTS = {
    "Asia/Shanghai": ["2026-06-15T14:00"],
    "Europe/Berlin": ["2026-03-29T01:00", "2026-10-25T01:00"],
    "America/New_York": ["2026-03-08T07:00", "2026-11-01T06:00"],
    "Australia/Lord_Howe": ["2026-04-04T15:00", "2026-10-03T15:30"],
    "America/St_Johns": ["2026-03-08T05:30", "2026-11-01T04:30"],
}
"""Instants in UTC around which the clock is moved, where it is."""
PURPOSES = ("service", "marketing", "transactional")
CHANNELS = ("in_app", "dm", "push", "sms", "phone", "email", "webhook")


@st.composite
def moments(draw: st.DrawFn) -> tuple[datetime, ZoneInfo]:
    name = draw(st.sampled_from(sorted(NIGHTS)))
    base = datetime.fromisoformat(draw(st.sampled_from(NIGHTS[name]))).replace(tzinfo=UTC)
    return base + timedelta(seconds=draw(st.integers(-30 * 3600, 30 * 3600))), ZoneInfo(name)


windows = st.one_of(
    st.just(QuietHours()),
    st.builds(
        QuietHours,
        start=st.sampled_from([time(22), time(0, 30), time(1, 30), time(2, 30), time(9)]),
        end=st.sampled_from([time(8), time(1), time(2), time(2, 30), time(3, 15)]),
    ),
)


def is_quiet(at: datetime, quiet: QuietHours, zone: ZoneInfo) -> bool:
    """Said in minutes of the wall clock."""
    local = at.astimezone(zone)
    minute = local.hour * 60 + local.minute
    start, end = (part.hour * 60 + part.minute for part in (quiet.start, quiet.end))
    return start <= minute < end if start <= end else not end <= minute < start


@settings(max_examples=400, deadline=None)
@given(moment=moments(), quiet=windows)
@example(
    moment=(datetime(2026, 3, 28, 23, 30, tzinfo=UTC), ZoneInfo("Europe/Berlin")), quiet=QuietHours(end=time(2, 30))
)
@example(
    moment=(datetime(2026, 10, 24, 22, 0, tzinfo=UTC), ZoneInfo("Europe/Berlin")), quiet=QuietHours(end=time(2, 30))
)
def test_quiet_hours_end_at_the_first_minute_that_is_not_quiet(
    moment: tuple[datetime, ZoneInfo], quiet: QuietHours
) -> None:
    now, zone = moment
    found = quiet_until(now, quiet, zone)
    if not is_quiet(now, quiet, zone):
        assert found == now
        return
    at = now.replace(second=0, microsecond=0)
    while is_quiet(at, quiet, zone):
        at += MINUTE
    assert found == at
    assert is_quiet(found - timedelta(microseconds=1), quiet, zone)


def test_the_two_nights_on_which_the_clock_is_moved() -> None:
    """Quiet from 22:00 to 08:00 local time lasts nine hours in spring and eleven in autumn."""
    berlin = ZoneInfo("Europe/Berlin")
    for evening, hours in (
        (datetime(2026, 3, 28, 22), 9),
        (datetime(2026, 10, 24, 22), 11),
        (datetime(2026, 6, 1, 22), 10),
    ):
        start = evening.replace(tzinfo=berlin).astimezone(UTC)
        assert quiet_until(start, QuietHours(), berlin) - start == hours * HOUR
        assert quiet_until(start - SECOND, QuietHours(), berlin) == start - SECOND


@st.composite
def messages(draw: st.DrawFn, now: datetime) -> Sent:
    age = draw(
        st.one_of(
            st.integers(0, 8 * 86400).map(lambda seconds: timedelta(seconds=seconds)),
            # exactly at, and a hair beside, the edges of the gap and of the windows
            st.builds(
                lambda edge, hair: edge + hair,
                st.sampled_from([4 * HOUR, DAY, 7 * DAY, HOUR]),
                st.sampled_from([timedelta(0), SECOND, -SECOND, timedelta(microseconds=1)]),
            ),
        )
    )
    return Sent(now - age, draw(st.sampled_from(PURPOSES)), draw(st.sampled_from(CHANNELS)))


caps = st.lists(
    st.builds(
        Cap,
        window=st.sampled_from([HOUR, DAY, 7 * DAY]),
        most=st.integers(1, 3),
        purpose=st.sampled_from([None, "marketing", "service"]),
        channel=st.sampled_from([None, "sms", "in_app"]),
    ),
    max_size=3,
).map(tuple)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Intent, Contact, Policy, datetime, ZoneInfo]:
    now, zone = draw(moments())
    word = st.builds(Word, st.just(now - DAY), st.just("/t"), st.just("c"), st.booleans())
    keys = st.tuples(st.sampled_from(PURPOSES), st.sampled_from(CHANNELS))
    intent = Intent(
        draw(st.sampled_from(["msg_a", "msg_b", "msg_c"])),
        draw(st.sampled_from(PURPOSES)),
        draw(st.sampled_from(CHANNELS)),
        now + timedelta(seconds=draw(st.sampled_from([-1, 0, 1, 600, 3600, 40_000, 86400, 172_800]))),
        draw(st.sampled_from(["wait", "drop"])),
    )
    contact = Contact(
        draw(st.booleans()), draw(st.dictionaries(keys, word, max_size=6)), draw(st.lists(messages(now), max_size=6))
    )
    policy = draw(
        st.one_of(st.just(DEFAULT_POLICY), st.builds(Policy, gap=st.sampled_from([HOUR, 4 * HOUR]), caps=caps))
    )
    return intent, contact, policy, now, zone


def allowed(intent: Intent, contact: Contact) -> bool:
    word = contact.consents.get((intent.purpose, intent.channel))
    if word:
        return word.granted
    if intent.channel in ("sms", "email", "phone", "push"):
        return False
    return contact.following or intent.purpose == "transactional"


def over_cap(intent: Intent, contact: Contact, policy: Policy, at: datetime) -> bool:
    for cap in policy.caps:
        if cap.purpose in (None, intent.purpose) and cap.channel in (None, intent.channel):
            inside = 0
            for message in contact.sent:
                same = cap.purpose in (None, message.purpose) and cap.channel in (None, message.channel)
                inside += same and message.purpose != "transactional" and at - message.at < cap.window
            if inside >= cap.most:
                return True
    return False


def in_gap(contact: Contact, policy: Policy, at: datetime) -> bool:
    return any(at - message.at < policy.gap for message in contact.sent if message.purpose != "transactional")


def model(intent: Intent, contact: Contact, policy: Policy, now: datetime, zone: ZoneInfo) -> tuple[str, str | None]:
    """(what is decided, by which gate), in the plainest way: whatever ends by itself is tried at every instant at which
    it may end."""
    if not allowed(intent, contact):
        return "stop", "consent"
    if now >= intent.expires_at:
        return "stop", "expired"
    if intent.channel in ("push", "sms", "dm", "phone") and is_quiet(now, policy.quiet, zone):
        end = now.replace(second=0, microsecond=0)
        while is_quiet(end, policy.quiet, zone):
            end += MINUTE
        return ("hold" if intent.quiet == "wait" and end < intent.expires_at else "stop"), "quiet_hours"
    if intent.purpose == "transactional":
        return "pass", None
    ends = sorted(message.at + span for message in contact.sent for span in (policy.gap, HOUR, DAY, 7 * DAY))
    gates: list[tuple[str, Callable[[datetime], bool]]] = [
        ("minimum_gap", lambda at: in_gap(contact, policy, at)),
        ("frequency_cap", lambda at: over_cap(intent, contact, policy, at)),
    ]
    for name, closed in gates:
        if closed(now):
            opens = next(at for at in ends if at > now and not closed(at))
            return ("hold" if opens < intent.expires_at else "stop"), name
    return "pass", None


@settings(max_examples=600, deadline=None)
@given(case=cases())
def test_the_gates_decide_as_the_model_does(case: tuple[Intent, Contact, Policy, datetime, ZoneInfo]) -> None:
    intent, contact, policy, now, zone = case
    gates = ask(intent, contact, policy, now, zone)
    assert [gate.name for gate in gates] == list(GATES)
    first = deciding(gates)
    assert ((first.verdict, first.name) if first else ("pass", None)) == model(intent, contact, policy, now, zone)
    for gate in gates:
        assert (gate.until is not None) == (gate.verdict == "hold")
        if gate.until is not None:
            assert now < gate.until < intent.expires_at
            check_opens(gate, intent, contact, policy, zone)


def check_opens(gate: Gate, intent: Intent, contact: Contact, policy: Policy, zone: ZoneInfo) -> None:
    """At `until`, and not a microsecond before, the gate would let the message pass."""
    assert gate.until is not None
    before = gate.until - timedelta(microseconds=1)
    if gate.name == "minimum_gap":
        assert in_gap(contact, policy, before)
        assert not in_gap(contact, policy, gate.until)
    if gate.name == "frequency_cap":
        assert over_cap(intent, contact, policy, before)
        assert not over_cap(intent, contact, policy, gate.until)
    if gate.name == "quiet_hours" and policy.quiet == QuietHours():
        assert not is_quiet(gate.until, policy.quiet, zone)


def test_caps_roll_to_the_microsecond() -> None:
    now = datetime(2026, 6, 15, 4, tzinfo=UTC)
    zone = ZoneInfo("Asia/Shanghai")
    intent = Intent("msg_a", "marketing", "in_app", now + 30 * DAY)
    for age, verdict in ((DAY - timedelta(microseconds=1), "hold"), (DAY, "pass"), (DAY + SECOND, "pass")):
        gates = ask(intent, Contact(True, {}, [Sent(now - age, "marketing", "sms")]), DEFAULT_POLICY, now, zone)
        assert {gate.name: gate.verdict for gate in gates}["frequency_cap"] == verdict
    week = [Sent(now - days * DAY - HOUR, "marketing", "in_app") for days in (1, 3, 6)]
    cap = ask(intent, Contact(True, {}, week), DEFAULT_POLICY, now, zone)[-1]
    assert (cap.verdict, cap.until) == ("hold", now - 6 * DAY - HOUR + 7 * DAY)
    assert [found["count"] for found in cap.values["caps"]] == [0, 3]


def test_transactional_messages_are_exempt_and_not_counted() -> None:
    now = datetime(2026, 6, 15, 4, tzinfo=UTC)
    zone = ZoneInfo("Asia/Shanghai")
    many = [Sent(now - MINUTE, "marketing", "in_app")] * 5
    receipt = Intent("msg_a", "transactional", "in_app", now + DAY)
    assert deciding(ask(receipt, Contact(False, {}, many), DEFAULT_POLICY, now, zone)) is None
    receipts = [Sent(now - MINUTE, "transactional", "in_app")] * 5
    news = Intent("msg_a", "marketing", "in_app", now + DAY)
    assert deciding(ask(news, Contact(True, {}, receipts), DEFAULT_POLICY, now, zone)) is None


def test_what_waits_for_the_morning_is_spread_and_always_in_the_same_way() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    night = datetime(2026, 6, 15, 15, tzinfo=UTC)
    morning = datetime(2026, 6, 16, 0, tzinfo=UTC)
    granted = {("marketing", "sms"): Word(night - DAY, "/t", "c", True)}

    def until(name: str, expires_at: datetime = night + 2 * DAY) -> datetime:
        gate = ask(Intent(name, "marketing", "sms", expires_at), Contact(True, granted), DEFAULT_POLICY, night, zone)[2]
        assert gate.until is not None
        return gate.until

    found = [until(f"msg_{number}") for number in range(300)]
    assert found == [until(f"msg_{number}") for number in range(300)]
    assert all(morning <= at < morning + 30 * MINUTE for at in found)
    assert len({(at - morning) // MINUTE for at in found}) == 30
    assert max(after - before for before, after in pairwise(sorted(found))) < 2 * MINUTE
    # not over its own expiry
    late = [until(f"msg_{number}", morning + 5 * MINUTE) for number in range(50)]
    assert all(morning <= at <= morning + 4 * MINUTE for at in late)


@pytest.mark.parametrize("over", [timedelta(0), SECOND, 30 * MINUTE])
def test_the_spread_stays_below_its_length(over: timedelta) -> None:
    assert all(timedelta(0) <= spread(f"m{number}", over) <= max(timedelta(0), over - SECOND) for number in range(200))
