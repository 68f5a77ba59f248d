"""What came of the demo in each service, read over REST."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from datetime import date
from typing import Any

from rich.console import Console

from libs.cli.connection import Connection, RefusedError
from libs.cli.outcomes import counted
from libs.common.identity import user_id_of

ASKED_AT_ONCE = 16
Say = Callable[[str, str], None]


async def show(
    connection: Connection, console: Console, fans: Collection[str], customers: Collection[str], folder_option: str
) -> None:
    """`fans` and `customers` are subjects; all but RFM is told of them alone."""

    def say(label: str, text: str) -> None:
        console.print(f"  {label:<14}{text}", highlight=False, markup=False)

    account = connection.account
    subjects = [*fans, *customers]
    ours = {user_id_of(account.name, subject) for subject in subjects}
    profiles = [user for user in await connection.pages("profile", "/v1/users") if user["user_id"] in ours]
    users = {user["user_id"] for user in profiles}

    console.print("What came of them", style="bold")
    _tell_profiles(say, profiles, account.currency)
    await _tell_segments(connection, say, users)
    if customers:
        await _tell_rfm(connection, say)
    await _tell_decisions(connection, say, users)
    richest = await _tell_rewards(connection, say, users, fans)

    console.print("\nLook further", style="bold")
    for command in (
        f"superfan user {richest}",
        f"superfan trigger douyin.follow --user {next(iter(fans))} --repeat",
        "superfan tail --topic messages --from-start",
    ):
        console.print(f"  .venv/bin/{command}{folder_option}", highlight=False, markup=False)


def _tell_profiles(say: Say, profiles: list[dict[str, Any]], currency: str) -> None:
    events = Counter[str]()
    money = Counter[str]()
    for user in profiles:
        events.update(user["counts"])
        for value in user["value"]["currencies"]:
            if value["currency"] == currency:
                money.update(orders=value["orders"], net=value["net_minor"], buyers=int(value["orders"] > 0))
    linked = sum(len(user["subjects"]) > 1 for user in profiles)
    say("profile", f"{len(profiles):,} users: {counted(dict(events.most_common()))}")
    net = f"{money['net'] / 100:,.2f} {currency}"
    say("", f"{money['buyers']:,} of them have bought: {money['orders']:,} orders, {net} net")
    if linked:
        say("", f"{linked} are a fan and a customer in one: they logged in to the shop")


async def _tell_segments(connection: Connection, say: Say, users: Collection[str]) -> None:
    segments = (await connection.get("segmentation", "/v1/segments"))["items"]
    sizes: dict[str, dict[str, int]] = {}
    for segment in segments:
        members = await connection.pages("segmentation", f"/v1/segments/{segment['key']}/members")
        name = f"{segment['key'].partition('.')[2]} {segment['name']}"
        sizes.setdefault(segment["layering"], {})[name] = sum(member["user_id"] in users for member in members)
    for number, (layering, counts) in enumerate(sizes.items()):
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        say("" if number else "segmentation", f"{layering}: {said}")


async def _tell_rfm(connection: Connection, say: Say) -> None:
    today = date.fromisoformat((await connection.get("segmentation", "/v1/segments"))["day"])
    try:
        run = await connection.post(
            "segmentation", "/v1/rfm/runs", {"window_days": None}, idempotency_key=f"demo-{today}"
        )
    except RefusedError as error:  # a configuration that was written before there was this scope
        say("", f"RFM: {error}")
        return
    classes = [f"{item['rfm_class']} {item['name']} {item['users']:,}" for item in run["classes"] if item["users"]]
    say("", f"RFM of {run['users']:,} buyers: {', '.join(classes)}")


async def _tell_decisions(connection: Connection, say: Say, users: Collection[str]) -> None:
    label = "engagement"
    for journey in (await connection.get("engagement", "/v1/journeys"))["items"]:
        key = journey["key"]
        decisions = [
            item
            for item in await connection.pages("engagement", "/v1/decisions", journey=key)
            if item["user_id"] in users
        ]
        sent = [item for item in decisions if item["outcome"] == "sent"]
        say(label, f"{key}: {len(sent)} messages sent" + (f", such as to {sent[0]['subject']}" if sent else ""))
        label = ""
        for reason, count in Counter(item["reason"] for item in decisions if item["reason"]).most_common():
            first = next(item["subject"] for item in decisions if item["reason"] == reason)
            say("", f"  {count:,} not, {reason}: {journey['reasons'][reason]} (such as {first})")


async def _tell_rewards(connection: Connection, say: Say, users: Collection[str], fans: Collection[str]) -> str:
    """Points of the fans, levels of all users. Returns the fan with most points."""
    places = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(ref: str, what: str) -> Any:
        async with places:
            return await connection.of_user("rewards", ref, what)

    points = await asyncio.gather(*(ask(fan, "/points") for fan in fans))
    levels = Counter(
        (level["rank"], level["name"]) for level in await asyncio.gather(*(ask(user, "/level") for user in users))
    )
    rules = Counter[str]()
    for answer in points:
        rules.update(answer["by_rule"])
    say("rewards", f"{rules.total():,} points of the fans: {counted(dict(rules.most_common()))}")
    say("", f"levels of all: {', '.join(f'{name} {count:,}' for (_, name), count in sorted(levels.items()))}")
    return max(zip(points, fans, strict=True), key=lambda pair: int(pair[0]["balance"]))[1]
