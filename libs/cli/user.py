"""`superfan user`: one fan as every service knows them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import orjson
from rich.console import Console
from rich.text import Text

from libs.cli.connection import Connection, RefusedError, ServiceDownError, connect
from libs.cli.local.processes import LaunchError
from libs.cli.outcomes import counted, days, why_skipped

LINES = 10

Rows = list[tuple[str, str]]
"""A label ("" = as above) and a text."""


async def _profile(connection: Connection, ref: str) -> Rows:
    user = await connection.of_user("profile", ref)
    follows = f"yes, first on {connection.local(user['first_follow'])}" if user["following"] else "no"
    return [
        ("user", user["user_id"]),
        *_labelled("subjects", user["subjects"]),
        ("follows", follows),
        ("seen", f"{connection.local(user['first_seen'])} to {connection.local(user['last_seen'])}"),
        ("active", f"{days(user['active_days'])}, {days(user['longest_run'])} in a row at most"),
        ("events", counted(user["counts"])),
    ]


async def _segmentation(connection: Connection, ref: str) -> Rows:
    now = await connection.of_user("segmentation", ref, "/lifecycle")
    moves = await connection.of_user("segmentation", ref, "/memberships", limit=LINES)
    state = f"{now['state']} since {connection.local(now['since'])}"
    if now["idle_days"] is not None:
        state += f", idle for {days(now['idle_days'])}"
    if now["flips_on"]:
        state += f", changes on {now['flips_on']} if nothing happens"
    told = [
        f"{connection.local(move['decided_at'])}  {move['segment_from'] or '(none)'} → {move['segment_to'] or '(none)'}"
        f"  {move['reason']}{', first placement' if move['initial'] else ''}"
        for move in moves["items"]
    ]
    ladder = await connection.of_user("segmentation", ref, "/ladder")
    rung = ladder["rung"] + (f" since {connection.local(ladder['since'])}" if ladder["since"] else "")
    return [("lifecycle", state), ("ladder", rung), *_labelled("moves", told)]


async def _engagement(connection: Connection, ref: str) -> Rows:
    messages = (await connection.of_user("engagement", ref, "/messages", limit=LINES))["items"]
    decisions = (await connection.get("engagement", "/v1/decisions", user=ref, limit=LINES))["items"]
    received = [
        f"{connection.local(item['created_at'])}  {item['journey']}, {item['channel']}: “{item['title']}”"
        for item in messages
    ]
    decided = [
        f"{connection.local(item['decided_at'])}  {item['journey']} v{item['journey_version']} "
        + ("sent" if item["outcome"] == "sent" else f"{item['outcome']}: {why_skipped(item)}")
        for item in decisions
    ]
    return [*_labelled("messages", received), *_labelled("decisions", decided)]


async def _rewards(connection: Connection, ref: str) -> Rows:
    points = await connection.of_user("rewards", ref, "/points")
    streak = await connection.of_user("rewards", ref, "/streak")
    ledger = (await connection.of_user("rewards", ref, "/ledger", limit=LINES))["items"]
    level = await connection.of_user("rewards", ref, "/level")
    entries = [
        f"{connection.local(item['created_at'])}  {item['points']:+} by "
        + (
            f"rule {item['rule']} v{item['rule_version']} for {item['event']['type']}"
            f" of {connection.local(item['event']['time'])}"
            if item["event"]
            else f"{item['rule']}: {item['reason']}"
        )
        for item in ledger
    ]
    parts = f" ({counted(points['by_rule'])})" if points["by_rule"] else ""
    missing = f"; {level['next']['missing']:,} to {level['next']['name']}" if level["next"] else ""
    streak_text = f"{days(streak['current'])} in a row, {streak['longest']} at most; the next earns"
    return [
        ("points", f"{points['balance']:,}{parts}"),
        ("level", f"{level['name']}, growth {level['growth']:,}{missing}"),
        ("sign-ins", f"{streak_text} {streak['next_day_points']}"),
        *_labelled("ledger", entries),
    ]


async def _timeline(connection: Connection, ref: str) -> Rows:
    page = await connection.of_user("profile", ref, "/timeline", limit=LINES)
    return [
        (item["type"], f"{connection.local(item['time'])}  {orjson.dumps(item['data']).decode()}")
        for item in page["items"]
    ]


SECTIONS: Mapping[str, Callable[[Connection, str], Awaitable[Rows]]] = {
    "profile": _profile,
    "segmentation": _segmentation,
    "engagement": _engagement,
    "rewards": _rewards,
    "timeline": _timeline,
}


def _labelled(label: str, texts: Sequence[str]) -> Rows:
    return [(label if index == 0 else "", text) for index, text in enumerate(texts or ["none"])]


async def read_user(connection: Connection, ref: str) -> dict[str, Rows | LaunchError]:
    """Each section's rows, or why there are none; raises LaunchError when no service knows the user or none answers."""

    async def read(section: str) -> Rows | LaunchError:
        try:
            return await SECTIONS[section](connection, ref)
        except LaunchError as error:
            return error

    found = dict(zip(SECTIONS, await asyncio.gather(*map(read, SECTIONS)), strict=True))
    if all(isinstance(content, ServiceDownError) for content in found.values()):
        raise LaunchError("no service answers: see `superfan status`")
    if all(isinstance(content, ServiceDownError) or _is_unknown(content) for content in found.values()):
        raise LaunchError(f"no event has named the user {ref} (give a subject, such as douyin:u42, or a user id)")
    return found


def _is_unknown(content: Rows | LaunchError) -> bool:
    return isinstance(content, RefusedError) and content.code == "unknown_user"


def print_user(console: Console, ref: str, zone: str, sections: Mapping[str, Rows | LaunchError]) -> None:
    """A block per service. A terminal cuts long texts at its edge; elsewhere every line is whole."""
    console.print(Text.assemble((ref, "bold"), f"   times of {zone}"))
    for name, content in sections.items():
        console.print(Text(f"\n{name}", style="bold cyan"))
        if isinstance(content, LaunchError):
            text = f"does not know {ref}" if _is_unknown(content) else str(content)
            console.print(Text(f"  {text}", style="yellow"))
            continue
        for label, text in content:
            line = Text.assemble((f"  {label:<16}", "dim"), text)
            if console.is_terminal:
                console.print(line, no_wrap=True, overflow="ellipsis")
            else:
                console.print(line, soft_wrap=True)


async def user(data: Path | None, ref: str) -> None:
    """Raises LaunchError."""
    async with connect(data) as connection:
        sections = await read_user(connection, ref)
        print_user(Console(), ref, connection.account.zone.key, sections)
