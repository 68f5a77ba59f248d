"""A small HTTP/1.1 load generator: ready-made requests over kept connections, bounded in number and in time."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit


def request_bytes(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """One POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One kept connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    async def request(self, raw: bytes) -> int:
        """Send and wait for the whole answer; returns its status."""
        assert self._transport is not None
        self._buffer = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) >= int(length.partition(b"\r\n")[0] or 0) and self._answer is not None:
            self.closed = self.closed or b"connection: close" in head.lower()
            self._answer.set_result(int(head[9:12]))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclass(frozen=True)
class Load:
    """What a run of requests came to. `latencies` are seconds, sorted."""

    done: int
    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        return self.done / self.seconds

    def quantile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))]


async def connect(url: str, count: int) -> list[Connection]:
    """`count` connections to the server of `url`."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    host, port = parts.hostname or "", parts.port or 80
    made = [await loop.create_connection(Connection, host, port) for _ in range(count)]
    return [connection for _, connection in made]


async def as_fast_as_possible(url: str, requests: Iterator[bytes], connections: int, seconds: float) -> Load:
    """Each connection sends the next request when the last one is answered. Raises on any status but 202."""
    pool = await connect(url, connections)
    latencies: list[float] = []
    started = time.perf_counter()

    async def drive(connection: Connection) -> None:
        while (begun := time.perf_counter()) < started + seconds:
            raw = next(requests, None)
            if raw is None:
                return
            _expect_202(await connection.request(raw))
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*map(drive, pool))
    elapsed = time.perf_counter() - started
    for connection in pool:
        connection.close()
    return Load(len(latencies), elapsed, sorted(latencies))


async def at_rate(url: str, requests: Iterator[bytes], rate: float, seconds: float, connections: int = 128) -> Load:
    """Sends on a fixed timetable whatever the answers do; latency counts from the planned instant."""
    free = await connect(url, connections)
    pool = list(free)
    latencies: list[float] = []
    waiting: set[asyncio.Task[None]] = set()
    semaphore = asyncio.Semaphore(connections)
    started = time.perf_counter()

    async def send(raw: bytes, planned: float) -> None:
        async with semaphore:
            connection = free.pop(0)  # in turn: a server closes a connection that idles
            _expect_202(await connection.request(raw))
            latencies.append(time.perf_counter() - planned)
            free.append(connection)

    for number in range(int(rate * seconds)):
        planned = started + number / rate
        if (early := planned - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = asyncio.create_task(send(next(requests), planned))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    await asyncio.gather(*waiting)
    elapsed = time.perf_counter() - started
    for connection in pool:
        connection.close()
    return Load(len(latencies), elapsed, sorted(latencies))


def _expect_202(status: int) -> None:
    if status != 202:
        raise RuntimeError(f"the server answered {status}")
