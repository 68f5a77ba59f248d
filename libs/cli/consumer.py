"""`superfan consumer`: what a service consumes, over its REST API."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from libs.cli.connection import Connection, connect
from libs.cli.local.processes import LaunchError
from libs.cli.local.state import WITH_DATABASE


async def status(data: Path | None, service: str) -> None:
    """Prints a line per topic; raises LaunchError."""
    _check(service)
    async with connect(data) as connection:
        _print(connection, service, await connection.get(service, "/v1/consumer"))


async def pause(data: Path | None, service: str, topics: Sequence[str], reason: str) -> None:
    """Pauses topics, all if none is named, and prints what holds then; raises LaunchError."""
    await _change(data, service, "pause", topics, {"reason": reason})


async def resume(data: Path | None, service: str, topics: Sequence[str]) -> None:
    """Lets topics go on, or everything, and prints what holds then; raises LaunchError."""
    await _change(data, service, "resume", topics, {})


async def _change(data: Path | None, service: str, verb: str, topics: Sequence[str], body: Mapping[str, Any]) -> None:
    _check(service)
    named = {"topics": [f"superfan.{topic.removeprefix('superfan.')}" for topic in topics]} if topics else {}
    async with connect(data) as connection:
        state = await connection.act(service, "POST", f"/v1/consumer:{verb}", {**body, **named})
        _print(connection, service, state)


def _check(service: str) -> None:
    if service not in WITH_DATABASE:
        raise LaunchError(f"no service {service} that consumes; there are {', '.join(WITH_DATABASE)}")


def _print(connection: Connection, service: str, state: Mapping[str, Any]) -> None:
    console = Console(soft_wrap=True)
    for topic in state["topics"]:
        text, style = "consumed", ""
        if topic["paused"]:
            since = connection.local(topic["paused_at"])
            text, style = f"paused since {since} by {topic['paused_by']}: {topic['reason']}", "yellow"
        console.print(f"{topic['topic']:<22} {text}", style=style, highlight=False, markup=False)
    if state["stopped"]:
        since = connection.local(state["stopped_at"])
        text = (
            f"{service} has consumed nothing since {since}: {state['reason']}; `superfan dead-letters list {service}`"
        )
        console.print(text, style="red", highlight=False, markup=False)
