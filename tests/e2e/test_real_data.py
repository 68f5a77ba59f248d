"""Real events through HTTP, plain and shuffled with 5 % repeats: every figure equals the independently computed one."""

from datetime import datetime
from typing import Any

import pytest

from tests.support.realdata import load_events, load_expected, shuffled_with_repeats
from tests.support.services import System

KUAIRAND_TYPES = ("view", "like", "comment", "share", "follow")


def with_account(events: list[dict[str, Any]], account: str) -> list[dict[str, Any]]:
    return [{**event, "account": account} for event in events]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(("account", "seed"), [("kuairand", None), ("kuairand-shuffled", 20220407)])
async def test_kuairand(system: System, account: str, seed: int | None) -> None:
    events = load_events("kuairand")
    arrivals = events if seed is None else shuffled_with_repeats(events, seed)
    await system.post(account, with_account(arrivals, account))
    await system.applied()

    users = {user["subjects"][0]: user for user in await system.pages("profile", "/v1/users", account)}
    differences = []
    for row in load_expected("kuairand_dev_users"):
        user = users.pop(f"kuairand:{row['user_id']}")
        wanted: dict[str, object] = {event_type: int(row[event_type]) for event_type in KUAIRAND_TYPES}
        found: dict[str, object] = {event_type: user["counts"].get(event_type, 0) for event_type in KUAIRAND_TYPES}
        wanted |= {"active_days": int(row["active_days_cn"]), "longest_run": int(row["longest_streak_cn"])}
        found |= {"active_days": user["active_days"], "longest_run": user["longest_run"]}
        wanted |= {"first": instant(row["first_time"]), "last": instant(row["last_time"])}
        found |= {"first": instant(user["first_seen"]), "last": instant(user["last_seen"])}
        differences += [(row["user_id"], key, found[key], wanted[key]) for key in wanted if found[key] != wanted[key]]
    assert differences == []
    assert users == {}


async def test_kuairand_lifecycle_as_of_its_last_day(system: System) -> None:
    """segmentation counts the same active days as profile, and its lifecycle can be asked for a past day."""
    differences = []
    for row in load_expected("kuairand_dev_users")[::7]:
        path = f"/v1/users/kuairand:{row['user_id']}/lifecycle"
        answer = await system.get("segmentation", path, "kuairand", as_of="2022-04-21T23:00:00+08:00")
        if answer["active_days"] != int(row["active_days_cn"]):
            differences.append((row["user_id"], answer["active_days"], row["active_days_cn"]))
    assert differences == []


SIGN_IN_FIELDS = {
    "tigerbeetle": ("days_cn", "longest_cn"),
    "tigerbeetle-shuffled": ("days_cn", "longest_cn"),
    "tigerbeetle-utc": ("days_utc", "longest_utc"),
    "tigerbeetle-local": ("days_local", "longest_local"),
}


@pytest.mark.parametrize("account", SIGN_IN_FIELDS)
async def test_tigerbeetle(system: System, account: str) -> None:
    events = load_events("tigerbeetle")
    arrivals = events if account != "tigerbeetle-shuffled" else shuffled_with_repeats(events, 20200409)
    await system.post(account, with_account(arrivals, account))
    await system.applied()

    days_field, longest_field = SIGN_IN_FIELDS[account]
    differences = []
    for row in load_expected("checkins_tigerbeetle_dev_users"):
        user = f"/v1/users/tigerbeetle:{row['author']}"
        streak = await system.get("rewards", f"{user}/streak", account)
        found = {"days": streak["days"], "longest": streak["longest"]}
        wanted = {"days": int(row[days_field]), "longest": int(row[longest_field])}
        if days_field == "days_cn":
            found["points"] = (await system.get("rewards", f"{user}/points", account))["balance"]
            wanted["points"] = int(row["points_cn"])
        differences += [(row["author"], key, found[key], wanted[key]) for key in wanted if found[key] != wanted[key]]
    assert differences == []
