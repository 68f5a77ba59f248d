"""All event types and topics, and the way from JSON to an event."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args

import orjson
from pydantic import Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from libs.common.events import derived, inputs, orders
from libs.common.events.envelope import Event, Trust
from libs.common.events.fields import escape, find_unstorable

Input = (
    inputs.Follow
    | inputs.Unfollow
    | inputs.ConsentGranted
    | inputs.ConsentRevoked
    | inputs.View
    | inputs.Like
    | inputs.Comment
    | inputs.Share
    | inputs.Message
    | inputs.SignIn
    | inputs.LiveGift
    | inputs.LiveFanclub
    | inputs.SurveyAnswered
    | inputs.ContentPublished
    | inputs.ProfileTraits
    | orders.OrderCreated
    | orders.OrderPaid
    | orders.OrderShipped
    | orders.OrderCompleted
    | orders.OrderCancelled
    | orders.OrderRefunded
    | orders.OrderEnriched
)
Derived = (
    derived.ProfileLinked
    | derived.ProfileUpdated
    | derived.SegmentEntered
    | derived.SegmentLeft
    | derived.MessageSent
    | derived.MessageSkipped
    | derived.PointsAwarded
    | derived.PointsSpent
    | derived.PointsAdjusted
    | derived.LevelChanged
)
AnyEvent = Annotated[Input | Derived, Field(discriminator="type")]


class Topic(NamedTuple):
    """A Kafka topic; every one has 12 partitions, so that one user's events meet the same worker everywhere."""

    name: str
    retention_days: int
    description: str
    partitions: int = 12


TOPICS: tuple[Topic, ...] = (
    Topic("superfan.follows", 14, "who follows, and what people allow"),
    Topic("superfan.interactions", 14, "what people do, except viewing; published content"),
    Topic("superfan.views", 3, "views: by far the most events"),
    Topic("superfan.orders", 14, "orders, whole and thin"),
    Topic("superfan.traits", 3, "personal data; profile alone reads it"),
    Topic("superfan.rejected", 7, "what ingest refused, values masked"),
    Topic("superfan.profiles", 14, "derived events of profile"),
    Topic("superfan.segments", 14, "derived events of segmentation"),
    Topic("superfan.messages", 14, "derived events of engagement"),
    Topic("superfan.rewards", 14, "derived events of rewards"),
)


@dataclass(frozen=True)
class EventType:
    """What there is to know of one type. `version` is the one that this release writes."""

    name: str
    model: type[Event]
    direction: Literal["input", "derived"]
    version: int = 1

    @property
    def topic(self) -> str:
        return self.model.topic

    @property
    def kind(self) -> Literal["fact", "notice"]:
        """Kind of state: an input is a fact whatever the order of arrival; a derived event is a notice."""
        return "fact" if self.direction == "input" else "notice"

    @property
    def description(self) -> str:
        return (self.model.__doc__ or "").strip()


def _types(union: object, direction: Literal["input", "derived"]) -> dict[str, EventType]:
    names = {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(union)}
    return {name: EventType(name, model, direction) for name, model in names.items()}


EVENT_TYPES: dict[str, EventType] = _types(Input, "input") | _types(Derived, "derived")

UPCASTERS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""(type, version) → function that gives the event in the next version, without changing its argument."""


def schema_name(type_name: str, version: int) -> str:
    """The `dataschema` of a version of a type."""
    return f"urn:superfan:event:{type_name}:{version}"


def parse_event(raw: bytes | str) -> AnyEvent:
    """The event in `raw`, in the current version of its type. Raises ValidationError; read it with `problems`."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        pointer, reason = _json_fault(raw, error)
        raise _refusal("json_invalid", (), reason, pointer) from None
    # orjson takes nothing else that cannot be stored.
    if ("\\u0000" if isinstance(raw, str) else b"\\u0000") in raw:  # type: ignore[operator]
        _refuse_unstorable(value)
    return validate_clean(value)


def validate_event(obj: object) -> AnyEvent:
    """The same from parsed JSON; times may be datetimes."""
    _refuse_unstorable(obj)
    return validate_clean(obj)


def new_event(
    type: str,  # noqa: A002
    *,
    account: str,
    source: str,
    id: str,  # noqa: A002
    subject: str | None,
    time: datetime,
    received: datetime,
    data: Mapping[str, Any],
    platform: str | None = None,
    trust: Trust = "server",
    traceparent: str | None = None,
) -> AnyEvent:
    """An event of this system's own, in the current version of its type. Raises ValidationError.

    Its texts come from events and requests that were looked through before; `outbox.add` has the last look.
    """
    return validate_clean(
        {
            "specversion": "1.0",
            "id": id,
            "source": source,
            "type": type,
            "subject": subject,
            "time": time,
            "data": data,
            "account": account,
            "platform": platform,
            "receivedtime": received,
            "dataschema": schema_name(type, EVENT_TYPES[type].version),
            "traceparent": traceparent,
            "trust": trust,
        }
    )


def validate_clean(value: object) -> AnyEvent:
    """The same when it is known to hold nothing of what `find_unstorable` finds."""
    if not isinstance(value, dict):
        raise _refusal("object_type", (), "Input should be an object")
    name = value.get("type")
    event_type = EVENT_TYPES.get(name) if isinstance(name, str) else None
    if event_type is None:
        raise _refusal("missing" if name is None else "unknown_type", ("type",), _type_fault(name))
    if "dataschema" in value or event_type.version > 1:
        value = _upcast(value, event_type)
    return cast("AnyEvent", event_type.model.__pydantic_validator__.validate_python(value))


def _type_fault(name: object) -> str:
    return "Field required" if name is None else f"unknown event type {str(name)[:100]!r}"


def _upcast(value: dict[str, Any], event_type: EventType) -> dict[str, Any]:
    name = value.get("dataschema")
    if name == schema_name(event_type.name, event_type.version):
        return value
    versions = range(1, event_type.version + 1)
    version = 1 if name is None else next((v for v in versions if name == schema_name(event_type.name, v)), None)
    if version is None:
        known = schema_name(event_type.name, event_type.version)
        raise _refusal(
            "unknown_version", ("dataschema",), f"Input should be {known}, an older version of it, or absent"
        )
    for old in range(version, event_type.version):
        value = {**UPCASTERS[event_type.name, old](value), "dataschema": schema_name(event_type.name, old + 1)}
    return value


def _refuse_unstorable(value: object) -> None:
    if found := find_unstorable(value):
        pointer, reason = found
        raise _refusal("unstorable", (), reason, pointer)


def _json_fault(raw: bytes | str, error: orjson.JSONDecodeError) -> tuple[str, str]:
    """orjson refuses NaN and unpaired surrogates without saying where they are."""
    try:
        lenient = json.loads(raw)
    except (ValueError, RecursionError):
        lenient = None
    return find_unstorable(lenient) or ("", f"not JSON: {error}")


def _refusal(kind: Any, loc: tuple[str, ...], reason: str, pointer: str | None = None) -> ValidationError:
    context = {"reason": reason} if pointer is None else {"reason": reason, "pointer": pointer}
    error = PydanticCustomError(kind, "{reason}", context)
    return ValidationError.from_exception_data("event", [InitErrorDetails(type=error, loc=loc, input=None)])


class Problem(NamedTuple):
    """One thing wrong with an event: JSON pointer into the event, and the reason in plain words."""

    pointer: str
    detail: str


def problems(error: ValidationError) -> list[Problem]:
    """What `parse_event`, `validate_event` or `new_event` found wrong."""
    return [
        Problem(
            found.get("ctx", {}).get("pointer", "".join(f"/{escape(str(token))}" for token in found["loc"])),
            # The library's own words name our classes.
            "Input should be an object" if found["type"] in ("model_type", "dict_type") else found["msg"],
        )
        for found in error.errors(include_url=False, include_input=False)
    ]
