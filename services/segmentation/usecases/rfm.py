"""Runs of RFM, each kept as it was."""

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from prometheus_client import Histogram

from libs.common import identity
from libs.common.config import Account
from libs.common.days import DAY, local_day
from libs.common.db import AsyncSession
from services.segmentation.domain.rfm import NAMES, CutKind, Cuts
from services.segmentation.domain.segments import midnight
from services.segmentation.store import rfm as store
from services.segmentation.usecases import SERVICE

SECONDS = Histogram(
    "superfan_rfm_run_seconds", "One run of RFM", ["service"], buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
)


@dataclass(frozen=True, slots=True)
class Question:
    """What a run is asked. `window_days` None: all time. `cuts` are given when `cut` is `fixed`."""

    as_of: datetime
    window_days: int | None
    cut: CutKind
    cuts: Cuts | None


async def run(session: AsyncSession, account: Account, question: Question, now: datetime) -> store.Run:
    """Score everybody who has paid an order in the window, and keep it with its boundaries and with what changed since
    the run before."""
    with SECONDS.labels(SERVICE).time():
        return await _run(session, account, question, now)


async def _run(session: AsyncSession, account: Account, question: Question, now: datetime) -> store.Run:
    await identity.lock_groups(session, [account.name])
    version = await store.begin_run(session, account.name)
    today = local_day(question.as_of, account.zone)
    payments = await store.find_payments(session, account.name, question.as_of)
    begin, end = (local_day(time, account.zone) for time in payments or (question.as_of,) * 2)
    measured = await store.measure(
        session,
        account.name,
        question.as_of,
        [midnight(begin + n * DAY, account.zone) for n in range((end - begin).days + 1)],
        (today - begin).days + 1,
        question.window_days,
        account.currency,
    )
    cuts = question.cuts or _find_cuts(question.cut, measured)
    if measured.users:
        await store.add_scores(session, account.name, version, measured.users, cuts)
    sizes = await store.count_classes(session, account.name, version)
    previous = await store.find_previous(session, account.name, version, question.window_days, question.cut)
    migrations = await store.count_migrations(session, account.name, previous, version) if previous else []
    made = store.Run(
        account=account.name,
        version=version,
        as_of=question.as_of,
        day=today,
        zone=account.zone.key,
        currency=account.currency,
        window_days=question.window_days,
        cut=question.cut,
        users=measured.users,
        previous=previous,
        result={
            "orders_in_other_currencies": measured.other_currencies,
            "cuts": {name: _cut(getattr(cuts, name)) for name in store.MEASURES},
            "scores": await store.read_boundaries(session, account.name, version),
            "classes": [{"rfm_class": key, "name": name, "users": sizes.get(key, 0)} for key, name in NAMES.items()],
            "migrations": [
                {"class_from": class_from, "class_to": class_to, "users": users}
                for class_from, class_to, users in migrations
            ],
        },
        created_at=now,
    )
    await store.add_run(session, made)
    return made


def _find_cuts(kind: CutKind, measured: store.Measured) -> Cuts:
    assert kind != "fixed"
    return Cuts(*(getattr(measured, name).cut(kind, measured.users) for name in store.MEASURES))


def _cut(cut: Fraction) -> dict[str, Any]:
    """Exactly, and rounded for people."""
    return {"value": float(cut), "numerator": cut.numerator, "denominator": cut.denominator}
