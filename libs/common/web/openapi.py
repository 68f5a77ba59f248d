"""The errors in OpenAPI: one Problem schema, and for each operation the statuses that any request may meet."""

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
    409: "It conflicts with what is stored.",
    413: "The body is too large.",
    415: "The body is not `application/json`.",
    422: "A parameter or a field of the body is not valid; `errors` says which.",
    500: "A fault on our side.",
    503: "Not available now; `Retry-After` says when to try again.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may refuse with these statuses: `problems(404, 409)`."""
    return {status: _response(status) for status in statuses}


def _response(status: int) -> dict[str, Any]:
    return {
        "description": _WORDS.get(status, HTTPStatus(status).phrase),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def describe_errors(app: FastAPI) -> None:
    """Make `app.openapi()` tell the errors that this package answers with."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        components = schema.setdefault("components", {}).setdefault("schemas", {})
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
        statuses += [401, 403]
    if "requestBody" in operation:
        statuses += [400, 413, 415]
    responses = operation["responses"]
    generated = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if generated.get("$ref", "").endswith("/HTTPValidationError"):
        del responses["422"]
    for status in statuses:
        responses.setdefault(str(status), _response(status))
    operation["responses"] = dict(sorted(responses.items()))
