"""Spending and adjusting over REST, lots, and the reasons of an entry both ways."""

from datetime import datetime, timedelta
from pathlib import Path

import httpx
import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from libs.common.db import Sessions
from libs.common.identity import user_id_of
from services.rewards.store.audit import CHECKS, STATEMENTS
from tests.rewards.support import FACTS_AND_DECISIONS, check_ledger, checksum, deed, linked, log_of
from tests.support.folding import NOW, Log, rows
from tests.support.web import OTHER_KEY, READ_KEY, client, config_file, places, problem

SUBJECT = "douyin:u1"
USER = user_id_of("demo", SUBJECT)
SPEND, ADJUST = f"/v1/users/{SUBJECT}/spend", f"/v1/users/{SUBJECT}/adjustments"


@pytest.fixture
def log(sessions: Sessions, tmp_path: Path) -> Log:
    return log_of(sessions, config_file(tmp_path))


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


async def test_the_oldest_lots_of_all_subjects_pay_first(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    other = "wechat.x:u1"
    await log.apply(
        [
            deed("follow", 1, SUBJECT, NOW - timedelta(days=1)),
            deed("follow", 2, other, NOW - timedelta(days=3)),
            deed("like", 3, SUBJECT, NOW - timedelta(days=2)),
            linked(2, SUBJECT, other),
        ]
    )
    body = {"points": 14, "reason": "redeemed", "reference": "mug-17"}
    done = await api.post(SPEND, json=body, headers=key("k1"))
    assert done.status_code == 200, done.text
    spent = done.json()
    lots = (await api.get(f"/v1/users/{SUBJECT}/lots", params={"spent": True})).json()["items"]
    assert [(lot["subject"], lot["rule"], lot["granted"], lot["remaining"]) for lot in lots] == [
        (other, "follow", 10, 0),
        (SUBJECT, "like", 1, 0),
        (SUBJECT, "follow", 10, 7),
    ]
    assert spent["points"] == -14
    assert (spent["balance"], spent["user_id"]) == (7, min(USER, user_id_of("demo", other)))
    assert {lot["lot_id"]: lot["points"] for lot in spent["lots"]} == {
        lots[0]["lot_id"]: 10,
        lots[1]["lot_id"]: 1,
        lots[2]["lot_id"]: 3,
    }
    assert [lot["lot_id"] for lot in (await api.get(f"/v1/users/{other}/lots")).json()["items"]] == [lots[2]["lot_id"]]

    entry = (await api.get(f"/v1/users/{other}/ledger", params={"limit": 1})).json()["items"][0]
    assert entry["entry_id"] == spent["entry_id"]
    assert (entry["points"], entry["rule"], entry["request_id"]) == (-14, "spend", "k1")
    assert (entry["made_by"], entry["reason"], entry["reference"]) == ("test", "redeemed", "mug-17")
    assert entry["event"] is None
    assert sorted((leg["book"], leg["subject"] or "", leg["points"]) for leg in entry["legs"]) == [
        ("spent", "", 14),
        ("wallet", SUBJECT, -4),
        ("wallet", other, -10),
    ]
    why = (await api.get(f"/v1/entries/{spent['entry_id']}")).json()
    assert [(part["lot_id"], part["points"], part["rule"]) for part in why["paid_from"]] == [
        (lots[0]["lot_id"], 10, "follow"),
        (lots[1]["lot_id"], 1, "like"),
        (lots[2]["lot_id"], 3, "follow"),
    ]
    assert why["points"] == -14
    back = (await api.get(f"/v1/entries/{lots[2]['lot_id']}")).json()
    assert back["event"]["id"] == "follow-1"
    assert (back["rule_definition"]["points"], back["lot"]["remaining"]) == (10, 7)
    assert [(use["entry_id"], use["points"], use["reference"]) for use in back["spent_on"]] == [
        (spent["entry_id"], 3, "mug-17")
    ]
    points = (await api.get(f"/v1/users/{SUBJECT}/points")).json()
    assert (points["balance"], points["by_rule"]) == (7, {"follow": 20, "like": 1, "spend": -14})
    told = [orjson.loads(value) for _, value in sorted(await rows(sessions, "outbox", "id, value"))]
    notices = {event["subject"]: event["data"] for event in told if event["type"] == "points.spent"}
    assert {subject: (data["points"], data["balance"], data["user_balance"]) for subject, data in notices.items()} == {
        SUBJECT: (-4, 7, 7),
        other: (-10, 0, 7),
    }
    assert {subject: data["entity"] for subject, data in notices.items()} == {
        subject: user_id_of("demo", subject) for subject in (SUBJECT, other)
    }
    await check_ledger(sessions)


async def test_a_refusal_leaves_every_byte_and_stays_one(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    await log.apply([deed("follow", 1)])
    before = await checksum(sessions, (*FACTS_AND_DECISIONS, "event"))
    for path, points in ((SPEND, 11), (ADJUST, -11)):
        for _ in range(2):
            body = {"points": points, "reason": "too much"}
            answer = await api.post(path, json=body, headers=key(f"refused {points}".replace(" ", "-")))
            assert "10 points" in problem(answer, 409, "insufficient_points")["detail"]
            assert await checksum(sessions, tuple(before)) == before
    await log.apply([deed("follow", 2)])
    again = await api.post(SPEND, json={"points": 11, "reason": "too much"}, headers=key("refused-11"))
    problem(again, 409, "insufficient_points")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await api.post(SPEND, json={"points": 11, "reason": "now"}, headers=key("another"))).json()["balance"] == 9


async def test_the_same_key_spends_once(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    await log.apply([deed("follow", 1)])
    body = {"points": 4, "reason": "r"}
    first = await api.post(SPEND, json=body, headers=key("k"))
    before = await checksum(sessions)
    again = await api.post(SPEND, json=body, headers=key("k"))
    assert again.json() == first.json()
    other = await api.post(SPEND, json={**body, "points": 5}, headers=key("k"))
    assert places(problem(other, 409, "idempotency_key_reused")) == ["/points"]
    problem(await api.post(ADJUST, json=body, headers=key("k")), 409, "idempotency_key_reused")
    assert await checksum(sessions) == before
    assert (await api.get(f"/v1/users/{SUBJECT}/points")).json()["balance"] == 6


async def test_adjusting_gives_a_lot_that_counts_for_no_level(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    await log.apply([deed("unfollow", 1)])
    given = await api.post(ADJUST, json={"points": 500, "reason": "goodwill"}, headers=key("a"))
    assert (given.json()["points"], given.json()["balance"]) == (500, 500)
    level = (await api.get(f"/v1/users/{SUBJECT}/level")).json()
    assert (level["rank"], level["growth"]) == (0, 0)
    taken = await api.post(ADJUST, json={"points": -100, "reason": "mistake"}, headers=key("b"))
    assert (taken.json()["points"], taken.json()["balance"]) == (-100, 400)
    assert sorted(await rows(sessions, "ledger_entry", "book, points")) == [
        ("adjusted", -500),
        ("adjusted", 100),
        ("wallet", -100),
        ("wallet", 500),
    ]
    await check_ledger(sessions)


@pytest.mark.parametrize(
    ("path", "body", "headers", "place"),
    [
        (SPEND, {"points": 1, "reason": "r"}, {}, "header/idempotency-key"),
        (SPEND, {"points": 0, "reason": "r"}, key("k"), "/points"),
        (SPEND, {"points": -1, "reason": "r"}, key("k"), "/points"),
        (SPEND, {"points": True, "reason": "r"}, key("k"), "/points"),
        (SPEND, {"points": 1}, key("k"), "/reason"),
        (SPEND, {"points": 1, "reason": ""}, key("k"), "/reason"),
        (SPEND, {"points": 1, "reason": "r", "more": 1}, key("k"), "/more"),
        (ADJUST, {"points": 0, "reason": "r"}, key("k"), "/points"),
        (ADJUST, {"points": 10**13, "reason": "r"}, key("k"), "/points"),
    ],
)
async def test_what_is_not_understood_changes_nothing(
    api: httpx.AsyncClient,
    sessions: Sessions,
    log: Log,
    path: str,
    body: dict[str, object],
    headers: dict[str, str],
    place: str,
) -> None:
    await log.apply([deed("follow", 1)])
    assert places(problem(await api.post(path, json=body, headers=headers), 422, "invalid_request")) == [place]
    assert len(await rows(sessions, "ledger_entry", "leg")) == 2


async def test_strangers_and_readers_spend_nothing(api: httpx.AsyncClient, app: FastAPI, log: Log) -> None:
    await log.apply([deed("follow", 1)])
    body = {"points": 1, "reason": "r"}
    entry = (await api.get(f"/v1/users/{SUBJECT}/ledger")).json()["items"][0]["entry_id"]
    async with client(app, READ_KEY) as reader:
        problem(await reader.post(SPEND, json=body, headers=key("k")), 403, "missing_scope")
    async with client(app, OTHER_KEY) as stranger:
        problem(await stranger.post(SPEND, json=body, headers=key("k")), 404, "unknown_user")
        problem(await stranger.get(f"/v1/entries/{entry}"), 404, "unknown_entry")
    problem(await api.post("/v1/users/douyin:nobody/spend", json=body, headers=key("n")), 404, "unknown_user")


async def test_lots_come_page_by_page(api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([deed("like", n, time=NOW - timedelta(hours=n % 3)) for n in range(7)])
    seen, cursor = [], None
    while True:
        page = (
            await api.get(f"/v1/users/{SUBJECT}/lots", params={"limit": 3, **({"cursor": cursor} if cursor else {})})
        ).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert len({lot["lot_id"] for lot in seen}) == 7
    assert [lot["earned_at"] for lot in seen] == sorted(lot["earned_at"] for lot in seen)
    assert datetime.fromisoformat(seen[0]["spendable_from"]) == NOW
    problem(await api.get(f"/v1/users/{SUBJECT}/lots", params={"cursor": "x"}), 422, "invalid_request")


async def test_the_audit_finds_what_was_tampered_with(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    await log.apply([deed("follow", 1)])
    await api.post(SPEND, json={"points": 3, "reason": "r"}, headers=key("k"))
    assert (await api.get("/v1/ledger/audit")).json()["correct"]
    spoiled = {
        "update balance set growth = growth + 1": {"balance_entry_differences"},
        "update balance set points = points + 1": {"balance_entry_differences", "balance_lot_differences"},
        "update ledger_entry set points = points + 1 where book = 'issued'": {"unbalanced_transactions"},
        "delete from ledger_entry where book = 'spent'": {"unbalanced_transactions"},
        "delete from lot_use": {"lot_use_differences"},
        "update lot set remaining = remaining - 1": {"balance_lot_differences", "lot_use_differences"},
        "delete from balance": {"balance_entry_differences", "balance_lot_differences"},
    }
    for statement, wanted in spoiled.items():
        async with sessions() as session:
            await session.execute(text(statement))
            found = {
                name
                for name, check in STATEMENTS.items()
                if (await session.execute(check, {"account": "demo"})).scalar_one()
            }
            await session.rollback()
        assert found == wanted, statement
    assert (await api.get("/v1/ledger/audit")).json() == {
        "correct": True,
        "checks": [{"name": name, "description": what, "wrong": 0} for name, (what, _) in CHECKS.items()],
    }
    async with sessions() as session:
        with pytest.raises(Exception, match="ck_lot_remaining"):
            await session.execute(text("update lot set remaining = -1"))
    async with sessions() as session:
        with pytest.raises(Exception, match="ck_balance_points"):
            await session.execute(text("update balance set points = -1"))
