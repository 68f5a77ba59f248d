"""What engagement reads from Kafka: who follows, what people allow, which segments they enter, who they are."""

from collections.abc import Callable
from datetime import datetime

from libs.common.config import Account
from libs.common.consumer import Handler
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from services.engagement.usecases.starting import handle_events

TOPICS = ("superfan.follows", "superfan.segments", "superfan.profiles")


def make_handler(account_of: Callable[[str], Account]) -> Handler:
    """The use case of a batch."""

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await handle_events(session, events, now, account_of)

    return handle


def keep_data(event_type: str) -> bool:
    """Consents and zones are folded again by a rebuild. Of all others what counts stands in columns of their own."""
    return event_type.startswith("consent.") or event_type == "profile.updated"
