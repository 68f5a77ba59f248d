"""Journeys as data: what starts them, which version counts, what waits, and whom an import reaches."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.db import Sessions
from libs.common.events import AnyEvent
from libs.common.identity import user_id_of
from tests.engagement.support import (
    DAY,
    HOUR,
    decided,
    definition,
    event,
    linked,
    make_log,
    notices,
    put,
    segment,
)
from tests.support.folding import NOW, Log, arrivals, empty, rows
from tests.support.web import READ_KEY, client, places, problem


async def test_who_becomes_dormant_or_lost_is_messaged_once_a_time(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 40 * DAY)])
    await log.apply([segment("lifecycle.dormant", revision=2)])
    await log.apply([segment("lifecycle.dormant", revision=2)], partition=1)
    await log.apply([segment("lifecycle.lost", revision=4, since=NOW + 23 * DAY)], now=NOW + 23 * DAY)
    assert await decided(sessions) == [
        ("reactivation", "sent", None, 1, 1),
        ("recall", "sent", None, 1, 1),
        ("welcome", "skipped", "too_old", 1, 1),
    ]
    assert await rows(sessions, "message", "journey, purpose, channel, state") == [
        ("reactivation", "marketing", "in_app", "sent"),
        ("recall", "marketing", "in_app", "sent"),
    ]
    assert await rows(sessions, "segment_notice", "revision, segment") == [(4, "lifecycle.lost")]


async def test_what_is_told_once_more_messages_nobody(sessions: Sessions, log: Log) -> None:
    """As a segmentation does that was restored from a backup: a higher revision, and nothing new."""
    await log.apply([segment(revision=2)])
    await log.apply([segment(revision=1_000)])
    assert len(await decided(sessions)) == 1
    await log.apply([segment(revision=1_001, type="segment.left")])
    await log.apply([segment(revision=1_002)])
    await log.apply([segment(revision=2_000)])
    assert len(await decided(sessions)) == 2
    assert await rows(sessions, "segment_notice", "revision, segment") == [(2_000, "lifecycle.dormant")]


async def test_an_import_and_a_first_placement_message_nobody(sessions: Sessions, log: Log) -> None:
    """Ten imported fans follow and are placed; nobody gets a word, and each decision says why."""
    people = [f"douyin:u{number}" for number in range(10)]
    await log.apply([event(f"f{person}", subject=person, backfill=True) for person in people])
    placed = ["lifecycle.dormant", "lifecycle.lost"]
    await log.apply(
        [segment(placed[n % 2], revision=1, subject=person, initial=True) for n, person in enumerate(people[:4])]
    )
    await log.apply([segment(placed[n % 2], subject=person, backfill=True) for n, person in enumerate(people[4:7])])
    await log.apply(
        [segment(placed[n % 2], subject=person, reason="rule_changed") for n, person in enumerate(people[7:])]
    )
    assert await rows(sessions, "message", "message_id") == []
    reasons = [row[2] for row in await decided(sessions)]
    assert sorted(set(reasons)) == ["backfilled", "first_placement", "rule_or_merge"]
    assert len(reasons) == 20
    assert {notice["type"] for notice in await notices(sessions)} == {"message.skipped"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_segment_notices_in_any_order_act_at_most_once_a_revision(
    sessions: Sessions, data: st.DataObject
) -> None:
    await empty(sessions)
    people = ("douyin:u1", "douyin:u2")
    steps = [
        ("segment.entered", "lifecycle.dormant"),
        ("segment.left", "lifecycle.dormant"),
        ("segment.entered", "lifecycle.lost"),
    ]
    told = [
        segment(name, type=kind, revision=revision, subject=person)
        for person in people
        for revision, (kind, name) in enumerate(steps, 1)
    ]
    log = make_log(sessions)
    await log.apply([event(f"f{person}", 40 * DAY, subject=person) for person in people])
    for batch in data.draw(arrivals(told)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    assert await rows(sessions, "segment_notice", "entity, revision, segment") == sorted(
        (f"{user_id_of('demo', person)}/lifecycle", 3, "lifecycle.lost") for person in people
    )
    made = await rows(sessions, "decision", "user_id, journey")
    acted = [row for row in made if row[1] != "welcome"]
    assert len(acted) == len(set(acted))
    assert {row for row in acted if row[1] == "recall"} == {(user_id_of("demo", person), "recall") for person in people}


async def test_a_new_version_counts_from_the_next_event_on(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    await log.apply([event("a", 40 * DAY), event("b", 40 * DAY, subject="douyin:u2")])
    await log.apply([segment()])
    stored = await put(api, "reactivation")
    assert (stored["version"], stored["action"], stored["changed_by"]) == (2, "put", "test")
    await log.apply([segment(subject="douyin:u2")])
    assert ("reactivation", "sent", None, 1, 2) in await decided(sessions)
    texts = {}
    for person in ("douyin:u1", "douyin:u2"):
        (message,) = (await api.get(f"/v1/users/{person}/messages", params={"lang": "en"})).json()["items"]
        texts[person] = (message["journey_version"], message["title"])
    assert texts == {"douyin:u1": (1, "It has been a while"), "douyin:u2": (2, "Come back")}


async def test_a_draft_changes_nothing_yet_and_an_ended_journey_starts_no_more(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    await put(api, "reactivation", status="draft")
    people = [f"douyin:u{number}" for number in range(3)]
    await log.apply([event(f"f{person}", 40 * DAY, subject=person) for person in people])
    await log.apply([segment(subject=people[0])])
    await put(api, "reactivation", status="ended")
    await log.apply([segment(subject=people[1])])
    await put(api, "reactivation", status="live")
    await log.apply([segment(subject=people[2])])
    assert [row for row in await decided(sessions) if row[0] == "reactivation"] == [
        ("reactivation", "sent", None, 1, 1),
        ("reactivation", "sent", None, 1, 4),
    ]


async def test_pause_and_resume(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    paused = await api.post("/v1/journeys/welcome/pause", headers={"If-Match": '"1"'})
    assert (paused.status_code, paused.headers["etag"], paused.json()["status"]) == (200, '"2"', "paused")
    assert (await api.post("/v1/journeys/welcome/pause")).json()["version"] == 2
    problem(await api.post("/v1/journeys/welcome/resume", headers={"If-Match": '"1"'}), 412, "precondition_failed")
    await log.apply([event("a")])
    assert (await api.post("/v1/journeys/welcome/resume")).json()["version"] == 3
    await log.apply([event("b", subject="douyin:u2")])
    assert await decided(sessions) == [("welcome", "sent", None, 1, 3), ("welcome", "skipped", "paused", 1, 2)]
    history = (await api.get("/v1/journeys/welcome/versions")).json()["items"]
    assert [(row["version"], row["action"], row["changed_by"]) for row in history] == [
        (3, "resume", "test"),
        (2, "pause", "test"),
        (1, "built_in", None),
    ]
    await put(api, "later", status="draft")
    problem(await api.post("/v1/journeys/later/pause"), 409, "journey_not_live")
    problem(await api.post("/v1/journeys/nothing/pause"), 404, "unknown_journey")


async def test_etags_guard_against_lost_changes(api: httpx.AsyncClient) -> None:
    first = await api.get("/v1/journeys/recall")
    assert first.headers["etag"] == '"1"'
    body = definition(segment="lifecycle.lost")
    stored = await api.put("/v1/journeys/recall", json=body, headers={"If-Match": first.headers["etag"]})
    assert stored.headers["etag"] == '"2"'
    late = await api.put("/v1/journeys/recall", json=body | {"purpose": "service"}, headers={"If-Match": '"1"'})
    problem(late, 412, "precondition_failed")
    same = await api.put("/v1/journeys/recall", json=body)
    assert (same.headers["etag"], same.json()) == ('"2"', stored.json())
    problem(await api.put("/v1/journeys/recall", json=body, headers={"If-None-Match": "*"}), 412, "precondition_failed")
    new = await api.put("/v1/journeys/vip", json=body, headers={"If-None-Match": "*"})
    assert new.headers["etag"] == '"1"'
    problem(await api.put("/v1/journeys/none", json=body, headers={"If-Match": "*"}), 412, "precondition_failed")
    assert (await api.get("/v1/journeys/recall", params={"version": 1})).json() == first.json()
    problem(await api.get("/v1/journeys/recall", params={"version": 9}), 404, "unknown_journey")
    listed = (await api.get("/v1/journeys")).json()["items"]
    assert [(row["key"], row["version"]) for row in listed] == [
        ("reactivation", 1),
        ("recall", 2),
        ("vip", 1),
        ("welcome", 1),
    ]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"segment": None}, "/segment"),
        ({"trigger": "follow"}, "/segment"),
        ({"max_age_seconds": 59}, "/max_age_seconds"),
        ({"purpose": "spam"}, "/purpose"),
        ({"status": "asleep"}, "/status"),
        ({"texts": {}}, "/texts"),
        ({"texts": {"en": {"title": "{{ user.nickname }}", "body": "x"}}}, "/texts/en/title"),
        ({"texts": {"en": {"title": "x", "body": "{% if %}"}}}, "/texts/en/body"),
        ({"texts": {"en": {"title": "x"}}}, "/texts/en/body"),
        ({"unknown": 1}, "/unknown"),
    ],
)
async def test_what_is_wrong_with_a_definition_is_pointed_at(
    api: httpx.AsyncClient, changes: dict[str, Any], pointer: str
) -> None:
    body = problem(await api.put("/v1/journeys/reactivation", json=definition(**changes)), 422, "invalid_request")
    assert places(body) == [pointer]
    assert (await api.get("/v1/journeys/reactivation")).json()["version"] == 1


async def test_a_channel_must_be_declared(api: httpx.AsyncClient) -> None:
    answer = await api.put("/v1/journeys/reactivation", json=definition(channel="pigeon"))
    assert places(problem(answer, 409, "unknown_channel")) == ["/channel"]


async def test_changing_needs_the_scope(app: Any) -> None:
    async with client(app, READ_KEY) as reader:
        for call in (
            reader.put("/v1/journeys/welcome", json=definition()),
            reader.post("/v1/journeys/welcome/pause"),
            reader.post("/v1/journeys/welcome/resume"),
        ):
            assert "engagement:write" in problem(await call, 403, "missing_scope")["detail"]
        assert (await reader.post("/v1/journeys/welcome/preview", json={})).status_code == 200


async def test_texts_with_variables(api: httpx.AsyncClient, log: Log) -> None:
    texts = {"en": {"title": "{{ user.platform }}", "body": "{{ user.subject }} entered {{ event.segment }}"}}
    await put(api, "reactivation", texts=texts)
    tried = (await api.post("/v1/journeys/reactivation/preview", json={})).json()
    assert tried["texts"] == {"en": {"title": "douyin", "body": "douyin:u42 entered lifecycle.dormant"}}
    await log.apply([event("a", 40 * DAY)])
    await log.apply([segment()])
    shown = (await api.post("/v1/journeys/reactivation/preview", json={"user": "douyin:u1"})).json()
    assert shown["texts"]["en"]["body"] == "douyin:u1 entered lifecycle.dormant"
    other = {"zh": {"title": "{{ account.name }}", "body": "x"}}
    replaced = await api.post("/v1/journeys/reactivation/preview", json={"texts": other})
    assert replaced.json()["texts"] == {"zh": {"title": "demo", "body": "x"}}
    (message,) = (await api.get("/v1/users/douyin:u1/messages")).json()["items"]
    assert message["body"] == "douyin:u1 entered lifecycle.dormant"


async def test_preview_tells_every_gate_and_leaves_no_trace(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    await log.apply([event("a", HOUR, now=NOW)])
    tables = ("message", "decision", "outbox", "journey")
    before = [await rows(sessions, table, "*") for table in tables]

    async def preview(journey: str, user: str = "douyin:u1") -> dict[str, Any]:
        response = await api.post("/v1/decisions/preview", json={"user": user, "journey": journey})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    welcome = await preview("welcome")
    assert (welcome["outcome"], welcome["reason"], welcome["gates"]) == ("skipped", "already_messaged", [])
    reactivation = await preview("reactivation")
    assert (reactivation["outcome"], reactivation["journey_version"]) == ("sent", 1)
    assert [gate["verdict"] for gate in reactivation["gates"]] == ["pass"] * 5
    assert reactivation["gates"][0]["values"]["rule"] == "while_following"
    assert [await rows(sessions, table, "*") for table in tables] == before
    problem(
        await api.post("/v1/decisions/preview", json={"user": "douyin:x", "journey": "recall"}), 404, "unknown_user"
    )
    missing = await api.post("/v1/decisions/preview", json={"user": "douyin:u1", "journey": "nothing"})
    problem(missing, 404, "unknown_journey")


async def test_consents_over_all_subjects(api: httpx.AsyncClient, log: Log) -> None:
    one, two = "douyin:u1", "wechat.x:o1"

    def word(name: str, type: str, age: timedelta, subject: str, channel: str = "sms") -> AnyEvent:  # noqa: A002
        return event(name, age, type=type, subject=subject, data={"purpose": "marketing", "channel": channel})

    await log.apply(
        [
            word("a", "consent.granted", 3 * HOUR, one),
            word("b", "consent.revoked", 2 * HOUR, two),
            word("c", "consent.revoked", HOUR, one, "in_app"),
        ]
    )
    consents = (await api.get(f"/v1/users/{one}/consents")).json()
    assert [(row["channel"], row["granted"]) for row in consents["items"]] == [("in_app", False), ("sms", True)]
    await log.apply(linked(1, (one, two)))
    consents = (await api.get(f"/v1/users/{one}/consents")).json()
    assert [(row["channel"], row["granted"], row["subject"]) for row in consents["items"]] == [
        ("in_app", False, one),
        ("sms", False, two),
    ]
    allowed = {(row["purpose"], row["channel"]): (row["allowed"], row["rule"]) for row in consents["effective"]}
    assert consents["following"] is False
    assert allowed["marketing", "dm"] == (False, "while_following")
    assert allowed["marketing", "sms"] == (False, "record")
    assert allowed["service", "email"] == (False, "needs_grant")
    assert allowed["transactional", "in_app"] == (True, "always")
    await log.apply([event("f", subject=two)])
    consents = (await api.get(f"/v1/users/{one}/consents")).json()
    allowed = {(row["purpose"], row["channel"]): (row["allowed"], row["rule"]) for row in consents["effective"]}
    assert allowed["marketing", "dm"] == allowed["service", "in_app"] == (True, "while_following")
    assert (allowed["marketing", "in_app"], allowed["service", "phone"]) == ((False, "record"), (False, "needs_grant"))
    problem(await api.get("/v1/users/douyin:nobody/consents"), 404, "unknown_user")
