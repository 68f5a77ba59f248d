"""`/livez`, `/readyz` and `/metrics`, on a port of their own."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.common.process import Component, HttpServer
from libs.common.telemetry import BUILD_INFO, LOOP_LAG_SECONDS, get_logger
from libs.common.version import VERSION

log = get_logger(__name__)

Check = Callable[[], str | Awaitable[str | None] | None]
"""Returns None when all is well, else the reason why not; raising counts as a reason too."""

CHECK_SECONDS = 2.0
HEARTBEAT_SECONDS = 0.5


class Health:
    """The checks of one process. Liveness means "restart me", so it holds only what a restart would mend; readiness
    means "send me work". Notices are for people: what holds a process up that a new one would find as well must not
    make it unready, or the new version that mends it could never roll out."""

    def __init__(self, service: str, *, stuck_after: float = 10) -> None:
        """`stuck_after`: seconds without a turn of the event loop after which liveness fails."""
        self._service = service
        self._stuck_after = stuck_after
        self._beat = time.monotonic()
        self._draining = False
        self._live: dict[str, Check] = {"event_loop": self._check_loop}
        self._notices: dict[str, Check] = {}
        BUILD_INFO.labels(service, VERSION).set(1)
        self._ready: dict[str, Check] = {"draining": lambda: "the process is stopping" if self._draining else None}

    def add_liveness(self, name: str, check: Check) -> None:
        self._live[name] = check

    def add_readiness(self, name: str, check: Check) -> None:
        self._ready[name] = check

    def add_notice(self, name: str, check: Check) -> None:
        """Told by /readyz, without effect on its status."""
        self._notices[name] = check

    def drain(self) -> None:
        """Not ready from now on: the process is about to stop."""
        self._draining = True

    async def heartbeat(self) -> None:
        """Stamp the time for the event loop check, until cancelled."""
        lag = LOOP_LAG_SECONDS.labels(self._service)
        self._beat = time.monotonic()
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            now = time.monotonic()
            lag.set(max(0.0, now - self._beat - HEARTBEAT_SECONDS))
            self._beat = now

    def _check_loop(self) -> str | None:
        silent = time.monotonic() - self._beat
        return f"the event loop was stuck for {silent:.1f} s" if silent > self._stuck_after else None

    def app(self) -> Starlette:
        """The ASGI app with the three paths."""

        async def livez(_request: Request) -> Response:
            return await _answer(self._live)

        async def readyz(_request: Request) -> Response:
            return await _answer(self._ready, {"notices": await _told(self._notices)})

        return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])

    def serve(self, host: str, port: int) -> Component:
        """The component for `libs.common.process.run`; put it first, so that it answers while others start and stop."""
        server = HttpServer(self.app(), host, port, "health")
        beating: list[asyncio.Task[None]] = []

        async def start() -> None:
            beating.append(asyncio.create_task(self.heartbeat()))
            await server.start()

        async def stop() -> None:
            for task in beating:
                task.cancel()
            await server.stop()

        return Component("health", start, server.run, stop, drain=self.drain)


async def _answer(checks: Mapping[str, Check], more: Mapping[str, Mapping[str, str]] | None = None) -> Response:
    told = await _told(checks)
    failing = any(reason != "ok" for reason in told.values())
    body = {"status": "failing" if failing else "ok", "checks": told, **(more or {})}
    return JSONResponse(body, status_code=503 if failing else 200)


async def _told(checks: Mapping[str, Check]) -> dict[str, str]:
    reasons = await asyncio.gather(*(_reason(check) for check in checks.values()))
    return {name: reason or "ok" for name, reason in zip(checks, reasons, strict=True)}


async def _reason(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            result = check()
            return await result if inspect.isawaitable(result) else result
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except Exception as error:
        log.warning("a health check failed", exc_info=error)
        return f"{type(error).__name__}: {error}"


async def metrics(request: Request) -> Response:
    """The process's metrics, in the Prometheus or OpenMetrics text format that `Accept` asks for."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(REGISTRY), headers={"Content-Type": content_type})
