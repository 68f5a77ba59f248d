"""HTTP for all services: the app factory, problem+json, pages. What needs a database lies in `web.database`
(SessionDep, ReadSessionDep) and `web.idempotency` (IdempotencyDep)."""

from libs.common.web.app import create_app
from libs.common.web.limits import DEFAULT_LIMITS, Limits
from libs.common.web.openapi import problems
from libs.common.web.pages import Cursor, Limit, Page, decode_cursor, encode_cursor, make_page
from libs.common.web.problems import Problem, bad_request, conflict, forbidden, invalid, not_found, unavailable

__all__ = [
    "DEFAULT_LIMITS",
    "Cursor",
    "Limit",
    "Limits",
    "Page",
    "Problem",
    "bad_request",
    "conflict",
    "create_app",
    "decode_cursor",
    "encode_cursor",
    "forbidden",
    "invalid",
    "make_page",
    "not_found",
    "problems",
    "unavailable",
]
