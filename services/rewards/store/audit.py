"""The ledger checked against itself: every number must be 0."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

CHECKS = {
    "balance_entry_differences": (
        "wallets whose balance is not the sum of their entries",
        (
            "select 1 from ("
            " select account_ref, sum(points) as points, sum(growth) as growth, count(*) as revision from ledger_entry"
            " where account_ref is not null and ({account}) group by account, account_ref) e"
            " full join (select * from balance where {account}) b using (account_ref)"
            " where (e.points, e.growth, e.revision) is distinct from (b.points, b.growth, b.revision)"
        ),
    ),
    "balance_lot_differences": (
        "wallets whose balance is not the sum of what is left of their lots",
        (
            "select 1 from ("
            " select account_ref, sum(remaining) as points from lot where {account} group by account, account_ref) o"
            " full join (select * from balance where {account}) b using (account_ref)"
            " where coalesce(o.points, 0) <> coalesce(b.points, 0)"
        ),
    ),
    "unbalanced_transactions": (
        "transactions whose legs do not sum to 0, or that have fewer than two",
        (
            "select 1 from ledger_entry where {account}"
            " group by account, transaction_id having sum(points) <> 0 or count(*) < 2"
        ),
    ),
    "negative_lots": (
        "lots below 0 or above what they granted",
        "select 1 from lot where (remaining < 0 or remaining > granted) and ({account})",
    ),
    "lot_use_differences": (
        "lots that have not lost exactly what they paid",
        (
            "select 1 from (select * from lot where {account}) o"
            " full join (select account, lot_id, sum(points) as points from lot_use where {account}"
            " group by account, lot_id) u using (account, lot_id)"
            " where o.lot_id is null or o.granted - o.remaining <> coalesce(u.points, 0)"
        ),
    ),
}
"""Name → (what it counts, the rows that are wrong)."""

_ALL = "cast(:account as text) is null or account = :account"
STATEMENTS = {
    name: text(f"select count(*) from ({rows.format(account=_ALL)}) wrong") for name, (_, rows) in CHECKS.items()
}


async def audit(session: AsyncSession, account: str | None, *, alone: bool = False) -> dict[str, int] | None:
    """How many rows of `account`, or of all accounts, are wrong, by check; all at one moment. Must come first in its
    transaction. `alone`: None, without any check, while another transaction audits."""
    await session.execute(text("set transaction isolation level repeatable read, read only"))
    if alone and not await session.scalar(text("select pg_try_advisory_xact_lock(hashtext('superfan ledger audit'))")):
        return None
    found = {}
    for name, statement in STATEMENTS.items():
        found[name] = int((await session.execute(statement, {"account": account})).scalar_one())
    return found
