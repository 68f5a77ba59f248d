"""Field types of events and request bodies: what a value may look like and what a sender reads when it does not."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)

_NO_CONTROL = r"[^\x00-\x1f\x7f-\x9f]"


@dataclass(frozen=True)
class Explained:
    """Annotation: one plain sentence instead of the library's messages, whatever is wrong with the value."""

    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="invalid_value", custom_error_message=self.message
        )


def _integral(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Whole:
    """Annotation of `int`: a JSON integer from `minimum` to `maximum`. 12 and 12.0 pass; "12", true and 1.5 do not."""

    minimum: int = INT64_MIN
    maximum: int = INT64_MAX

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        bounded = core_schema.int_schema(strict=True, ge=self.minimum, le=self.maximum)
        return core_schema.custom_error_schema(
            # Two steps, so that an int, which is nearly every value, never calls into Python.
            core_schema.union_schema(
                [bounded, core_schema.no_info_before_validator_function(_integral, bounded)], mode="left_to_right"
            ),
            custom_error_type="invalid_value",
            custom_error_message=f"Input should be an integer from {self.minimum} to {self.maximum}",
        )


def _to_utc(value: Any) -> datetime:
    """Numbers are refused: seconds or milliseconds would be a guess. So is a time without offset."""
    if isinstance(value, str) and value[4:5] == value[7:8] == "-" and value[13:14] == ":":
        value = datetime.fromisoformat(value.upper())
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError
    # Compared before the conversion, which fails at the ends of the calendar.
    if not EARLIEST <= value <= LATEST:
        raise ValueError
    return value if value.tzinfo is UTC else value.astimezone(UTC)


@dataclass(frozen=True)
class _InUtc:
    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_to_utc, core_schema.datetime_schema(strict=True))


JsonInt = Annotated[int, Whole()]
"""An integer of 64 bits; integral floats are taken, strings and booleans are not."""

Count = Annotated[int, Whole(0)]
Positive = Annotated[int, Whole(1)]

Money = Annotated[int, Whole(0)]
"""Minor units (fen, cents) of a currency named beside it."""

Currency = Annotated[
    str, Field(strict=True, pattern=r"^[A-Z]{3}$"), Explained("Input should be an ISO 4217 code such as CNY")
]

Id = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=200, pattern=rf"^{_NO_CONTROL}+$"),
    Explained("Input should be a string of 1 to 200 characters without control characters; send ids as strings"),
]
"""An id, or a short name used as one: 1 to 200 characters without control characters."""

AccountName = Annotated[
    str,
    Field(strict=True, pattern=r"^[a-z0-9-]{1,40}$"),
    Explained("Input should be 1 to 40 of the characters a-z, 0-9 and -"),
]

IdSpace = Annotated[
    str,
    Field(strict=True, pattern=r"^[a-z0-9._-]{1,40}$"),
    Explained("Input should be 1 to 40 of the characters a-z, 0-9, dot, _ and -"),
]
"""Names a platform, or the space in which its ids are unique: `douyin`, `douyin.live`, `wechat.wx12ab`."""

Subject = Annotated[
    str,
    Field(strict=True, max_length=200, pattern=r"^[a-z0-9._-]{1,40}:[^/\x00-\x1f\x7f-\x9f]+$"),
    Explained(
        "Input should be <id space>:<id>, such as douyin:ou_8f21, of at most 200 characters, without / "
        "and control characters; send ids as strings"
    ),
]
"""`<id space>:<id>`: one person as one platform knows them."""

EventTime = Annotated[
    datetime,
    _InUtc(),
    Explained(
        "Input should be an RFC 3339 time with an offset, such as 2026-03-01T09:00:00+08:00, "
        "from 0001-01-02 to 9999-12-30 in UTC"
    ),
]
"""An instant, held in UTC. The ends of the calendar are left out so that it can be shown in every zone."""

Text = Annotated[str, Field(strict=True)]


def find_unstorable(value: object) -> tuple[str, str] | None:
    """JSON pointer and reason of the first place in parsed JSON that cannot be kept as it is, else None.

    Such are NUL (PostgreSQL has no such character), unpaired surrogates (not Unicode text), NaN and infinities
    (not JSON) and integers beyond 64 bits.
    """
    try:
        encoded = orjson.dumps(value)
    except TypeError:
        return _search(value) or ("", "Input should be JSON, nested at most 250 levels deep")
    # orjson writes NUL as an escape and NaN as null; both may also stand in innocent text, and null for a real null.
    if b"\\u0000" in encoded or (b"null" in encoded and _has_not_finite(value)):
        return _search(value)
    return None


def _has_not_finite(value: object) -> bool:
    """Whether a NaN or infinity stands in what orjson could write; quick, because every derived event has nulls."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return isinstance(value, float) and not math.isfinite(value)
    # Only floats, containers and oddities are looked into.
    return any(_has_not_finite(item) for item in value if type(item) not in _FINITE)


_FINITE = frozenset({str, int, bool, type(None), datetime})


def _search(root: object) -> tuple[str, str] | None:
    stack: list[tuple[str, object]] = [("", root)]
    while stack:
        pointer, value = stack.pop()
        if isinstance(value, dict):
            for key in value:
                if isinstance(key, str) and (reason := _text_fault(key)):
                    return pointer, f"a field name {reason}"
            stack.extend((f"{pointer}/{escape(str(key))}", item) for key, item in reversed(value.items()))
        elif isinstance(value, list | tuple):
            stack.extend((f"{pointer}/{index}", value[index]) for index in range(len(value) - 1, -1, -1))
        elif (reason := _fault(value)) is not None:
            return pointer, reason
    return None


def _fault(value: object) -> str | None:
    if isinstance(value, str):
        fault = _text_fault(value)
        return f"the text {fault}" if fault else None
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return "NaN and Infinity are not JSON numbers"
    if isinstance(value, int) and not INT64_MIN <= value < 2**64:
        return "an integer of more than 64 bits; send ids as strings"
    return None


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "holds an unpaired surrogate"
    return None


def escape(token: str) -> str:
    """One reference token of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")
