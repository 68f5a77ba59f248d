"""Messages that wait: for the morning, for the gap, on the version they began with, and over links of users."""

from datetime import timedelta

import httpx
import pytest

from libs.common.db import Sessions
from libs.common.events import AnyEvent
from libs.common.identity import user_id_of
from services.engagement.usecases.sending import claim_held
from services.engagement.usecases.waiting import ask_again
from tests.engagement.support import (
    DAY,
    GATEWAY,
    HOUR,
    MORNING,
    NIGHT,
    TEXTS,
    decided,
    event,
    linked,
    make_log,
    notices,
    put,
    segment,
    wake,
    with_channels,
)
from tests.support.folding import NOW, Log, rows


async def grant(log: Log, *subjects: str) -> None:
    words = [
        event(f"c{subject}", type="consent.granted", subject=subject, data={"purpose": "marketing", "channel": "sms"})
        for subject in subjects
    ]
    await log.apply([*(event(f"f{subject}", 40 * DAY, subject=subject) for subject in subjects), *words])


async def test_a_text_message_waits_for_the_morning_on_the_version_it_began_with(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    accounts = with_channels(TEXTS, GATEWAY)
    log = make_log(sessions, accounts)
    await grant(log, "douyin:u1")
    await put(api, "reactivation", channel="texts")
    await log.apply([segment()], now=NIGHT)
    await put(api, "reactivation", channel="texts", texts={"en": {"title": "Newer", "body": "Newer"}})
    (waiting,) = (await api.get("/v1/users/douyin:u1/messages", params={"state": "planned", "lang": "en"})).json()[
        "items"
    ]
    assert (waiting["channel"], waiting["title"], waiting["sent_at"]) == ("texts", "Come back", None)
    assert (await api.get("/v1/users/douyin:u1/messages", params={"channel": "in_app"})).json()["items"] == []
    (held,) = (await api.get("/v1/decisions", params={"outcome": "held"})).json()["items"]
    assert (held["reason"], held["until"]) == ("quiet_hours", waiting["held_until"])
    assert [gate["name"] for gate in held["gates"]] == [
        "consent",
        "expired",
        "quiet_hours",
        "minimum_gap",
        "frequency_cap",
    ]
    assert held["gates"][2]["values"]["local_time"] == "23:00:00"
    assert [row for row in await notices(sessions) if row["data"]["journey"] == "reactivation"] == []

    assert await wake(sessions, MORNING - timedelta(seconds=1), accounts) == 0
    assert await wake(sessions, MORNING + HOUR / 2, accounts) == 1
    assert [row for row in await decided(sessions) if row[0] == "reactivation"] == [
        ("reactivation", "held", "quiet_hours", 1, 2),
        ("reactivation", "sent", None, 2, 2),
    ]
    found = await rows(sessions, "message", "state, held, let_through_at, turns, lease")
    assert found == [("planned", False, MORNING + HOUR / 2, 2, None)]


@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [
        ([segment("lifecycle.dormant", type="segment.left", revision=3)], "left_segment"),
        ([segment("lifecycle.active", revision=4)], "left_segment"),
        ([event("r", type="consent.revoked", age=-HOUR, data={"purpose": "marketing", "channel": "sms"})], "consent"),
        ([event("u", type="unfollow", age=-HOUR)], None),
    ],
)
async def test_what_waits_is_asked_about_everything_again(
    api: httpx.AsyncClient, sessions: Sessions, meanwhile: list[AnyEvent], reason: str | None
) -> None:
    accounts = with_channels(TEXTS)
    log = make_log(sessions, accounts)
    await grant(log, "douyin:u1")
    await put(api, "reactivation", channel="texts")
    await log.apply([segment()], now=NIGHT)
    await log.apply(meanwhile, now=NIGHT + HOUR)
    await wake(sessions, MORNING + HOUR, accounts)
    last = [row for row in await decided(sessions) if row[0] == "reactivation" and row[3] == 2]
    assert [(row[1], row[2]) for row in last] == [("skipped" if reason else "sent", reason)]
    assert await rows(sessions, "message", "state") == [("cancelled" if reason else "planned",)]
    skipped = [row for row in await notices(sessions) if row["data"].get("state") == "cancelled"]
    assert len(skipped) == (1 if reason else 0)


async def test_pausing_cancels_what_waits(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", HOUR)])
    await log.apply([segment()])
    assert ("reactivation", "held", "minimum_gap", 1, 1) in await decided(sessions)
    await api.post("/v1/journeys/reactivation/pause")
    await wake(sessions, NOW + 5 * HOUR)
    assert ("reactivation", "skipped", "paused", 2, 1) in await decided(sessions)


async def test_after_the_gap_an_in_app_message_is_delivered_in_the_same_transaction(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    await log.apply([event("a", HOUR)])
    cause = segment()
    cause.traceparent = f"00-{'a' * 32}-{'b' * 16}-00"
    await log.apply([cause])
    assert await wake(sessions, NOW + 4 * HOUR - timedelta(microseconds=1)) == 0
    assert await wake(sessions, NOW + 4 * HOUR) == 1
    assert await wake(sessions, NOW + 9 * HOUR) == 0
    shown = (await api.get("/v1/users/douyin:u1/messages", params={"state": "sent"})).json()["items"]
    assert {message["journey"]: message["sent_at"] for message in shown} == {
        "welcome": "2026-06-15T12:00:00Z",
        "reactivation": "2026-06-15T16:00:00Z",
    }
    last = (await notices(sessions))[-1]
    assert (last["type"], last["data"]["state"], last["data"]["journey"]) == ("message.sent", "sent", "reactivation")
    assert last["data"]["revision"] == 2
    assert last["traceparent"] == cause.traceparent


async def test_a_worker_that_lost_its_lease_writes_nothing(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", HOUR)])
    await log.apply([segment()])
    at = NOW + 5 * HOUR
    async with sessions() as session, session.begin():
        slow = await claim_held(session, at, 10)
    assert await wake(sessions, at + HOUR) == 1
    before = [await rows(sessions, table, "*") for table in ("message", "decision", "outbox")]
    async with sessions() as session, session.begin():
        await ask_again(session, slow, at + 2 * HOUR, with_channels())
    assert [await rows(sessions, table, "*") for table in ("message", "decision", "outbox")] == before


async def test_caps_run_over_all_subjects_of_a_linked_user(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    """Both were welcomed as two people; linked, they get one reactivation between them, after the gap."""
    one, two = "douyin:u1", "wechat.x:o1"
    await log.apply([event("a", HOUR, subject=one), event("b", HOUR, subject=two)])
    assert len(await rows(sessions, "message", "message_id")) == 2
    await log.apply(linked(1, (one, two)))
    joint = min(user_id_of("demo", one), user_id_of("demo", two))
    later = NOW + 5 * HOUR
    await log.apply([event("c", HOUR, subject=one, now=later), event("d", HOUR, subject=two, now=later)], now=later)
    assert [row[2] for row in await decided(sessions) if row[1] == "skipped"] == ["already_messaged"] * 2
    await log.apply([segment(subject=one, user_id=joint, since=later)], now=later)
    await log.apply([segment("lifecycle.lost", subject=two, user_id=joint, revision=4, since=later)], now=later + HOUR)
    made = {row[0]: row[1:3] for row in await decided(sessions) if row[0] != "welcome"}
    assert made == {"reactivation": ("sent", None), "recall": ("held", "minimum_gap")}
    # apart again, each keeps what went to him, and nobody is welcomed anew
    await log.apply(linked(2, (one,), (two,)), now=later)
    await log.apply([event("e", HOUR, subject=one, now=later), event("g", HOUR, subject=two, now=later)], now=later)
    assert len([row for row in await rows(sessions, "message", "journey") if row[0] == "welcome"]) == 2


async def test_two_welcomes_that_wait_become_one_when_the_users_are_linked(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    accounts = with_channels(TEXTS)
    log = make_log(sessions, accounts)
    one, two = "douyin:u1", "wechat.x:o1"
    await put(api, "welcome", trigger="follow", segment=None, channel="texts", entry="once")
    await grant(log, one, two)
    await log.apply([event("a", HOUR, subject=one), event("b", HOUR, subject=two)], now=NIGHT)
    await log.apply(linked(1, (one, two)), now=NIGHT)
    await wake(sessions, MORNING + HOUR, accounts)
    made = [row[1:4] for row in await decided(sessions) if row[3] == 2]
    assert sorted(made, key=repr) == [("sent", None, 2), ("skipped", "already_messaged", 2)]
