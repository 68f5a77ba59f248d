"""What `python -m services.profile job NAME` needs to know."""

from datetime import UTC, datetime

from libs.common.db import AsyncSession
from libs.common.events import EVENT_TYPES, AnyEvent
from libs.common.rebuild import AccountOf, Facts
from services.profile import tables
from services.profile.usecases import record_activity


async def fold(session: AsyncSession, events: list[AnyEvent], account_of: AccountOf) -> None:
    """As when they were applied."""
    await record_activity(session, events, datetime.now(UTC), account_of)


FACTS = Facts(
    tables=(tables.activity_day, tables.fan),
    types=[name for name, event_type in EVENT_TYPES.items() if event_type.direction == "input"],
    fold=fold,
)
