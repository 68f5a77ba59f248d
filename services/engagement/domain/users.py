"""What is known of a user when something is decided about him."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import NamedTuple

from services.engagement.domain.consents import Word
from services.engagement.domain.gates import Contact, Sent


class Told(NamedTuple):
    """A message that a user has, had or will have. `at`: when it was let through the gates, None while it waits for
    them; `live`: neither cancelled nor expired."""

    message_id: str
    journey: str
    purpose: str
    channel: str
    created_at: datetime
    at: datetime | None
    live: bool


@dataclass(slots=True)
class UserState:
    """What is known of a user under the lock: messages to all his subjects, the last revision by journey, his own time
    zone if it is known."""

    account: str
    user_id: str
    following: bool = False
    consents: Mapping[tuple[str, str], Word] = field(default_factory=dict)
    messages: list[Told] = field(default_factory=list)
    revisions: dict[str, int] = field(default_factory=dict)
    zone: tzinfo | None = None

    def earlier(self, journey: str) -> str | None:
        """A message of the journey that the user has entered."""
        found = [message for message in self.messages if message.journey == journey]
        return min(found, key=lambda message: (message.created_at, message.message_id)).message_id if found else None

    def contact(self, without: str | None = None) -> Contact:
        """What the gates look at, leaving out the message that they are asked about."""
        sent = [
            Sent(message.at, message.purpose, message.channel)
            for message in self.messages
            if message.at is not None and message.live and message.message_id != without
        ]
        return Contact(self.following, self.consents, sent, self.zone)

    def next_revision(self, journey: str) -> int:
        self.revisions[journey] = revision = self.revisions.get(journey, 0) + 1
        return revision
