"""What a user's rung depends on, and the rung that was announced."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, tzinfo
from operator import attrgetter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import orders
from services.segmentation.domain.ladder import RUNGS, Facts, Following, Payment, Rung
from services.segmentation.domain.segments import midnight
from services.segmentation.store import SubjectKey, UserKey, columns

FollowingChange = tuple[str, str, datetime, str, str, bool]
"""(account, subject, time, source, id, whether he follows from then on)"""


@dataclass(frozen=True, slots=True)
class RungRow:
    """A row of `ladder_state`."""

    account: str
    user_id: str
    state: Rung
    since: datetime | None
    revision: int
    updated_at: datetime | None


async def add_followings(session: AsyncSession, changes: Collection[FollowingChange]) -> set[SubjectKey]:
    """Record follows and unfollows; returns whose they are, if they were not known."""
    if not changes:
        return set()
    rows = await session.execute(
        text(
            "insert into following_change (account, subject, time, source, id, following) select * from"
            " unnest(cast(:account as text[]), cast(:subject as text[]), cast(:time as timestamptz[]),"
            " cast(:source as text[]), cast(:id as text[]), cast(:following as boolean[]))"
            " on conflict do nothing returning account, subject"
        ),
        columns(("account", "subject", "time", "source", "id", "following"), sorted(changes)),
    )
    return {(row.account, row.subject) for row in rows}


async def add_interactions(session: AsyncSession, times: Mapping[SubjectKey, datetime]) -> set[SubjectKey]:
    """Record interactions; returns whose first one it is, as far as is known. Rows that stay are not locked."""
    if not times:
        return set()
    rows = await session.execute(
        text(
            "insert into first_interaction as f (account, subject, time) select n.* from"
            " unnest(cast(:account as text[]), cast(:subject as text[]), cast(:time as timestamptz[]))"
            " as n(account, subject, time) where not exists (select from first_interaction o"
            " where o.account = n.account and o.subject = n.subject and o.time <= n.time)"
            ' order by n.account collate "C", n.subject collate "C"'
            " on conflict (account, subject) do update set time = excluded.time where excluded.time < f.time"
            " returning account, subject"
        ),
        columns(("account", "subject", "time"), [(*key, time) for key, time in sorted(times.items())]),
    )
    return {(row.account, row.subject) for row in rows}


async def lock_rungs(session: AsyncSession, users: Iterable[UserKey]) -> list[RungRow]:
    """The row of each user, made where there is none, locked in key order until the transaction ends."""
    keys = columns(("account", "user_id"), sorted(users))
    await session.execute(
        text(
            "insert into ladder_state (account, user_id, state, revision) select account, user_id, 'none', 0 from"
            " unnest(cast(:account as text[]), cast(:user_id as text[])) as n(account, user_id) on conflict do nothing"
        ),
        keys,
    )
    rows = await session.execute(
        text(
            f"select {', '.join(f's.{field.name}' for field in fields(RungRow))} from ladder_state s"
            " join unnest(cast(:account as text[]), cast(:user_id as text[])) as n(account, user_id)"
            " on n.account = s.account and n.user_id = s.user_id"
            ' order by s.account collate "C", s.user_id collate "C" for update of s'
        ),
        keys,
    )
    return [RungRow(*row) for row in rows]


async def update_rungs(session: AsyncSession, rows: Sequence[RungRow]) -> None:
    """Write locked rows back."""
    if not rows:
        return
    names = [field.name for field in fields(RungRow)]
    await session.execute(
        text(
            f"update ladder_state s set {', '.join(f'{name} = n.{name}' for name in names[2:])} from"
            " unnest(cast(:account as text[]), cast(:user_id as text[]), cast(:state as text[]),"
            " cast(:since as timestamptz[]), cast(:revision as bigint[]), cast(:updated_at as timestamptz[]))"
            f" as n({', '.join(names)}) where n.account = s.account and n.user_id = s.user_id"
        ),
        columns(names, list(map(attrgetter(*names), rows))),
    )


# What users have paid by :as_of. Refunds of an order lower it to nothing at most, as in `libs.common.orders`.
PAID = """
    given_back as (
        select platform, order_id, currency, sum(amount_minor) as amount from refund_state
        where account = :account and order_id is not null and time <= :as_of group by platform, order_id, currency
    ), paid as (
        select a.user_id, o.currency, o.paid_time, coalesce(o.amount_minor, 0) as gross,
            least(coalesce(o.amount_minor, 0), coalesce(g.amount, 0)) as refunded
        from order_state o join alias a on a.account = o.account and a.subject = o.buyer
        left join given_back g
            on g.platform = o.platform and g.order_id = o.order_id and g.currency = o.currency
        where o.account = :account and o.paid_time <= :as_of
    ), refunded as (
        select a.user_id, r.currency, r.time, coalesce(r.amount_minor, 0) as amount
        from refund_state r join alias a on a.account = r.account and a.subject = r.subject
        where r.account = :account and r.order_id is null and r.time <= :as_of
    )"""

# The rung of every user as of an instant: `domain.ladder.stand` for all at once.
RUNGS_AS_OF = f"""
    with {PAID}, moved as (
        select user_id, currency, gross - refunded as amount from paid
        union all select user_id, currency, -amount from refunded
    ), followed as (
        select distinct on (a.subject) a.user_id, f.following from following_change f
        join alias a on a.account = f.account and a.subject = f.subject
        where f.account = :account and f.time <= :as_of
        order by a.subject, f.time desc, f.source collate "C" desc, f.id collate "C" desc
    ), held as (
        select user_id, 4 as height from moved where currency is not null
        group by user_id, currency having sum(amount) > 0
        union all
        select a.user_id, 3 from first_interaction i join alias a on a.account = i.account and a.subject = i.subject
        where i.account = :account and i.time <= :as_of
        union all select user_id, 2 from followed where following
        union all select user_id, 1 from lifecycle_state where account = :account and first_day <= :day
    ), placed as (
        select user_id, (cast(:rungs as text[]))[max(height) + 1] as state from held group by user_id
    )
"""


async def count_rungs(session: AsyncSession, account: str, as_of: datetime, day: date) -> dict[str, int]:
    """How many users stood on each rung at `as_of`, whose local day is `day`; rungs without users are left out."""
    rows = await session.execute(
        text(f"{RUNGS_AS_OF} select state, count(*) as size from placed group by state"),
        {"account": account, "as_of": as_of, "day": day, "rungs": list(RUNGS)},
    )
    return {row.state: row.size for row in rows}


async def page_rung(
    session: AsyncSession, account: str, rung: str, as_of: datetime, day: date, after: str, limit: int
) -> list[str]:
    """The next users by id after `after` who stood on `rung` at `as_of`; up to `limit`."""
    rows = await session.execute(
        text(
            f"{RUNGS_AS_OF} select user_id from placed where state = :rung and user_id > :after"
            " order by user_id limit :limit"
        ),
        {
            "account": account,
            "as_of": as_of,
            "day": day,
            "rungs": list(RUNGS),
            "rung": rung,
            "after": after,
            "limit": limit,
        },
    )
    return list(rows.scalars())


async def read_facts(
    session: AsyncSession, users: Collection[UserKey], zone_of: Callable[[str], tzinfo]
) -> dict[UserKey, Facts]:
    """The facts of each user, over all subjects of his. Users without a subject, who are part of another user, are left
    out. Four statements."""
    user_of: dict[SubjectKey, UserKey] = {}
    seen: dict[UserKey, datetime] = {}
    interacted: dict[UserKey, datetime] = {}
    followings: dict[UserKey, list[Following]] = defaultdict(list)
    payments: dict[UserKey, list[Payment]] = defaultdict(list)

    for row in await session.execute(
        text(
            "select a.account, a.user_id, a.subject, i.time, (select min(d.day) from active_day d"
            " where d.account = a.account and d.subject = a.subject) as first_day"
            " from alias a join unnest(cast(:account as text[]), cast(:user_id as text[])) as n(account, user_id)"
            " on n.account = a.account and n.user_id = a.user_id"
            " left join first_interaction i on i.account = a.account and i.subject = a.subject"
        ),
        columns(("account", "user_id"), sorted(users)),
    ):
        user = user_of[row.account, row.subject] = (row.account, row.user_id)
        if row.first_day is not None:
            begins = midnight(row.first_day, zone_of(row.account))
            seen[user] = min(seen.get(user, begins), begins)
        if row.time is not None:
            interacted[user] = min(interacted.get(user, row.time), row.time)
    if not user_of:
        return {}
    for row in await session.execute(
        text(
            "select f.account, f.subject, f.time, f.source, f.id, f.following from following_change f"
            " join unnest(cast(:account as text[]), cast(:subject as text[])) as n(account, subject)"
            " on n.account = f.account and n.subject = f.subject"
        ),
        columns(("account", "subject"), sorted(user_of)),
    ):
        followings[user_of[row.account, row.subject]].append((row.time, row.source, row.id, row.subject, row.following))
    for key, bought in (await orders.read_paid(session, user_of)).items():
        paid = payments[user_of[key]]
        for order in bought.orders:
            paid += [(time, order.currency, moved) for time, moved in order.movements()]
        paid += [
            (refund.time, refund.currency, -(refund.amount_minor or 0)) for refund in bought.refunds if refund.time
        ]
    return {
        user: Facts(seen.get(user), interacted.get(user), tuple(followings[user]), tuple(payments[user]))
        for user in set(user_of.values())
    }
