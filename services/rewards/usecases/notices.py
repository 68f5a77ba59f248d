"""What rewards tells the others. What counts up is the wallet of one subject, so the subject's own id is the entity."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from libs.common.events import AnyEvent, new_event
from services.rewards.domain.awards import Award, Holder, UserKey
from services.rewards.store.holders import Locked
from services.rewards.store.ledger import NOTHING, Balance, Transaction
from services.rewards.usecases import SOURCE

Balances = Mapping[tuple[str, UUID], Balance]


def of_awards(awards: Iterable[Award], locked: Locked, balances: Balances, now: datetime) -> list[AnyEvent]:
    """One for each booked award; `balances` are those after all of them, of every wallet of their users."""
    after = dict(balances)
    of_user = {user: _of_user(user, locked, after) for user in {locked.user(award.deed.holder) for award in awards}}
    notices = []
    for award in reversed(list(awards)):  # backwards from the balances that stand now
        deed, event = award.deed, award.deed.event
        user = locked.user(deed.holder)
        wallet = (event.account, locked.ref(deed.holder))
        balance = after[wallet]
        notice = new_event(
            "points.awarded",
            account=event.account,
            source=SOURCE,
            id=str(award.transaction_id),
            subject=deed.holder[1],
            platform=event.platform,
            time=now,
            received=now,
            traceparent=event.traceparent,
            data={
                "entity": locked.rows[deed.holder].own_id,
                "revision": balance.revision,
                "since": deed.time,
                "user_id": user[1],
                "points": award.points,
                "balance": balance.points,
                "user_balance": of_user[user],
                "rule": award.rule.key,
                "rule_version": award.rule.version,
                "entry_id": str(award.transaction_id),
                "caused_by": deed.digest.hex(),
            },
        )
        notice.backfill = event.backfill
        notices.append(notice)
        of_user[user] -= award.points
        after[wallet] = Balance(balance.points - award.points, balance.growth, balance.revision - 1)
    return notices[::-1]


def of_transaction(
    event_type: str,
    made: Transaction,
    wallets: Mapping[Holder, int],
    locked: Locked,
    balances: Balances,
    now: datetime,
    traceparent: str | None,
) -> list[AnyEvent]:
    """One for each wallet that a spending or adjustment changed by so many points."""
    notices = []
    for holder, points in wallets.items():
        user = locked.user(holder)
        balance = balances[made.account, locked.ref(holder)]
        entity = locked.rows[holder].own_id
        data: dict[str, Any] = {
            "entity": entity,
            "revision": balance.revision,
            "since": now,
            "user_id": user[1],
            "points": points,
            "balance": balance.points,
            "user_balance": _of_user(user, locked, balances),
            "entry_id": str(made.transaction_id),
            "reason": made.reason,
        }
        if made.reference is not None:
            data["reference"] = made.reference
        notices.append(
            new_event(
                event_type,
                account=made.account,
                source=SOURCE,
                id=f"{made.transaction_id}/{entity}",
                subject=holder[1],
                time=now,
                received=now,
                traceparent=traceparent,
                data=data,
            )
        )
    return notices


def _of_user(user: UserKey, locked: Locked, balances: Balances) -> int:
    return sum(balances.get((user[0], locked.ref(holder)), NOTHING).points for holder in locked.of_user[user])
