"""What came of the demo in each service, read over REST."""

import asyncio
from collections import Counter

from rich.console import Console

from libs.cli.connection import Connection
from libs.cli.outcomes import counted
from libs.common.identity import user_id_of


async def show(connection: Connection, console: Console, subjects: list[str], folder_option: str) -> None:
    def say(label: str, text: str) -> None:
        console.print(f"  {label:<14}{text}", highlight=False, markup=False)

    users = {user_id_of(connection.account.name, subject) for subject in subjects}
    segments = (await connection.get("segmentation", "/v1/segments"))["items"]
    states: Counter[str] = Counter()
    for segment in segments:
        members = await connection.pages("segmentation", f"/v1/segments/{segment['key']}/members")
        states[segment["key"]] = sum(member["user_id"] in users for member in members)
    profiles = [user for user in await connection.pages("profile", "/v1/users") if user["user_id"] in users]
    decisions = [
        item
        for item in await connection.pages("engagement", "/v1/decisions", journey="welcome")
        if item["user_id"] in users
    ]
    reasons = (await connection.get("engagement", "/v1/journeys"))["items"][0]["reasons"]
    points = await asyncio.gather(*(connection.of_user("rewards", subject, "/points") for subject in subjects))

    events = Counter[str]()
    for user in profiles:
        events.update(user["counts"])
    console.print("What came of these fans", style="bold")
    say("profile", f"{len(profiles)} fans: {counted(dict(events.most_common()))}")
    say("segmentation", ", ".join(f"{key.removeprefix('lifecycle.')} {count}" for key, count in states.items()))
    sent = [decision for decision in decisions if decision["outcome"] == "sent"]
    say("engagement", f"{len(sent)} welcomed" + (f", such as {sent[0]['subject']}" if sent else ""))
    for reason, count in Counter(item["reason"] for item in decisions if item["reason"]).most_common():
        first = next(item["subject"] for item in decisions if item["reason"] == reason)
        say("", f"{count} not, {reason}: {reasons[reason]} (such as {first})")
    rules = Counter[str]()
    for item in points:
        rules.update(item["by_rule"])
    say("rewards", f"{rules.total():,} points: {counted(dict(rules.most_common()))}")
    richest = max(zip(points, subjects, strict=True), key=lambda pair: int(pair[0]["balance"]))[1]
    console.print("\nLook further", style="bold")
    for command in (
        f"superfan user {richest}",
        f"superfan trigger douyin.follow --user {subjects[0]} --repeat",
        "superfan tail --topic messages --from-start",
    ):
        console.print(f"  .venv/bin/{command}{folder_option}", highlight=False, markup=False)
