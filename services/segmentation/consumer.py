"""What segmentation reads from Kafka: the topics on which people's deeds arrive, and which subjects are one user."""

from collections.abc import Callable
from datetime import datetime

from libs.common.config import Account
from libs.common.consumer import Handler
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.identity import LINKED
from libs.common.orders import ORDER_TYPES
from services.segmentation.usecases.record import record

TOPICS = ("superfan.follows", "superfan.interactions", "superfan.views", "superfan.orders", "superfan.profiles")


def make_handler(account_of: Callable[[str], Account]) -> Handler:
    """The use case of a batch."""

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await record(session, events, now, account_of)

    return handle


def keep_data(event_type: str) -> bool:
    """Orders and links are folded again from their content; of everything else, it matters only that it happened."""
    return event_type in ORDER_TYPES or event_type == LINKED
