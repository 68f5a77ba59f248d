"""What rewards reads from Kafka: deeds that may earn points, and which subjects are one user. Views earn none, so they
are not read."""

from collections.abc import Callable
from datetime import datetime

from libs.common.config import Account
from libs.common.consumer import Handler
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.identity import fold_links
from services.rewards.usecases.earning import award
from services.rewards.usecases.levels import regroup

TOPICS = ("superfan.follows", "superfan.interactions", "superfan.orders", "superfan.profiles")


def make_handler(account_of: Callable[[str], Account]) -> Handler:
    """The use case of a batch: the rules are applied to all of it."""

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await regroup(session, await fold_links(session, events), now, account_of)
        await award(session, events, now, account_of)

    return handle
