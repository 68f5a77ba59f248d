"""What every platform adapter takes and gives. An adapter is a pure function: all it knows is in its argument."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from libs.common.events import Problem

Confidence = Literal["official vector", "formula only", "legacy"]
"""How well a scheme is proved: by a vector that the platform published; by its description alone; or known from older
pages only."""


class Delivery(NamedTuple):
    """One request of a platform. Header names are in lower case; `secrets` are one or, while they rotate, two."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    secrets: tuple[str, ...]
    now: datetime


class Handshake(NamedTuple):
    """Answer this and publish nothing."""

    body: bytes
    media_type: str = "application/json"


class Rejection(NamedTuple):
    """Not from this platform, or not readable. `reason` is from a short closed list (a metric label)."""

    reason: Literal["signature", "timestamp", "malformed", "method"]
    detail: str
    status: Literal[400, 401, 404] = 401


class Flawed(NamedTuple):
    """Truly from this platform, but holds what cannot be stored: acknowledged, and set aside masked."""

    document: Any
    problems: list[Problem]


class Events(NamedTuple):
    """Events to complete and publish (`user` for the subject's id); `ignored` names kinds that are of no use here.

    `answer` is the body this platform wants for an acknowledgement, None when any will do.
    """

    items: list[dict[str, Any]]
    ignored: tuple[str, ...] = ()
    answer: bytes | None = None


@dataclass(frozen=True)
class Adapter:
    """A platform whose webhooks are understood."""

    title: str
    confidence: Confidence
    receive: Callable[[Delivery], Handshake | Rejection | Flawed | Events]
