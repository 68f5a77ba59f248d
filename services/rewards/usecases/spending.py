"""Spending points, and adjusting them by hand."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from uuid import UUID

from libs.common import outbox
from libs.common.db import AsyncSession
from libs.common.identity import User, lock_groups, resolve
from services.rewards.domain.awards import Holder, transaction_id_of
from services.rewards.store import holders, ledger
from services.rewards.store.ledger import NOTHING, Paid, Transaction
from services.rewards.usecases import notices
from services.rewards.usecases.sign_ins import subject_of


class InsufficientPointsError(Exception):
    """The user has fewer points than that; nothing was changed."""

    def __init__(self, balance: int, wanted: int) -> None:
        super().__init__(f"{wanted} wanted, {balance} there")
        self.balance = balance
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class Request:
    """A change over REST: what it is for, and who asked for it under which Idempotency-Key."""

    account: str
    ref: str
    key: str
    reason: str
    reference: str | None
    made_by: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """What a change over REST did; `lots` are those that it took from, or the one that it made."""

    transaction_id: UUID
    user_id: str
    points: int
    balance: int
    lots: list[Paid]
    created_at: datetime


async def spend(session: AsyncSession, request: Request, points: int, now: datetime) -> Done:
    """Spend `points` of a user, from whatever subject of his they are: what expires first, then what is oldest, goes
    first. Raises UnknownUserError, and InsufficientPointsError when he has fewer."""
    return await _take(session, request, points, "spend", now)


async def adjust(session: AsyncSession, request: Request, points: int, now: datetime) -> Done:
    """Give (or with points < 0 take) points by hand. Raises UnknownUserError, and InsufficientPointsError when more is
    to be taken than there is."""
    if points < 0:
        return await _take(session, request, -points, "adjustment", now)
    user, locked = await _lock(session, request)
    made = _transaction(request, "adjustment")
    holder = (request.account, subject_of(user, request.ref))
    wallet = locked.ref(holder)
    await ledger.add_lots(session, [(request.account, made.transaction_id, wallet, points, now)], now)
    paid = [Paid(made.transaction_id, wallet, points)]
    return await _book(session, request, made, user, locked, {holder: points}, paid, now)


async def _take(session: AsyncSession, request: Request, points: int, rule: str, now: datetime) -> Done:
    user, locked = await _lock(session, request)
    refs = {locked.ref(holder): holder for holder in locked.rows}
    balances = await ledger.read_balances(session, [(request.account, ref) for ref in refs])
    there = sum(balance.points for balance in balances.values())
    if there < points:
        raise InsufficientPointsError(there, points)
    made = _transaction(request, rule)
    paid = await ledger.pay(session, request.account, made.transaction_id, list(refs), points)
    wallets: defaultdict[Holder, int] = defaultdict(int)
    for part in paid:
        wallets[refs[part.account_ref]] -= part.points
    return await _book(session, request, made, user, locked, dict(wallets), paid, now)


async def _lock(session: AsyncSession, request: Request) -> tuple[User, holders.Locked]:
    await lock_groups(session, [request.account])
    user = await resolve(session, request.account, request.ref)
    return user, await holders.lock(session, [(request.account, subject) for subject in user.subjects])


def _transaction(request: Request, rule: str) -> Transaction:
    # From the request, so that even two processes could not book it twice.
    seed = blake2b(f"{request.account}\0{request.key}".encode(), digest_size=16).digest()
    return Transaction(
        account=request.account,
        transaction_id=transaction_id_of(seed, rule),
        rule=rule,
        book="spent" if rule == "spend" else "adjusted",
        request_id=request.key,
        reason=request.reason,
        reference=request.reference,
        made_by=request.made_by,
    )


async def _book(
    session: AsyncSession,
    request: Request,
    made: Transaction,
    user: User,
    locked: holders.Locked,
    wallets: dict[Holder, int],
    lots: list[Paid],
    now: datetime,
) -> Done:
    changed = await ledger.add_transaction(
        session, made, {locked.ref(holder): points for holder, points in wallets.items()}, now
    )
    others = [(request.account, locked.ref(holder)) for holder in locked.rows if holder not in wallets]
    balances = {**changed, **await ledger.read_balances(session, others)}
    event_type = "points.spent" if made.book == "spent" else "points.adjusted"
    told = notices.of_transaction(event_type, made, wallets, locked, balances, now, request.traceparent)
    await outbox.add(session, told)
    balance = sum(balances.get((request.account, locked.ref(holder)), NOTHING).points for holder in locked.rows)
    return Done(made.transaction_id, user.user_id, sum(wallets.values()), balance, lots, now)
