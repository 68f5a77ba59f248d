"""segmentation over REST: who may ask, what is answered for any instant, what is refused."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.config import ConfigFile, hash_key, make_key
from libs.common.db import Sessions
from libs.common.identity import user_id_of
from services.segmentation.domain.ladder import RUNGS
from services.segmentation.main import SERVICE
from tests.segmentation.support import event, link
from tests.support.folding import NOW, Log

U1, U2 = user_id_of("demo", "douyin:u1"), user_id_of("demo", "douyin:u2")
KEYS = {name: make_key(name, "secret") for name in ("reader", "powerless", "stranger")}
PATHS = (
    "/v1/users/douyin:u1/lifecycle",
    "/v1/users/douyin:u1/memberships",
    "/v1/segments",
    "/v1/segments/lifecycle.new/members",
    "/v1/users/douyin:u1/ladder",
    "/v1/layerings/ladder/sizes",
    "/v1/layerings/lifecycle/flow",
)
AS_OF = NOW.isoformat()


@pytest.fixture
async def client(sessions: Sessions, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    file = tmp_path / "superfan.toml"
    file.write_text(
        '[accounts.demo]\n[accounts.utc]\nzone = "UTC"\n'
        + "".join(
            f'[[keys]]\nid = "{name}"\naccount = "{account}"\nsha256 = "{hash_key(KEYS[name])}"\nscopes = {scopes}\n'
            for name, account, scopes in (
                ("reader", "demo", '["segmentation:read"]'),
                ("powerless", "demo", '["profile:read"]'),
                ("stranger", "utc", '["segmentation:read"]'),
            )
        )
    )
    app = SERVICE.build_app(ConfigFile(file, "segmentation"), sessions)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers={"Authorization": f"Bearer {KEYS['reader']}"}
    ) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, **params: str | int) -> Any:
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("path", PATHS)
async def test_only_with_the_right_key(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path, headers={"Authorization": ""})).status_code == 401
    refused = await client.get(path, headers={"Authorization": f"Bearer {KEYS['powerless']}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")


async def test_another_account_sees_nothing(client: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("a", 0)])
    foreign = {"Authorization": f"Bearer {KEYS['stranger']}"}
    for ref in ("douyin:u1", U1):
        for part in ("lifecycle", "memberships", "ladder"):
            assert (await client.get(f"/v1/users/{ref}/{part}", headers=foreign)).status_code == 404
    sizes = (await client.get("/v1/segments", params={"as_of": AS_OF}, headers=foreign)).json()["items"]
    assert {segment["size"] for segment in sizes} == {0}
    members = await client.get("/v1/segments/lifecycle.new/members", params={"as_of": AS_OF}, headers=foreign)
    assert members.json()["items"] == []
    assert len((await get(client, "/v1/segments/lifecycle.new/members", as_of=AS_OF))["items"]) == 1


async def test_a_lifecycle_with_the_values_behind_it(client: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("a", 20), event("b", 3), event("c", 3, type="view"), event("d", 1)])
    wanted = {
        "user_id": U1,
        "as_of": "2026-06-15T12:00:00Z",
        "day": "2026-06-15",
        "zone": "Asia/Shanghai",
        "state": "returned",
        "since": "2026-06-11T16:00:00Z",
        "flips_on": "2026-06-19",
        "idle_days": 1,
        "active_days": 3,
        "first_active_day": "2026-05-26",
        "last_active_day": "2026-06-14",
        "returned_day": "2026-06-12",
        "thresholds": {"quiet_days": 7, "lost_days": 30},
    }
    assert await get(client, "/v1/users/douyin:u1/lifecycle", as_of=AS_OF) == wanted
    assert await get(client, f"/v1/users/{U1}/lifecycle", as_of="2026-06-15T20:00:00+08:00") == wanted


@pytest.mark.parametrize(
    ("as_of", "state", "idle"),
    [
        ("2026-05-26T15:59:59Z", "none", None),  # one second before the first active day begins in Shanghai
        ("2026-05-26T16:00:00Z", "new", 0),
        ("2026-06-03T16:00:00Z", "dormant", 8),
        ("2026-06-15T12:00:00Z", "returned", 0),
        ("2026-06-22T16:00:00Z", "dormant", 8),
        ("2026-07-15T16:00:00Z", "lost", 31),
        ("0001-01-02T00:00:00Z", "none", None),
        ("9999-12-30T00:00:00Z", "lost", 2912276),
    ],
)
async def test_any_instant_can_be_asked_for(
    client: httpx.AsyncClient, log: Log, as_of: str, state: str, idle: int | None
) -> None:
    """Whatever has been announced: nothing happened here after the last event."""
    await log.apply([event("a", 19), event("b", 0)])
    answer = await get(client, "/v1/users/douyin:u1/lifecycle", as_of=as_of)
    assert (answer["state"], answer["idle_days"]) == (state, idle)
    sizes = {item["key"]: item["size"] for item in (await get(client, "/v1/segments", as_of=as_of))["items"]}
    sizes = {key: size for key, size in sizes.items() if key.startswith("lifecycle.")}
    assert list(sizes) == [f"lifecycle.{name}" for name in ("new", "active", "returned", "dormant", "lost")]
    assert {key for key, size in sizes.items() if size} == ({f"lifecycle.{state}"} - {"lifecycle.none"})
    for key, size in sizes.items():
        members = (await get(client, f"/v1/segments/{key}/members", as_of=as_of))["items"]
        assert [member["since"] for member in members] == [answer["since"]] * size


async def test_now_is_the_default(client: httpx.AsyncClient, log: Log) -> None:
    now = datetime.now(UTC)
    await log.apply([event("a", 0, now=now - timedelta(days=100))], now=now - timedelta(days=100))
    assert (await get(client, "/v1/users/douyin:u1/lifecycle"))["state"] == "lost"
    assert [m["user_id"] for m in (await get(client, "/v1/segments/lifecycle.lost/members"))["items"]] == [U1]
    assert (await get(client, "/v1/users/douyin:u1/memberships", layering="lifecycle"))["current"][0][
        "segment"
    ] == "lifecycle.new"


async def test_members_page_by_page(client: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event(f"e{n}", 2, subject=f"douyin:u{n}") for n in range(7)])
    seen: list[dict[str, Any]] = []
    page = await get(client, "/v1/segments/lifecycle.new/members", as_of=AS_OF, limit=3)
    while page["has_more"]:
        assert len(page["items"]) == 3
        seen += page["items"]
        page = await get(client, "/v1/segments/lifecycle.new/members", as_of=AS_OF, limit=3, cursor=page["next_cursor"])
    seen += page["items"]
    assert page["next_cursor"] is None
    assert [m["user_id"] for m in seen] == sorted(user_id_of("demo", f"douyin:u{n}") for n in range(7))
    assert {k: v for k, v in seen[0].items() if k != "user_id"} == {
        "state": "new",
        "since": "2026-06-12T16:00:00Z",
        "idle_days": 2,
        "last_active_day": "2026-06-13",
        "revision": None,
        "decided_at": None,
    }


async def test_memberships_and_how_they_came(client: httpx.AsyncClient, log: Log) -> None:
    early = NOW - timedelta(days=20)
    await log.apply([event("a", 20)], now=early)
    await log.apply([event("b", 0)])
    path = "/v1/users/douyin:u1/memberships"
    answer = await get(client, path, layering="lifecycle", known_at=AS_OF)
    assert answer["current"] == [
        {
            "segment": "lifecycle.returned",
            "layering": "lifecycle",
            "since": "2026-06-14T16:00:00Z",
            "revision": answer["items"][0]["revision"],
            "decided_at": "2026-06-15T12:00:00Z",
        }
    ]
    assert [(item["segment_from"], item["segment_to"], item["initial"]) for item in answer["items"]] == [
        ("lifecycle.new", "lifecycle.returned", False),
        (None, "lifecycle.new", True),
    ]
    first = await get(client, path, layering="lifecycle", known_at=AS_OF, limit=1)
    second = await get(client, path, layering="lifecycle", known_at=AS_OF, limit=1, cursor=first["next_cursor"])
    assert first["items"] + second["items"] == answer["items"]
    assert second["has_more"] is False

    then = await get(client, path, layering="lifecycle", known_at=(NOW - timedelta(seconds=1)).isoformat())
    assert [membership["segment"] for membership in then["current"]] == ["lifecycle.new"]
    assert [item["revision"] for item in then["items"]] == [answer["items"][1]["revision"]]
    before = await get(client, path, layering="lifecycle", known_at=(early - timedelta(seconds=1)).isoformat())
    assert (before["current"], before["items"]) == ([], [])


async def test_a_user_of_two_subjects(client: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    await link(sessions, "demo", U1, "douyin:u1", "wechat:w1")
    await log.apply([event("a", 20, subject="douyin:u1"), event("b", 0, subject="wechat:w1")])
    answers = [
        await get(client, f"/v1/users/{ref}/lifecycle", as_of=AS_OF)
        for ref in ("douyin:u1", "wechat:w1", U1, user_id_of("demo", "wechat:w1"))
    ]
    assert [answer["state"] for answer in answers] == ["returned"] * 4
    assert {answer["user_id"] for answer in answers} == {U1}


async def test_known_but_never_active(client: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("a", 0, type="unfollow", subject="douyin:u2")])
    answer = await get(client, f"/v1/users/{U2}/lifecycle")
    assert {name: answer[name] for name in ("state", "since", "idle_days", "active_days", "flips_on")} == {
        "state": "none",
        "since": None,
        "idle_days": None,
        "active_days": 0,
        "flips_on": None,
    }
    memberships = await get(client, "/v1/users/douyin:u2/memberships")
    assert (memberships["current"], memberships["items"]) == ([], [])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/users/douyin:nobody/lifecycle", "unknown_user"),
        (f"/v1/users/{U2}/memberships", "unknown_user"),
        ("/v1/segments/lifecycle.none/members", "unknown_segment"),
        ("/v1/segments/%F0%9F%8E%89/members", "unknown_segment"),
    ],
)
async def test_what_is_not_there(client: httpx.AsyncClient, path: str, code: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, code)


NO_INSTANTS = (
    "yesterday",
    "2026-06-15",
    "2026-06-15T12:00:00",
    "1750000000",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
)
LIFECYCLE, MEMBERSHIPS, SEGMENTS, MEMBERS, LADDER, SIZES, FLOW = PATHS
REFUSED = [
    *((path, "as_of", value) for path in (LIFECYCLE, SEGMENTS, MEMBERS, LADDER) for value in NO_INSTANTS),
    *((MEMBERSHIPS, "known_at", value) for value in NO_INSTANTS),
    *((path, name, value) for path in (SIZES, FLOW) for name in ("from", "to") for value in ("x", "2026-06-31", "0")),
    *((path, "limit", value) for path in (MEMBERSHIPS, MEMBERS) for value in ("0", "1001", "x")),
    *((path, "cursor", value) for path in (MEMBERSHIPS, MEMBERS) for value in ("nonsense", "WyJcdTAwMDAiXQ")),
]


@pytest.mark.parametrize(("path", "name", "value"), REFUSED)
async def test_what_is_refused(client: httpx.AsyncClient, path: str, name: str, value: str) -> None:
    response = await client.get(path, params={name: value})
    assert response.status_code == 422, response.text
    assert [error["parameter"] for error in response.json()["errors"]] == [f"query/{name}"]


async def test_a_reference_that_cannot_be_stored(client: httpx.AsyncClient) -> None:
    for path in ("/v1/users/a%00b/lifecycle", "/v1/users/%ED%A0%80/memberships"):
        assert (await client.get(path)).status_code in (404, 422)


def test_every_operation_is_described() -> None:
    app = SERVICE.openapi_app()
    found = {
        operation["operationId"]: (operation.get("summary"), operation.get("tags"))
        for methods in app.openapi()["paths"].values()
        for operation in methods.values()
    }
    assert {"get_lifecycle", "list_memberships", "list_segments", "list_members"} <= found.keys()
    assert all(summary and tags for summary, tags in found.values())


async def test_a_rung_with_the_values_behind_it(client: httpx.AsyncClient, log: Log) -> None:
    await log.apply([event("a", 5, type="view"), event("b", 4, type="follow"), event("c", 2, type="order.paid")])
    await log.apply([event("d", 3, type="like"), event("e", 1, type="unfollow")])
    answer = await get(client, LADDER, as_of=AS_OF)
    assert answer == {
        "user_id": U1,
        "as_of": "2026-06-15T12:00:00Z",
        "rung": "customer",
        "since": "2026-06-13T12:00:00Z",
        "first_active_day": "2026-06-10",
        "following": False,
        "first_interaction": "2026-06-12T12:00:00Z",
        "net_paid": [{"currency": "CNY", "net_minor": 100}],
        "steps": [
            {"rung": "customer", "since": "2026-06-13T12:00:00Z"},
            {"rung": "user", "since": "2026-06-12T12:00:00Z"},
            {"rung": "fan", "since": "2026-06-11T12:00:00Z"},
            {"rung": "visitor", "since": "2026-06-09T16:00:00Z"},
        ],
    }
    early = await get(client, LADDER, as_of="2026-06-12T00:00:00Z")
    assert (early["rung"], early["following"], early["first_interaction"], early["net_paid"]) == ("fan", True, None, [])
    none = await get(client, LADDER, as_of="2026-06-09T15:59:59Z")
    assert (none["rung"], none["since"], none["first_active_day"], none["steps"]) == ("none", None, None, [])

    (member,) = (await get(client, "/v1/segments/ladder.customer/members", as_of=AS_OF))["items"]
    assert (member["user_id"], member["state"], member["since"]) == (U1, "customer", "2026-06-13T12:00:00Z")
    (member,) = (await get(client, "/v1/segments/ladder.fan/members", as_of="2026-06-12T00:00:00Z"))["items"]
    assert (member["user_id"], member["since"]) == (U1, "2026-06-11T12:00:00Z")
    sizes = {item["key"]: item["size"] for item in (await get(client, "/v1/segments", as_of=AS_OF))["items"]}
    assert [key for key, size in sizes.items() if size] == ["lifecycle.new", "ladder.customer"]
    assert list(sizes)[-1] == "ladder.super_user"


async def test_who_was_known_to_be_where(client: httpx.AsyncClient, sessions: Sessions, log: Log) -> None:
    """As it was decided, whatever became known later; and sizes and flows by the account's days."""
    early = NOW - timedelta(days=3)
    await log.apply([event(f"v{n}", 3, type="view", subject=f"douyin:u{n}") for n in (1, 2, 3)], now=early)
    await log.apply([event("f", 2.9, type="follow")], now=early + timedelta(hours=4, seconds=1))
    await log.apply([event("g", 2, type="follow", subject="douyin:u2"), event("h", 100)], now=NOW)

    async def known(key: str, known_at: datetime) -> list[str]:
        found = await get(client, f"/v1/segments/{key}/members", known_at=known_at.isoformat(), limit=1)
        items = found["items"]
        while found["has_more"]:
            cursor = found["next_cursor"]
            found = await get(
                client, f"/v1/segments/{key}/members", known_at=known_at.isoformat(), limit=1, cursor=cursor
            )
            items += found["items"]
        return [item["user_id"] for item in items]

    users = {n: user_id_of("demo", f"douyin:u{n}") for n in (1, 2, 3)}
    assert await known("ladder.visitor", early - timedelta(microseconds=1)) == []
    assert await known("ladder.visitor", early) == sorted(users.values())
    assert await known("ladder.visitor", NOW - timedelta(days=1)) == sorted(users[n] for n in (2, 3))
    assert await known("ladder.fan", NOW - timedelta(days=1)) == [U1]
    assert await known("ladder.fan", NOW) == [U2]
    assert await known("ladder.user", NOW) == [U1]
    assert await known("lifecycle.returned", NOW) == [U1]
    both = await get(client, "/v1/segments/lifecycle.new/members", as_of=AS_OF, known_at=early.isoformat())
    assert {item["decided_at"] for item in both["items"]} == {"2026-06-12T12:00:00Z"}

    asked = {"from": "2026-06-11", "to": "2026-06-15"}
    sizes = await get(client, SIZES, **asked)
    assert (sizes["layering"], sizes["zone"]) == ("ladder", "Asia/Shanghai")
    counted = [(day["day"], [day["sizes"][f"ladder.{rung}"] for rung in RUNGS[1:]]) for day in sizes["items"]]
    assert counted == [
        ("2026-06-11", [0, 0, 0, 0, 0]),
        ("2026-06-12", [3, 0, 0, 0, 0]),
        # 00:00:01 in Shanghai
        ("2026-06-13", [2, 1, 0, 0, 0]),
        ("2026-06-14", [2, 1, 0, 0, 0]),
        ("2026-06-15", [1, 1, 1, 0, 0]),
    ]
    later = await get(client, SIZES, **{"from": "2026-06-14", "to": "2026-06-15"})
    assert later["items"] == sizes["items"][-2:]
    flow = await get(client, "/v1/layerings/ladder/flow", **asked)
    assert [(move["segment_from"], move["segment_to"], move["moves"]) for move in flow["total"]] == [
        (None, "ladder.visitor", 3),
        ("ladder.fan", "ladder.user", 1),
        ("ladder.visitor", "ladder.fan", 2),
    ]
    assert [(move["day"], move["segment_to"], move["moves"]) for move in flow["items"]] == [
        ("2026-06-12", "ladder.visitor", 3),
        ("2026-06-13", "ladder.fan", 1),
        ("2026-06-15", "ladder.user", 1),
        ("2026-06-15", "ladder.fan", 1),
    ]
    assert len((await get(client, FLOW))["items"]) == 0, "the last thirty days hold nothing"
    assert (await client.get("/v1/layerings/rfm/flow")).status_code == 422
    assert len((await get(client, SIZES))["items"]) == 30
    foreign = {"Authorization": f"Bearer {KEYS['stranger']}"}
    for path in (SIZES, FLOW):
        assert (await get(client, path, to="0001-01-01"))["items"] == []
        assert (await get(client, path, **{"from": "3000-01-01"}))["items"] == []
    assert len((await get(client, SIZES, **{"from": "1970-01-01", "to": "9999-12-31"}))["items"]) == 366
    theirs = (await client.get(SIZES, params=asked, headers=foreign)).json()["items"]
    assert {size for day in theirs for size in day["sizes"].values()} == {0}
    assert (await client.get(FLOW, params=asked, headers=foreign)).json()["items"] == []
