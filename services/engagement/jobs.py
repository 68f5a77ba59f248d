"""What `python -m services.engagement job NAME` needs to know."""

from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.rebuild import AccountOf, Facts
from services.engagement import domain, store, tables


async def fold(session: AsyncSession, events: list[AnyEvent], _account_of: AccountOf) -> None:
    """Who follows. Nothing is decided again."""
    await store.add_follows(session, domain.fold_follows(events))


FACTS = Facts(tables=(tables.follower,), types=domain.FOLLOWING, fold=fold)
