"""`superfan trigger`: one real event, followed through the whole system."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from libs.cli.connection import Connection, RefusedError, ServiceDownError, connect, refusal
from libs.cli.local.lag import LagReader, consumed_topics
from libs.cli.local.processes import LaunchError
from libs.cli.local.state import WITH_DATABASE
from libs.cli.outcomes import Cause, read_outcome
from libs.cli.triggers import ALIASES, DOUYIN, OWN, Shot, aim
from libs.common.events import AnyEvent, parse_event
from libs.common.kafka import KafkaError, Message, tail

TIMEOUT_SECONDS = 15.0


class HopMissingError(LaunchError):
    """A hop did not happen in time."""


@dataclass(frozen=True)
class Landing:
    """Where the event lies on Kafka."""

    record: Message
    event: AnyEvent


class Tracer:
    """Sends a shot and prints each hop as it happens. Times count from when ingest took the event."""

    def __init__(self, connection: Connection, console: Console, timeout: float = TIMEOUT_SECONDS) -> None:
        self._connection = connection
        self._console = console
        self._timeout = timeout

    async def run(self, shot: Shot, *, repeat: bool = False) -> None:
        """Raises LaunchError, naming the hop that is missing or what counted twice."""
        self._console.print(f"{shot.type} of {shot.subject}", style="bold", highlight=False, markup=False)
        self._say("signed" if "API key" not in shot.how else "prepared", "", f"{len(shot.body)} bytes: {shot.how}")
        readers = [service for service in WITH_DATABASE if shot.topic in consumed_topics(service)]
        async with self._follow(shot.topic) as records:
            landing = await self._land(shot, records)
            await self._all_applied(landing, readers)
            for service in sorted(set(WITH_DATABASE) - set(readers)):
                self._say(service, "", f"does not read {shot.topic}")
            outcomes = await self._outcomes(landing, shot, readers)
            self._heading("what came of it")
            for service, outcome in outcomes.items():
                self._say(service, "", outcome)
            if repeat:
                self._heading("the same bytes again")
                again = await self._land(shot, records)
                await self._all_past(again, readers)
                after = await self._outcomes(landing, shot, readers)
                for service, outcome in after.items():
                    self._say(service, "", f"unchanged: {outcome}" if outcome == outcomes[service] else outcome)
                changed = [service for service in readers if after[service] != outcomes[service]]
                if changed:
                    raise LaunchError(f"not as before in {', '.join(changed)}: did it count twice, or did more happen?")

    @asynccontextmanager
    async def _follow(self, topic: str) -> AsyncIterator[asyncio.Queue[Message]]:
        """Everything that comes to the topic from now on."""
        records: asyncio.Queue[Message] = asyncio.Queue()
        started = asyncio.Event()

        async def collect() -> None:
            async for record in tail(self._connection.kafka, [topic], started=started):
                records.put_nowait(record)

        collector = asyncio.create_task(collect())
        waiter = asyncio.create_task(started.wait())
        try:
            await asyncio.wait((collector, waiter), timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if not started.is_set():
                raise LaunchError(f"Kafka does not answer at {self._connection.kafka}: see `superfan status`")
            yield records
        finally:
            waiter.cancel()
            collector.cancel()
            with contextlib.suppress(asyncio.CancelledError, KafkaError, OSError):
                await collector

    async def _land(self, shot: Shot, records: asyncio.Queue[Message]) -> Landing:
        began = time.perf_counter()
        response = await self._connection.send(
            "ingest", "POST", shot.url, content=shot.body, headers=dict(shot.headers)
        )
        took = (time.perf_counter() - began) * 1000
        if response.status_code == 401:
            raise LaunchError(f"{refusal('ingest', response)} (ingest knows a changed secret or key within 10 s)")
        if response.status_code not in (200, 202):
            raise refusal("ingest", response)
        result = response.json()["results"][0]
        if result["status"] != "accepted":
            reasons = "; ".join(f"{error['pointer']} {error['detail']}" for error in result["errors"])
            raise LaunchError(f"ingest took the delivery but not its event: {reasons}")
        self._say("accepted", "", f"HTTP {response.status_code} after {took:.0f} ms, id {result['id']}")
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    record = await records.get()
                    event = parse_event(record.value or b"")
                    if (event.source, event.id) == (result["source"], result["id"]):
                        break
        except TimeoutError:
            raise HopMissingError(f"missing after {self._timeout:.0f} s: the event on topic {shot.topic}") from None
        appended = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        place = f"{record.topic} partition {record.partition} offset {record.offset}"
        self._say("kafka", _since(event.receivedtime, appended), place)
        return Landing(record, event)

    async def _all_applied(self, landing: Landing, services: Sequence[str]) -> None:
        event = landing.event
        down: set[str] = set()

        async def applied(service: str) -> None:
            while True:
                try:
                    found = await self._applied(service, event)
                    down.discard(service)
                except ServiceDownError:
                    down.add(service)
                    found = None
                if found is not None:
                    self._say(service, _since(event.receivedtime, found), "applied")
                    return
                await asyncio.sleep(0.02)

        tasks = {service: asyncio.create_task(applied(service)) for service in services}
        done, late = await asyncio.wait(tasks.values(), timeout=self._timeout)
        for task in late:
            task.cancel()
        for task in done:
            task.result()
        missing = [
            f"{service} ({'does not answer' if service in down else 'has not applied it'})"
            for service, task in tasks.items()
            if task in late
        ]
        if missing:
            raise HopMissingError(f"missing after {self._timeout:.0f} s: {', '.join(missing)}; see `superfan lag`")

    async def _applied(self, service: str, event: AnyEvent) -> datetime | None:
        try:
            answer = await self._connection.get(service, "/v1/applied-events", source=event.source, id=event.id)
        except RefusedError as error:
            if error.code != "unknown_event":
                raise
            return None
        return datetime.fromisoformat(answer["applied"])

    async def _all_past(self, landing: Landing, services: Sequence[str]) -> None:
        """Until every service has read past this copy. Its identity is known, so REST cannot tell."""
        record = landing.record
        reader = LagReader(self._connection.run)
        end = time.monotonic() + self._timeout
        while True:
            lags = await reader.read({(record.topic, record.partition): record.offset + 1})
            behind = [lag.service for lag in lags if lag.service in services and any(lag.behind.values())]
            if not behind:
                return
            if time.monotonic() > end:
                raise HopMissingError(f"missing after {self._timeout:.0f} s: {', '.join(behind)} did not read the copy")
            await asyncio.sleep(0.05)

    async def _outcomes(self, landing: Landing, shot: Shot, services: Sequence[str]) -> dict[str, str]:
        event = landing.event
        cause = Cause(shot.subject, event.source, event.id, event.type, event.receivedtime)
        return {service: await read_outcome(self._connection, service, cause) for service in services}

    def _heading(self, text: str) -> None:
        self._console.print(text, style="bold", highlight=False, markup=False)

    def _say(self, hop: str, when: str, text: str) -> None:
        self._console.print(f"  {hop:<13}{when:>9}  {text}", highlight=False, markup=False)


def _since(received: datetime, then: datetime) -> str:
    # Kafka's times are whole milliseconds: one may seem to lie before what led to it.
    return f"+{max(0.0, (then - received).total_seconds() * 1000):.0f} ms"


async def trigger(data: Path | None, name: str, user: str, source: str | None, *, repeat: bool) -> None:
    """Raises LaunchError."""
    async with connect(data) as connection:
        shot = aim(connection, name, user, source, datetime.now(UTC))
        await Tracer(connection, Console(soft_wrap=True)).run(shot, repeat=repeat)


def print_list() -> None:
    """All triggers, a line each."""
    console = Console(soft_wrap=True)
    rows = [(name, f"signed webhook {delivery.event_name} → {delivery.type}") for name, delivery in DOUYIN.items()]
    rows += [(alias, f"the same as {name}") for alias, name in ALIASES.items()]
    rows += list(OWN.items())
    for name, description in rows:
        console.print(f"{name:<18}{description}", highlight=False, markup=False)
    console.print("\nThe first are signed webhooks; the others go to POST /v1/events with the API key.", markup=False)
    console.print("For the fan of a platform give the subject: --user douyin:u42", markup=False, highlight=False)
