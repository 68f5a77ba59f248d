"""Errors as `application/problem+json` (RFC 9457), whatever raised them."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from structlog.contextvars import get_contextvars

MOST_ERRORS = 100


class Problem(HTTPException):
    """An answer that refuses. `code` is stable snake_case; `errors` holds {"pointer" | "parameter", "detail"}.

    `pointer` is a JSON pointer into the body (`/data/amount_minor`), `parameter` names a path, query or header
    parameter (`query/limit`).
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.status = status
        self.code = code
        self.errors = errors

    def __reduce__(self) -> Any:
        return type(self), (self.status, self.code, self.detail, self.errors, self.headers)

    def document(self) -> dict[str, Any]:
        """The problem's JSON body, without the request's id."""
        document: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = [dict(error) for error in self.errors]
        return document


def bad_request(detail: str, code: str = "bad_request") -> Problem:
    return Problem(400, code, detail)


def forbidden(detail: str, code: str = "forbidden") -> Problem:
    return Problem(403, code, detail)


def not_found(detail: str, code: str = "not_found") -> Problem:
    return Problem(404, code, detail)


def conflict(detail: str, code: str = "conflict", errors: Sequence[Mapping[str, str]] = ()) -> Problem:
    return Problem(409, code, detail, errors)


def too_large(limit: int) -> Problem:
    return Problem(413, "body_too_large", f"The body is larger than {limit} bytes.")


def too_slow(seconds: float) -> Problem:
    """408; what comes of the body after it is not read, so the connection ends."""
    detail = f"The body was not complete after {seconds:g} s."
    return Problem(408, "body_too_slow", detail, headers={"Connection": "close"})


def invalid(detail: str, *, pointer: str | None = None, parameter: str | None = None) -> Problem:
    """422 for one field of the body (`pointer`) or one parameter (`parameter`, such as `query/limit`)."""
    place = {"parameter": parameter} if parameter is not None else {"pointer": pointer or ""}
    return Problem(422, "invalid_request", "The request is not valid.", [{**place, "detail": detail}])


def unavailable(detail: str, code: str = "unavailable", retry_after: int = 5) -> Problem:
    """503; `retry_after` in seconds."""
    return Problem(503, code, detail, headers={"Retry-After": str(retry_after)})


INTERNAL = Problem(500, "internal_error", "Something went wrong on our side; the request id finds it in the logs.")


def problem_response(problem: Problem, **members: Any) -> Response:
    """`problem` as a response, with the current request's id and further `members`."""
    document = {**problem.document(), **members}
    request_id = get_contextvars().get("request_id")
    if request_id is not None:
        document["request_id"] = request_id
    # "replace": a pointer may quote a key that is not Unicode
    content = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return Response(content, problem.status, problem.headers, media_type="application/problem+json")


def pointer_to(path: Sequence[str | int]) -> str:
    """The JSON pointer (RFC 6901) of `path`; "" is the whole body."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


_DISCONNECTED = bad_request("The client went away before the body was complete.", "client_closed_request")

_CODES = {401: "unauthorized", 405: "method_not_allowed", 413: "body_too_large", 415: "unsupported_media_type"}


def _from_http_exception(request: Request, exc: HTTPException) -> Problem:
    if isinstance(exc, Problem):
        return exc
    if exc.status_code == 404:
        return not_found(f"There is nothing at {request.url.path}.")
    if exc.status_code == 405:
        allowed = ", ".join(_allowed_methods(request)) or dict(exc.headers or {}).get("Allow", "")
        return Problem(405, "method_not_allowed", f"Allowed here: {allowed}.", headers={"Allow": allowed})
    cause = exc.__cause__
    if exc.status_code == 400 and isinstance(cause, ClientDisconnect):
        return _DISCONNECTED
    if exc.status_code == 400 and cause is not None:  # FastAPI could not parse the body
        reason = "it is nested too deeply" if isinstance(cause, RecursionError) else "it is not JSON in UTF-8"
        return bad_request(f"The body cannot be read: {reason}.", "malformed_json")
    code = _CODES.get(exc.status_code) or HTTPStatus(exc.status_code).phrase.lower().replace(" ", "_")
    return Problem(exc.status_code, code, str(exc.detail), headers=exc.headers)


def _allowed_methods(request: Request) -> list[str]:
    """Methods of all routes at this path; Starlette knows only those of the first."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        regex = getattr(route, "path_regex", None)
        if regex is not None and regex.match(request.url.path):
            methods |= route.methods or set()
    return sorted(methods)


def _from_validation_error(exc: RequestValidationError) -> Problem:
    errors = exc.errors()
    if errors and errors[0]["type"] == "json_invalid":
        position, text = errors[0]["loc"][1], str(exc.body)
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        reason = errors[0]["ctx"]["error"]
        return bad_request(f"The body is not JSON: {reason} at line {line} column {column}.", "malformed_json")
    if isinstance(exc.body, bytes):
        return Problem(415, "unsupported_media_type", "Send JSON with Content-Type: application/json.")
    places = [{**_place(error, exc.body), "detail": _detail(error)} for error in errors]
    distinct = list({tuple(place.items()): place for place in places}.values())
    count = "1 problem" if len(distinct) == 1 else f"{len(distinct)} problems"
    return Problem(422, "invalid_request", f"The request is not valid: {count}.", distinct[:MOST_ERRORS])


def _place(error: Mapping[str, Any], body: Any) -> dict[str, str]:
    where, *path = error["loc"]
    if where != "body":
        return {"parameter": "/".join(str(part) for part in error["loc"])}
    found: list[str | int] = []
    for index, part in enumerate(path):
        inside = part in body if isinstance(body, dict) else isinstance(body, list) and part in range(len(body))
        if inside:
            body = body[part]
            found.append(part)
        elif error["type"] == "missing" and index == len(path) - 1:
            found.append(part)
        # else: the name of a union's branch, which is no place in the body
    return {"pointer": pointer_to(found)}


def _detail(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


async def on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    if exc.status_code < 400:
        return Response(status_code=exc.status_code, headers=exc.headers)
    return problem_response(_from_http_exception(request, exc))


async def on_validation_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    return problem_response(_from_validation_error(exc))


async def on_disconnect(_request: Request, _exc: Exception) -> Response:
    return problem_response(_DISCONNECTED)


def add_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
