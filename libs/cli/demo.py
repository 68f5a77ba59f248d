"""`superfan demo`: a handful of made-up fans through the front door, and what came of them.

Everything follows from the day and the seed, ids too: running it again on the same day changes nothing.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from libs.cli.connection import Connection, connect, refusal
from libs.cli.local.lag import LagReader
from libs.cli.local.processes import LaunchError
from libs.cli.outcomes import counted
from libs.cli.triggers import PLATFORM
from libs.common.days import DAY
from libs.common.identity import user_id_of
from services.ingest.platforms import douyin_signer

SOURCE = "superfan-demo"
BATCH = 100
APPLIED_SECONDS = 60
COMMENTS = ("好看！", "求链接", "什么时候直播？", "已下单", "回购第三次了", "👍👍👍")
VIDEOS = tuple(f"@9VwVideo{number:03}" for number in range(1, 9))


@dataclass(frozen=True)
class Role:
    """What a kind of fan has done. Days count back from today; `share` of all fans is of this kind.

    `follow` is how the follow comes: `live` (webhook of today), `late` (webhook of three days ago), `history`
    (imported), `gone` (an unfollow comes before it), `twice`.
    """

    name: str
    share: int
    follow: str
    active_days: tuple[int, ...]
    orders: int = 0


ROLES = (
    Role("newcomer", 16, "live", (0,)),
    Role("regular", 8, "history", tuple(range(20)), orders=2),
    Role("late", 5, "late", (0, 1, 2)),
    Role("gone", 3, "gone", (0,)),
    Role("keen", 2, "twice", (0,)),
    Role("dormant", 3, "history", tuple(range(12, 20)), orders=1),
    Role("lost", 2, "history", tuple(range(40, 45))),
    Role("returned", 1, "history", (0, *range(20, 25))),
)
FOLLOWED_DAYS_AGO = 60


class Post(NamedTuple):
    """What is sent next: a webhook body to sign, or an event of our own."""

    webhook: bytes | None = None
    event: dict[str, Any] | None = None


class Cast:
    """The made-up fans of one day and seed."""

    def __init__(self, today: date, today_begins: datetime, fans: int, seed: int, id_space: str, currency: str) -> None:
        self._begin = today_begins
        self._random = random.Random(f"{today} {seed}")  # noqa: S311 - the same numbers each time are wanted
        self._currency = currency
        self._id_space = id_space
        self._prefix = f"demo-{today:%m%d}-{seed}"
        roles = [role for role in ROLES for _ in range(role.share)]
        self._random.shuffle(roles)
        self.fans = {f"{self._prefix}-{number:02}": roles[number % len(roles)] for number in range(fans)}

    @property
    def subjects(self) -> list[str]:
        return [f"{self._id_space}:{fan}" for fan in self.fans]

    def posts(self) -> Iterator[Post]:
        """Everything in the order in which it is sent."""
        for number, (fan, role) in enumerate(self.fans.items()):
            yield from self._follow(fan, role, number)
            yield from self._deeds(fan, role)

    def _follow(self, fan: str, role: Role, number: int) -> Iterator[Post]:
        # The first minutes of today: at any hour of today that is younger than a day and not in the future.
        at = self._begin + timedelta(seconds=number % 40)
        if role.follow == "history":
            before = at - timedelta(days=FOLLOWED_DAYS_AGO)
            yield self._event("follow", fan, before, {"acquisition": {"channel": "import"}}, backfill=True)
        elif role.follow == "late":
            yield Post(douyin_signer.follow(fan, at - timedelta(days=3)))
        else:
            if role.follow == "gone":
                yield self._event("unfollow", fan, at + timedelta(seconds=60), {})
            yield Post(douyin_signer.follow(fan, at))
            if role.follow == "twice":
                yield Post(douyin_signer.follow(fan, at + timedelta(seconds=90)))

    def _deeds(self, fan: str, role: Role) -> Iterator[Post]:
        chosen = self._random
        for back in role.active_days:
            day = self._begin - back * DAY
            # Today has just begun; the other days are over.
            at = day + timedelta(minutes=4) if back == 0 else day + timedelta(minutes=chosen.randrange(480, 1320))
            video = chosen.choice(VIDEOS)
            length = chosen.randrange(8_000, 60_000)
            watched = {"content_id": video, "watch_ms": chosen.randrange(length), "duration_ms": length}
            yield self._event("view", fan, at, watched)
            if chosen.random() < 0.6:
                yield Post(douyin_signer.like(fan, video, at + timedelta(seconds=8)))
            if chosen.random() < 0.3:
                text, name = chosen.choice(COMMENTS), f"{fan}-c{back}"
                yield Post(douyin_signer.comment(fan, video, name, text, at + timedelta(seconds=20)))
            if role.name in ("regular", "newcomer") and chosen.random() < 0.8:
                yield self._event("sign_in", fan, at + timedelta(seconds=30), {})
        for number, back in enumerate(chosen.sample(role.active_days, role.orders)):
            at = self._begin - back * DAY + timedelta(minutes=4)
            order = {
                "order_id": f"{fan}-o{number}",
                "amount_minor": chosen.randrange(1_900, 29_900, 100),
                "currency": self._currency,
                "kind": "goods",
                "paid_at": at.isoformat(),
            }
            yield self._event("order.paid", fan, at, order)

    def _event(self, name: str, fan: str, at: datetime, data: dict[str, Any], *, backfill: bool = False) -> Post:
        return Post(
            event={
                "specversion": "1.0",
                "id": f"{fan}/{name}/{int(at.timestamp())}",
                "source": SOURCE,
                "type": name,
                "subject": f"{self._id_space}:{fan}",
                "time": at.isoformat(),
                "backfill": backfill,
                "data": data,
            }
        )


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


async def demo(data: Path | None, fans: int, seed: int) -> None:
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
        began = time.monotonic()
        with Bar(console, len(posts)) as bar:
            await _send(connection, source.id, source.secrets[0], posts, bar)
        sent = time.monotonic()
        await LagReader(connection.run).wait(APPLIED_SECONDS)
        done = time.monotonic()
        console.print(
            f"acknowledged in {sent - began:.1f} s; applied by all services {done - sent:.1f} s later\n",
            highlight=False,
        )
        await _show(connection, console, cast.subjects, f" --data {data}" if data else "")


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


async def _show(connection: Connection, console: Console, subjects: list[str], folder_option: str) -> None:
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
