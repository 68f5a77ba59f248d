"""What people allow: the newest word on each purpose and channel, and what holds while nothing was said."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from libs.common.events import AnyEvent
from libs.common.events.inputs import ConsentGranted, ConsentRevoked

ConsentKey = tuple[str, str, str, str]
"""(account, subject, purpose, channel)"""

CONSENT_TYPES = ("consent.granted", "consent.revoked")

WHILE_FOLLOWING = ("service", "marketing")
"""Purposes that are allowed to followers on the open channels without a word from them; `transactional` to all."""

OPEN_CHANNELS = ("in_app", "dm", "webhook")
"""Channels that need no consent on record; every other one needs `consent.granted`."""


class Word(NamedTuple):
    """A consent granted or revoked; the greatest one of a purpose and channel stands."""

    time: datetime
    source: str
    id: str
    granted: bool


def fold_consents(events: Iterable[AnyEvent]) -> dict[ConsentKey, Word]:
    """The newest word of each subject, purpose and channel; the same for any order and repetition."""
    words: dict[ConsentKey, Word] = {}
    for event in events:
        if not isinstance(event, ConsentGranted | ConsentRevoked):
            continue
        key = (event.account, event.subject, event.data.purpose, event.data.channel)
        word = Word(event.time, event.source, event.id, event.type == "consent.granted")
        words[key] = max(words.get(key, word), word)
    return words


def may_reach(
    purpose: str, channel: str, words: Mapping[tuple[str, str], Word], *, following: bool
) -> tuple[bool, dict[str, Any]]:
    """Whether a user may be reached by `channel` for `purpose`, and the values that decide. `words` holds the newest
    word of all his subjects by (purpose, channel); `following`: whether one of them follows."""
    word = words.get((purpose, channel))
    values: dict[str, Any] = {"purpose": purpose, "channel": channel}
    if word is not None:
        values |= {"rule": "record", "granted": word.granted, "recorded_at": word.time.isoformat()}
        return word.granted, values
    if channel not in OPEN_CHANNELS:
        return False, values | {"rule": "needs_grant", "granted": None}
    if purpose in WHILE_FOLLOWING:
        return following, values | {"rule": "while_following", "granted": None, "following": following}
    return True, values | {"rule": "always", "granted": None}
