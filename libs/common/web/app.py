"""The app factory that every service uses."""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute

from libs.common.config import ConfigFile
from libs.common.web.direct import DirectHandler, DirectMiddleware
from libs.common.web.limits import DEFAULT_LIMITS, Limits, Load, RateLimits
from libs.common.web.middleware import RequestMiddleware
from libs.common.web.openapi import describe_errors
from libs.common.web.problems import MOST_ERRORS, Problem, add_problem_handlers, pointer_to

if TYPE_CHECKING:
    from libs.common.db import Sessions

MIB = 1024 * 1024
DAY = timedelta(hours=24)
MOST_LEVELS = 100  # of nesting in a body: far below what encoders and PostgreSQL can recurse


def create_app(
    *,
    service: str,
    title: str,
    version: str,
    description: str,
    routers: Sequence[APIRouter],
    config: ConfigFile,
    sessions: "Sessions | None" = None,
    state: Mapping[str, Any] | None = None,
    tags: Sequence[Mapping[str, str]] = (),
    max_body: int = MIB,
    keep_idempotency_keys: timedelta | None = DAY,
    limits: Limits = DEFAULT_LIMITS,
    direct: Mapping[tuple[str, str], DirectHandler] | None = None,
) -> FastAPI:
    """A FastAPI app with problem+json errors, request ids, metrics, a body limit (`max_body` bytes) and API keys.

    `sessions` is what SessionDep opens; leave it out in a service without a database. `state` is set on `app.state`.
    `tags` are {"name", "description"} of OpenAPI. Answers of idempotent writes are kept for `keep_idempotency_keys`,
    None means for ever. Beyond `limits` it answers 503 `overloaded` and 429 `rate_limited`.
    `direct` maps (method, path) to handlers that are asked before the routes.
    The app has no lifespan: whatever must start and stop is a component of `libs.common.process`.
    """
    app = FastAPI(
        title=title,
        version=version,
        description=description,
        openapi_tags=[dict(tag) for tag in tags],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        dependencies=[Depends(refuse_unstorable_text)],
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.config = config
    app.state.rate_limits = RateLimits(config, limits.per_second)
    app.state.keep_idempotency_keys = keep_idempotency_keys
    for name, value in (state or {}).items():
        setattr(app.state, name, value)
    add_problem_handlers(app)
    if sessions is not None:
        # imported late: a service without a database does not pay the memory of SQLAlchemy
        from libs.common.web.database import add_database
        from libs.common.web.idempotency import StoredAnswerError, on_stored_answer

        add_database(app, sessions)
        app.add_exception_handler(StoredAnswerError, on_stored_answer)
    if direct:
        app.add_middleware(DirectMiddleware, handlers=direct)
    app.add_middleware(RequestMiddleware, service=service, max_body=max_body, load=Load(service, limits.in_flight))
    for router in routers:
        app.include_router(router)
    describe_errors(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


async def refuse_unstorable_text(request: Request) -> None:
    """422 for what parses as JSON and cannot be stored: NUL, unpaired surrogates, NaN, Infinity, absurd nesting."""
    body = getattr(request, "_json", None)  # only when FastAPI has parsed it; a route may read the raw body itself
    if body is None:
        return
    errors = [{"pointer": pointer_to(path), "detail": reason} for path, reason in _unstorable(body)]
    if errors:
        raise Problem(422, "invalid_request", "The request is not valid.", errors[:MOST_ERRORS])


def _unstorable(body: Any) -> "list[tuple[tuple[str | int, ...], str]]":
    found: list[tuple[tuple[str | int, ...], str]] = []
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), body)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                found.append((path, "holds a NUL character"))
            elif not value.isascii() and _has_surrogate(value):
                found.append((path, "holds an unpaired surrogate"))
        elif isinstance(value, float):
            if not math.isfinite(value):
                found.append((path, "is not a finite number"))
        elif isinstance(value, dict | list) and len(path) == MOST_LEVELS:
            found.append((path, f"is nested more than {MOST_LEVELS} levels deep"))
        elif isinstance(value, dict):
            for name, member in value.items():
                if "\0" in name or (not name.isascii() and _has_surrogate(name)):
                    found.append((path, "has a field name with a NUL character or an unpaired surrogate"))
                else:
                    waiting.append(((*path, name), member))
        elif isinstance(value, list):
            waiting.extend(((*path, index), member) for index, member in enumerate(value))
    return found


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
