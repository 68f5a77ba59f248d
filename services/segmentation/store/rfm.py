"""Runs of RFM: measured and scored in the database, in a number of statements that does not depend on the users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from services.segmentation.domain.rfm import Cuts, RfmClass, Totals
from services.segmentation.store.ladder import PAID


class Run(NamedTuple):
    """A row of `rfm_run`."""

    account: str
    version: int
    as_of: datetime
    day: date
    zone: str
    currency: str
    window_days: int | None
    cut: str
    users: int
    previous: int | None
    result: dict[str, Any]
    created_at: datetime


class Score(NamedTuple):
    """A row of `rfm_score`, without the run."""

    user_id: str
    r_days: int
    f_orders: int
    m_minor: int
    r_score: int
    f_score: int
    m_score: int
    rfm_class: RfmClass


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run has found before it scores: how many users, and each measure over all of them. `other_currencies`:
    orders that count for R and F, but not for M."""

    users: int
    r_days: Totals
    f_orders: Totals
    m_minor: Totals
    other_currencies: int


RUN = ", ".join(Run._fields)
SCORE = ", ".join(Score._fields)
MEASURES = ("r_days", "f_orders", "m_minor")
RUN_LOCK = "select pg_advisory_xact_lock(hashtextextended('rfm/' || :account, 0))"


async def begin_run(session: AsyncSession, account: str) -> int:
    """The version of the next run; another one of the same account waits until this transaction ends."""
    await session.execute(text(RUN_LOCK), {"account": account})
    # Grouping and ranking all buyers of an account in memory instead of on disk.
    await session.execute(text("set local work_mem = '64MB'"))
    last = await session.scalar(text("select max(version) from rfm_run where account = :account"), {"account": account})
    return (last or 0) + 1


async def find_payments(session: AsyncSession, account: str, as_of: datetime) -> tuple[datetime, datetime] | None:
    """When the first and the last order of the account were paid, by `as_of`."""
    row = (
        await session.execute(
            text(
                "select min(paid_time) as first, max(paid_time) as last from order_state"
                " where account = :account and paid_time <= :as_of"
            ),
            {"account": account, "as_of": as_of},
        )
    ).one()
    return None if row.first is None else (row.first, row.last)


async def measure(
    session: AsyncSession,
    account: str,
    as_of: datetime,
    midnights: Sequence[datetime],
    today: int,
    window: int | None,
    currency: str,
) -> Measured:
    """Fill the temporary table `measured` with R, F and M of every user who has paid an order in the window.

    `midnights`: the beginnings of all local days from that of the first payment to that of the last one. They number
    the days, from 1 on; `today` is the number of the day of `as_of`, which ends the `window`, a number of days.
    """
    await session.execute(text("drop table if exists pg_temp.measured"))
    await session.execute(
        text(
            "create temp table measured (user_id text, r_days integer, f_orders bigint, m_minor numeric, others bigint)"
            " on commit drop"
        )
    )
    await session.execute(
        text(
            f"insert into measured with {PAID}, dated as ("
            " select *, width_bucket(paid_time, cast(:midnights as timestamptz[])) as day from paid"
            "), lowered as ("
            " select user_id, sum(amount) as amount from refunded where currency = :currency"
            " and width_bucket(time, cast(:midnights as timestamptz[])) > :begin group by user_id"
            ") select user_id, :today - max(day), count(*) filter (where gross = 0 or refunded < gross),"
            " coalesce(sum(gross - refunded) filter (where currency = :currency), 0)"
            " - coalesce(max(lowered.amount), 0), count(*) filter (where currency <> :currency)"
            " from dated left join lowered using (user_id) where day > :begin group by user_id"
        ),
        {
            "account": account,
            "as_of": as_of,
            "midnights": list(midnights),
            "today": today,
            "begin": -1 if window is None else max(today - window, -1),
            "currency": currency,
        },
    )
    totals = ", ".join(
        f"coalesce(sum({name}), 0), percentile_disc(0.5) within group (order by {name}),"
        f" percentile_disc(0.5) within group (order by {name} desc)"
        for name in MEASURES
    )
    row = (await session.execute(text(f"select count(*), coalesce(sum(others), 0), {totals} from measured"))).one()
    users, others, *numbers = (int(value or 0) for value in row)
    r, f, m = (Totals(*numbers[start : start + 3]) for start in (0, 3, 6))
    return Measured(users, r, f, m, others)


async def add_scores(session: AsyncSession, account: str, version: int, users: int, cuts: Cuts) -> None:
    """Score what `measure` has found."""
    await session.execute(
        text(
            f"insert into rfm_score (account, version, {SCORE})"
            " select :account, :version, user_id, r_days, f_orders, m_minor,"
            " 1 + 5 * (rank() over (order by r_days desc) - 1) / :users,"
            " 1 + 5 * (rank() over (order by f_orders) - 1) / :users,"
            " 1 + 5 * (rank() over (order by m_minor) - 1) / :users,"
            " cast(cast(r_days * cast(:r_per as numeric) <= cast(:r_cut as numeric) as int) as text)"
            " || cast(cast(f_orders * cast(:f_per as numeric) > cast(:f_cut as numeric) as int) as text)"
            " || cast(cast(m_minor * cast(:m_per as numeric) > cast(:m_cut as numeric) as int) as text)"
            " from measured"
        ),
        {
            "account": account,
            "version": version,
            "users": users,
            "r_cut": Decimal(cuts.r_days.numerator),
            "r_per": Decimal(cuts.r_days.denominator),
            "f_cut": Decimal(cuts.f_orders.numerator),
            "f_per": Decimal(cuts.f_orders.denominator),
            "m_cut": Decimal(cuts.m_minor.numerator),
            "m_per": Decimal(cuts.m_minor.denominator),
        },
    )


async def read_boundaries(session: AsyncSession, account: str, version: int) -> dict[str, list[dict[str, int]]]:
    """By measure (r, f, m): the lowest and the highest value that got each score, and how many users did."""
    parts = " union all ".join(
        f"select '{measure[0]}' as measure, {measure[0]}_score as score, min({measure}) as lowest,"
        f" max({measure}) as highest, count(*) as users from rfm_score"
        f" where account = :account and version = :version group by {measure[0]}_score"
        for measure in MEASURES
    )
    found: dict[str, list[dict[str, int]]] = {"r": [], "f": [], "m": []}
    rows = await session.execute(text(f"{parts} order by measure, score"), {"account": account, "version": version})
    for row in rows:
        found[row.measure].append(
            {"score": row.score, "lowest": int(row.lowest), "highest": int(row.highest), "users": row.users}
        )
    return found


async def count_classes(session: AsyncSession, account: str, version: int) -> dict[str, int]:
    """How many users are in each class; classes without users are left out."""
    rows = await session.execute(
        text(
            "select rfm_class, count(*) as users from rfm_score where account = :account and version = :version"
            " group by rfm_class"
        ),
        {"account": account, "version": version},
    )
    return {row.rfm_class: row.users for row in rows}


async def count_migrations(
    session: AsyncSession, account: str, previous: int, version: int
) -> list[tuple[str | None, str | None, int]]:
    """(class in the previous run, class in this one, users); None where a user was not scored."""
    rows = await session.execute(
        text(
            "select o.rfm_class as class_from, n.rfm_class as class_to, count(*) as users"
            " from (select * from rfm_score where account = :account and version = :previous) o"
            " full join (select * from rfm_score where account = :account and version = :version) n using (user_id)"
            " group by 1, 2 order by 1 desc nulls last, 2 desc nulls last"
        ),
        {"account": account, "previous": previous, "version": version},
    )
    return [(row.class_from, row.class_to, row.users) for row in rows]


async def find_previous(session: AsyncSession, account: str, version: int, window: int | None, cut: str) -> int | None:
    """The last run before `version` with the same window and kind of cut."""
    previous: int | None = await session.scalar(
        text(
            "select max(version) from rfm_run where account = :account and version < :version"
            " and window_days is not distinct from cast(:window as integer) and cut = :cut"
        ),
        {"account": account, "version": version, "window": window, "cut": cut},
    )
    return previous


async def add_run(session: AsyncSession, run: Run) -> None:
    """Keep a run."""
    await session.execute(
        text(f"insert into rfm_run ({RUN}) values ({', '.join(f':{name}' for name in Run._fields)})").bindparams(
            bindparam("result", type_=JSONB)
        ),
        run._asdict(),
    )


async def read_run(session: AsyncSession, account: str, version: int | None) -> Run | None:
    """A run; the newest one when `version` is None."""
    rows = await session.execute(
        text(
            f"select {RUN} from rfm_run where account = :account"
            " and (cast(:version as integer) is null or version = :version) order by version desc limit 1"
        ),
        {"account": account, "version": version},
    )
    row = rows.one_or_none()
    return None if row is None else Run(*row)


async def page_runs(session: AsyncSession, account: str, before: int | None, limit: int) -> list[Run]:
    """Runs, newest first, older than `before`."""
    rows = await session.execute(
        text(
            f"select {RUN} from rfm_run where account = :account"
            " and (cast(:before as integer) is null or version < :before) order by version desc limit :limit"
        ),
        {"account": account, "before": before, "limit": limit},
    )
    return [Run(*row) for row in rows]


async def page_scores(
    session: AsyncSession, account: str, version: int, rfm_class: str | None, after: str, limit: int
) -> list[Score]:
    """The next users of a run by id after `after`, of one class or of all."""
    rows = await session.execute(
        text(
            f"select {SCORE} from rfm_score where account = :account and version = :version and user_id > :after"
            " and (cast(:class as text) is null or rfm_class = :class) order by user_id limit :limit"
        ),
        {"account": account, "version": version, "class": rfm_class, "after": after, "limit": limit},
    )
    return [_score(row) for row in rows]


async def read_score(session: AsyncSession, account: str, version: int, user_ids: Sequence[str]) -> Score | None:
    """What a run made of a user; `user_ids` in order of preference, for his present id may be newer than the run."""
    rows = await session.execute(
        text(
            f"select {SCORE} from rfm_score where account = :account and version = :version"
            " and user_id = any(cast(:user_ids as text[]))"
            " order by array_position(cast(:user_ids as text[]), user_id) limit 1"
        ),
        {"account": account, "version": version, "user_ids": list(user_ids)},
    )
    row = rows.one_or_none()
    return None if row is None else _score(row)


def _score(row: Any) -> Score:
    values: Mapping[str, Any] = row._mapping
    return Score(**{**values, "m_minor": int(values["m_minor"])})
