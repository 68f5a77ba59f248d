"""Sending, waiting, and telling what is done."""

import asyncio
import itertools
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from libs.cli.connection import Connection, RefusedError, connect, refusal
from libs.cli.demo import cdnow
from libs.cli.demo.cast import SOURCE, Cast, Post
from libs.cli.demo.show import show
from libs.cli.local.lag import LagReader
from libs.cli.local.processes import LaunchError
from libs.cli.triggers import PLATFORM
from services.ingest.platforms import douyin_signer

BATCH = 500
APPLIED_SECONDS = 120


class Bar:
    """On a terminal a bar; elsewhere a line every quarter."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0
        columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TextColumn("events"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("sending", total=total)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, count: int) -> None:
        """`count` more are acknowledged."""
        quarters = self._done * 4 // self._total
        self._done += count
        self._progress.advance(self._task, count)
        if not self._console.is_terminal and self._done * 4 // self._total > quarters:
            self._console.print(f"  {self._done:,} of {self._total:,} events sent", highlight=False)


def _begin(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


async def demo(data: Path | None, fans: int, seed: int, *, orders: bool = True) -> None:
    """Raises LaunchError."""
    console = Console(soft_wrap=True)
    async with connect(data) as connection:
        account = connection.account
        source = connection.source(PLATFORM)
        today = datetime.now(account.zone).date()
        cast = Cast(today, _begin(today, account.zone), fans, seed, source.id_space, account.currency)
        posts = list(cast.posts())
        signed = sum(post.webhook is not None for post in posts)
        console.print(
            f"{len(cast.fans)} made-up fans of {today} (seed {seed}): {signed} webhooks signed for {source.id},"
            f" {len(posts) - signed} events with the API key",
            highlight=False,
        )
        customers: list[str] = []
        if orders:
            bought = cdnow.read(cdnow.fetch(lambda text: console.print(text, highlight=False)))
            history = cdnow.events(bought, today, account.zone, account.currency, SOURCE)
            posts = [Post(event=event) for event in history] + posts
            customers = [f"{cdnow.ID_SPACE}:{number}" for number in sorted({order.customer for order in bought})]
            console.print(
                f"{len(bought):,} real orders of {len(customers):,} customers (CDNOW), moved so that the last is of"
                " yesterday",
                highlight=False,
            )
        began = time.monotonic()
        with Bar(console, len(posts)) as bar:
            await _send(connection, source.id, source.secrets[0], posts, bar)
        if customers:  # other customers each day, as the fans are others
            first = today.toordinal() * fans % len(customers)
            await _log_in_to_the_shop(connection, console, cast.subjects, customers[first:] + customers[:first])
        sent = time.monotonic()
        await LagReader(connection.run).wait(APPLIED_SECONDS)
        done = time.monotonic()
        console.print(
            f"acknowledged in {sent - began:.1f} s; applied by all services {done - sent:.1f} s later\n",
            highlight=False,
        )
        await show(connection, console, cast.subjects, customers, f" --data {data}" if data else "")


async def _log_in_to_the_shop(
    connection: Connection, console: Console, fans: Sequence[str], customers: Sequence[str]
) -> None:
    """Every tenth fan is a customer too: an app says so when he logs in with both."""
    for fan, customer in zip(fans[::10], customers, strict=False):
        link = {"subjects": [fan, customer], "evidence": "login", "reason": "logged in to the shop"}
        try:
            await connection.post("profile", "/v1/links", link, idempotency_key=f"demo-{fan}-{customer}")
        except RefusedError as error:  # the customer is another day's fan, or the key may not link
            console.print(f"  {fan} is not linked to {customer}: {error}", highlight=False)
            return


async def _send(connection: Connection, source: str, secret: str, posts: Iterable[Post], bar: Bar) -> None:
    """In order, so that a fan's unfollow comes before the late follow; events of our own go in batches."""
    events: list[dict[str, Any]] = []

    async def flush() -> None:
        if events:
            headers = connection.authorization | {"Content-Type": "application/cloudevents-batch+json"}
            await _post(connection, "/v1/events", orjson.dumps(events), headers)
            bar.advance(len(events))
            events.clear()

    for post in posts:
        if post.event is not None:
            events.append(post.event)
            if post.event["type"] == "unfollow" or len(events) >= BATCH:
                await flush()
        elif post.webhook is not None:
            await _post(connection, f"/v1/webhooks/{source}", post.webhook, douyin_signer.sign(post.webhook, secret))
            bar.advance(1)
    await flush()


async def _post(connection: Connection, path: str, body: bytes, headers: dict[str, str]) -> None:
    for attempt in itertools.count(1):
        response = await connection.send(
            "ingest", "POST", connection.url("ingest", path), content=body, headers=headers
        )
        if response.status_code != 503 or attempt == 5:
            break
        await asyncio.sleep(0.2 * attempt)
    if response.status_code not in (200, 202):
        raise refusal("ingest", response)
    if invalid := [result for result in response.json()["results"] if result["status"] != "accepted"]:
        raise LaunchError(f"ingest refused {len(invalid)} events, the first because of {invalid[0]['errors']}")
