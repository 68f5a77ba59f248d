"""What happens around every request, as one pure ASGI layer."""

import asyncio
import re
import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from libs.common import tracing
from libs.common.telemetry import (
    HTTP_REQUESTS,
    HTTP_SECONDS,
    RequestContext,
    get_logger,
    log_request,
    new_request_id,
)
from libs.common.web.limits import BODY_SECONDS, MOST_BODY_BYTES, RATE_HEADERS, Load, overloaded
from libs.common.web.problems import INTERNAL, Problem, invalid, problem_response, too_large, too_slow

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMiddleware:
    """Load shedding, request id and trace, text and size checks, rate limit headers, 500, metrics, the access log.

    It lies outside of FastAPI's exception handlers: what arrives here as an exception is a bug.
    """

    def __init__(self, app: ASGIApp, service: str, max_body: int, load: Load) -> None:
        self.app = app
        self.service = service
        # Found once: searching for a metric by its labels costs more than counting.
        self._requests = lru_cache(maxsize=4096)(partial(HTTP_REQUESTS.labels, service))
        self._seconds = lru_cache(maxsize=4096)(partial(HTTP_SECONDS.labels, service))
        self.max_body = max_body
        self.load = load
        self._shedding_told = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        given = traceparent = length = ""
        for name, value in reversed(scope["headers"]):  # of a header that stands twice, the first counts
            if name == b"x-request-id":
                given = value.decode("latin-1")
            elif name == b"traceparent":
                traceparent = value.decode("latin-1")
            elif name == b"content-length":
                length = value.decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_request_id()
        load = self.load
        if load.full:
            await self._shed(scope, receive, send, request_id)
            return
        status = size = 0
        complete = False
        body_until = asyncio.get_running_loop().time() + BODY_SECONDS

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = (b"x-request-id", request_id.encode())
                message["headers"] = [*message["headers"], own, *scope.get(RATE_HEADERS, ())]
            await send(message)

        async def receive_limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(body_until):
                    message = await receive()
            except TimeoutError:
                raise too_slow(BODY_SECONDS) from None
            if message["type"] == "http.request":
                complete = not message.get("more_body", False)
                received = len(message.get("body", b""))
                size += received
                load.body_bytes += received
                if size > self.max_body:
                    raise too_large(self.max_body)
                if load.body_bytes > MOST_BODY_BYTES:
                    load.count_shed()
                    raise overloaded()
            return message

        span = None
        if tracing.tracer is not None:
            span = tracing.tracer.begin_request(scope["scheme"], request_id, traceparent)
            traceparent = tracing.traceparent_of(span)
        load.requests += 1
        with RequestContext(request_id, traceparent):
            try:
                refusal = _refuse_text(scope) or self._refuse_size(length)
                if refusal is not None:
                    await problem_response(refusal)(scope, receive, send_marked)
                else:
                    await self.app(scope, receive_limited, send_marked)
            except Exception:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if status:
                    raise  # half an answer is out: the server must cut the connection
                await problem_response(INTERNAL)(scope, receive, send_marked)
            finally:
                load.requests -= 1
                load.body_bytes -= size
                self._observe(scope, request_id, status or 499, time.perf_counter() - started, span)

    def _refuse_size(self, length: str) -> Problem | None:
        return too_large(self.max_body) if length.isdecimal() and int(length) > self.max_body else None

    async def _shed(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """The cheapest answer there is: no trace, and one line in the log a second at most."""
        self.load.count_shed()
        HTTP_REQUESTS.labels(self.service, _method(scope), "unmatched", 503).inc()
        now = time.monotonic()
        if now - self._shedding_told > 1:
            self._shedding_told = now
            log.warning("overloaded: requests are refused", in_flight=self.load.requests)
        with bound_contextvars(request_id=request_id):
            response = problem_response(overloaded())
        response.headers["X-Request-Id"] = request_id
        await response(scope, receive, send)

    def _observe(self, scope: Scope, request_id: str, status: int, seconds: float, span: "Span | None") -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = _method(scope)
        self._requests(method, route, status).inc()
        self._seconds(route).observe(seconds)
        caller: dict[str, Any] = scope.get("superfan.caller", {})
        fields = {"method": method, "path": scope["path"], "route": route, "status": status}
        log_request(request_id, {**fields, "milliseconds": round(seconds * 1000, 2), **caller})
        if span is not None and tracing.tracer is not None:
            tracing.tracer.end_request(span, method, route, status)


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


def _refuse_text(scope: Scope) -> Problem | None:
    """PostgreSQL cannot store NUL, and what is not UTF-8 would be replaced silently."""
    for part, raw in (("path", scope.get("raw_path") or b""), ("query", scope["query_string"])):
        if b"%" not in raw and raw.isascii() and b"\0" not in raw:
            continue
        decoded = unquote_to_bytes(raw)
        try:
            decoded.decode()
        except UnicodeDecodeError:
            return invalid("is not UTF-8 text", parameter=part)
        if b"\0" in decoded:
            return invalid("holds a NUL character", parameter=part)
    return None
