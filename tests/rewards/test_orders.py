"""An order earns once, for its buyer, however many events tell of it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import AnyEvent
from services.rewards.domain.rules import parse_rule
from services.rewards.usecases.definitions import put_rule
from tests.rewards.support import check_ledger, deed, log_of
from tests.support.folding import NOW, arrivals, empty, rows

ENTRIES = "ledger_entry join holder using (account, account_ref)"
AMOUNT: dict[str, Any] = {"amount_minor": 1990, "currency": "CNY"}
PER_YUAN = parse_rule(
    '{"kind": "per_amount", "event_type": "order.paid", "points": 2, "per": {"amount_minor": 100, "currency": "CNY"}}'
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    file: Path = tmp_path_factory.mktemp("orders") / "superfan.toml"
    file.write_text("[accounts.demo]\n")
    return ConfigFile(file, "rewards")


def whole(n: int) -> list[AnyEvent]:
    """Ten orders: paid at NOW - n hours, told thrice; every other one is thin until a look-up finds its buyer."""
    order, time = f"o{n}", NOW - timedelta(hours=n)
    if n % 2:
        return [
            deed("order.created", f"{n}", None, time - timedelta(minutes=5), order_id=order),
            deed("order.paid", f"{n}", None, time, order_id=order),
            deed("order.paid", f"{n}-again", None, time + timedelta(minutes=1), order_id=order),
            deed(
                "order.enriched",
                f"{n}",
                None,
                time + timedelta(hours=2),
                order_id=order,
                buyer=f"doudian:b{n % 3}",
                **AMOUNT,
            ),
        ]
    subject = f"doudian:b{n % 3}"
    return [
        deed("order.created", f"{n}", subject, time - timedelta(minutes=5), order_id=order, **AMOUNT),
        deed("order.paid", f"{n}", subject, time, order_id=order, **AMOUNT),
        deed("order.paid", f"{n}-again", subject, time + timedelta(minutes=1), order_id=order, **AMOUNT),
        deed("order.completed", f"{n}", subject, time + timedelta(days=1), order_id=order, **AMOUNT),
    ]


ORDERS = [event for n in range(10) for event in whole(n)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_arrival_earns_the_same(database: Sessions, config: ConfigFile, data: st.DataObject) -> None:
    await empty(database)
    async with database() as session, session.begin():
        await put_rule(session, "demo", "order_paid", PER_YUAN, NOW - timedelta(days=9), None, NOW, "test")
    log = log_of(database, config)
    for batch in data.draw(arrivals(ORDERS)):
        await log.apply(batch)
    assert await rows(database, ENTRIES, "subject, reference, points") == sorted(
        (f"doudian:b{n % 3}", f"doudian/o{n}", 38) for n in range(10)
    )
    await check_ledger(database)


async def test_a_thin_order_waits_for_its_buyer(sessions: Sessions, config: ConfigFile) -> None:
    log = log_of(sessions, config)
    paid_at = NOW - timedelta(days=2)
    await log.apply([deed("order.paid", 1, None, paid_at, order_id="o1")])
    assert await rows(sessions, "ledger_entry", "points") == []
    found = deed("order.enriched", 1, None, order_id="o1", buyer="doudian:b1", **AMOUNT)
    await log.apply([found])
    assert await rows(sessions, ENTRIES, "subject, rule, points, event_time, event_digest") == [
        ("doudian:b1", "order_paid", 20, paid_at, found.digest)
    ]
    assert await rows(sessions, "alias", "subject") == [("doudian:b1",)]


async def test_what_is_corrected_later_moves_no_points(sessions: Sessions, config: ConfigFile) -> None:
    """Decided once, on what was known: another buyer or amount, a refund, a cancellation change nothing yet."""
    log = log_of(sessions, config)
    await log.apply([deed("order.paid", 1, "doudian:b1", order_id="o1", **AMOUNT)])
    await log.apply(
        [deed("order.enriched", 1, None, NOW + timedelta(hours=1), order_id="o1", buyer="doudian:b2", **AMOUNT)]
    )
    await log.apply(
        [deed("order.paid", 2, "doudian:b1", NOW + timedelta(hours=2), order_id="o1", amount_minor=9, currency="CNY")]
    )
    await log.apply([deed("order.refunded", 1, "doudian:b1", order_id="o1", refund_id="r1", **AMOUNT)])
    assert await rows(sessions, ENTRIES, "subject, points") == [("doudian:b1", 20)]
    await check_ledger(sessions)


async def test_what_is_too_small_or_in_other_money_earns_nothing(sessions: Sessions, config: ConfigFile) -> None:
    async with sessions() as session, session.begin():
        rule = parse_rule(
            '{"kind": "fixed", "event_type": "order.paid", "points": 7,'
            ' "min_amount": {"amount_minor": 1000, "currency": "CNY"}}'
        )
        await put_rule(session, "demo", "order_paid", rule, NOW - timedelta(days=9), None, NOW, "test")
        await put_rule(session, "demo", "per_yuan", PER_YUAN, NOW - timedelta(days=9), None, NOW, "test")
    amounts = {"o1": (999, "CNY"), "o2": (1000, "CNY"), "o3": (5000, "USD"), "o4": (99, "CNY"), "o5": (0, "CNY")}
    await log_of(sessions, config).apply(
        [
            deed("order.paid", order, order_id=order, amount_minor=amount, currency=currency)
            for order, (amount, currency) in amounts.items()
        ]
    )
    assert await rows(sessions, ENTRIES, "reference, rule, points") == [
        ("doudian/o1", "per_yuan", 18),
        ("doudian/o2", "order_paid", 7),
        ("doudian/o2", "per_yuan", 20),
    ]
