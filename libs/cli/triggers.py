"""What `superfan trigger` and `superfan demo` can send: deliveries as a platform makes them, and events of our own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

import orjson

from libs.cli.connection import Connection
from libs.cli.local.processes import LaunchError
from libs.common.config import Source
from libs.common.events import EVENT_TYPES
from libs.common.events.docs import example
from services.ingest.platforms import douyin_signer

PLATFORM = "douyin"
EVENTS_SOURCE = "superfan-trigger"


@dataclass(frozen=True)
class Shot:
    """One request to ingest, in the very bytes that are sent. It carries one event of `type` about `subject`."""

    type: str
    subject: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    how: str
    """In words: who vouches for it and how."""

    @property
    def topic(self) -> str:
        return EVENT_TYPES[self.type].topic


class Delivery(NamedTuple):
    """A webhook of Douyin: the event type that comes of it, and its body for a fan's open id at a time."""

    type: str
    event_name: str
    body: Callable[[str, datetime], bytes]


def _fresh(kind: str) -> str:
    return f"{kind}-{uuid4().hex[:12]}"


DOUYIN: Mapping[str, Delivery] = {
    "douyin.follow": Delivery("follow", "new_follow_action", douyin_signer.follow),
    "douyin.like": Delivery(
        "like", "new_video_digg", lambda open_id, at: douyin_signer.like(open_id, "@9VwVideo001", at)
    ),
    "douyin.comment": Delivery(
        "comment",
        "item_comment_reply",
        lambda open_id, at: douyin_signer.comment(open_id, "@9VwVideo001", _fresh("comment"), "好看！求链接", at),
    ),
    "douyin.message": Delivery(
        "message",
        "im_receive_msg",
        lambda open_id, at: douyin_signer.message(open_id, _fresh("message"), "你好，什么时候直播？", at),
    ),
}
ALIASES = {"douyin.digg": "douyin.like"}

OWN: Mapping[str, str] = {
    name: event.description
    for name, event in EVENT_TYPES.items()
    if event.direction == "input" and name != "content.published"
}
"""Types about a fan that `POST /v1/events` takes, with their descriptions."""

FRESH_IDS = ("order_id", "refund_id", "comment_id", "message_id")


def aim(connection: Connection, name: str, user: str, source_id: str | None, now: datetime) -> Shot:
    """The request that the trigger `name` stands for; raises LaunchError when there is no such trigger or source."""
    delivery = DOUYIN.get(ALIASES.get(name, name))
    if delivery is not None:
        source = connection.source(PLATFORM, source_id)
        return deliver(connection, source, delivery, user, now)
    if name not in OWN:
        raise LaunchError(f"no trigger {name!r}: `superfan trigger --list` shows them all")
    if source_id is not None:
        raise LaunchError(f"--source goes with webhooks; {name} is sent with the API key")
    return tell(connection, own_event(name, connection.subject(user), now))


def deliver(connection: Connection, source: Source, delivery: Delivery, user: str, at: datetime) -> Shot:
    """A webhook about the fan with this open id (or subject), signed with the source's first secret."""
    subject = connection.subject(user, source.id_space)
    space, _, open_id = subject.partition(":")
    if space != source.id_space:
        raise LaunchError(f"the fans of source {source.id} are {source.id_space}:<open id>, not {subject}")
    body = delivery.body(open_id, at)
    headers = douyin_signer.sign(body, source.secrets[0])
    return Shot(
        type=delivery.type,
        subject=subject,
        url=connection.url("ingest", f"/v1/webhooks/{source.id}"),
        headers=headers,
        body=body,
        how=f"{delivery.event_name} for source {source.id}, X-Douyin-Signature {headers['X-Douyin-Signature'][:12]}…",
    )


def own_event(name: str, subject: str, now: datetime) -> dict[str, Any]:
    """An event of a type with the data of its golden example, new in its ids."""
    data = example(name, EVENT_TYPES[name].version)["data"]
    if name.startswith("order."):
        data = {"amount_minor": 12_900, "currency": "CNY"} | data  # some examples are thin orders, which have no fan
    data |= {field: _fresh(field.removesuffix("_id")) for field in FRESH_IDS if field in data}
    if "paid_at" in data:
        data["paid_at"] = now.isoformat()
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": EVENTS_SOURCE,
        "type": name,
        "subject": subject,
        "time": now.astimezone(UTC).isoformat(),
        "data": data,
    }


def tell(connection: Connection, event: dict[str, Any]) -> Shot:
    """An event of our own, sent with the API key."""
    return Shot(
        type=event["type"],
        subject=event["subject"],
        url=connection.url("ingest", "/v1/events"),
        headers={**connection.authorization, "Content-Type": "application/cloudevents+json"},
        body=orjson.dumps(event),
        how=f"CloudEvent with the API key {connection.api_key.rpartition('_')[0]}_…",
    )
