"""docs/events.md and the JSON Schemas, made from the models, and the golden example of every type."""

import json
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from libs.common.events import fields
from libs.common.events.catalogue import EVENT_TYPES, TOPICS, AnyEvent, EventType, schema_name
from libs.common.events.envelope import Event

EXAMPLES = Path(__file__).parent / "examples"

_INTRODUCTION = """\
# Events

Made by `python -m libs.common.events docs` from the models in `libs/common/events`; change those, not this page.
`python -m libs.common.events schema [TYPE]` prints the JSON Schema.

Every event is CloudEvents 1.0 JSON. Identity is (`account`, `source`, `id`): whatever arrives under it again is the
same event and counts once. Fields that are not listed are kept. A field with `?` may be absent.
"""

_VALUES = """\
## Values

| name | what it is |
|---|---|
| id | string of 1 to 200 characters, no control characters; always a string, never a number |
| text | string |
| subject | `<id space>:<id>`, at most 200 characters, no `/`, no control characters; the space of `a-z 0-9 . _ -` |
| space | 1 to 40 of `a-z 0-9 . _ -` |
| account | 1 to 40 of `a-z 0-9 -` |
| integer | JSON integer; `12.0` is one, `"12"` and `true` are not; bounds stand beside it. |
| currency | ISO 4217 code |
| time | RFC 3339 with an offset, from 0001-01-02 to 9999-12-30 in UTC; written in UTC |

Fields in `_minor` are money: minor units (fen, cents) of the `currency` beside them.
No text anywhere may hold NUL or an unpaired surrogate; NaN, infinities and integers beyond 64 bits are refused.

`content.published` has the subject `content:<content_id>`. An `order.*` event without subject is *thin*: the platform
named neither buyer nor amount. It needs `platform` and `order_id`, which make its Kafka key
`account/order:<platform>:<order_id>`, and it alone may come without `amount_minor` and `currency`.
All other keys are `account/subject`.
"""

_GRAPH = """\
## Derived from

What may cause an event of a type. A test keeps this free of cycles, so no event can cause itself.

| type | caused by |
|---|---|
"""


def example(type_name: str, version: int) -> dict[str, Any]:
    """The golden example of a published version, as it lies on Kafka."""
    value: dict[str, Any] = orjson.loads((EXAMPLES / f"{type_name}.v{version}.json").read_bytes())
    return value


def schema(type_name: str | None = None) -> dict[str, Any]:
    """JSON Schema of one type, or of any event."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    if type_name is None:
        return dialect | TypeAdapter(AnyEvent).json_schema()
    event_type = EVENT_TYPES[type_name]
    return dialect | {"$id": schema_name(type_name, event_type.version)} | event_type.model.model_json_schema()


def events_page() -> str:
    """The text of docs/events.md."""
    return (
        "\n".join([_INTRODUCTION, _overview(), _topics(), _envelope(), _VALUES, _graph(), _details()]).rstrip() + "\n"
    )


def _overview() -> str:
    rows = [
        f"| [`{name}`](#{_anchor(name)}) | {event.direction} | {event.kind} | `{event.topic}` "
        f"| {', '.join(event.model.emitted_by)} | {event.description} |"
        for name, event in EVENT_TYPES.items()
    ]
    return _table("## Types", "type | direction | kind of state | topic | emitted by | meaning", rows)


def _topics() -> str:
    rows = [
        f"| `{topic.name}` | {topic.partitions} | {topic.retention_days} days | {topic.description} "
        f"| {', '.join(f'`{name}`' for name, event in EVENT_TYPES.items() if event.topic == topic.name)} |"
        for topic in TOPICS
    ]
    return _table("## Topics", "topic | partitions | kept | what | types", rows)


def _envelope() -> str:
    properties = _properties(Event.model_json_schema())
    properties["type"] = ("text", properties["type"][1])
    properties["data"] = ("object", properties["data"][1])
    rows = [f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in properties.items()]
    return _table("## Envelope", "attribute | value | meaning", rows)


def _graph() -> str:
    return _GRAPH + "".join(
        f"| `{name}` | {', '.join(f'`{cause}`' for cause in EVENT_TYPES if cause in event.model.caused_by)} |\n"
        for name, event in EVENT_TYPES.items()
        if event.model.caused_by
    )


def _details() -> str:
    return "\n".join(_detail(name, event) for name, event in EVENT_TYPES.items())


def _detail(name: str, event: EventType) -> str:
    model_schema = event.model.model_json_schema()
    data = _resolve(model_schema["properties"]["data"], model_schema)
    rows = [
        f"| `{field}` | {kind} | {meaning} |"
        for field, (kind, meaning) in _properties(data | {"$defs": model_schema["$defs"]}).items()
    ]
    table = _table(f"## {name}\n\n{event.description}", "data | value | meaning", rows)
    golden = json.dumps(example(name, event.version), ensure_ascii=False, indent=2)
    return f"{table}\n```json\n{golden}\n```\n"


def _properties(root: dict[str, Any]) -> dict[str, tuple[str, str]]:
    required = root.get("required", ())
    return {
        name if name in required else f"{name}?": (_kind(found, root), _meaning(found))
        for name, found in root["properties"].items()
    }


def _meaning(found: dict[str, Any]) -> str:
    default = found.get("default")
    note = "" if default is None or isinstance(default, dict) else f"Default {json.dumps(default)}."
    return " ".join(part for part in (found.get("description", ""), note) if part)


def _resolve(found: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = found.get("$ref")
    resolved: dict[str, Any] = root["$defs"][reference.rsplit("/", 1)[1]] if reference else found
    return resolved


def _kind(found: dict[str, Any], root: dict[str, Any]) -> str:
    """One cell of the value column, from a property's JSON Schema."""
    present = [option for option in found.get("anyOf", [found]) if option.get("type") != "null"]
    found = _resolve(present[0], root)
    named = _NAMED.get(_shape(found))
    if named:
        return named
    choices = found.get("enum", [found["const"]] if "const" in found else [])
    if choices:
        return " or ".join(f"`{choice}`" for choice in choices)
    match found.get("type"):
        case "array":
            return f"list of {_kind(found['items'], root)}"
        case "object" if "properties" in found:
            members = _properties({**root, **found}).items()
            return f"object {{{', '.join(f'`{name}` {kind}' for name, (kind, _) in members)}}}"
        case "integer":
            return f"integer, {_bound(found['minimum'])} to {_bound(found['maximum'])}"
        case None:
            return "any JSON"
        case other:
            return str(other)


def _bound(number: int) -> str:
    return {fields.INT64_MAX: "2^63-1", fields.INT64_MIN: "-2^63"}.get(number, str(number))


def _shape(found: dict[str, Any]) -> str:
    return json.dumps({key: found[key] for key in sorted(found) if key not in {"title", "description", "default"}})


_NAMED = {
    _shape(TypeAdapter(annotation).json_schema()): name
    for name, annotation in {
        "id": fields.Id,
        "text": fields.Text,
        "subject": fields.Subject,
        "space": fields.IdSpace,
        "account": fields.AccountName,
        "currency": fields.Currency,
        "time": fields.EventTime,
        "true or false": bool,
    }.items()
}


def _table(title: str, header: str, rows: list[str]) -> str:
    return "\n".join([title, "", f"| {header} |", "|" + "---|" * (header.count("|") + 1), *rows, ""])


def _anchor(heading: str) -> str:
    return heading.replace(".", "")
