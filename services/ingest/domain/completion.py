"""From what was sent to an event of this system: what the credential decides, what is filled in, what is refused."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from libs.common.events import EVENT_TYPES, AnyEvent, Problem, Trust, problems, validate_clean, validate_event

CLOCK_TOLERANCE = timedelta(minutes=5)
"""A time further ahead of the receipt than this is clamped: sender clocks are a little wrong all the time."""

MAX_EVENT_BYTES = 262_144
MAX_USER = 150
"""Characters of `user`: with the longest id space before it, a subject still has at most 200."""

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_JSON_MEDIA = re.compile(r"application/([\w.-]+\+)?json *(;.*)?", re.ASCII)

MAX_PROBLEMS = 20

Reason = Literal["type", "trust", "account", "time", "subject", "field", "json", "size"]
"""A short closed list, because it is the label of a metric."""

_REASONS: dict[str, Reason] = {"/type": "type", "/time": "time", "/subject": "subject", "/user": "subject"}


@dataclass(frozen=True, slots=True)
class Sender:
    """What the credential and the request say about every event that comes with them."""

    account: str
    id_space: str
    source: str
    """Source of events that name none."""
    trust: Trust
    platform: str | None = None
    """The platform of all its events; None = each event may name one."""
    traceparent: str | None = None
    """Trace of events that carry none."""


class Refusal(NamedTuple):
    """Why an event is not taken."""

    reason: Reason
    problems: list[Problem]


def complete(
    sent: object,
    sender: Sender,
    received: datetime,
    fallback_id: str,
    *,
    cloudevent: bool = False,
    clean: bool = False,
) -> AnyEvent | Refusal:
    """The event that was sent, ready to be published, or why it is refused. `sent` is used up.

    `fallback_id` is the id of an event that has none. `clean`: `sent` is known to hold nothing that cannot be stored,
    so it is not searched for it. `cloudevent` = it came with a CloudEvents media type, whose
    events must name their `specversion`. What only ingest may say (account, trust, receivedtime, timemark,
    originaltime) is overwritten, whatever stood there; a foreign account is refused.
    """
    if not isinstance(sent, dict):
        return Refusal("json", [Problem("", "Input should be an object")])
    if None in sent.values():
        sent = {name: value for name, value in sent.items() if value is not None}
    refused = _check_rules(sent, sender, cloudevent=cloudevent)
    time = sent.get("time")
    user = sent.pop("user", None)
    _fill(sent, sender, received, fallback_id, user)
    try:
        event = validate_clean(sent) if clean else validate_event(sent)
    except ValidationError as error:
        return _join(refused, problems(error), user)
    if refused:
        return _join(refused, [], user)
    if event.time > received + CLOCK_TOLERANCE:
        event.time = received
        event.timemark = "clamped"
        event.originaltime = str(time)[:64]
    return event


def _check_rules(sent: dict[str, Any], sender: Sender, *, cloudevent: bool) -> list[tuple[Reason, Problem]]:
    """What the schemas of the types cannot know."""
    found: list[tuple[Reason, Problem]] = []
    name = sent.get("type")
    if isinstance(name, str):
        event_type = EVENT_TYPES.get(name)
        if event_type is not None and event_type.direction == "derived":
            detail = f"{name} events are made by this system and not taken from outside"
            found.append(("type", Problem("/type", detail)))
        if sender.trust == "client" and name.startswith("order."):
            detail = "order events are not taken with a client key, which anybody may hold: send them with a server key"
            found.append(("trust", Problem("/type", detail)))
    if sent.get("account", sender.account) != sender.account:
        detail = "the credential belongs to another account; leave this field out"
        found.append(("account", Problem("/account", detail)))
    if "user" in sent and "subject" in sent:
        found.append(("subject", Problem("/user", "give subject or user, not both")))
    elif "user" in sent and not (isinstance(sent["user"], str) and 0 < len(sent["user"]) <= MAX_USER):
        detail = f"Input should be a string of 1 to {MAX_USER} characters; send ids as strings"
        found.append(("subject", Problem("/user", detail)))
    if "data_base64" in sent:
        found.append(("field", Problem("/data_base64", "binary data is not taken; send data as JSON")))
    media = sent.get("datacontenttype")
    if media is not None and not (isinstance(media, str) and _JSON_MEDIA.fullmatch(media)):
        found.append(("field", Problem("/datacontenttype", "Input should be application/json or absent")))
    if cloudevent and "specversion" not in sent:
        found.append(("field", Problem("/specversion", "Field required")))
    return found


def _fill(sent: dict[str, Any], sender: Sender, received: datetime, fallback_id: str, user: object) -> None:
    sent["account"] = sender.account
    sent["trust"] = sender.trust
    sent["receivedtime"] = received
    sent.pop("timemark", None)
    sent.pop("originaltime", None)
    if user is not None and "subject" not in sent:
        sent["subject"] = f"{sender.id_space}:{user}"
    elif sent.get("type") == "content.published" and "subject" not in sent and isinstance(sent.get("data"), dict):
        sent["subject"] = f"content:{sent['data'].get('content_id')}"
    if sender.platform is not None:
        sent["platform"] = sender.platform
    if "id" not in sent:
        sent["id"] = fallback_id
    if "source" not in sent:
        sent["source"] = sender.source
    if "time" not in sent:
        sent["time"] = received
        sent["timemark"] = "stamped"
    trace = sent.get("traceparent")
    if not isinstance(trace, str) or not _TRACEPARENT.fullmatch(trace):
        # A trace is no fact of the event: an unreadable one is not worth refusing it.
        sent.pop("traceparent", None)
        if sender.traceparent is not None:
            sent["traceparent"] = sender.traceparent


def too_large(size: int) -> Refusal | None:
    """Refusal of an event whose JSON has `size` bytes, if that is more than one event may have."""
    if size <= MAX_EVENT_BYTES:
        return None
    return Refusal("size", [Problem("", f"an event may have at most {MAX_EVENT_BYTES} bytes")])


def _join(refused: list[tuple[Reason, Problem]], invalid: list[Problem], user: object) -> Refusal:
    """One refusal of all that was found: the rules first, and one problem per place."""
    by_pointer = {problem.pointer: problem for _, problem in refused}
    for pointer, detail in invalid:
        # The sender wrote `user` where the schema sees the subject that was made of it.
        place = "/user" if user is not None and pointer == "/subject" else pointer
        by_pointer.setdefault(place, Problem(place, detail))
    found = list(by_pointer.values())
    reason = refused[0][0] if refused else _REASONS.get(found[0].pointer, "field")
    return Refusal(reason, found[:MAX_PROBLEMS])
