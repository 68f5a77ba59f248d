"""What segmentation reads from Kafka: the topics on which people's activity arrives, and which
subjects are one user."""

from collections.abc import Callable
from datetime import datetime

from libs.common.config import Account
from libs.common.consumer import Handler
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.identity import fold_links
from services.segmentation.usecases import record_activity

TOPICS = ("superfan.follows", "superfan.interactions", "superfan.views", "superfan.orders", "superfan.profiles")


def make_handler(account_of: Callable[[str], Account]) -> Handler:
    """The use case of a batch."""

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await fold_links(session, events)
        await record_activity(session, events, now, account_of)

    return handle


def keep_data(_event_type: str) -> bool:
    """Only the day of an event matters here, never its content."""
    return False
