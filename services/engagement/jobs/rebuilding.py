"""What `python -m services.engagement job rebuild` needs to know."""

from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.rebuild import AccountOf, Facts
from services.engagement import tables
from services.engagement.domain.consents import CONSENT_TYPES, fold_consents
from services.engagement.domain.follows import FOLLOWING, fold_follows
from services.engagement.domain.zones import newest_zones
from services.engagement.store import facts


async def fold(session: AsyncSession, events: list[AnyEvent], _account_of: AccountOf) -> None:
    """Who follows, what people allow and where they live. Nothing is decided again."""
    await facts.add_follows(session, fold_follows(events))
    await facts.add_consents(session, fold_consents(events))
    await facts.note_zones(session, newest_zones(events))


FACTS = Facts(
    tables=(tables.follower, tables.consent, tables.zone_notice),
    types={*FOLLOWING, *CONSENT_TYPES, "profile.updated"},
    fold=fold,
    with_data=True,
)
