"""What `python -m services.rewards job NAME` needs to know."""

from libs.common.db import AsyncSession
from libs.common.events import AnyEvent
from libs.common.rebuild import AccountOf, Facts
from services.rewards import domain, store, tables, usecases


async def fold(session: AsyncSession, events: list[AnyEvent], account_of: AccountOf) -> None:
    """The days of sign-ins. Nothing is booked again."""
    earned = domain.fold(domain.earning(events), {}, usecases.day_by(account_of))
    await store.add_days(session, earned.days)


FACTS = Facts(
    tables=(tables.sign_in_day, tables.balance),
    types=(domain.SIGN_IN.event_type,),
    fold=fold,
    with_data=True,
    recount=store.recount_balances,
)
