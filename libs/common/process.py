"""A process as a list of components: started in order, stopped in reverse, each with a deadline."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from libs.common.telemetry import get_logger

log = get_logger(__name__)

AsyncCall = Callable[[], Awaitable[Any]]

GRACEFUL_SECONDS = 15

KEEP_ALIVE_SECONDS = 75
"""An idle connection stays open for so long: longer than the 60 s that balancers keep theirs, so that it is they who
close it, and never this side while a request is on its way."""

GC_THRESHOLDS = (50_000, 20, 50)
"""The usual (700, 10, 10) walk the young objects of every batch of a thousand events several times; almost nothing of
them is in a cycle."""


class StartError(Exception):
    """A component cannot start for a reason that its message tells in full; logged as one line, without a trace."""


@dataclass(frozen=True)
class Component:
    """A part of the process; each of its calls may be left out.

    `start` returns when the part is ready; it is cancelled when a signal comes before. `run` then runs beside the
    others for the life of the process: when it ends by itself, with or without an error, the whole process stops with
    exit code 1. `drain` is called first when the process stops, and the part may have to work on for a while. `stop`
    asks the part to finish; `run` may then return, and is cancelled when there is no `stop`, or when `deadline` seconds
    are over.
    """

    name: str
    start: AsyncCall | None = None
    run: AsyncCall | None = None
    stop: AsyncCall | None = None
    deadline: float = 10
    drain: Callable[[], None] | None = None


async def run(components: Sequence[Component], *, stop_deadline: float = 25, drain_seconds: float = 0) -> int:
    """Run `components` until SIGTERM or SIGINT (exit code 0) or until one of them fails (1); returns the exit code.

    A process that was ready drains first: it says that it stops, and works on for `drain_seconds`, so that whoever
    sends it requests can learn of it. Then it stops within `stop_deadline` seconds. A second signal ends it at once.
    Call it in the main thread.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            log.warning("second signal, leaving at once", signal=number.name)
            os._exit(128 + number)
        log.info("stopping", signal=number.name)
        stopping.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, on_signal, number)
    started: list[tuple[Component, asyncio.Task[Any] | None]] = []
    try:
        failed = not await _run_until(stopping, components, started)
        stopping.set()
        for component, _ in started:
            if component.drain is not None:
                component.drain()
        if drain_seconds and not failed and len(started) == len(components):
            failed = not await _work_on(started, drain_seconds)
        await _stop_all(started, stop_deadline)
        log.info("stopped", exit_code=int(failed))
        return int(failed)
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def main(coroutine: Coroutine[Any, Any, int]) -> NoReturn:
    """Run `coroutine` on uvloop and exit with the code that it returns."""
    import uvloop

    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(coroutine)
    raise SystemExit(code)


async def _run_until(
    stopping: asyncio.Event, components: Sequence[Component], started: list[tuple[Component, asyncio.Task[Any] | None]]
) -> bool:
    """Start all and wait. True when a signal ended it, False when a component failed, which has then been logged."""
    signalled = asyncio.create_task(stopping.wait())
    try:
        for component in components:
            if component.start is not None:
                starting = asyncio.ensure_future(component.start())
                tasks = {task for _, task in started if task is not None}
                await asyncio.wait({starting, signalled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait({starting}, timeout=component.deadline)
                    return signalled.done() or _report_ended(started)
                if not _report_start(component, starting):
                    return False
            running = asyncio.ensure_future(component.run()) if component.run is not None else None
            started.append((component, running))
            log.debug("started", component=component.name)
        gc.collect()
        gc.freeze()  # modules, routes and models live as long as the process: no collection needs to walk them again
        log.info("ready")
        tasks = {task for _, task in started if task is not None}
        await asyncio.wait({signalled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        return signalled.done() or _report_ended(started)
    finally:
        signalled.cancel()


async def _work_on(started: Sequence[tuple[Component, asyncio.Task[Any] | None]], seconds: float) -> bool:
    """Let all run for so long. False when a component failed meanwhile, which has then been logged."""
    log.info("draining", seconds=seconds)
    over = asyncio.create_task(asyncio.sleep(seconds))
    tasks = {task for _, task in started if task is not None}
    done, _ = await asyncio.wait({over, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
    return over in done or _report_ended(started)


def _report_start(component: Component, task: asyncio.Future[Any]) -> bool:
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is None:
        return True
    if isinstance(error, StartError):
        log.error("cannot start", component=component.name, reason=str(error))
    else:
        log.error("cannot start", component=component.name, reason=_words(error), exc_info=error)
    return False


def _report_ended(started: Sequence[tuple[Component, asyncio.Task[Any] | None]]) -> bool:
    for component, task in started:
        if task is not None and task.done():
            error = None if task.cancelled() else task.exception()
            reason = "it ended by itself" if error is None else _words(error)
            log.error("component failed, stopping", component=component.name, reason=reason, exc_info=error)
    return False


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


async def _stop_all(started: Sequence[tuple[Component, asyncio.Task[Any] | None]], stop_deadline: float) -> None:
    end = time.monotonic() + stop_deadline
    for component, running in reversed(started):
        seconds = max(0.1, min(component.deadline, end - time.monotonic()))
        try:
            async with asyncio.timeout(seconds):
                await _stop(component, running)
        except TimeoutError:
            log.warning("did not stop in time", component=component.name, seconds=round(seconds, 1))
        except Exception:
            log.exception("failed to stop", component=component.name)
        if running is not None and not running.done():
            running.cancel()
            await asyncio.wait({running}, timeout=1)


async def _stop(component: Component, running: asyncio.Task[Any] | None) -> None:
    if component.stop is not None:
        await component.stop()
        if running is not None:
            await asyncio.wait({running})
    elif running is not None:
        running.cancel()
        await asyncio.wait({running})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to `run`."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises StartError that names the port."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # Python repeats the address
        raise StartError(f"cannot listen on {host} port {port}: {reason}") from None


MOST_JOINED_BYTES = 32_768
"""More is sent at once: the transport must see it to hold back who writes faster than the client reads."""


class _JoinedWrites:
    """A transport that sends what is written within one turn of the loop at once.

    uvicorn writes an answer's head and its body apart, and uvloop sends the first part before it knows of the second:
    a small answer cost two system calls, a twentieth of the time of ingest.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._call_soon = asyncio.get_running_loop().call_soon
        self._waiting: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._call_soon(self._send)
        self._waiting.append(data)
        self._size += len(data)
        if self._size > MOST_JOINED_BYTES:
            self._send()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._waiting and not self._transport.is_closing():
            self._transport.write(b"".join(self._waiting))
        self._waiting.clear()
        self._size = 0


class _HttpProtocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_JoinedWrites(transport))  # type: ignore[arg-type]


class HttpServer:
    """uvicorn without its signal handlers. `port` is the real one once started, also for port 0."""

    def __init__(self, app: Any, host: str, port: int, name: str = "http") -> None:
        self.name = name
        self.host = host
        self.port = port
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_HttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        sock = listen(self.host, self.port)
        self.port = sock.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve([sock]))
        while not self._server.started and not self._task.done():  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        if self._task.done():
            await self._task
        log.info("listening", component=self.name, host=self.host, port=self.port)

    async def run(self) -> None:
        assert self._task is not None
        await self._task

    def drain(self) -> None:
        """From now on each answer closes its connection, so that clients that keep theirs go elsewhere in time."""
        headers = (b"connection", b"close")
        self._server.config.encoded_headers.append(headers)  # uvicorn makes the default headers of these every second
        self._server.server_state.default_headers.append(headers)

    async def stop(self) -> None:
        """Close the port, let running requests finish."""
        self._server.should_exit = True


def serve_http(app: Any, host: str, port: int, name: str = "http") -> Component:
    """A component that serves the ASGI `app`; on stopping, requests that run get 15 s to finish."""
    server = HttpServer(app, host, port, name)
    return Component(name, server.start, server.run, server.stop, GRACEFUL_SECONDS + 3, server.drain)
