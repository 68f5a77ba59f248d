"""Start in order, stop in reverse, and what signals, crashes and a taken port do. Signals go to real processes."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from libs.common.process import Component, HttpServer, StartError, run, serve_http

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, sys
from libs.common.process import Component, main, run
from libs.common.telemetry import configure_logging

def part(name, **calls):
    async def start():
        print("start", name, flush=True)
    async def stop():
        print("stop", name, flush=True)
    return Component(name, **{"start": start, "stop": stop, **calls})

async def forever():
    await asyncio.Event().wait()

async def refuse_to_stop():
    try:
        await forever()
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise

async def ready():
    print("ready", flush=True)

async def serve():
    await ready()
    await forever()

configure_logging("test", "json", "info")
"""


class Process:
    """A Python process with the program above and a last line of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def wait_for_line(self, line: str) -> None:
        assert self.process.stdout is not None
        while line not in self.lines:
            read = await asyncio.wait_for(self.process.stdout.readline(), 30)
            assert read, f"ended before {line!r}: {self.lines}"
            self.lines.append(read.decode().strip())

    async def end(self) -> tuple[int, list[str], list[dict[str, Any]]]:
        """Exit code, lines printed, log entries."""
        out, err = await asyncio.wait_for(self.process.communicate(), 30)
        self.lines += out.decode().splitlines()
        logs = [json.loads(line) for line in err.decode().splitlines()]
        return self.process.returncode or 0, self.lines, logs


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    processes: list[Process] = []

    async def start(last: str) -> Process:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", f"{PROGRAM}\n{last}", cwd=ROOT, stdout=pipe, stderr=pipe, env={**os.environ}
        )
        processes.append(Process(process))
        return processes[-1]

    yield start
    for one in processes:
        if one.process.returncode is None:
            one.process.kill()
            await one.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_in_reverse_order(start: Callable[..., Any], number: signal.Signals) -> None:
    process = await start(
        "main(run([part('a'), part('b', run=forever, stop=None), part('c'), part('d', run=serve, stop=None)]))"
    )
    await process.wait_for_line("ready")
    process.process.send_signal(number)
    code, lines, logs = await process.end()
    assert (code, lines) == (0, ["start a", "start b", "start c", "start d", "ready", "stop c", "stop a"])
    assert [entry["message"] for entry in logs] == ["ready", "stopping", "stopped"]
    assert logs[1]["signal"] == number.name


async def test_a_signal_while_starting_stops_what_has_started(start: Callable[..., Any]) -> None:
    process = await start("main(run([part('a'), part('slow', start=lambda: refuse_to_stop()), part('never')]))")
    await process.wait_for_line("start a")
    process.process.terminate()
    code, lines, _ = await process.end()
    assert (code, lines) == (0, ["start a", "cancelled", "stop a"])


async def test_a_part_that_does_not_stop_in_time_is_left_behind(start: Callable[..., Any]) -> None:
    process = await start(
        "main(run([part('a'), part('stuck', start=ready, run=refuse_to_stop, stop=forever, deadline=0.2)]))"
    )
    await process.wait_for_line("ready")
    process.process.terminate()
    code, lines, logs = await process.end()
    assert (code, lines) == (0, ["start a", "ready", "cancelled", "stop a"])
    assert [entry["component"] for entry in logs if entry["message"] == "did not stop in time"] == ["stuck"]


async def test_all_parts_together_stop_within_the_deadline_of_the_process(start: Callable[..., Any]) -> None:
    process = await start(
        "main(run([part('a'), part('b', stop=forever), part('c', start=ready, stop=forever)], stop_deadline=0.3))"
    )
    await process.wait_for_line("ready")
    process.process.terminate()
    code, lines, logs = await process.end()
    assert (code, lines[-1]) == (0, "stop a")
    late = [entry for entry in logs if entry["message"] == "did not stop in time"]
    assert [entry["component"] for entry in late] == ["c", "b"]
    assert sum(entry["seconds"] for entry in late) < 1


async def test_a_second_signal_ends_the_process_at_once(start: Callable[..., Any]) -> None:
    process = await start(
        "async def stopping():\n"
        "    print('stopping', flush=True)\n"
        "    await forever()\n"
        "main(run([part('a'), part('b', start=ready, stop=stopping, deadline=20)]))"
    )
    await process.wait_for_line("ready")
    process.process.terminate()
    await process.wait_for_line("stopping")
    process.process.terminate()
    code, lines, _ = await process.end()
    assert code == 128 + signal.SIGTERM
    assert "stop a" not in lines


DRAINING = """
def drain():
    print("drain", flush=True)

async def work():
    while True:
        print("working", flush=True)
        await asyncio.sleep(0.05)
"""


async def test_a_process_that_is_stopped_works_on_while_it_drains(start: Callable[..., Any]) -> None:
    process = await start(
        f"{DRAINING}\n"
        "main(run([part('a', drain=drain), part('b', start=ready, run=work, stop=None)], drain_seconds=0.5))"
    )
    await process.wait_for_line("working")
    process.process.terminate()
    code, lines, logs = await process.end()
    assert (code, lines[-1]) == (0, "stop a")
    assert lines[lines.index("drain") :].count("working") > 1
    assert [entry["message"] for entry in logs] == ["ready", "stopping", "draining", "stopped"]


@pytest.mark.parametrize(
    ("during", "code", "last"),
    [("os.kill(os.getpid(), 15)", 128 + signal.SIGTERM, "drain"), ("1 / 0", 1, "stop a")],
    ids=["second signal", "crash"],
)
async def test_draining_ends_early(start: Callable[..., Any], during: str, code: int, last: str) -> None:
    process = await start(
        f"import os\n{DRAINING}\n"
        "draining = asyncio.Event()\n"
        "async def later():\n    print('working', flush=True)\n"
        f"    await draining.wait()\n    {during}\n    await forever()\n"
        "main(run([part('a', drain=drain), part('b', start=ready, run=later, drain=draining.set, stop=None)],"
        " drain_seconds=3600))"
    )
    await process.wait_for_line("working")
    process.process.terminate()
    ended, lines, _ = await process.end()
    assert (ended, lines[-1]) == (code, last)


async def test_a_crash_stops_all_with_one_log_line_and_exit_code_1(start: Callable[..., Any]) -> None:
    process = await start(
        "async def crash():\n    raise RuntimeError('boom')\nmain(run([part('a'), part('b', run=crash), part('c')]))"
    )
    code, lines, logs = await process.end()
    assert code == 1
    assert lines[-1] == "stop a"
    (failure,) = [entry for entry in logs if entry["level"] == "error"]
    assert (failure["component"], failure["reason"]) == ("b", "RuntimeError: boom")
    assert "Traceback" in failure["exception"]


async def test_a_part_that_ends_by_itself_counts_as_a_crash() -> None:
    order: list[str] = []

    async def stop() -> None:
        order.append("stop a")

    async def finish() -> None:
        order.append("finish b")

    parts = [Component("a", stop=stop, drain=lambda: order.append("drain a")), Component("b", run=finish)]
    assert (await run(parts, drain_seconds=3600), order) == (1, ["finish b", "drain a", "stop a"])


async def test_a_part_that_cannot_start_stops_those_before_it() -> None:
    order: list[str] = []

    async def stop() -> None:
        order.append("stop a")

    async def fail() -> None:
        raise StartError("no")

    async def never() -> None:
        order.append("never")

    assert await run([Component("a", stop=stop), Component("b", start=fail), Component("c", start=never)]) == 1
    assert order == ["stop a"]


async def test_a_failing_stop_does_not_keep_the_others_from_stopping() -> None:
    order: list[str] = []

    async def stop() -> None:
        order.append("stop a")

    async def fail() -> None:
        raise RuntimeError

    async def finish() -> None:
        return None

    assert await run([Component("a", stop=stop), Component("b", stop=fail), Component("c", run=finish)]) == 1
    assert order == ["stop a"]


async def test_a_taken_port_is_one_clear_line_and_exit_code_1(start: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start(
            f"from libs.common.process import serve_http\nmain(run([serve_http(None, '127.0.0.1', {port})]))"
        )
        code, _, logs = await process.end()
    assert code == 1
    (failure,) = [entry for entry in logs if entry["level"] == "error"]
    assert failure["reason"] == f"cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert "exception" not in failure


entered = asyncio.Event()
leave = asyncio.Event()


async def slow(_request: Request) -> Response:
    entered.set()
    await leave.wait()
    return PlainTextResponse("done")


async def quick(_request: Request) -> Response:
    return PlainTextResponse("quick")


APP = Starlette(routes=[Route("/slow", slow), Route("/quick", quick)])


async def test_requests_that_run_are_finished_and_new_ones_refused_while_stopping() -> None:
    entered.clear()
    leave.clear()
    server = HttpServer(APP, "127.0.0.1", 0)
    await server.start()
    base = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=base, trust_env=False) as api:
        assert (await api.get("/quick")).text == "quick"
        request = asyncio.create_task(api.get("/slow"))
        await entered.wait()
        await server.stop()
        refused = False
        while not refused:
            try:
                async with httpx.AsyncClient(base_url=base, trust_env=False) as other:
                    await other.get("/quick")
            except httpx.TransportError:
                refused = True
            await asyncio.sleep(0.01)
        leave.set()
        assert (await request).text == "done"
    await asyncio.wait_for(server.run(), 20)


async def test_while_draining_each_answer_closes_its_connection() -> None:
    """So a client with a pool moves away between two requests, and none of them fails."""
    entered.clear()
    leave.clear()
    server = HttpServer(APP, "127.0.0.1", 0)
    await server.start()
    pool = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, limits=pool) as api:
        assert "connection" not in (await api.get("/quick")).headers
        running = asyncio.create_task(api.get("/slow"))
        await entered.wait()
        server.drain()
        leave.set()
        assert (await running).headers["connection"] == "close"
        await asyncio.sleep(1.2)  # uvicorn makes its headers anew each second
        for _ in range(3):
            answer = await api.get("/quick")
            assert (answer.text, answer.headers.get_list("connection")) == ("quick", ["close"])
    await server.stop()
    await asyncio.wait_for(server.run(), 20)


async def test_the_server_leaves_signal_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    component = serve_http(APP, "127.0.0.1", 0)
    assert component.start is not None
    assert component.stop is not None
    assert component.run is not None
    await component.start()
    assert signal.getsignal(signal.SIGTERM) is before
    await component.stop()
    await component.run()
