"""`superfan replay FILE`: JSON lines of events through ingest's front door, in the order of the file.

What is known already counts once, so a file may be sent again, whole or in part. How far it got lies beside it.
"""

import asyncio
import gzip
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from libs.cli.connection import Connection, ServiceDownError, connect, refusal
from libs.cli.local.processes import LaunchError

BATCH_EVENTS = 500
BATCH_BYTES = 500_000
PATIENCE_SECONDS = 300
LONGEST_WAIT = 30.0


@dataclass
class State:
    """How far a file has been sent. `size` and `account` tell whether it is the same file and target."""

    size: int
    account: str
    lines: int = 0
    accepted: int = 0
    refused: int = 0
    refused_bytes: int = 0
    """Length of the file of refusals: what was written after the last batch is cut off and written again."""


class Line(NamedTuple):
    """A line of the file: its number from 1, what is sent, and what is wrong with it before it is sent."""

    number: int
    raw: bytes
    fault: str | None


class Done(NamedTuple):
    """What became of a whole file, the part of earlier runs included."""

    accepted: int
    refused: int
    refused_path: Path


class Replay:
    """One file on its way to one system. `patience`: seconds that ingest may refuse to take anything."""

    def __init__(
        self,
        connection: Connection,
        file: Path,
        state_path: Path | None,
        *,
        rate: float | None,
        backfill: bool,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._connection = connection
        self._file = file
        self._rate = rate
        self._backfill = backfill
        self._patience = patience
        self._state_path = state_path or file.with_name(f"{file.name}.progress.json")
        self._refused_path = file.with_name(f"{file.name}.rejected.jsonl")
        key = connection.config.keys[connection.api_key.split("_")[1]]
        self._vouches = key.trust != "client"
        self.state = State(0, connection.account.name)

    async def run(self, console: Console) -> Done:
        """Send what has not been sent; raises LaunchError when it cannot go on, after which it can be run again."""
        with ExitStack() as stack:
            try:
                raw = stack.enter_context(self._file.open("rb"))
                self._load(os.fstat(raw.fileno()).st_size)
                refused = stack.enter_context(self._refused_path.open("ab"))
            except OSError as error:
                raise LaunchError(f"{error.filename}: {error.strerror}") from None
            refused.truncate(self.state.refused_bytes)
            if self.state.lines:
                console.print(f"going on after line {self.state.lines:,}", highlight=False)
            bar = stack.enter_context(Bar(console, self.state.size))
            began, sent = time.monotonic(), 0
            for batch in self._batches(raw):
                await self._send(batch, refused)
                self._save(batch[-1].number, refused)
                bar.show(raw.tell(), self.state)
                sent += len(batch)
                if self._rate:
                    await asyncio.sleep(max(0.0, began + sent / self._rate - time.monotonic()))
        self._state_path.unlink(missing_ok=True)
        if not self.state.refused:
            self._refused_path.unlink()
        return Done(self.state.accepted, self.state.refused, self._refused_path)

    def _load(self, size: int) -> None:
        self.state.size = size
        try:
            known = State(**orjson.loads(self._state_path.read_bytes()))
        except FileNotFoundError:
            return
        except (ValueError, TypeError):
            raise LaunchError(f"{self._state_path} cannot be read; delete it to begin anew") from None
        if (known.size, known.account) != (size, self.state.account):
            raise LaunchError(f"{self._state_path} is of another file or account; delete it to begin anew")
        self.state = known

    def _save(self, lines: int, refused: BinaryIO) -> None:
        refused.flush()
        self.state.lines = lines
        self.state.refused_bytes = os.fstat(refused.fileno()).st_size
        fresh = self._state_path.with_name(f"{self._state_path.name}.new")
        fresh.write_bytes(orjson.dumps(asdict(self.state)))
        fresh.replace(self._state_path)

    def _batches(self, raw: BinaryIO) -> Iterator[list[Line]]:
        # A slow rate goes in small steps of half a second, not in one leap a minute.
        most = min(BATCH_EVENTS, max(1, int(self._rate / 2))) if self._rate else BATCH_EVENTS
        batch: list[Line] = []
        size = 0
        for line in self._lines(raw):
            if batch and (len(batch) == most or size + len(line.raw) > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line.raw)
        if batch:
            yield batch

    def _lines(self, raw: BinaryIO) -> Iterator[Line]:
        content: Any = gzip.GzipFile(fileobj=raw) if self._file.suffix == ".gz" else raw
        try:
            for number, line in enumerate(content, 1):
                text = line.strip()
                if text and number > self.state.lines:
                    yield self._check(number, text)
        except (EOFError, gzip.BadGzipFile) as error:
            raise LaunchError(f"{self._file} is damaged: {error}") from None

    def _check(self, number: int, raw: bytes) -> Line:
        try:
            event = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return Line(number, raw, f"not JSON: {error}")
        if not isinstance(event, dict):
            return Line(number, raw, "not an object")
        if event.get("id") is None:
            return Line(number, raw, "has no id: sent again, it would count again")
        if event.get("trust") == "client" and self._vouches:
            fault = "came with a public key (trust client), for which this key must not vouch: use --key-file"
            return Line(number, raw, fault)
        return Line(number, orjson.dumps(event | {"backfill": True}) if self._backfill else raw, None)

    async def _send(self, batch: list[Line], refused: BinaryIO) -> None:
        good = [line for line in batch if line.fault is None]
        faults = {line.number: line.fault for line in batch if line.fault is not None}
        if good:
            for line, result in zip(good, await self._post([line.raw for line in good]), strict=True):
                if result["status"] != "accepted":
                    errors = [f"{error['pointer']} {error['detail']}".strip() for error in result["errors"]]
                    faults[line.number] = "; ".join(errors)
        for line in batch:
            if line.number in faults:
                known = {"line": line.number, "reason": faults[line.number], "event": line.raw.decode(errors="replace")}
                refused.write(orjson.dumps(known, option=orjson.OPT_APPEND_NEWLINE))
        self.state.refused += len(faults)
        self.state.accepted += len(batch) - len(faults)

    async def _post(self, events: list[bytes]) -> list[dict[str, Any]]:
        """The result of each event; waits as long as ingest asks for it."""
        url = self._connection.url("ingest", "/v1/events")
        headers = self._connection.authorization | {"Content-Type": "application/json"}
        body = b"[" + b",".join(events) + b"]"
        give_up = time.monotonic() + self._patience
        while True:
            response: httpx.Response | None = None
            try:
                response = await self._connection.send("ingest", "POST", url, content=body, headers=headers)
            except ServiceDownError:
                wait = 1.0
            if response is not None:
                if response.status_code in (202, 422) and "results" in (answer := response.json()):
                    results: list[dict[str, Any]] = answer["results"]
                    return results
                if response.status_code not in (429, 503):
                    raise refusal("ingest", response)
                wait = _retry_after(response)
            if time.monotonic() + wait > give_up:
                why = "it does not answer" if response is None else str(refusal("ingest", response))
                raise LaunchError(f"ingest takes nothing: {why}; run the same command again to go on")
            await asyncio.sleep(wait)


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(LONGEST_WAIT, max(0.1, float(response.headers["retry-after"])))
    except (KeyError, ValueError):
        return 1.0


class Bar:
    """On a terminal a bar; elsewhere a line every tenth of the file."""

    def __init__(self, console: Console, size: int) -> None:
        self._console = console
        self._size = max(1, size)
        self._tenths = 0
        columns = (
            *(TextColumn("replaying"), BarColumn(), DownloadColumn()),
            *(TextColumn("{task.fields[events]}"), TimeRemainingColumn()),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("replaying", total=self._size, events="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, position: int, state: State) -> None:
        """`position` bytes of the file are sent."""
        events = f"{state.accepted + state.refused:,} events"
        self._progress.update(self._task, completed=position, events=events)
        tenths = position * 10 // self._size
        if not self._console.is_terminal and tenths > self._tenths:
            self._console.print(f"replayed {tenths * 10} %, {events}", highlight=False)
        self._tenths = max(tenths, self._tenths)


async def replay(
    data: Path | None,
    file: Path,
    *,
    state: Path | None = None,
    rate: float | None = None,
    backfill: bool = False,
    key_file: Path | None = None,
) -> bool:
    """Send a file and say what became of it; returns whether every event was taken. Raises LaunchError."""
    try:
        api_key = key_file.read_text().strip() if key_file else None
    except OSError as error:
        raise LaunchError(f"{error.filename}: {error.strerror}") from None
    console = Console(stderr=True)
    async with connect(data, api_key) as connection:
        done = await Replay(connection, file, state, rate=rate, backfill=backfill).run(console)
    console.print(f"{done.accepted:,} events accepted; those known before count once", highlight=False)
    if done.refused:
        console.print(f"{done.refused:,} refused: see {done.refused_path}", style="yellow", soft_wrap=True)
    return not done.refused
