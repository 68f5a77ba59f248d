"""The behaviour portrait at an instant, and the overview that an app shows."""

from datetime import datetime, timedelta
from typing import Any

import httpx

from libs.common.events import AnyEvent, new_event
from libs.common.identity import user_id_of
from tests.support.folding import NOW, Log

U1, U2 = "douyin:u1", "wechat.x:u2"


def event(kind: str, number: int, time: datetime, subject: str = U1, **data: Any) -> AnyEvent:
    return new_event(
        kind, account="demo", source="/t", id=f"{kind}-{number}", subject=subject, time=time, received=NOW, data=data
    )


def view(number: int, time: datetime, watch_ms: int, duration_ms: int, subject: str = U1) -> AnyEvent:
    return event("view", number, time, subject, content_id="c", watch_ms=watch_ms, duration_ms=duration_ms)


async def link(api: httpx.AsyncClient, *subjects: str) -> Any:
    body = {"subjects": subjects, "evidence": "login", "reason": "one login"}
    return (await api.post("/v1/links", json=body)).json()


async def test_windows_hours_and_watching(api: httpx.AsyncClient, log: Log) -> None:
    # NOW is Monday, 20:00 in Shanghai; its day, and the six before, are the last seven.
    hour = timedelta(hours=1)
    await log.apply(
        [
            view(1, NOW, 10, 10),
            view(2, NOW - 6 * 24 * hour, 4, 10),
            view(3, NOW - 7 * 24 * hour, 30, 10),
            view(4, NOW - 7 * 24 * hour, 100, 0),  # tells no duration
            event("like", 1, NOW - 89 * 24 * hour),
            event("like", 2, NOW - 90 * 24 * hour),
            event("unfollow", 1, NOW - 29 * 24 * hour),  # no active type
            view(5, NOW + 5 * hour, 7, 7),  # tomorrow
            view(6, NOW - 7 * 24 * hour, 5, 20, U2),
        ]
    )
    answer = (await api.get(f"/v1/users/{U1}/behaviour", params={"as_of": NOW.isoformat()})).json()
    assert (answer["today"], answer["typical_hour"]) == ("2026-06-15", 20)
    ever, week, month, quarter = answer["windows"]
    assert [window["days"] for window in answer["windows"]] == [None, 7, 30, 90]
    assert week == {
        "days": 7,
        "first_day": "2026-06-09",
        "counts": {"view": 2},
        "active_days": 2,
        "views_per_active_day": 1.0,
        "watch_ms": 14,
        "completed_views": 1,
        "completion_rate": 0.5,
        "watched_share": 0.7,
    }
    assert month["counts"] == {"unfollow": 1, "view": 4}
    assert (month["active_days"], month["watch_ms"], month["completion_rate"]) == (3, 144, 0.6667)
    assert (quarter["counts"]["like"], ever["counts"]["like"]) == (1, 2)
    assert sum(map(sum, answer["hours"])) == 6
    assert answer["hours"][0][20] == 3  # three Mondays at 20:00: today, and two views a week ago
    later = (await api.get(f"/v1/users/{U1}/behaviour", params={"as_of": (NOW + 5 * hour).isoformat()})).json()
    assert later["windows"][1]["counts"] == {"view": 2}
    assert later["hours"][1][1] == 1

    await link(api, U1, U2)
    both = (await api.get(f"/v1/users/{U2}/behaviour", params={"as_of": NOW.isoformat()})).json()
    assert both["windows"][0]["counts"]["view"] == 5
    assert both["hours"][0][20] == 4
    assert (await api.get("/v1/users/douyin:nobody/behaviour")).status_code == 404
    for end in ("0001-01-02T00:00:00Z", "9999-12-30T00:00:00Z"):
        for part in ("behaviour", "value"):
            assert (await api.get(f"/v1/users/{U2}/{part}", params={"as_of": end})).status_code == 200


async def test_a_fan_without_deeds(api: httpx.AsyncClient) -> None:
    await link(api, U1, U2)
    answer = (await api.get(f"/v1/users/{U1}/behaviour")).json()
    assert answer["typical_hour"] is None
    assert {window["completion_rate"] for window in answer["windows"]} == {None}
    overview = (await api.get(f"/v1/users/{U1}/overview")).json()
    assert overview["balance"] == {"points": 0, "told_at": None}
    assert overview["streak"] == {"current": 0, "longest": 0, "days": 0, "last_day": None}
    for name in ("lifecycle", "ladder", "level", "last_message"):
        assert overview[name] is None
    assert (overview["segments"], overview["traits"], overview["first_seen"]) == ([], {}, None)


def notice(kind: str, entity: str, revision: int, user_id: str, minutes: int, **data: Any) -> AnyEvent:
    time = NOW + timedelta(minutes=minutes)
    told = {"entity": entity, "revision": revision, "since": NOW, "user_id": user_id}
    return new_event(
        kind,
        account="demo",
        source="/other",
        id=f"{entity}/{kind}/{revision}",
        subject=U1,
        time=time,
        received=time,
        data=told | data,
    )


async def test_the_overview(api: httpx.AsyncClient, log: Log) -> None:
    (first, one), (second, two) = sorted((user_id_of("demo", subject), subject) for subject in (U1, U2))

    def segment(kind: str, user_id: str, layering: str, state: str, revision: int, minutes: int) -> AnyEvent:
        data = {"segment": f"{layering}.{state}", "reason": "event", "initial": False}
        return notice(f"segment.{kind}", f"{user_id}/{layering}", revision, user_id, minutes, **data)

    def points(user_id: str, balance: int, revision: int) -> AnyEvent:
        data = {"points": 1, "balance": balance, "rule": "r", "rule_version": 1, "entry_id": "e", "caused_by": "0" * 32}
        return notice("points.awarded", user_id, revision, user_id, revision, **data)

    def message(outcome: str, journey: str, revision: int, minutes: int) -> AnyEvent:
        data = {"journey": journey, "step": "s", "channel": "in_app", "message_id": f"m{revision}", "reason": outcome}
        return notice(f"message.{outcome}", f"{first}/{journey}", revision, first, minutes, **data)

    await log.apply(
        [
            event("follow", 1, NOW, one),
            event("sign_in", 1, NOW, one),
            event("sign_in", 2, NOW - timedelta(days=1), two),
            event("profile.traits", 1, NOW, one, traits={"city": "成都", "phone": "13800001234", "age": 3}),
            event("profile.traits", 2, NOW + timedelta(hours=1), two, traits={"city": "上海", "age": None}),
            segment("entered", first, "lifecycle", "new", 1, 0),
            segment("left", first, "lifecycle", "new", 2, 5),
            segment("entered", first, "lifecycle", "active", 3, 5),
            segment("entered", second, "lifecycle", "dormant", 1, 9),
            segment("entered", second, "ladder", "user", 1, 1),
            segment("left", first, "other", "x", 1, 1),
            points(first, 7, 2),
            points(first, 6, 1),
            points(second, 10, 1),
            message("sent", "welcome", 1, 1),
            message("skipped", "welcome", 2, 8),
            message("sent", "recall", 1, 3),
        ]
    )
    alone = (await api.get(f"/v1/users/{one}/overview")).json()
    assert (alone["lifecycle"]["segment"], alone["ladder"]) == ("lifecycle.active", None)
    assert (alone["balance"]["points"], alone["streak"]["days"]) == (7, 1)
    assert {name: trait["value"] for name, trait in alone["traits"].items()} == {
        "age": 3,
        "city": "成都",
        "phone": "138****34",
    }

    await link(api, U1, U2)
    answer = (await api.get(f"/v1/users/{two}/overview")).json()
    assert (answer["user_id"], answer["following"]) == (first, True)
    assert [placement["segment"] for placement in answer["segments"]] == ["ladder.user", "lifecycle.active"]
    assert answer["lifecycle"]["told_at"] == (NOW + timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
    assert answer["ladder"]["segment"] == "ladder.user"
    assert answer["balance"] == {
        "points": 17,
        "told_at": (NOW + timedelta(minutes=2)).isoformat().replace("+00:00", "Z"),
    }
    assert (answer["streak"]["longest"], answer["streak"]["days"], answer["streak"]["last_day"]) == (2, 2, "2026-06-15")
    assert {name: trait["value"] for name, trait in answer["traits"].items()} == {"city": "上海", "phone": "138****34"}
    assert (answer["last_message"]["journey"], answer["last_message"]["message_id"]) == ("recall", "m1")

    await log.apply(
        [
            notice(
                "level.changed",
                f"{first}/level",
                1,
                first,
                1,
                rank=1,
                rank_before=0,
                level="silver",
                name="银卡",
                growth=120,
                reason="event",
            )
        ]
    )
    level = (await api.get(f"/v1/users/{two}/overview")).json()["level"]
    assert (level["level"], level["rank"], level["growth"]) == ("silver", 1, 120)

    body = {"subjects": [two], "reason": "two persons"}
    assert (await api.post(f"/v1/users/{one}/unlink", json=body)).status_code == 200
    assert (await api.get(f"/v1/users/{one}/overview")).json()["balance"]["points"] == 7
    apart = (await api.get(f"/v1/users/{two}/overview")).json()
    assert (apart["balance"]["points"], apart["lifecycle"]["segment"]) == (10, "lifecycle.dormant")
