"""The errors in OpenAPI: one Problem schema, and for each operation the statuses that any request may meet."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "Why a request was refused (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "`/problems/<code>`", "examples": ["/problems/invalid_request"]},
        "title": {"type": "string", "examples": ["Unprocessable Content"]},
        "status": {"type": "integer", "examples": [422]},
        "detail": {"type": "string", "examples": ["The request is not valid: 1 problem."]},
        "code": {"type": "string", "description": "stable, for programs", "examples": ["invalid_request"]},
        "errors": {
            "type": "array",
            "description": "one entry per wrong field",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "JSON pointer into the body",
                        "examples": ["/data/amount_minor"],
                    },
                    "parameter": {
                        "type": "string",
                        "description": "a path, query or header parameter",
                        "examples": ["query/limit"],
                    },
                    "detail": {"type": "string", "examples": ["Input should be a valid integer"]},
                },
            },
        },
        "request_id": {"type": "string", "examples": ["req_3f2a9c1d77e04b5a9d0c6e21"]},
    },
}

_WORDS = {
    400: "The body is not JSON.",
    401: "No API key, or one that is not valid.",
    403: "The API key lacks a scope.",
    404: "There is no such thing in this account.",
    408: "The body did not arrive in time.",
    409: "It conflicts with what is stored.",
    413: "The body is too large.",
    415: "The body is not `application/json`.",
    422: "A parameter or a field of the body is not valid; `errors` says which.",
    429: "The key, or the source, has sent more requests than its rate allows.",
    500: "A fault on our side.",
    503: "Not available now, or overloaded.",
}

_HEADERS: dict[str, Any] = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer"},
        "example": 1,
    },
    "RateLimit-Policy": {
        "description": "Requests that may come at once (q) and the seconds in which as many come anew (w).",
        "schema": {"type": "string"},
        "example": '"default";q=2000;w=2',
    },
    "RateLimit": {
        "description": "Requests left now (r) and the seconds until all are there again (t).",
        "schema": {"type": "string"},
        "example": '"default";r=1988;t=1',
    },
}
_RATE = ("RateLimit-Policy", "RateLimit")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may refuse with these statuses: `problems(404, 409)`."""
    return {status: _response(status) for status in statuses}


def _response(status: int) -> dict[str, Any]:
    names = {429: (*_RATE, "Retry-After"), 503: ("Retry-After",)}.get(status, ())
    return {
        "description": _WORDS.get(status, HTTPStatus(status).phrase),
        **({"headers": _references(names)} if names else {}),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _references(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def describe_errors(app: FastAPI) -> None:
    """Make `app.openapi()` tell the errors that this package answers with."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["headers"] = _HEADERS
        components = schema["components"].setdefault("schemas", {})
        if components.get("Problem") is _SCHEMA:
            return schema
        components["Problem"] = _SCHEMA
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        for path in schema.get("paths", {}).values():
            for operation in path.values():
                _add_responses(operation)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_responses(operation: dict[str, Any]) -> None:
    statuses = [422, 500, 503]
    if operation.get("security"):
        statuses += [401, 403, 429]
    if "requestBody" in operation:
        statuses += [400, 408, 413, 415]
    responses = operation["responses"]
    generated = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if generated.get("$ref", "").endswith("/HTTPValidationError"):
        del responses["422"]
    for status in statuses:
        responses.setdefault(str(status), _response(status))
    if operation.get("security"):
        for status, response in responses.items():
            if status.startswith("2"):
                response.setdefault("headers", {}).update(_references(_RATE))
    operation["responses"] = dict(sorted(responses.items()))
