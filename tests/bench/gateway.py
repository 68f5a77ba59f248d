"""ingest: requests and events a second, latency at half load, and CPU of its process per event."""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psutil

from libs.cli.local.processes import Child, free_ports
from services.ingest.platforms import standard
from tests.bench.load import Load, as_fast_as_possible, at_rate, connect, request_bytes
from tests.bench.peers import TOPIC, raw_producer
from tests.bench.report import Row, count, cpu_seconds, median, share
from tests.support.postgres import TestServer
from tests.support.services import SECRETS, System

CONNECTIONS = 32
BATCH = 100
BATCH_CONNECTIONS = 4
SECONDS = 3.0
SIGNED = "/v1/events?source=standard-demo"
_numbers = itertools.count()


def event() -> dict[str, Any]:
    """One like, each under a new id."""
    number = next(_numbers)
    return {
        "id": f"bench-{number}",
        "source": "/bench",
        "type": "like",
        "subject": f"douyin:ou_{number % 5000:05d}",
        "time": datetime.now(UTC).isoformat(),
        "data": {"content_id": f"video-{number % 97}", "count": 1},
    }


def signed(events: int) -> list[bytes]:
    """Single signed events, made before the clock starts."""
    requests = []
    for _ in range(events):
        body = orjson.dumps(event())
        headers = standard.sign(body, SECRETS["standard"], f"msg_{next(_numbers)}", datetime.now(UTC))
        requests.append(request_bytes(SIGNED, body, {**headers, "Content-Type": "application/json"}))
    return requests


def batches(number: int, path: str, authorization: dict[str, str]) -> list[bytes]:
    """Requests with a hundred events each."""
    headers = {**authorization, "Content-Type": "application/json"}
    return [request_bytes(path, orjson.dumps([event() for _ in range(BATCH)]), headers) for _ in range(number)]


async def measure(server: TestServer, rounds: int) -> list[Row]:
    """The rows of ingest. Its broker runs on this machine too, and so does the load."""
    system = System(server, {"demo": {}})
    system.log_format = "json"
    port = free_ports(1)[0]
    peer = None
    try:
        await system.start(["ingest"])
        command = [sys.executable, "-m", "tests.bench.peers", str(port), system.broker.bootstrap]
        root = Path(__file__).parents[2]
        peer = Child.spawn("peers", command, log=system.folder / "peers.log", cwd=root)
        peers = f"http://127.0.0.1:{port}"
        await _until_open(peers)
        singles = await _singles(system, peers, peer.pid, rounds)
        return singles + await _batches(system, peers, peer.pid, rounds)
    finally:
        if peer is not None:
            await peer.stop()
        await system.stop()


async def _singles(system: System, peers: str, peer: int, rounds: int) -> list[Row]:
    ingest = system.url("ingest")
    pid = system.children["ingest"].pid
    ours, bare, plain, ours_cpu, plain_cpu = [], [], [], [], []
    empty = request_bytes("/bare", b"", {})
    for warm_up in [True] + [False] * rounds:
        seconds = 1.0 if warm_up else SECONDS
        ready = iter(signed(4000 if warm_up else 12_000))
        load, cpu = await _timed(pid, as_fast_as_possible(ingest, ready, CONNECTIONS, seconds))
        bare_load, _ = await _timed(peer, as_fast_as_possible(peers, itertools.repeat(empty), CONNECTIONS, seconds))
        plain_load, plain_seconds = await _timed(peer, as_fast_as_possible(peers, _plain(), CONNECTIONS, seconds))
        if not warm_up:
            ours.append(load.rate)
            bare.append(bare_load.rate)
            plain.append(plain_load.rate)
            ours_cpu.append(cpu / load.done)
            plain_cpu.append(plain_seconds / plain_load.done)
    half = median(ours) / 2
    late = await at_rate(ingest, iter(signed(int(half * 5) + 1)), half, 5)
    ratio = median(o / b for o, b in zip(ours, bare, strict=True))
    micro, usual_micro = median(ours_cpu) * 1e6, median(plain_cpu) * 1e6
    return [
        Row(
            "ingest, single signed event, durable ack",
            f"{count(median(ours))} requests/s",
            "≥ 50 % of the bare route",
            ratio >= 0.5,
            f"bare route {count(median(bare))}/s",
            share(ratio),
            f"plain FastAPI {count(median(plain))}/s",
            f"{median(o / p for o, p in zip(ours, plain, strict=True)):.2f} ×",
        ),
        Row(
            f"the same at half load ({count(half)}/s)",
            f"p50 {late.quantile(0.5) * 1000:.1f} ms, p99 {late.quantile(0.99) * 1000:.1f} ms",
            "p99 < 50 ms",
            late.quantile(0.99) < 0.05,
        ),
        Row(
            "CPU of the gateway, single signed event",
            f"{micro:.0f} µs",
            "< 200 µs",
            micro < 200,
            usual=f"plain FastAPI {usual_micro:.0f} µs",
            times_usual=f"{usual_micro / micro:.2f} ×",
        ),
    ]


async def _batches(system: System, peers: str, peer: int, rounds: int) -> list[Row]:
    ingest = system.url("ingest")
    pid = system.children["ingest"].pid
    authorization = system.authorization("demo")
    ours, raw, plain, ours_cpu, raw_cpu, plain_cpu = [], [], [], [], [], []
    for warm_up in [True] + [False] * rounds:
        seconds = 1.0 if warm_up else SECONDS
        number = 200 if warm_up else 1200
        ready = iter(batches(number, "/v1/events", authorization))
        load, cpu = await _timed(pid, as_fast_as_possible(ingest, ready, BATCH_CONNECTIONS, seconds))
        raw_rate, raw_seconds = await _raw_loop(system.broker.bootstrap, 10_000 if warm_up else 60_000)
        ready = iter(batches(number, "/plain-batch", {}))
        plain_load, used = await _timed(peer, as_fast_as_possible(peers, ready, BATCH_CONNECTIONS, seconds))
        if not warm_up:
            ours.append(load.rate * BATCH)
            raw.append(raw_rate)
            plain.append(plain_load.rate * BATCH)
            ours_cpu.append(cpu / load.done / BATCH)
            raw_cpu.append(raw_seconds)
            plain_cpu.append(used / plain_load.done / BATCH)
    ratio = median(o / r for o, r in zip(ours, raw, strict=True))
    micro, raw_micro, usual_micro = (median(values) * 1e6 for values in (ours_cpu, raw_cpu, plain_cpu))
    return [
        Row(
            "ingest, batch of 100",
            f"{count(median(ours))} events/s",
            "≥ 60 % of the raw producer",
            ratio >= 0.6,
            f"aiokafka loop {count(median(raw))}/s",
            share(ratio),
            f"plain FastAPI {count(median(plain))}/s",
            f"{median(o / p for o, p in zip(ours, plain, strict=True)):.2f} ×",
        ),
        Row(
            "CPU of the gateway, batch of 100",
            f"{micro:.1f} µs an event",
            "< 20 µs",
            micro < 20,
            f"aiokafka loop {raw_micro:.1f} µs",
            share(raw_micro / micro),
            f"plain FastAPI {usual_micro:.1f} µs",
            f"{usual_micro / micro:.2f} ×",
        ),
    ]


def _plain() -> Iterator[bytes]:
    bodies = [orjson.dumps(event()) for _ in range(200)]
    ready = [request_bytes("/plain", body, {"Content-Type": "application/json"}) for body in bodies]
    return itertools.cycle(ready)


async def _timed(pid: int, run: Any) -> tuple[Load, float]:
    process = psutil.Process(pid)
    before = cpu_seconds(process)
    load: Load = await run
    return load, cpu_seconds(process) - before


async def _raw_loop(bootstrap: str, number: int) -> tuple[float, float]:
    """aiokafka's producer in a loop: events a second, and CPU seconds per event."""
    values = [orjson.dumps({**event(), "account": "demo", "receivedtime": datetime.now(UTC)}) for _ in range(1000)]
    keys = [f"demo/douyin:ou_{n:05d}".encode() for n in range(1000)]
    producer = raw_producer(bootstrap)
    await producer.start()
    try:
        began, used = time.perf_counter(), time.process_time()
        for _ in range(number // 1000):
            futures = [await producer.send(TOPIC, value, key=key) for value, key in zip(values, keys, strict=True)]
            await asyncio.gather(*futures)
        return number / (time.perf_counter() - began), (time.process_time() - used) / number
    finally:
        await producer.stop()


async def _until_open(url: str) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                (await connect(url, 1))[0].close()
                return
            await asyncio.sleep(0.1)
