"""What OpenAPI says of bodies that are read raw: exactly what is taken, made from the models of the event types."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from libs.common.events import EVENT_TYPES, Event, EventType, schema_name
from services.ingest.domain.completion import MAX_USER

Schema = dict[str, Any]

_REF = "#/components/schemas/"
_NULL: Schema = {"type": "null"}
_VALUE: Schema = {"$ref": f"{_REF}AnyValue"}
_TEXT = r"^[^\x00]*$"
_TIME = r"^(?!000[01]|9999)"
_FILLED_IN = ("receivedtime", "trust", "timemark", "originaltime", "traceparent")

_FOLLOW = {"type": "follow", "user": "u42", "id": "f-1", "time": "2026-03-01T09:00:00+08:00"}
_PAID = {
    "specversion": "1.0",
    "id": "order-1001-paid",
    "source": "/shop",
    "type": "order.paid",
    "subject": "demo:u42",
    "time": "2026-03-01T01:00:00Z",
    "data": {"order_id": "1001", "amount_minor": 9900, "currency": "CNY"},
}
_DOUYIN_FOLLOW = {
    "event": "new_follow_action",
    "client_key": "awdemo0000000000",
    "from_user_id": "ou_8f2c1a7e",
    "to_user_id": "account-open-id",
    "content": '{"action_type":1,"action_time":1790000001}',
    "log_id": "",
}


def _one_of_them_good(event: str) -> Schema:
    """An array that is empty or holds an event that is taken; what else it holds is refused alone."""
    return {
        "type": "array",
        "description": "At most 1,000 events.",
        "items": {"anyOf": [{"$ref": _REF + event}, {}]},
        "anyOf": [{"maxItems": 0}, {"contains": {"$ref": _REF + event}}],
    }


EVENTS_BODY: Schema = {
    "security": [{"apiKey": []}],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": f"{_REF}PlainEvent"},
                        _one_of_them_good("PlainEvent"),
                        {
                            "type": "object",
                            "required": ["events"],
                            "properties": {"events": _one_of_them_good("PlainEvent")},
                            "additionalProperties": False,
                        },
                    ]
                },
                "examples": {
                    "one": {"value": _FOLLOW},
                    "several": {"value": [_FOLLOW, {"type": "sign_in", "user": "u42", "id": "s-1"}]},
                    "wrapped": {"value": {"events": [_FOLLOW]}},
                },
            },
            "application/cloudevents+json": {
                "schema": {"$ref": f"{_REF}CloudEvent"},
                "examples": {"one": {"value": _PAID}},
            },
            "application/cloudevents-batch+json": {
                "schema": _one_of_them_good("CloudEvent"),
                "examples": {"several": {"value": [_PAID]}},
            },
        },
    },
}
WEBHOOK_BODY: Schema = {
    "requestBody": {
        "description": "Whatever the platform sends, signed in its own way.",
        "required": True,
        "content": {"application/json": {"schema": {}, "examples": {"douyin follow": {"value": _DOUYIN_FOLLOW}}}},
    }
}


def components() -> dict[str, Schema]:
    """The schemas that EVENTS_BODY refers to."""
    inputs = [event_type for event_type in EVENT_TYPES.values() if event_type.direction == "input"]
    models: list[tuple[type[BaseModel], Any]] = [(event_type.model, "validation") for event_type in inputs]
    _, generated = models_json_schema(models, ref_template=_REF + "{model}")
    shown = {name: _tightened(schema) for name, schema in generated["$defs"].items()}
    envelope = _tightened(Event.model_json_schema(ref_template=_REF + "{model}"))["properties"]
    for event_type in inputs:
        shown[event_type.model.__name__] = _as_sent(event_type, shown[event_type.model.__name__], envelope)
    refs = [{"$ref": _REF + event_type.model.__name__} for event_type in inputs]
    names = [event_type.name for event_type in inputs]
    mapping = {name: ref["$ref"] for name, ref in zip(names, refs, strict=True)}
    shown["PlainEvent"] = {
        "description": "An event with the fields of CloudEvents; most may be left out.",
        "anyOf": refs,
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    shown["CloudEvent"] = {
        "description": "A CloudEvents 1.0 event in JSON.",
        "allOf": [
            {"$ref": f"{_REF}PlainEvent"},
            {"type": "object", "required": ["specversion"], "properties": {"specversion": {"const": "1.0"}}},
        ],
    }
    shown["AnyValue"] = {
        "description": "Any JSON value whose numbers fit 64 bits and whose texts hold no NUL.",
        "anyOf": [
            {"type": ["null", "boolean"]},
            {"type": "number", "minimum": -(2**53), "maximum": 2**53},
            {"type": "string", "pattern": _TEXT},
            {"type": "array", "items": _VALUE},
            {"type": "object", "propertyNames": {"pattern": _TEXT}, "additionalProperties": _VALUE},
        ],
    }
    return shown


def _as_sent(event_type: EventType, schema: Schema, envelope: Schema) -> Schema:
    """The event as it may be sent: what ingest fills in may be missing or null, a user may stand for the subject."""
    properties: Schema = {name: _or_null(envelope[name]) for name in ("id", "source", "time", "platform", "backfill")}
    properties |= {name: {**_VALUE, "description": "Set on receipt, whatever is sent."} for name in _FILLED_IN}
    properties["account"] = {**_NULL, "description": "Leave it out: none but the credential's own is taken."}
    properties["specversion"] = {"enum": ["1.0", None]}
    properties["dataschema"] = {"enum": [schema_name(event_type.name, event_type.version), None]}
    properties["datacontenttype"] = {"enum": ["application/json", None]}
    properties["data_base64"] = _NULL
    properties["type"] = {"const": event_type.name}
    data = {name: value for name, value in schema["properties"]["data"].items() if name != "default"}
    data_may_be_missing = "default" in schema["properties"]["data"]
    properties["data"] = _or_null(data) if data_may_be_missing else data
    return {
        "type": "object",
        "description": event_type.description,
        "required": ["type"] if data_may_be_missing else ["type", "data"],
        "properties": properties,
        "anyOf": _whose(event_type, envelope["subject"]["anyOf"][0]),
        "propertyNames": {"pattern": _TEXT},
        "additionalProperties": _VALUE,
    }


def _whose(event_type: EventType, subject: Schema) -> list[Schema]:
    """The ways in which an event may say whom it is about."""
    user = {"type": "string", "minLength": 1, "maxLength": MAX_USER, "pattern": r"^[^/\x00-\x1f\x7f-\x9f]+$"}
    nobody: Schema = {"subject": _NULL, "user": _NULL}
    if event_type.name == "content.published":
        content = {"type": "string", "minLength": 1, "maxLength": 190, "pattern": user["pattern"]}
        return [{"properties": {**nobody, "data": {"properties": {"content_id": content}}}}]
    ways: list[Schema] = [
        {"required": ["subject"], "properties": {"subject": subject, "user": _NULL}},
        {"required": ["user"], "properties": {"subject": _NULL, "user": user}},
    ]
    if not event_type.name.startswith("order."):
        return ways
    amount: Schema = {"amount_minor": {"type": "integer"}, "currency": {"type": "string"}}
    for way in ways:
        way["properties"]["data"] = {"required": list(amount), "properties": amount}
    thin = {
        "required": ["platform"],
        "properties": {
            **nobody,
            "platform": {"type": "string"},
            "data": {"required": ["order_id"], "properties": {"order_id": {"type": "string"}}},
        },
    }
    whole = {"data": {"required": list(amount), "properties": amount}}
    without = {"data": {"properties": {"amount_minor": _NULL, "currency": _NULL}}}
    return [*ways, *({**thin, "allOf": [{"properties": either}]} for either in (whole, without))]


def _or_null(schema: Schema) -> Schema:
    if "anyOf" in schema and _NULL in schema["anyOf"]:
        return schema
    about = {name: schema[name] for name in ("description",) if name in schema}
    rest = {name: value for name, value in schema.items() if name not in ("description", "title", "default")}
    return {**about, "anyOf": [rest, _NULL]}


def _tightened(schema: Any) -> Any:
    """The same with what every text, time and unknown field must keep to, which the models need not say."""
    if isinstance(schema, list):
        return [_tightened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if not schema:
        return _VALUE
    result = {
        name: {field: _tightened(value) for field, value in part.items()}
        if name in ("properties", "patternProperties")
        else _tightened(part)
        for name, part in schema.items()
        if name != "title"
    }
    if result.get("type") == "string" and not result.keys() & {"pattern", "const", "enum"}:
        result["pattern"] = _TIME if result.get("format") == "date-time" else _TEXT
    if "patternProperties" in result:
        result["additionalProperties"] = False
    if result.get("additionalProperties") is True:
        result |= {"additionalProperties": _VALUE, "propertyNames": {"pattern": _TEXT}}
    return result


def describe_bodies(app: FastAPI) -> None:
    """Make `app.openapi()` hold the schemas that EVENTS_BODY refers to."""
    plain = app.openapi

    def openapi() -> Schema:
        schema = plain()
        shown = schema["components"]["schemas"]
        if "PlainEvent" not in shown:
            shown.update(components())
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
