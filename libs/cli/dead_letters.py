"""`superfan dead-letters`: what a service could not apply, and what to do about it, over its REST API."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from libs.cli.connection import Connection, connect
from libs.cli.local.processes import LaunchError
from libs.cli.local.state import WITH_DATABASE

BULK = 100

Filter = Mapping[str, str | None]
"""type, error, topic, since, until; None = any."""


def _check(service: str) -> None:
    if service not in WITH_DATABASE:
        raise LaunchError(f"no service {service} with dead letters; there are {', '.join(WITH_DATABASE)}")


def _given(which: Filter) -> dict[str, str]:
    return {name: value for name, value in which.items() if value is not None}


def _line(connection: Connection, letter: Mapping[str, Any]) -> str:
    place = f"{letter['topic'].removeprefix('superfan.')}/{letter['partition']}@{letter['offset']}"
    reason = " ".join((letter["reason"] or "(names no account)").split())
    edited = "  edited" if letter["edited_at"] else ""
    return (
        f"{letter['id']}  {connection.local(letter['first_at'])}  {letter['type'] or '-':<16} {place:<20}"
        f" {letter['attempts']:>3}×{edited}  {letter['error']}: {reason[:100]}"
    )


async def list_letters(data: Path | None, service: str, which: Filter, limit: int) -> None:
    """Prints a line per letter, newest first, and whether the service is stopped; raises LaunchError."""
    _check(service)
    console = Console(soft_wrap=True)
    async with connect(data) as connection:
        consumer = await connection.get(service, "/v1/consumer")
        page = await connection.get(service, "/v1/dead-letters", limit=limit, **_given(which))
        for letter in page["items"]:
            console.print(_line(connection, letter), highlight=False, markup=False)
        if not page["items"]:
            console.print("no such dead letters" if _given(which) else "no dead letters", highlight=False)
        if page["has_more"]:
            console.print(f"… and more; --limit shows more than {limit}", highlight=False)
        if consumer["stopped"]:
            since = connection.local(consumer["stopped_at"])
            text = f"{service} has consumed nothing since {since}: {consumer['reason']}"
            console.print(f"{text}; `superfan dead-letters resume {service}`", style="red", highlight=False)


async def show(data: Path | None, service: str, letter_id: str) -> None:
    """Prints one letter as JSON; raises LaunchError."""
    _check(service)
    async with connect(data) as connection:
        letter = await connection.get(service, f"/v1/dead-letters/{letter_id}")
    print(orjson.dumps(letter, option=orjson.OPT_INDENT_2).decode())


async def edit(data: Path | None, service: str, letter_id: str, file: Path) -> None:
    """Puts the event of a JSON file, such as `value` of `show`, in the letter's place; raises LaunchError."""
    _check(service)
    try:
        event = orjson.loads(await asyncio.to_thread(file.read_bytes))
    except (OSError, orjson.JSONDecodeError) as error:
        raise LaunchError(f"{file} cannot be read: {error}") from None
    async with connect(data) as connection:
        await connection.act(service, "PUT", f"/v1/dead-letters/{letter_id}", event)
    print(f"corrected; try it: superfan dead-letters redrive {service} {letter_id} --dry-run")


async def redrive(
    data: Path | None, service: str, ids: Sequence[str], which: Filter, *, every: bool, dry_run: bool
) -> None:
    """Tries letters again and prints each outcome; raises LaunchError, also when one could not be applied."""
    if dry_run and not ids:
        raise LaunchError("--dry-run needs the ids of letters")
    counts = await _each(data, service, ids, which, "dry-run" if dry_run else "redrive", {}, every=every)
    if left := counts["failed"] + counts["changed"]:
        tense = "would stay" if dry_run else "stay"
        raise LaunchError(f"{left} of {counts.total()} {tense}; `superfan dead-letters list {service}` says why")


async def drop(data: Path | None, service: str, ids: Sequence[str], which: Filter, reason: str, *, every: bool) -> None:
    """Deletes letters for good; raises LaunchError."""
    await _each(data, service, ids, which, "drop", {"reason": reason}, every=every)


async def resume(data: Path | None, service: str) -> None:
    """Lets a stopped service consume again; raises LaunchError."""
    _check(service)
    async with connect(data) as connection:
        await connection.act(service, "POST", "/v1/consumer:resume")
    print(f"{service} consumes; it stops again when as many events fail from now on")


async def _each(
    data: Path | None,
    service: str,
    ids: Sequence[str],
    which: Filter,
    action: str,
    body: Mapping[str, str],
    *,
    every: bool,
) -> Counter[str]:
    _check(service)
    given = _given(which)
    if bool(ids) + bool(given) + every != 1:
        raise LaunchError("name letters by their ids, or by --type, --error, --topic, --since, --until, or with --all")
    counts: Counter[str] = Counter()
    async with connect(data) as connection:
        for letter_id in ids:
            path = f"/v1/dead-letters/{letter_id}/{action}"
            counts += _told([await connection.act(service, "POST", path, dict(body) or None)])
        cursor: str | None = None
        while not ids:
            path = f"/v1/dead-letters:{action}" + (f"?cursor={cursor}" if cursor else "")
            many = await connection.act(service, "POST", path, {"filter": given, "limit": BULK, **body})
            counts += _told(many["items"])
            cursor = many["next_cursor"]
            if cursor is None:
                break
    if not counts:
        print("no such dead letters")
    return counts


def _told(items: Sequence[Mapping[str, Any]]) -> Counter[str]:
    for item in items:
        why = f"  {item['error']}: {' '.join((item['reason'] or '').split())[:200]}" if item["error"] else ""
        print(f"{item['id']}  {item['outcome']}{why}", flush=True)
    return Counter(item["outcome"] for item in items)
