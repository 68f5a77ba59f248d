"""Traits 基础画像: what is known of a person, the newest by how well it is known. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from libs.common.days import find_zone
from libs.common.events import AnyEvent

ZONE = "zone"
"""The trait with the person's time zone, an IANA name."""
DIRECT = frozenset({"phone", "email", "address", "id_number", "real_name"})
"""Traits that name a person outright; answers show them masked."""

TraitKey = tuple[str, str, str]
"""(account, subject, name)"""


class Told(NamedTuple):
    """Who said it; the greatest is believed. What a public key says never outdoes what a platform or server said."""

    verified: bool
    time: datetime
    source: str
    event_id: str


class Trait(NamedTuple):
    """A value, any JSON; None when it was taken back."""

    told: Told
    trust: str
    value: Any


def fold(events: Iterable[AnyEvent]) -> dict[TraitKey, Trait]:
    """The traits in `events`, each from the event that is believed; values that cannot be are passed over."""
    found: dict[TraitKey, Trait] = {}
    for event in events:
        if event.type != "profile.traits":
            continue
        assert event.subject is not None
        told = Told(event.trust != "client", event.time, event.source, event.id)
        for name, value in event.data.traits.items():
            if not is_possible(name, value):
                continue
            key = (event.account, event.subject, name)
            if key not in found or told > found[key].told:
                found[key] = Trait(told, event.trust, value)
    return found


def is_possible(name: str, value: Any) -> bool:
    """Whether a trait can have this value: a zone is one that exists, or is taken back."""
    return name != ZONE or value is None or find_zone(value) is not None


def merge(traits: Iterable[tuple[str, Trait]]) -> dict[str, Trait]:
    """The traits (name, trait) of all subjects of a user as his; those taken back are left out."""
    found: dict[str, Trait] = {}
    for name, trait in traits:
        if name not in found or trait.told > found[name].told:
            found[name] = trait
    return {name: found[name] for name in sorted(found) if found[name].value is not None}


def mask(name: str, value: Any) -> Any:
    """A direct identifier without its middle; any other value as it is."""
    if name not in DIRECT:
        return value
    if isinstance(value, list):
        return [mask(name, one) for one in value]
    if not isinstance(value, str):
        return "****"
    if name == "email":
        user, at, host = value.partition("@")
        return f"{user[:1]}***{at}{host}"
    return f"{value[:3]}****{value[-2:]}" if len(value) > 7 else "****"
