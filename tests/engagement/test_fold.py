"""Follower rows do not depend on order; decisions are made once, one per follow, one welcome per user."""

from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import event as hooks
from sqlalchemy import text

from libs.common.db import Sessions
from libs.common.events import AnyEvent
from libs.common.identity import user_id_of
from services.engagement.domain import decisions
from tests.engagement.support import HOUR, event, link, make_log, notices
from tests.support.folding import NOW, Log, arrivals, empty, rows

SUBJECTS = ("douyin:u1", "douyin:u2", "wechat.x:o1")
LINKED = ("douyin:u1", "wechat.x:o1")
FOLLOWER = "account, subject, following, follow_time, follow_source, follow_id, first_follow"
CONSENT = "account, subject, purpose, channel, granted, time, source, id"
DECISION = "subject, event_id, user_id, outcome, reason, values, message_id, revision"


@st.composite
def moves(draw: st.DrawFn) -> AnyEvent:
    event_type = draw(st.sampled_from(["follow", "follow", "unfollow", "consent.revoked", "consent.granted"]))
    return event(
        draw(st.text("abzAZ19é中", min_size=1, max_size=3)),
        timedelta(hours=draw(st.sampled_from([0, 1, 2, 24, 30])), microseconds=draw(st.integers(0, 1))),
        type=event_type,
        source=draw(st.sampled_from(["/a", "/B", "/ä"])),
        subject=draw(st.sampled_from(SUBJECTS)),
        account=draw(st.sampled_from(["demo", "other"])),
        backfill=draw(st.sampled_from([False, False, False, True])),
        data={
            "purpose": draw(st.sampled_from(["marketing", "service"])),
            "channel": draw(st.sampled_from(["sms", "dm"])),
        }
        if event_type.startswith("consent")
        else {},
    )


def model(distinct: list[AnyEvent]) -> list[tuple[Any, ...]]:
    """The follower rows, said in the plainest way."""
    found = []
    for account, subject in {(e.account, e.subject) for e in distinct if e.type in ("follow", "unfollow")}:
        own = [e for e in distinct if (e.account, e.subject) == (account, subject)]
        last = sorted((e.time, e.source, e.id, e.type) for e in own if e.type in ("follow", "unfollow"))[-1]
        first = min((e.time for e in own if e.type == "follow"), default=None)
        found.append((account, subject, last[3] == "follow", *last[:3], first))
    return sorted(found, key=repr)


def consent_model(distinct: list[AnyEvent]) -> list[tuple[Any, ...]]:
    """The consent rows, said in the plainest way."""
    last: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for e in sorted(distinct, key=lambda e: (e.time, e.source, e.id)):
        if e.type.startswith("consent"):
            data: Any = e.data
            last[e.account, str(e.subject), data.purpose, data.channel] = (
                e.type == "consent.granted",
                e.time,
                e.source,
                e.id,
            )
    return sorted((key + value for key, value in last.items()), key=repr)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    some=st.lists(moves(), min_size=1, max_size=12, unique_by=lambda e: (e.account, e.source, e.id)),
    linked=st.booleans(),
)
async def test_any_order_repetition_and_split(
    sessions: Sessions, data: st.DataObject, some: list[AnyEvent], linked: bool
) -> None:
    await empty(sessions)
    if linked:
        await link(sessions, "demo", *LINKED)
    log = make_log(sessions)
    for batch in data.draw(arrivals(some)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    assert await rows(sessions, "dead_letter", "reason") == []
    assert await rows(sessions, "follower", FOLLOWER) == model(some)
    assert await rows(sessions, "consent", CONSENT) == consent_model(some)
    await check_decisions(sessions, some, linked)


async def check_decisions(sessions: Sessions, some: list[AnyEvent], linked: bool) -> None:
    """What holds of decisions whatever the order in which events came."""
    follows = {(e.account, e.source, e.id): e for e in some if e.type == "follow"}
    users = {
        (account, subject): min(user_id_of(account, name) for name in LINKED)
        if linked and account == "demo" and subject in LINKED
        else user_id_of(account, subject)
        for account in ("demo", "other")
        for subject in SUBJECTS
    }
    decisions = await rows(
        sessions,
        "decision",
        "account, subject, event_source, event_id, user_id, outcome, reason, values, message_id, revision",
    )
    assert Counter((row[0], row[2], row[3]) for row in decisions) == Counter(follows.keys())
    revisions: dict[tuple[str, str], list[int]] = {}
    for account, subject, source, id, user_id, outcome, reason, values, message_id, revision in decisions:  # noqa: A001
        follow = follows[account, source, id]
        assert subject == follow.subject
        assert user_id == users[account, subject]
        revisions.setdefault((account, user_id), []).append(revision)
        assert outcome == ("sent" if reason is None else "skipped")
        assert (message_id is not None) == (outcome == "sent")
        assert values["earlier_message_id"] is None or reason == "already_messaged"
        if reason != "already_messaged":
            assert values["backfill"] == follow.backfill == (reason == "backfilled")
        if reason in ("too_old", "not_following", None) and not follow.backfill:
            assert values["age_seconds"] == (NOW - follow.time) // timedelta(seconds=1)
            assert (values["age_seconds"] >= values["max_age_seconds"]) == (reason == "too_old")
        if reason == "not_following":
            assert values["unfollowed_at"] in {e.time.isoformat() for e in some if e.type == "unfollow"}
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in revisions.values())

    messages = await rows(sessions, "message", "account, user_id, message_id, subject")
    sent = [row for row in decisions if row[5] == "sent"]
    assert sorted(row[:3] for row in messages) == sorted((row[0], row[4], row[8]) for row in sent)
    assert len({row[:2] for row in messages}) == len(messages)
    assert {(row[0], row[4]) for row in decisions if row[6] == "already_messaged"} <= {row[:2] for row in messages}

    told = [(n["account"], n["data"]["entity"], n["data"]["revision"], n["type"]) for n in await notices(sessions)]
    assert sorted(told) == sorted((row[0], f"{row[4]}/welcome", row[9], f"message.{row[5]}") for row in decisions)


async def test_a_follow_brings_a_message_a_decision_and_a_notice(sessions: Sessions, log: Log) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    follow = event("a", traceparent=trace)
    user_id = user_id_of("demo", "douyin:u1")
    message = decisions.message_id("demo", user_id, "welcome", "hello")
    await log.apply([follow])
    assert await rows(sessions, "message", "account, user_id, journey, step, message_id, subject, created_at") == [
        ("demo", user_id, "welcome", "hello", message, "douyin:u1", NOW)
    ]
    values = {
        "earlier_message_id": None,
        "backfill": False,
        "age_seconds": 3600,
        "max_age_seconds": 86400,
        "following": True,
    }
    assert await rows(sessions, "decision", DECISION) == [("douyin:u1", "a", user_id, "sent", None, values, message, 1)]
    (notice,) = await notices(sessions)
    assert (notice["type"], notice["subject"], notice["traceparent"]) == ("message.sent", "douyin:u1", trace)
    assert notice["id"] == f"welcome:{follow.digest.hex()}"
    assert notice["data"] == {
        "entity": f"{user_id}/welcome",
        "revision": 1,
        "since": NOW.isoformat().replace("+00:00", "Z"),
        "user_id": user_id,
        "message_id": message,
        "journey": "welcome",
        "journey_version": 1,
        "step": "hello",
        "channel": "in_app",
        "state": "sent",
    }


async def test_a_redelivered_follow_changes_nothing(sessions: Sessions, log: Log) -> None:
    follow = event("a")
    await log.apply([follow])
    before = [await rows(sessions, table, "*") for table in ("follower", "message", "decision", "outbox")]
    await log.apply([follow, follow], now=NOW + 40 * HOUR)
    await log.apply([follow], partition=1)
    assert [await rows(sessions, table, "*") for table in ("follower", "message", "decision", "outbox")] == before


async def test_a_decision_is_not_revised_by_what_comes_later(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 2 * HOUR)])
    await log.apply([event("gone", HOUR, type="unfollow")])
    await log.apply([event("late", 3 * HOUR, subject="douyin:u2")], now=NOW + 22 * HOUR)
    await log.apply([event("earlier", 30 * HOUR)])
    assert [(row[1], row[3], row[4]) for row in await rows(sessions, "decision", DECISION)] == [
        ("a", "sent", None),
        ("earlier", "skipped", "already_messaged"),
        ("late", "skipped", "too_old"),
    ]
    assert await rows(sessions, "follower", "subject, following") == [("douyin:u1", False), ("douyin:u2", True)]


async def test_who_has_left_again_is_not_welcomed_until_he_comes_back(sessions: Sessions, log: Log) -> None:
    await log.apply([event("gone", HOUR, type="unfollow")])
    await log.apply([event("a", 2 * HOUR)])
    await log.apply([event("b", HOUR / 2)])
    assert [(row[1], row[4]) for row in await rows(sessions, "decision", DECISION)] == [
        ("a", "not_following"),
        ("b", None),
    ]


async def test_merged_and_parted_users_are_welcomed_once(sessions: Sessions, log: Log) -> None:
    """A message counts for the user it went to, and for whoever has its subject now."""
    one, two = sorted(LINKED, key=lambda subject: user_id_of("demo", subject))
    await log.apply([event("a", 3 * HOUR, subject=two)])
    joint = await link(sessions, "demo", one, two)
    assert joint == user_id_of("demo", one)
    await log.apply([event("b", 2 * HOUR, subject=one)])
    await link(sessions, "demo", one)
    await link(sessions, "demo", two)
    await log.apply([event("c", HOUR, subject=two)])
    # `one` was welcomed only as part of the merged user
    await log.apply([event("d", HOUR, subject=one)])
    await log.apply([event("e", HOUR, subject=one)])
    found = {row[1]: row[4] for row in await rows(sessions, "decision", DECISION)}
    assert found == {"a": None, "b": "already_messaged", "c": "already_messaged", "d": None, "e": "already_messaged"}


async def test_a_message_to_the_merged_user_stays_his_after_parting(sessions: Sessions, log: Log) -> None:
    one, two = sorted(LINKED, key=lambda subject: user_id_of("demo", subject))
    await link(sessions, "demo", one, two)
    await log.apply([event("a", 3 * HOUR, subject=two)])  # goes to the user id of `one`
    await link(sessions, "demo", one)
    await link(sessions, "demo", two)
    await log.apply([event("b", HOUR, subject=one), event("c", HOUR, subject=two)])
    found = {row[1]: row[4] for row in await rows(sessions, "decision", DECISION)}
    assert found == {"a": None, "b": "already_messaged", "c": "already_messaged"}


async def test_only_consents_keep_their_content(sessions: Sessions, log: Log) -> None:
    consent = {"purpose": "marketing", "channel": "sms"}
    await log.apply(
        [
            event("a", data={"acquisition": {"channel": "search"}}),
            event("b", type="unfollow", data={"reason": "enough"}),
            event("c", type="consent.granted", data=consent),
            event("d", type="consent.revoked", data=consent),
        ]
    )
    assert await rows(sessions, "event", "id, data") == [("a", None), ("b", None), ("c", consent), ("d", consent)]


async def test_committed_decisions_are_counted(sessions: Sessions, log: Log) -> None:
    def counted(reason: str) -> float:
        outcome = "skipped" if reason else "sent"
        labels = {"service": "engagement", "journey": "welcome", "outcome": outcome, "reason": reason}
        return REGISTRY.get_sample_value("superfan_decisions_total", labels) or 0

    before = {reason: counted(reason) for reason in ("", "too_old", "already_messaged")}
    await log.apply([event("old", 25 * HOUR), event("a"), event("a"), b"no event at all"])
    await log.apply([event("a"), event("b")])
    assert {reason: counted(reason) - before[reason] for reason in before} == {
        "": 1,
        "too_old": 1,
        "already_messaged": 1,
    }


async def test_the_number_of_statements_does_not_grow_with_the_batch(sessions: Sessions, log: Log) -> None:
    async def transactions_statements(count: int) -> int:
        found: list[str] = []
        engine = sessions.kw["bind"].sync_engine

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            found.append(statement)

        hooks.listen(engine, "before_cursor_execute", note)
        try:
            await log.apply([event(f"{count}-{n}", subject=f"douyin:{count}-{n}") for n in range(count)])
        finally:
            hooks.remove(engine, "before_cursor_execute", note)
        return len(found)

    await log.apply([event("first")])
    few = await transactions_statements(2)
    assert await transactions_statements(200) == few
    async with sessions() as session:
        assert (await session.execute(text("select count(*) from decision"))).scalar_one() == 203
