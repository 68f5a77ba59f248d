"""Rules and levels as data: versions, ETags, pointers, and what they do to deeds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from libs.common.db import Sessions
from tests.rewards.support import deed, log_of
from tests.support.folding import NOW, Log, rows
from tests.support.web import OTHER_KEY, READ_KEY, client, config_file, places, problem

FIXED: dict[str, Any] = {"kind": "fixed", "event_type": "comment", "points": 4}
ENTRIES = "ledger_entry where leg = 0"


@pytest.fixture
def log(sessions: Sessions, tmp_path: Path) -> Log:
    return log_of(sessions, config_file(tmp_path))


async def test_every_account_has_the_built_in_rules(api: httpx.AsyncClient) -> None:
    items = {item["key"]: item for item in (await api.get("/v1/rules")).json()["items"]}
    assert set(items) == {
        "sign_in",
        "follow",
        "like",
        "comment",
        "share",
        "live_gift",
        "live_fanclub",
        "survey",
        "order_paid",
    }
    assert items["sign_in"] == {
        "key": "sign_in",
        "version": 1,
        "effective_from": None,
        "created_at": None,
        "created_by": None,
        "built_in": True,
        "rule": {
            "kind": "streak",
            "event_type": "sign_in",
            "active": True,
            "growth_per_point": 1,
            "steps": [1, 1, 1, 1, 1, 1, 6],
            "cycle": 7,
        },
    }
    assert all(item["built_in"] for item in items.values())
    problem(await api.get("/v1/rules/nonsense"), 404, "unknown_rule")
    problem(await api.get("/v1/rules/follow", params={"version": 2}), 404, "unknown_version")


async def test_a_change_is_a_version_with_who_and_when(api: httpx.AsyncClient, app: FastAPI) -> None:
    first = await api.get("/v1/rules/comment")
    assert first.headers["ETag"] == '"1"'
    body = {"rule": {**FIXED, "caps": {"day": 10}}, "effective_from": "2026-06-01T08:00:00+08:00"}
    stored = await api.put("/v1/rules/comment", json=body, headers={"If-Match": '"1"'})
    assert stored.status_code == 200, stored.text
    assert stored.headers["ETag"] == '"2"'
    assert stored.json()["effective_from"] == "2026-06-01T00:00:00Z"
    assert (stored.json()["version"], stored.json()["created_by"], stored.json()["built_in"]) == (2, "test", False)
    assert datetime.now(UTC) - datetime.fromisoformat(stored.json()["created_at"]) < timedelta(minutes=5)
    assert (await api.get("/v1/rules/comment")).json() == stored.json()
    assert (await api.get("/v1/rules/comment", params={"version": 1})).json() == first.json()
    versions = (await api.get("/v1/rules/comment/versions")).json()["items"]
    assert [version["version"] for version in versions] == [2, 1]

    problem(await api.put("/v1/rules/comment", json=body, headers={"If-Match": '"1"'}), 412, "version_changed")
    again = await api.put("/v1/rules/comment", json=body, headers={"If-Match": '"2"'})
    assert again.json() == stored.json(), "the same definition again is no new version"
    assert places(
        problem(await api.put("/v1/rules/comment", json=body, headers={"If-Match": "2"}), 422, "invalid_request")
    ) == ["header/If-Match"]
    new = await api.put("/v1/rules/gold-comment", json={"rule": FIXED}, headers={"If-Match": '"0"'})
    assert new.json()["version"] == 1
    problem(await api.put("/v1/rules/gold-comment", json=body, headers={"If-Match": '"0"'}), 412, "version_changed")
    async with client(app, OTHER_KEY) as other:
        assert (await other.get("/v1/rules/comment")).json()["version"] == 1
        problem(await other.get("/v1/rules/gold-comment"), 404, "unknown_rule")
    async with client(app, READ_KEY) as reader:
        problem(await reader.put("/v1/rules/comment", json=body), 403, "missing_scope")


STREAK: dict[str, Any] = {"kind": "streak", "steps": [1, 1, 1, 1, 1, 1, 6], "cycle": 7}


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        ({**FIXED, "points": 0}, "/rule/points"),
        ({**FIXED, "event_type": "view"}, "/rule/event_type"),
        ({**FIXED, "kind": "magic"}, "/rule"),
        ({**FIXED, "caps": {"year": 1}}, "/rule/caps/year"),
        ({**FIXED, "caps": {"day": -1}}, "/rule/caps/day"),
        ({**FIXED, "min_amount": {"amount_minor": 100, "currency": "CNY"}}, "/rule/min_amount"),
        ({**FIXED, "growth_per_point": -1}, "/rule/growth_per_point"),
        ({"kind": "per_amount", "event_type": "order.paid", "points": 1}, "/rule/per"),
        (
            {"kind": "per_amount", "event_type": "like", "points": 1, "per": {"amount_minor": 1, "currency": "CNY"}},
            "/rule/event_type",
        ),
        ({**STREAK, "steps": []}, "/rule/steps"),
        ({**STREAK, "steps": [1, 5, 2]}, "/rule/steps/2"),
        ({**STREAK, "cycle": 3}, "/rule/cycle"),
        ({**STREAK, "caps": {"day": 3}}, "/rule/caps"),
        ({**STREAK, "event_type": "like"}, "/rule/event_type"),
    ],
)
async def test_a_rule_that_cannot_be_used_is_refused_where_it_is_wrong(
    api: httpx.AsyncClient, sessions: Sessions, rule: dict[str, Any], pointer: str
) -> None:
    answer = await api.put("/v1/rules/mine", json={"rule": rule})
    assert places(problem(answer, 422, "invalid_request")) == [pointer]
    assert await rows(sessions, "earn_rule", "key") == []


@pytest.mark.parametrize("key", ["spend", "adjustment", "Upper", "a%20b", "x" * 65])
async def test_a_key_that_cannot_be_used_is_refused(api: httpx.AsyncClient, key: str) -> None:
    answer = await api.put(f"/v1/rules/{key}", json={"rule": FIXED})
    assert places(problem(answer, 422, "invalid_request")) == ["path/rule_key"]


async def test_a_deed_is_judged_by_the_version_in_force_at_its_time(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    june, july = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    for since, points in ((june, 20), (july, 30)):
        body = {"rule": {**FIXED, "points": points}, "effective_from": since.isoformat()}
        assert (await api.put("/v1/rules/comment", json=body)).status_code == 200
    off = {"rule": {**FIXED, "event_type": "share", "active": False}, "effective_from": june.isoformat()}
    assert (await api.put("/v1/rules/share", json=off)).status_code == 200
    both = {"rule": {**FIXED, "points": 7}, "effective_from": july.isoformat()}
    assert (await api.put("/v1/rules/july-bonus", json=both)).status_code == 200
    times = [july + timedelta(days=1), june - timedelta(seconds=1), june, july - timedelta(seconds=1), july]
    await log.apply([deed("comment", n, time=time, comment_id="c") for n, time in enumerate(times)])
    await log.apply([deed("share", n, time=time, content_id="v") for n, time in enumerate(times)])
    assert await rows(sessions, ENTRIES, "event_time, rule, rule_version, points") == sorted(
        [
            (times[1], "comment", 1, 2),
            (times[1], "share", 1, 3),
            (times[2], "comment", 2, 20),
            (times[3], "comment", 2, 20),
            (times[4], "comment", 3, 30),
            (times[0], "comment", 3, 30),
            (times[4], "july-bonus", 1, 7),
            (times[0], "july-bonus", 1, 7),
        ],
        key=repr,
    )


async def test_public_keys_earn_only_where_the_rule_says_so(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    body = {"rule": {**FIXED, "client": True}, "effective_from": "2026-01-01T00:00:00Z"}
    assert (await api.put("/v1/rules/comment", json=body)).status_code == 200
    forged = [deed("comment", 1, comment_id="c"), deed("like", 1), deed("sign_in", 1)]
    await log.apply([event.model_copy(update={"trust": "client"}) for event in forged])
    assert await rows(sessions, ENTRIES, "rule, points") == [("comment", 4)]
    assert await rows(sessions, "sign_in_day", "day") == []


async def test_a_ladder_of_an_account(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    body = {"rule": {"kind": "streak", "steps": [1, 2, 5], "cycle": None}, "effective_from": "2026-01-01T00:00:00Z"}
    assert (await api.put("/v1/rules/sign_in", json=body)).status_code == 200
    for n in (4, 0, 1, 3, 2):
        await log.apply([deed("sign_in", n, time=NOW - timedelta(days=n))])
    assert sum(points for (points,) in await rows(sessions, ENTRIES, "points")) == 1 + 2 + 5 + 5 + 5
    streak = (await api.get("/v1/users/douyin:u1/streak", params={"as_of": NOW.isoformat()})).json()
    assert (streak["current"], streak["next_day_points"]) == (5, 5)


async def test_a_table_of_levels(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    first = await api.get("/v1/levels")
    assert (first.headers["ETag"], first.json()["built_in"]) == ('"1"', True)
    table = {"levels": [{"key": "none", "name": "普通", "growth": 0}, {"key": "gold", "name": "黄金", "growth": 5}]}
    stored = await api.put(
        "/v1/levels", json={"table": table, "effective_from": "2020-01-01"}, headers={"If-Match": '"1"'}
    )
    assert stored.status_code == 200, stored.text
    assert (stored.headers["ETag"], stored.json()["created_by"]) == ('"2"', "test")
    assert [level["key"] for level in (await api.get("/v1/levels")).json()["table"]["levels"]] == ["none", "gold"]
    assert [item["version"] for item in (await api.get("/v1/levels/versions")).json()["items"]] == [2, 1]
    problem(await api.put("/v1/levels", json={"table": table}, headers={"If-Match": '"1"'}), 412, "version_changed")
    now = datetime.now(UTC)
    await log.apply([deed("follow", 1, time=now)], now=now)
    level = (await api.get("/v1/users/douyin:u1/level")).json()
    assert (level["name"], level["next"]) == ("黄金", None)


@pytest.mark.parametrize(
    ("levels", "pointer"),
    [
        ([], "/table/levels"),
        ([("a", 1)], "/table/levels/0/growth"),
        ([("a", 0), ("b", 5), ("c", 5)], "/table/levels/2/growth"),
        ([("a", 0), ("a", 5)], "/table/levels/1/key"),
        ([("a", 0), ("b", -5)], "/table/levels/1/growth"),
    ],
)
async def test_a_table_that_cannot_be_used_is_refused(
    api: httpx.AsyncClient, levels: list[tuple[str, int]], pointer: str
) -> None:
    table = {"levels": [{"key": key, "name": key, "growth": growth} for key, growth in levels]}
    answer = await api.put("/v1/levels", json={"table": table})
    assert places(problem(answer, 422, "invalid_request")) == [pointer]
