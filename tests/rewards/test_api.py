"""rewards over REST. That no route answers without rights or tells of other accounts is shown for all services."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import orjson
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from sqlalchemy import text

from libs.common.config import hash_key
from libs.common.days import local_day, offset_zone
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event, parse_event
from libs.common.identity import user_id_of
from libs.common.web import encode_cursor
from services.rewards.main import SERVICE
from tests.support.folding import NOW, Log, rows
from tests.support.web import KEY, OTHER_KEY, READ_KEY, client, config_file, places, problem

SUBJECT = "douyin:u1"
USER = user_id_of("demo", SUBJECT)
SIGN_INS = f"/v1/users/{SUBJECT}/sign-ins"
READS = [f"/v1/users/{SUBJECT}/{what}" for what in ("points", "ledger", "streak")]
SHANGHAI = ZoneInfo("Asia/Shanghai")
PUBLIC_TOML = f"""
[accounts.demo]
[[keys]]
id = "test"
account = "demo"
sha256 = "{hash_key(KEY)}"
scopes = ["rewards:write"]
trust = "client"
"""


def event(event_type: str, number: int, time: datetime = NOW, subject: str = SUBJECT, **data: object) -> AnyEvent:
    return new_event(
        event_type,
        account="demo",
        source="/app",
        id=f"{event_type}-{number}",
        subject=subject,
        time=time,
        received=time,
        data=data,
    )


@pytest.fixture
def log(sessions: Sessions, tmp_path: Path) -> Log:
    return Log("rewards", sessions, SERVICE.make_handler(config_file(tmp_path).account), SERVICE.keep_data)


async def test_reading_rights_do_not_let_sign_in(app: FastAPI, sessions: Sessions) -> None:
    async with client(app, None) as nobody:
        problem(await nobody.post(SIGN_INS), 401, "unauthorized")
    async with client(app, READ_KEY) as reader:
        problem(await reader.post(SIGN_INS), 403, "missing_scope")
    assert await rows(sessions, "event", "id") == []


async def test_a_public_key_cannot_vouch_for_a_sign_in(sessions: Sessions, tmp_path: Path) -> None:
    config = config_file(tmp_path, PUBLIC_TOML, "rewards")
    async with client(SERVICE.build_app(config, sessions)) as public:
        problem(await public.post(SIGN_INS), 403, "client_trust")
    assert await rows(sessions, "sign_in_day", "day") == []


async def test_the_other_account_has_its_own_user_of_the_same_name(api: httpx.AsyncClient, app: FastAPI) -> None:
    assert (await api.post(SIGN_INS)).status_code == 200
    async with client(app, OTHER_KEY) as other:
        for path in READS:
            problem(await other.get(path), 404, "unknown_user")
        assert (await other.post(SIGN_INS)).json()["user_id"] != USER
        assert (await other.get(READS[0])).json()["balance"] == 1
    assert (await api.get(READS[0])).json()["balance"] == 1


async def test_nobody_has_heard_of_this_user(api: httpx.AsyncClient) -> None:
    for path in READS:
        problem(await api.get(path), 404, "unknown_user")
    problem(await api.post(f"/v1/users/{USER}/sign-ins"), 404, "unknown_user")


@pytest.mark.parametrize("ref", ["nobody", "Douyin:u1", "douyin:", "content:v1", "douyin:a%01b", "douyin:" + "u" * 200])
async def test_who_signs_in_must_be_a_subject(api: httpx.AsyncClient, sessions: Sessions, ref: str) -> None:
    body = problem(await api.post(f"/v1/users/{ref}/sign-ins"), 422, "invalid_request")
    assert places(body) == ["path/ref"]
    assert await rows(sessions, "alias", "subject") == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"utc_offset_minutes": "480"}, "/utc_offset_minutes"),
        ({"utc_offset_minutes": True}, "/utc_offset_minutes"),
        ({"utc_offset_minutes": 5000}, "/utc_offset_minutes"),
        ({"offset": 480}, "/offset"),
    ],
)
async def test_a_body_that_is_not_understood_signs_nobody_in(
    api: httpx.AsyncClient, sessions: Sessions, body: dict[str, object], pointer: str
) -> None:
    assert places(problem(await api.post(SIGN_INS, json=body), 422, "invalid_request")) == [pointer]
    assert await rows(sessions, "event", "id") == []


async def test_signing_in_answers_at_once_and_counts_once(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    day = local_day(datetime.now(UTC), offset_zone(60))
    first = await api.post(SIGN_INS, json={"utc_offset_minutes": 60})
    assert first.json() == {
        "user_id": USER,
        "day": str(day),
        "points": 1,
        "streak": 1,
        "longest": 1,
        "balance": 1,
        "already_signed_in": False,
    }
    again = await api.post(SIGN_INS, json={"utc_offset_minutes": 60})
    assert again.json() == {**first.json(), "points": 0, "already_signed_in": True}

    published = [(topic, bytes(value)) for _, topic, value in await rows(sessions, "outbox", "id, topic, value")]
    assert [topic for topic, _ in published] == ["superfan.interactions", "superfan.rewards"]
    sign_in, notice = (parse_event(value) for _, value in published)
    assert (sign_in.type, sign_in.subject, sign_in.trust) == ("sign_in", SUBJECT, "server")
    assert sign_in.data.model_dump() == {"utc_offset_minutes": 60}
    assert orjson.loads(notice.to_json())["data"]["caused_by"] == sign_in.digest.hex()

    await log.apply([sign_in])  # it comes back from Kafka
    assert sorted(await rows(sessions, "ledger_entry", "points, book")) == [(-1, "issued"), (1, "wallet")]
    assert len(await rows(sessions, "event", "id")) == 1


async def test_an_app_event_and_the_route_count_once_a_day(
    api: httpx.AsyncClient, sessions: Sessions, log: Log
) -> None:
    now = datetime.now(UTC)
    await log.apply([event("sign_in", n, now - timedelta(days=n)) for n in range(6, -1, -1)])
    answer = (await api.post(SIGN_INS)).json()
    assert answer == {
        "user_id": USER,
        "day": str(local_day(now, SHANGHAI)),
        "points": 0,
        "streak": 7,
        "longest": 7,
        "balance": 12,
        "already_signed_in": True,
    }
    assert len(await rows(sessions, "event", "id")) == 7, "a sign-in that was known is not told again"


async def test_the_same_idempotency_key_gives_the_first_answer(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await api.post(SIGN_INS, json={"utc_offset_minutes": 480}, headers=key)
    again = await api.post(SIGN_INS, json={"utc_offset_minutes": 480}, headers=key)
    assert again.json() == first.json()
    assert not again.json()["already_signed_in"]
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await api.post(SIGN_INS, json={"utc_offset_minutes": 60}, headers=key)
    assert places(problem(other, 409, "idempotency_key_reused")) == ["/utc_offset_minutes"]


async def test_a_refusal_stays_a_refusal(api: httpx.AsyncClient, log: Log) -> None:
    path, key = f"/v1/users/{USER}/sign-ins", {"Idempotency-Key": "k2"}
    problem(await api.post(path, headers=key), 404, "unknown_user")
    await log.apply([event("follow", 1)])
    again = await api.post(path, headers=key)
    problem(again, 404, "unknown_user")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await api.post(path)).json()["balance"] == 11


async def test_points_say_which_rules_gave_them_and_when_that_was_known(api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("follow", 1), event("like", 1), event("like", 2)], now=NOW)
    await log.apply([event("like", 3, NOW - timedelta(days=9))], now=NOW + timedelta(hours=1))
    path = f"/v1/users/{USER}/points"
    all_of_it = {"user_id": USER, "balance": 13, "revision": 4, "by_rule": {"follow": 10, "like": 3}}
    assert (await api.get(path)).json() == all_of_it
    known = await api.get(path, params={"known_at": "2026-06-15T20:00:00+08:00"})
    assert known.json() == {"user_id": USER, "balance": 12, "revision": 3, "by_rule": {"follow": 10, "like": 2}}
    before = await api.get(path, params={"known_at": "2026-06-15T11:59:59Z"})
    assert before.json() == {"user_id": USER, "balance": 0, "revision": 0, "by_rule": {}}
    for bad in ("2026-06-15", "2026-06-15T12:00:00", "1781524800", "soon"):
        assert places(problem(await api.get(path, params={"known_at": bad}), 422, "invalid_request")) == [
            "query/known_at"
        ]


async def test_the_ledger_says_why_page_by_page(api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("like", n, NOW - timedelta(minutes=n)) for n in range(5)], now=NOW)
    await log.apply([event("follow", 9, NOW - timedelta(days=1))], now=NOW + timedelta(hours=1))
    path = f"/v1/users/{SUBJECT}/ledger"
    items, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = (await api.get(path, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        assert page["has_more"] == (page["next_cursor"] is not None)
        items += page["items"]
        cursor = page["next_cursor"]
        pages += 1
    assert pages == 3
    assert [item["event"]["id"] for item in items] == ["follow-9", *(f"like-{n}" for n in range(5))]
    entry_id = items[0].pop("entry_id")
    assert items[0] == {
        "points": 10,
        "rule": "follow",
        "rule_version": 1,
        "time": "2026-06-14T12:00:00Z",
        "created_at": "2026-06-15T13:00:00Z",
        "legs": [
            {"book": "wallet", "subject": SUBJECT, "points": 10},
            {"book": "issued", "subject": None, "points": -10},
        ],
        "event": {"source": "/app", "id": "follow-9", "type": "follow", "time": "2026-06-14T12:00:00Z"},
        **dict.fromkeys(("request_id", "made_by", "reason", "reference", "wanted")),
    }
    assert entry_id not in {item.get("entry_id") for item in items}
    for bad in ("x", encode_cursor(["a", "b", "c"]), encode_cursor([NOW, NOW, "not an id"]), encode_cursor([NOW])):
        problem(await api.get(path, params={"cursor": bad}), 422, "invalid_request")


async def test_the_streak_and_its_calendar_as_of_any_day(api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("sign_in", n, NOW - timedelta(days=n)) for n in (0, 1, 2, 5, 40)])
    path = f"/v1/users/{SUBJECT}/streak"
    streak = (await api.get(path, params={"as_of": "2026-06-16T12:00:00Z"})).json()
    shown = streak.pop("calendar")
    assert streak == {
        "user_id": USER,
        "current": 3,
        "longest": 3,
        "days": 5,
        "last_day": "2026-06-15",
        "next_day_points": 1,
    }
    assert len(shown) == 35
    assert shown[-1] == {"day": "2026-06-16", "signed_in": False}
    assert [day["day"] for day in shown if day["signed_in"]] == ["2026-06-10", "2026-06-13", "2026-06-14", "2026-06-15"]
    broken = (await api.get(path, params={"as_of": "2026-06-18T12:00:00Z"})).json()
    assert (broken["current"], broken["longest"], broken["next_day_points"]) == (0, 3, 1)
    earlier = (await api.get(path, params={"as_of": "2026-06-14T11:59:00Z"})).json()
    assert (earlier["current"], earlier["days"], earlier["last_day"]) == (1, 3, "2026-06-13")
    first_day_of_all = (await api.get(path, params={"as_of": "0001-01-02T00:00:00Z"})).json()
    assert first_day_of_all["days"] == 0


async def test_the_seventh_day_is_announced(api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("sign_in", n, NOW - timedelta(days=n)) for n in range(6)])
    streak = (await api.get(f"/v1/users/{SUBJECT}/streak", params={"as_of": NOW.isoformat()})).json()
    assert (streak["current"], streak["next_day_points"]) == (6, 6)


async def test_all_subjects_of_a_user_are_one(api: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    other = "wechat.app:o1"
    now = datetime.now(UTC)
    await log.apply([event("sign_in", 1, now - timedelta(days=1)), event("follow", 1), event("sign_in", 2, now, other)])
    async with sessions() as session, session.begin():
        await session.execute(text("update alias set user_id = :user"), {"user": USER})

    for ref in (SUBJECT, other, USER, user_id_of("demo", other)):
        points = (await api.get(f"/v1/users/{ref}/points")).json()
        assert (points["user_id"], points["balance"], points["revision"]) == (USER, 12, 3)
        streak = (await api.get(f"/v1/users/{ref}/streak")).json()
        assert (streak["current"], streak["days"]) == (2, 2)
        ledger = (await api.get(f"/v1/users/{ref}/ledger")).json()
        assert sorted(item["legs"][0]["subject"] for item in ledger["items"]) == [SUBJECT, SUBJECT, other]
    answer = (await api.post(SIGN_INS)).json()
    assert answer["already_signed_in"], "the other subject of the same user has signed in today"
    assert (answer["streak"], answer["balance"]) == (2, 12)


async def test_points_are_counted_by_rule(api: httpx.AsyncClient, log: Log) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0

    before = (
        value("superfan_points_awarded_total", service="rewards", rule="follow"),
        value("superfan_sign_ins_total", service="rewards", outcome="same_day"),
    )
    await log.apply([event("follow", 1), event("sign_in", 1), event("sign_in", 2)])
    assert value("superfan_points_awarded_total", service="rewards", rule="follow") == before[0] + 10
    assert value("superfan_sign_ins_total", service="rewards", outcome="same_day") == before[1] + 1


async def test_a_dry_run_is_not_counted(sessions: Sessions, app: FastAPI) -> None:
    def value() -> float:
        return REGISTRY.get_sample_value("superfan_points_awarded_total", {"service": "rewards", "rule": "follow"}) or 0

    before = value()
    async with sessions() as session:
        assert len((await app.state.applier.fold(session, [event("follow", 1)], NOW)).new) == 1
        await session.rollback()
        assert value() == before
        await app.state.applier.fold(session, [event("follow", 1)], NOW)
        await session.commit()
    assert value() == before + 10
