"""Logs, trace context and the catalogue of metrics.

Logs are one JSON object (or one coloured line) per entry on stderr, also those of libraries that use `logging`.
Every metric carries a `service` label, because several services may live in one process (tests, local runs); labels
never hold an account or a user.
"""

import json
import logging
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

HTTP_REQUESTS = Counter(
    "superfan_http_requests_total",
    "HTTP requests answered, by route template; unknown paths count as route `unmatched`.",
    ["service", "method", "route", "status"],
)
HTTP_SECONDS = Histogram(
    "superfan_http_request_seconds",
    "Seconds from the first byte of a request's head to the last byte of its answer.",
    ["service", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CONFIG_VALID = Gauge(
    "superfan_config_valid",
    "1 when the configuration file on disk is the one in use, 0 when it is invalid and an older one is kept.",
    ["service"],
)
CONFIG_INFO = Gauge(
    "superfan_config_info",
    "Always 1; the label is the SHA-256 of the configuration in use, so that processes that differ are seen.",
    ["service", "sha256"],
)
BUILD_INFO = Gauge("superfan_build_info", "Always 1; the label is the version that runs.", ["service", "version"])
LOOP_LAG_SECONDS = Gauge(
    "superfan_event_loop_lag_seconds",
    "Seconds by which the event loop woke its last heartbeat too late.",
    ["service"],
)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
_random = random.Random()  # noqa: S311  names, no secrets: it needs no system call for each


def new_traceparent() -> str:
    """A W3C `traceparent` that starts a trace: random ids, not sampled."""
    return f"00-{_random.getrandbits(128):032x}-{_random.getrandbits(64):016x}-00"


def new_request_id() -> str:
    """A name for a request that came without one."""
    return f"req_{_random.getrandbits(96):024x}"


def valid_traceparent(text: str | None) -> str | None:
    """`text` as a version 00 traceparent, or None when it is not one."""
    match = _TRACEPARENT.fullmatch(text) if text else None
    if match is None:
        return None
    version, trace, parent, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not trace.strip("0") or not parent.strip("0"):
        return None
    return f"00-{trace}-{parent}-{flags}"


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace's id as logs name it; None for what is no traceparent."""
    valid = valid_traceparent(traceparent)
    return valid and valid[3:35]


def current_traceparent() -> str | None:
    """The traceparent of the request or event that is being handled."""
    return _traceparent.get()


@contextmanager
def bind_trace(traceparent: str | None) -> Iterator[str]:
    """Make `traceparent` (a new one when it is absent or malformed) current; logs within carry its `trace_id`."""
    value = valid_traceparent(traceparent) or new_traceparent()
    token = _traceparent.set(value)
    try:
        yield value
    finally:
        _traceparent.reset(token)


class RequestContext:
    """`with RequestContext(request_id, traceparent)`: logs within carry both; see `bind_trace`."""

    __slots__ = ("_request_id", "_token", "_tokens", "_traceparent")

    def __init__(self, request_id: str, traceparent: str | None) -> None:
        self._request_id = request_id
        self._traceparent = valid_traceparent(traceparent) or new_traceparent()

    def __enter__(self) -> None:
        self._tokens: Mapping[str, Token[Any]] = structlog.contextvars.bind_contextvars(request_id=self._request_id)
        self._token = _traceparent.set(self._traceparent)

    def __exit__(self, *_: object) -> None:
        _traceparent.reset(self._token)
        structlog.contextvars.reset_contextvars(**self._tokens)


_SECRET_FIELD = re.compile(r"authorization|password|passwd|secret|token|api_?key|cookie", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(sf_[a-z0-9-]+_)[^\s\"',;]+|(://[^\s:/@]*:)[^\s/@]+(?=@)")


def _hide(match: re.Match[str]) -> str:
    return f"{match[1] or match[2]}[hidden]"


def redact(text: str) -> str:
    """`text` without API key secrets and without passwords in URLs."""
    return _SECRET_TEXT.sub(_hide, text) if "sf_" in text or "://" in text else text


@lru_cache(maxsize=1000)
def _is_secret(field: str) -> bool:
    return _SECRET_FIELD.search(field) is not None


def _redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if _is_secret(name):
            event[name] = "[hidden]"
        elif isinstance(value, str):
            event[name] = redact(value)
    return event


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    traceparent = _traceparent.get()
    if traceparent is not None:
        event["trace_id"] = traceparent[3:35]
    return event


_log_request: Callable[[str, dict[str, Any]], None] | None = None


def log_request(request_id: str, fields: dict[str, Any]) -> None:
    """The entry of one request, which is within its `RequestContext`; only `path` among `fields` may hold a secret.

    A service writes so many of them that it makes them at once, not by the chain of processors, at a sixth of the cost.
    """
    if _log_request is not None:
        _log_request(request_id, fields)
    else:
        _request_logger.info("request", **fields)


_request_logger = structlog.get_logger(module="libs.common.web")


def _log_request_as_json(service: str) -> Callable[[str, dict[str, Any]], None]:
    write, flush = sys.stderr.buffer.write, sys.stderr.buffer.flush

    def write_entry(request_id: str, fields: dict[str, Any]) -> None:
        traceparent = _traceparent.get()
        entry = {
            "module": "libs.common.web",
            **fields,
            "path": redact(fields["path"]),
            "request_id": request_id,
            "trace_id": traceparent and traceparent[3:35],
            "level": "info",
            "service": service,
            "time": datetime.now(UTC),
            "message": "request",
        }
        write(_to_json(entry) + b"\n")
        flush()

    return write_entry


def _log_no_request(_request_id: str, _fields: dict[str, Any]) -> None:
    """Below the level that is logged."""


def _to_json(event: EventDict, **_options: Any) -> bytes:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)
    except TypeError:  # an integer over 64 bits, a lone surrogate: rare, and no reason to lose the entry
        return json.dumps(event, default=str).encode()


def configure_logging(service: str, fmt: LogFormat = "json", level: LogLevel = "info") -> None:
    """Send structlog and stdlib logs of this process to stderr. `request_id`, `trace_id` and what
    `structlog.contextvars` binds are added; secrets are hidden. May be called again."""
    global _log_request  # noqa: PLW0603  logging is configured for the whole process

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.add_log_level,
        add_service,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[Processor] = [structlog.processors.format_exc_info, _redact_event]
    if fmt == "json":
        last.append(structlog.processors.EventRenamer("message"))
        own_renderer: Processor = structlog.processors.JSONRenderer(serializer=_to_json)
        factory: Any = structlog.BytesLoggerFactory(file=sys.stderr.buffer)

        def library_renderer(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
            return _to_json(event).decode()

        foreign: Processor = library_renderer
    else:
        own_renderer = foreign = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the default prints local variables: slow, and secrets
        )
        factory = structlog.PrintLoggerFactory(file=sys.stderr)

    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *last, own_renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    _log_request = None
    if number > logging.INFO:
        _log_request = _log_no_request
    elif fmt == "json":
        _log_request = _log_request_as_json(service)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, foreign],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for chatty in ("uvicorn", "uvicorn.error", "aiokafka", "kafka", "sqlalchemy", "asyncio", "httpx", "alembic"):
        library = logging.getLogger(chatty)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)


def get_logger(name: str) -> Any:
    """A structlog logger; `log.info("message", field=value)`."""
    return structlog.get_logger(module=name)
