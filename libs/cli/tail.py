"""`superfan tail`: what goes over Kafka, a line per event."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from libs.cli.local.processes import LaunchError
from libs.cli.local.state import Folder, data_folder
from libs.common.events import EVENT_TYPES, TOPICS
from libs.common.kafka import KafkaError, Message, tail

PREFIX = "superfan."
SHORT = 100
REJECTED = "superfan.rejected"


def topic_names(wanted: Sequence[str]) -> list[str]:
    """Full names, all topics when none is wanted; raises LaunchError for one that is not declared."""
    declared = [topic.name for topic in TOPICS]
    names = [name if name.startswith(PREFIX) else PREFIX + name for name in wanted]
    if unknown := [name for name in names if name not in declared]:
        short = ", ".join(name.removeprefix(PREFIX) for name in declared)
        raise LaunchError(f"no topic {', '.join(unknown)}; there are {short}")
    return names or declared


def describe(record: Message, document: dict[str, Any]) -> str:
    """When Kafka took it, where it lies, and what it says. Records of `superfan.rejected` tell why."""
    appended = datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    place = f"{record.topic.removeprefix(PREFIX)}/{record.partition}@{record.offset}"
    if record.topic == REJECTED:
        content = {"reason": document.get("reason"), "errors": document.get("errors")}
    else:
        content = document.get("data", {})
    short = orjson.dumps(content).decode()
    short = short if len(short) <= SHORT else short[: SHORT - 1] + "…"
    who = document.get("subject") or "-"
    name = document.get("type") or "-"
    return f"{appended[:-6]}Z  {place:<20} {name:<16} {who:<24} {document.get('id') or '-'}  {short}"


async def follow(
    data: Path | None, topics: Sequence[str], types: Sequence[str], *, from_start: bool, raw: bool
) -> None:
    """Prints until it is cancelled; raises LaunchError when the topic, the type or Kafka is not there."""
    if unknown := sorted(set(types) - EVENT_TYPES.keys()):
        raise LaunchError(f"no event type {', '.join(unknown)}; docs/events.md names them all")
    names = topic_names(topics)
    bootstrap = str(Folder(data_folder(data)).read_run()["kafka"])
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it would talk of every lost connection in between
    console = Console(soft_wrap=True)
    started = asyncio.Event()

    async def say_started() -> None:
        await started.wait()
        count = f"{len(names)} topics" if len(names) > 1 else names[0]
        Console(stderr=True).print(f"following {count}; Ctrl-C ends it", style="dim", highlight=False)

    greeting = asyncio.create_task(say_started())
    try:
        async for record in tail(bootstrap, names, from_start=from_start, started=started):
            try:
                document = orjson.loads(record.value or b"null")
            except orjson.JSONDecodeError:
                document = None
            if not isinstance(document, dict):
                document = {"id": "(not an event)"}
            if types and document.get("type") not in types:
                continue
            if raw:
                print((record.value or b"").decode(errors="replace"), flush=True)
            else:
                console.print(describe(record, document), highlight=False, markup=False)
    except BrokenPipeError:
        raise  # whoever read the lines has gone
    except (KafkaError, OSError) as error:
        raise LaunchError(f"Kafka does not answer at {bootstrap}: {error!r}; see `superfan status`") from None
    finally:
        greeting.cancel()
