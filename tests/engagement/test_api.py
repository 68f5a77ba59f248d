"""engagement over REST: who may ask, the inbox, decisions with their reasons, pages."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from libs.common.db import Sessions
from libs.common.identity import user_id_of
from services.engagement.domain import decisions
from services.engagement.domain.journeys import WELCOME
from tests.engagement.support import HOUR, UNSCOPED_KEY, event, link
from tests.support.folding import NOW, Log
from tests.support.web import EXPIRED_KEY, OTHER_KEY, client, places, problem

INBOX = "/v1/users/douyin:u1/messages"
PATHS = [INBOX, "/v1/decisions", "/v1/decisions?user=douyin:u1", "/v1/journeys"]


async def items(api: httpx.AsyncClient, path: str, **parameters: Any) -> list[dict[str, Any]]:
    response = await api.get(path, params=parameters)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


@pytest.mark.parametrize("path", PATHS)
async def test_callers_without_rights(app: FastAPI, log: Log, path: str) -> None:
    await log.apply([event("a")])
    for key in (None, EXPIRED_KEY, "sf_test_wrong"):
        async with client(app, key) as api:
            assert (await api.get(path)).status_code == 401
    async with client(app, UNSCOPED_KEY) as api:
        body = problem(await api.get(path), 403, "missing_scope")
    assert "engagement:read" in body["detail"]


async def test_another_accounts_data_are_not_there(app: FastAPI, api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("a"), event("b", subject="douyin:u2", account="other")])
    async with client(app, OTHER_KEY) as other:
        user_id = user_id_of("demo", "douyin:u1")
        for ref in ("douyin:u1", user_id):
            problem(await other.get(f"/v1/users/{ref}/messages"), 404, "unknown_user")
            problem(await other.get("/v1/decisions", params={"user": ref}), 404, "unknown_user")
        assert [row["subject"] for row in await items(other, "/v1/decisions")] == ["douyin:u2"]
        assert [row["subject"] for row in await items(other, "/v1/users/douyin:u2/messages")] == ["douyin:u2"]
    assert [row["subject"] for row in await items(api, "/v1/decisions")] == ["douyin:u1"]


async def test_the_inbox_in_two_languages(api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("a"), event("b"), event("c", subject="douyin:u2")])
    (message,) = await items(api, INBOX)
    assert message == {
        "message_id": decisions.message_id("demo", user_id_of("demo", "douyin:u1"), "welcome", "hello"),
        "subject": "douyin:u1",
        "journey": "welcome",
        "journey_version": 1,
        "step": "hello",
        "channel": "in_app",
        "purpose": "service",
        "state": "sent",
        "lang": "zh",
        "title": "欢迎关注！",
        "body": WELCOME.texts["zh"].body,
        "created_at": "2026-06-15T12:00:00Z",
        "sent_at": "2026-06-15T12:00:00Z",
        "expires_at": "2026-06-16T11:00:00Z",
        "held_until": None,
        "attempts": 0,
        "failure": None,
    }
    (english,) = await items(api, INBOX, lang="en")
    assert english == message | {"lang": "en", "title": "Welcome!", "body": WELCOME.texts["en"].body}


async def test_the_inbox_of_who_has_no_message(api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("a", 25 * HOUR)])
    assert (await api.get(INBOX)).json() == {"items": [], "next_cursor": None, "has_more": False}
    problem(await api.get("/v1/users/douyin:nobody/messages"), 404, "unknown_user")
    problem(await api.get("/v1/users/usr_nobody/messages"), 404, "unknown_user")


async def test_all_refs_of_a_user_give_all_his_messages(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    """Each subject was welcomed before it was known that they are one user."""
    await log.apply([event("a")])
    await log.apply([event("b", subject="wechat.x:o1")], now=NOW + HOUR)
    await link(sessions, "demo", "douyin:u1", "wechat.x:o1")
    for ref in ("douyin:u1", "wechat.x:o1", user_id_of("demo", "douyin:u1"), user_id_of("demo", "wechat.x:o1")):
        path = f"/v1/users/{ref}/messages"
        assert [row["subject"] for row in await items(api, path)] == ["wechat.x:o1", "douyin:u1"]
        assert [row["event"]["id"] for row in await items(api, "/v1/decisions", user=ref)] == ["b", "a"]
        first = (await api.get(path, params={"limit": 1})).json()
        assert (first["has_more"], first["items"][0]["subject"]) == (True, "wechat.x:o1")
        second = (await api.get(path, params={"limit": 1, "cursor": first["next_cursor"]})).json()
        assert (second["has_more"], second["items"][0]["subject"]) == (False, "douyin:u1")


async def test_a_decision_tells_its_reason_and_values(api: httpx.AsyncClient, log: Log) -> None:
    follow = event("a", 25 * HOUR)
    await log.apply([follow])
    (decision,) = await items(api, "/v1/decisions", user="douyin:u1")
    assert decision == {
        "decision_id": f"welcome:{follow.digest.hex()}",
        "user_id": user_id_of("demo", "douyin:u1"),
        "subject": "douyin:u1",
        "journey": "welcome",
        "journey_version": 1,
        "step": "hello",
        "channel": "in_app",
        "purpose": "service",
        "turn": 1,
        "outcome": "skipped",
        "reason": "too_old",
        "until": None,
        "values": {"earlier_message_id": None, "backfill": False, "age_seconds": 90000, "max_age_seconds": 86400},
        "gates": [],
        "message_id": None,
        "revision": 1,
        "event": {"type": "follow", "source": "/t", "id": "a", "time": "2026-06-14T11:00:00Z"},
        "decided_at": "2026-06-15T12:00:00Z",
    }


async def some_of_each(log: Log) -> None:
    """One decision of each kind, in this order in time: sent, already_messaged, backfilled, too_old, not_following."""
    await log.apply([event("sent")])
    await log.apply([event("already")], now=NOW + HOUR)
    await log.apply([event("backfilled", subject="douyin:u2", backfill=True)], now=NOW + 2 * HOUR)
    await log.apply([event("old", 30 * HOUR, subject="douyin:u3")], now=NOW + 3 * HOUR)
    gone = event("gone", subject="douyin:u4", type="unfollow")
    await log.apply([gone, event("left", 2 * HOUR, subject="douyin:u4")], now=NOW + 4 * HOUR)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, ["left", "old", "backfilled", "already", "sent"]),
        ({"journey": "welcome"}, ["left", "old", "backfilled", "already", "sent"]),
        ({"outcome": "sent"}, ["sent"]),
        ({"outcome": "skipped"}, ["left", "old", "backfilled", "already"]),
        ({"reason": "already_messaged"}, ["already"]),
        ({"reason": "backfilled"}, ["backfilled"]),
        ({"reason": "too_old"}, ["old"]),
        ({"reason": "not_following"}, ["left"]),
        ({"outcome": "sent", "reason": "too_old"}, []),
        ({"user": "douyin:u1"}, ["already", "sent"]),
        ({"user": "douyin:u1", "outcome": "skipped"}, ["already"]),
        ({"user": "douyin:u4", "reason": "too_old"}, []),
        ({"known_at": (NOW + 2 * HOUR).isoformat()}, ["backfilled", "already", "sent"]),
        ({"known_at": (NOW - HOUR).isoformat()}, []),
        ({"known_at": "2026-06-15T20:30:00+08:00", "user": "douyin:u1"}, ["sent"]),
    ],
)
async def test_filters(api: httpx.AsyncClient, log: Log, filters: dict[str, str], ids: list[str]) -> None:
    await some_of_each(log)
    assert [row["event"]["id"] for row in await items(api, "/v1/decisions", **filters)] == ids


@pytest.mark.parametrize(
    ("path", "parameters", "place"),
    [
        ("/v1/decisions", {"outcome": "perhaps"}, "query/outcome"),
        ("/v1/decisions", {"reason": "bad_mood"}, "query/reason"),
        ("/v1/decisions", {"journey": "Good bye"}, "query/journey"),
        ("/v1/decisions", {"known_at": "yesterday"}, "query/known_at"),
        ("/v1/decisions", {"known_at": "2026-06-15T20:30:00"}, "query/known_at"),
        ("/v1/decisions", {"limit": "0"}, "query/limit"),
        ("/v1/decisions", {"limit": "1001"}, "query/limit"),
        ("/v1/decisions", {"cursor": "nonsense"}, "query/cursor"),
        ("/v1/decisions", {"cursor": "WyIyMDI2LTA2LTE1VDEyOjAwOjAwKzAwOjAwIiwieCJd"}, "query/cursor"),
        ("/v1/decisions", {"user": "x" * 201}, "query/user"),
        (INBOX, {"lang": "fr"}, "query/lang"),
        (INBOX, {"cursor": "WzFd"}, "query/cursor"),
        (f"/v1/users/{'x' * 201}/messages", {}, "path/ref"),
    ],
)
async def test_bad_parameters(
    api: httpx.AsyncClient, log: Log, path: str, parameters: dict[str, str], place: str
) -> None:
    await log.apply([event("a")])
    body = problem(await api.get(path, params=parameters), 422, "invalid_request")
    assert places(body) == [place]


async def test_an_unknown_user_has_no_decisions(api: httpx.AsyncClient) -> None:
    problem(await api.get("/v1/decisions", params={"user": "douyin:nobody"}), 404, "unknown_user")


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
async def test_pages_are_complete_and_without_repeats_while_more_is_decided(
    api: httpx.AsyncClient, log: Log, limit: int
) -> None:
    """Many decisions share an instant, and new ones arrive between the pages."""
    for batch in range(3):
        at = NOW + timedelta(seconds=batch)
        await log.apply([event(f"{batch}-{n}", subject=f"douyin:u{n % 4}") for n in range(6)], now=at)
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/v1/decisions", params={"limit": limit, **cursor})).json()
        assert len(page["items"]) <= limit
        seen += page["items"]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            break
        cursor = {"cursor": page["next_cursor"]}
        await log.apply([event(f"later-{len(seen)}")], now=NOW + HOUR)
    assert len(seen) == 18
    assert {row["event"]["id"] for row in seen} == {f"{batch}-{n}" for batch in range(3) for n in range(6)}
    times = [row["decided_at"] for row in seen]
    assert times == sorted(times, reverse=True)
    for subject in {row["subject"] for row in seen}:
        own = [row["revision"] for row in seen if row["subject"] == subject]
        assert own == sorted(own, reverse=True)


async def test_openapi_gives_stable_names_and_examples(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    operations = {
        f"{method} {path}": operation["operationId"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation["tags"] != ["operations"]
    }
    assert operations == {
        "get /v1/users/{ref}/messages": "list_messages",
        "get /v1/users/{ref}/consents": "list_consents",
        "get /v1/decisions": "list_decisions",
        "post /v1/decisions/preview": "preview_decision",
        "get /v1/contact-policy": "get_contact_policy",
        "put /v1/contact-policy": "put_contact_policy",
        "get /v1/journeys": "list_journeys",
        "get /v1/journeys/{key}": "get_journey",
        "put /v1/journeys/{key}": "put_journey",
        "get /v1/journeys/{key}/versions": "list_journey_versions",
        "post /v1/journeys/{key}/pause": "pause_journey",
        "post /v1/journeys/{key}/resume": "resume_journey",
        "post /v1/journeys/{key}/preview": "preview_journey",
    }
    schemas = document["components"]["schemas"]
    own = ("Message", "Consents", "Decision", "PreviewRequest", "PreviewedDecision", "Definition", "RenderRequest")
    assert all("example" in schemas[name] for name in (*own, "Rendered", "PolicyBody", "PolicyVersion"))
