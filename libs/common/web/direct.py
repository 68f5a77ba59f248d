"""Routes that skip the framework: for requests so many that finding a route and filling in parameters is what costs."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from libs.common.web.problems import Problem, on_disconnect, problem_response

DirectHandler = Callable[[Request], Awaitable[Response | None]]
"""Answers a request, or leaves it to the usual route by None: before it has read the body. May raise Problem."""


class _Route(NamedTuple):
    path: str
    handle: DirectHandler


class DirectMiddleware:
    """Asks the handler of (method, path) first. Each has a usual route too, which describes it in OpenAPI."""

    def __init__(self, app: ASGIApp, handlers: Mapping[tuple[str, str], DirectHandler]) -> None:
        self.app = app
        self._routes = {place: _Route(place[1], handle) for place, handle in handlers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope.get("method", ""), scope["path"]))
        if route is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = route  # its path is the label of the metrics
        request = Request(scope, receive)
        try:
            response = await route.handle(request)
        except Problem as problem:
            response = problem_response(problem)
        except ClientDisconnect as error:
            response = await on_disconnect(request, error)
        if response is None:
            await self.app(scope, receive, send)
        else:
            await response(scope, receive, send)
