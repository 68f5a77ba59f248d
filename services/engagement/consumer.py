"""What engagement reads from Kafka: who follows, what people allow, and which subjects are one user."""

from collections.abc import Callable
from datetime import datetime

from libs.common.config import Account
from libs.common.consumer import Handler
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.identity import fold_links
from services.engagement.usecases import handle_follows

TOPICS = ("superfan.follows", "superfan.profiles")


def make_handler(_account_of: Callable[[str], Account]) -> Handler:
    """The use case of a batch; nothing in it depends on the account's configuration."""

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await fold_links(session, events)
        await handle_follows(session, events, now)

    return handle


def keep_data(event_type: str) -> bool:
    """Consents keep their purpose and channel, which decisions about other channels will need. A follow's or
    unfollow's content is never read: its time, source and id stand in columns of their own."""
    return event_type.startswith("consent.")
