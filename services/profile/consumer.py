"""What profile reads from Kafka: every input, and the notices of the other services for the timeline."""

from collections.abc import Callable
from datetime import datetime

from libs.common.config import Account
from libs.common.consumer import Handler
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from services.profile.usecases import activity

TOPICS = (
    "superfan.follows",
    "superfan.interactions",
    "superfan.views",
    "superfan.orders",
    "superfan.traits",
    "superfan.segments",
    "superfan.messages",
    "superfan.rewards",
)


def make_handler(account_of: Callable[[str], Account]) -> Handler:
    """The use case of a batch: every type is recorded in the same way."""

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await activity.record(session, events, now, account_of)

    return handle


def keep_data(_event_type: str) -> bool:
    """profile keeps the content of every type: it is the archive from which a lost service is refilled."""
    return True
