"""Dead letters over REST on a real database: who sees them, what a redrive does, and that it counts once."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from libs.common.db import Sessions, make_engine
from libs.common.migrate import upgrade
from tests.support.dead_letters import DEMO, OTHER, READER, Desk, document, follow, make_desk, refuse
from tests.support.folding import NOW, FakeMessage, empty, rows
from tests.support.postgres import TestServer
from tests.support.web import places, problem

UNKNOWN = "0" * 32


@pytest.fixture(scope="module")
async def database(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("profile") as sessions:
        yield sessions


@pytest.fixture
async def desk(database: Sessions, tmp_path: Path) -> Desk:
    await empty(database)
    return make_desk(database, tmp_path)


async def test_poison_among_good_ones_is_restored_by_a_redrive_after_the_fix(desk: Desk) -> None:
    desk.handler.poison = {"e3", "e7"}
    await desk.log.apply([follow(f"e{n}") for n in range(10)])
    assert await desk.applied() == [f"e{n}" for n in range(10) if n not in (3, 7)]

    desk.handler.poison = set()
    for letter_id in await desk.ids():
        done = await desk.ok("POST", f"dead-letters/{letter_id}/redrive")
        assert done == {"id": letter_id, "outcome": "applied", "error": None, "reason": None}
        again = await desk.ok("POST", f"dead-letters/{letter_id}/redrive")
        assert again["outcome"] == "already_applied"
    assert await desk.applied() == [f"e{n}" for n in range(10)]
    assert await desk.ids() == []


async def test_a_redrive_that_fails_keeps_the_letter_and_tells_why(desk: Desk) -> None:
    desk.handler.poison = {"a"}
    await desk.log.apply([follow("a")])
    [letter_id] = await desk.ids()
    desk.handler.error = ZeroDivisionError("another bug")
    done = await desk.ok("POST", f"dead-letters/{letter_id}/redrive")
    assert (done["outcome"], done["error"], done["reason"]) == ("failed", "ZeroDivisionError", "another bug")
    shown = await desk.ok("GET", f"dead-letters/{letter_id}")
    assert (shown["attempts"], shown["error"], shown["reason"]) == (2, "ZeroDivisionError", "another bug")
    assert shown["last_at"] > shown["first_at"]
    assert await desk.applied() == []


async def test_a_dry_run_tells_the_outcome_and_changes_nothing(desk: Desk) -> None:
    desk.handler.poison = {"a"}
    await desk.log.apply([follow("a")])
    [letter_id] = await desk.ids()
    before = await desk.ok("GET", f"dead-letters/{letter_id}")
    assert (await desk.ok("POST", f"dead-letters/{letter_id}/dry-run"))["outcome"] == "failed"
    desk.handler.poison = set()
    assert (await desk.ok("POST", f"dead-letters/{letter_id}/dry-run"))["outcome"] == "applied"
    assert await desk.ok("GET", f"dead-letters/{letter_id}") == before
    assert await desk.applied() == []


async def test_a_database_that_fails_is_no_attempt(desk: Desk) -> None:
    desk.handler.poison = {"a"}
    await desk.log.apply([follow("a")])
    [letter_id] = await desk.ids()
    desk.handler.error = TimeoutError("no answer")
    for path in (f"dead-letters/{letter_id}/redrive", f"dead-letters/{letter_id}/dry-run"):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(desk.app, raise_app_exceptions=False),
            base_url="http://test",
            headers={"Authorization": f"Bearer {DEMO}"},
        ) as http:
            assert (await http.post(f"/v1/{path}")).status_code == 503
    assert await rows(desk.sessions, "dead_letter", "attempts, error") == [(1, "ValueError")]


async def test_of_two_redrives_at_once_one_applies(desk: Desk) -> None:
    desk.handler.poison = {f"e{n}" for n in range(20)}
    await desk.log.apply([follow(f"e{n}") for n in range(20)])
    letters = await desk.ids()
    desk.handler.poison = set()
    for letter_id in letters:
        done = await asyncio.gather(*(desk.ok("POST", f"dead-letters/{letter_id}/redrive") for _ in range(3)))
        assert sorted(item["outcome"] for item in done) == ["already_applied", "already_applied", "applied"]
    assert len(await desk.applied()) == 20
    assert await desk.ids() == []


async def test_a_redrive_and_the_same_event_from_kafka_count_once(desk: Desk) -> None:
    names = [f"e{n}" for n in range(20)]
    desk.handler.poison = set(names)
    await desk.log.apply([follow(name) for name in names])
    letters = await desk.ids()
    desk.handler.poison = set()
    for name, letter_id in zip(reversed(names), sorted(letters), strict=True):
        await asyncio.gather(desk.log.apply([follow(name)]), desk.ok("POST", f"dead-letters/{letter_id}/redrive"))
    assert await desk.applied() == sorted(names)
    assert await desk.ids() == []


async def test_an_event_applied_meanwhile_is_a_success_and_counts_once(desk: Desk) -> None:
    desk.handler.poison = {"a"}
    await desk.log.apply([follow("a")])
    [letter_id] = await desk.ids()
    desk.handler.poison = set()
    await desk.log.apply([follow("a")])
    assert (await desk.ok("POST", f"dead-letters/{letter_id}/redrive"))["outcome"] == "already_applied"
    assert await desk.applied() == ["a"]
    assert await desk.ids() == []


async def test_what_is_corrected_during_a_redrive_is_not_lost(desk: Desk) -> None:
    desk.handler.poison = {"a"}
    await desk.log.apply([follow("a")])
    [letter_id] = await desk.ids()
    corrected = document(follow("a"), subject="douyin:u2")

    async def correct() -> None:
        desk.handler.during = None
        await desk.ok("PUT", f"dead-letters/{letter_id}", body=corrected)

    desk.handler.poison, desk.handler.during = set(), correct
    problem(await desk.call("POST", f"dead-letters/{letter_id}/redrive"), 409, "changed_meanwhile")
    assert await desk.applied() == []
    assert (await desk.ok("POST", f"dead-letters/{letter_id}/redrive"))["outcome"] == "applied"
    assert await rows(desk.sessions, "event", "subject") == [("douyin:u2",)]


async def test_an_invalid_event_is_corrected_and_applied(desk: Desk) -> None:
    wrong = document(follow("a"), time="yesterday")
    await desk.log.apply([json.dumps(wrong).encode()])
    [letter_id] = await desk.ids("?type=follow")
    shown = await desk.ok("GET", f"dead-letters/{letter_id}")
    assert (shown["value"], shown["value_base64"], shown["error"]) == (wrong, None, "ValidationError")
    assert (await desk.ok("POST", f"dead-letters/{letter_id}/redrive"))["error"] == "ValidationError"

    shown = await desk.ok("PUT", f"dead-letters/{letter_id}", body=document(follow("a")))
    assert shown["id"] == letter_id
    assert shown["value"]["time"] == "2026-06-15T12:00:00Z"
    assert shown["edited_at"] is not None
    assert await desk.applied() == []
    for outcome in ("applied", "already_applied"):
        assert (await desk.ok("POST", f"dead-letters/{letter_id}/redrive"))["outcome"] == outcome
    assert await desk.applied() == ["a"]


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"id": "b"}, ["/id"]),
        ({"account": "other", "source": "/u"}, ["/account", "/source"]),
        ({"trust": "platform"}, ["/trust"]),
        ({"type": "like", "dataschema": None}, ["/type"]),
        ({"type": "nonsense"}, ["/type"]),
        ({"time": "yesterday", "subject": "u1"}, ["/subject", "/time"]),
        ({"subject": "a\0b"}, ["/subject"]),
    ],
)
async def test_a_wrong_correction_is_refused_with_pointers(
    desk: Desk, change: dict[str, Any], pointers: list[str]
) -> None:
    desk.handler.poison = {"a"}
    await desk.log.apply([follow("a")])
    [letter_id] = await desk.ids()
    before = await desk.ok("GET", f"dead-letters/{letter_id}")
    response = await desk.call("PUT", f"dead-letters/{letter_id}", body=document(follow("a"), **change))
    assert sorted(places(problem(response, 422, "invalid_request"))) == pointers
    assert await desk.ok("GET", f"dead-letters/{letter_id}") == before


async def test_bytes_belong_to_the_account_of_their_key_and_others_see_nothing(desk: Desk) -> None:
    secret = b"\xff secret"
    await refuse(desk, FakeMessage("superfan.follows", 1, 0, secret, b"demo/douyin:u1"))
    [letter_id] = await desk.ids()
    shown = await desk.ok("GET", f"dead-letters/{letter_id}", READER)
    assert (base64.b64decode(shown["value_base64"]), shown["value"], shown["key"]) == (secret, None, "demo/douyin:u1")
    assert await desk.ids(key=OTHER) == []
    for method, path, body in [
        ("GET", "", None),
        ("PUT", "", document(follow("a"))),
        ("POST", "/dry-run", None),
        ("POST", "/redrive", None),
        ("POST", "/drop", {"reason": "spite"}),
    ]:
        problem(await desk.call(method, f"dead-letters/{letter_id}{path}", OTHER, body), 404, "unknown_dead_letter")
        if method != "GET":
            problem(await desk.call(method, f"dead-letters/{letter_id}{path}", READER, body), 403, "missing_scope")
    assert (await desk.ok("POST", "dead-letters:drop", OTHER, {"reason": "spite"}))["items"] == []
    assert await desk.ids() == [letter_id]

    await desk.ok("PUT", f"dead-letters/{letter_id}", body=document(follow("a")))
    assert (await desk.ok("POST", f"dead-letters/{letter_id}/redrive"))["outcome"] == "applied"


@pytest.mark.parametrize("key", [None, b"\xff\xfe", b"DEMO/x"])
async def test_nobodys_letter_shows_no_content_and_can_only_be_dropped(desk: Desk, key: bytes | None) -> None:
    await refuse(desk, FakeMessage("superfan.follows", 2, 0, b'{"type": "secret"}', key))
    for caller in (DEMO, OTHER):
        [letter_id] = await desk.ids(key=caller)
        response = await desk.call("GET", f"dead-letters/{letter_id}", caller)
        assert "secret" not in response.text
        shown = response.json()
        assert [shown[name] for name in ("readable", "value", "value_base64", "key", "reason")] == [False, *[None] * 4]
        assert (shown["topic"], shown["partition"], shown["offset"]) == ("superfan.follows", 2, 0)
    for method, path, body in [
        ("PUT", "", document(follow("a"))),
        ("POST", "/dry-run", None),
        ("POST", "/redrive", None),
    ]:
        problem(await desk.call(method, f"dead-letters/{letter_id}{path}", DEMO, body), 403, "nobodys_letter")
    assert (await desk.ok("POST", "dead-letters:redrive", DEMO, {}))["items"] == []
    assert (await desk.ok("POST", "dead-letters:drop", DEMO, {"reason": "all"}))["items"] == []
    assert (await desk.ok("POST", f"dead-letters/{letter_id}/drop", DEMO, {"reason": "noise"}))["outcome"] == "dropped"
    assert await desk.ids() == []


@pytest.mark.parametrize("value", [b"[" * 300 + b"]" * 300, b"[" * 200 + b"]" * 200, b'{"a": "\\u0000"}', b"12", b""])
async def test_any_content_can_be_shown(desk: Desk, value: bytes) -> None:
    await refuse(desk, FakeMessage("superfan.follows", 3, 0, value, b"demo/x"))
    [letter_id] = await desk.ids()
    shown = await desk.ok("GET", f"dead-letters/{letter_id}")
    if shown["value_base64"] is None:
        assert shown["value"] == json.loads(value)
    else:
        assert base64.b64decode(shown["value_base64"]) == value


async def test_the_list_is_paged_and_filtered(desk: Desk) -> None:
    desk.handler.poison = {f"e{n}" for n in range(7)}
    for n in range(7):
        await desk.log.apply([follow(f"e{n}")], now=NOW + timedelta(minutes=n // 2))
    all_ids = await desk.ids()
    assert len(set(all_ids)) == 7
    found: list[str] = []
    cursor = ""
    while True:
        page = await desk.ok("GET", f"dead-letters?limit=2{cursor}")
        found += [item["id"] for item in page["items"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == all_ids
    assert await desk.ids("?since=2026-06-15T12:01:00Z&until=2026-06-15T12:02:00Z") == all_ids[3:5]
    assert await desk.ids("?type=follow&error=ValueError&topic=superfan.follows") == all_ids
    for query in ("?type=like", "?error=KeyError", "?topic=superfan.views"):
        assert await desk.ids(query) == []
    problem(await desk.call("GET", "dead-letters?cursor=x"), 422, "invalid_request")


async def test_many_are_redriven_one_by_one(desk: Desk) -> None:
    names = [f"e{n}" for n in range(5)]
    desk.handler.poison = set(names)
    await desk.log.apply([follow(name) for name in names])
    desk.handler.poison = {"e2"}
    assert (await desk.ok("POST", "dead-letters:redrive", body={"filter": {"type": "like"}}))["counts"] == {}
    first = await desk.ok("POST", "dead-letters:redrive", body={"limit": 3, "filter": {"type": "follow"}})
    second = await desk.ok("POST", f"dead-letters:redrive?cursor={first['next_cursor']}", body={"limit": 3})
    assert second["next_cursor"] is None
    items = first["items"] + second["items"]
    assert sorted(item["outcome"] for item in items) == ["applied"] * 4 + ["failed"]
    assert len({item["id"] for item in items}) == 5
    assert await desk.applied() == ["e0", "e1", "e3", "e4"]
    [left] = await desk.ids()
    assert [item["id"] for item in items if item["outcome"] == "failed"] == [left]

    problem(await desk.call("POST", "dead-letters:drop", body={}), 422, "invalid_request")
    dropped = await desk.ok(
        "POST", "dead-letters:drop", body={"filter": {"error": "ValueError"}, "reason": "known bug"}
    )
    assert dropped["items"] == [{"id": left, "outcome": "dropped", "error": None, "reason": None}]
    assert await desk.ids() == []


async def test_a_slip_in_the_filter_drops_nothing(desk: Desk) -> None:
    desk.handler.poison = {"a"}
    await desk.log.apply([follow("a")])
    response = await desk.call("POST", "dead-letters:drop", body={"filter": {"typ": "like"}, "reason": "x"})
    assert places(problem(response, 422, "invalid_request")) == ["/filter/typ"]
    assert len(await desk.ids()) == 1


async def test_what_is_not_there_is_404(desk: Desk) -> None:
    for method, path, body in [
        ("GET", "", None),
        ("PUT", "", {}),
        ("POST", "/dry-run", None),
        ("POST", "/redrive", None),
        ("POST", "/drop", {"reason": "x"}),
    ]:
        problem(await desk.call(method, f"dead-letters/{UNKNOWN}{path}", body=body), 404, "unknown_dead_letter")


async def test_letters_of_an_older_release_get_their_account_from_the_key(pg_url: str) -> None:
    await upgrade(pg_url, "profile", "0001")
    engine = make_engine(pg_url, 2)
    keys = {b"demo/douyin:u1": "demo", b"\xff/x": None, b"DEMO/x": None, b"demo": None, None: None}
    async with engine.begin() as connection:
        for n, key in enumerate(keys):
            await connection.execute(
                text(
                    'insert into dead_letter (digest, topic, partition, "offset", key, error, reason, first_at,'
                    " last_at) values (:digest, 'superfan.follows', 0, 0, :key, 'ValueError', '', now(), now())"
                ),
                {"digest": bytes([n]), "key": key},
            )
    await upgrade(pg_url, "profile")
    async with engine.begin() as connection:
        found = await connection.execute(text("select account from dead_letter order by digest"))
        assert list(found.scalars()) == list(keys.values())
    await engine.dispose()
