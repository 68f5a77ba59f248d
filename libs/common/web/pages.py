"""Keyset pages: `?limit=50&cursor=…` → `{items, next_cursor, has_more}`."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Query
from pydantic import BaseModel, Field

from libs.common.web.problems import Problem, invalid

T = TypeVar("T")
Row = TypeVar("Row")

Limit = Annotated[int, Query(ge=1, le=1000, description="most items on the page")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before")]
CursorValue = str | int | datetime


class Page(BaseModel, Generic[T]):
    """One page of a list in a stable order."""

    items: list[T]
    next_cursor: str | None = Field(None, description="pass it as `cursor` to get the next page; null on the last")
    has_more: bool = False


def make_page(
    rows: Sequence[Row], limit: int, item: Callable[[Row], T], key: Callable[[Row], Sequence[CursorValue]]
) -> Page[T]:
    """The page of up to `limit + 1` rows that were read; `key` gives the sort values of a row for its cursor."""
    shown = rows[:limit]
    has_more = len(rows) > limit
    return Page(
        items=[item(row) for row in shown],
        next_cursor=encode_cursor(key(shown[-1])) if has_more else None,
        has_more=has_more,
    )


def encode_cursor(values: Sequence[CursorValue]) -> str:
    """Opaque text of the sort values (text, integers, aware times) of the last item shown."""
    return base64.urlsafe_b64encode(orjson.dumps(list(values))).rstrip(b"=").decode()


def decode_cursor(text: str, types: Sequence[type]) -> tuple[Any, ...]:
    """The values of a cursor; `types` are those of the sort values, as in `(datetime, str)`. Anything that
    `encode_cursor` would not have made of such values is a 422."""
    try:
        values = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if not isinstance(values, list):
            raise TypeError
        return tuple(_cursor_value(value, kind) for value, kind in zip(values, types, strict=True))
    except (ValueError, TypeError, binascii.Error):
        raise _bad_cursor() from None


def _cursor_value(value: object, kind: type) -> CursorValue:
    if kind is datetime and isinstance(value, str):
        time = datetime.fromisoformat(value)
        if time.tzinfo is None:
            raise ValueError
        return time
    if isinstance(value, str) and kind is str and "\0" not in value:
        return value
    if type(value) is int and kind is int and -(2**63) <= value < 2**63:
        return value
    raise ValueError


def _bad_cursor() -> Problem:
    return invalid("is not a cursor of this list; leave it out to start from the first page", parameter="query/cursor")
