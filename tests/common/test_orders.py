"""Orders: the pure fold, and the same against PostgreSQL, for any order, repetition and split of the events."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData, text

from libs.common.db import Sessions, make_engine, make_sessions
from libs.common.events import AnyEvent, new_event
from libs.common.events.orders import OrderData
from libs.common.orders import (
    ORDER_TYPES,
    Contribution,
    Order,
    Refund,
    add_order_tables,
    domain,
    fold_orders,
    read_paid,
)
from libs.common.orders.store import Folded
from tests.support.folding import arrivals, empty
from tests.support.postgres import TestServer

START = datetime(2026, 3, 1, tzinfo=UTC)
BUYERS = ("shop:u1", "shop:u2")


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def order_event(
    kind: str,
    id: str,  # noqa: A002
    hours: float = 0,
    *,
    subject: str | None = "shop:u1",
    amount: int | None = 1000,
    currency: str = "CNY",
    platform: str | None = "shop",
    account: str = "demo",
    **data: Any,
) -> AnyEvent:
    """An event of the order o1 unless `order_id` says otherwise; without a subject and an amount it is a thin one."""
    money = {} if amount is None else {"amount_minor": amount, "currency": currency}
    return new_event(
        f"order.{kind}",
        account=account,
        source="/shop",
        id=id,
        subject=subject,
        platform=platform,
        time=at(hours),
        received=at(hours),
        data={"order_id": "o1", **money, **data},
    )


def state(*events: AnyEvent) -> Order:
    """The order o1 after `events`, with its refunds."""
    orders, refunds = domain.fold(events)
    order = orders["demo", "shop", "o1"]
    mine = tuple(refund for _, refund in sorted(refunds.items()) if refund.order_key == order.key)
    return Order(**{name: getattr(order, name) for name in Order.__slots__ if name != "refunds"}, refunds=mine)


def net(order: Order, hours: float | None = None) -> int | None:
    brought = order.contribution(None if hours is None else at(hours))
    return None if brought is None else brought.net_minor


def test_a_paid_order() -> None:
    order = state(order_event("created", "1"), order_event("paid", "2", 1), order_event("shipped", "3", 2, amount=7))
    assert (order.status, order.buyer, order.paid_time, order.amount_minor) == ("shipped", "shop:u1", at(1), 1000)
    assert order.contribution() == Contribution("CNY", 1000, 0, at(1))
    assert order.contribution(at(0.9)) is None
    assert state(order_event("created", "1"), order_event("shipped", "3", 2)).contribution() is None


def test_paid_at_and_a_corrected_amount() -> None:
    events = [
        order_event("paid", "1", 5, amount=700, paid_at=at(3).isoformat()),
        order_event("paid", "2", 6, amount=900, currency="USD"),
    ]
    for arrived in (events, events[::-1]):
        order = state(*arrived)
        assert order.contribution(at(3)) == Contribution("USD", 900, 0, at(3))
        assert order.contribution(at(2.9)) is None


def test_a_cancelled_order_follows_the_money() -> None:
    assert state(order_event("created", "1"), order_event("cancelled", "2", 1)).contribution() is None
    order = state(order_event("paid", "1"), order_event("cancelled", "2", 1))
    assert (order.status, net(order)) == ("cancelled", 1000)
    order = state(
        order_event("paid", "1"), order_event("cancelled", "2", 1), order_event("refunded", "3", 1, refund_id="r")
    )
    brought = order.contribution()
    assert brought is not None
    assert (brought.net_minor, brought.counts) == (0, False)


def test_refunds_lower_an_order_to_nothing_at_most() -> None:
    paid = order_event("paid", "1", 1)
    first = order_event("refunded", "2", 2, refund_id="a", amount=300)
    again = order_event("refunded", "3", 3, refund_id="a", amount=350)
    rest = order_event("refunded", "4", 4, refund_id="b", amount=800)
    dollars = order_event("refunded", "5", 4, refund_id="c", amount=800, currency="USD")
    order = state(rest, first, paid, dollars, again)
    assert [net(order, hours) for hours in (0, 1, 2, 3, 4)] == [None, 1000, 650, 650, 0]
    assert order.movements() == [(at(1), 1000), (at(2), -350), (at(4), -650)]
    partly = state(paid, first).contribution()
    assert partly is not None
    assert partly.counts


def test_a_refund_before_its_payment() -> None:
    order = state(order_event("refunded", "1", 0, refund_id="r", amount=400), order_event("paid", "2", 2))
    assert [net(order, hours) for hours in (1, 2)] == [None, 600]
    assert order.movements() == [(at(2), 1000), (at(2), -400)]
    assert net(state(order_event("refunded", "1", 0, refund_id="r", amount=400))) is None


def test_an_order_for_nothing_counts() -> None:
    brought = state(order_event("paid", "1", amount=0)).contribution()
    assert brought is not None
    assert (brought.net_minor, brought.counts) == (0, True)


def test_a_thin_order_gets_buyer_and_amount_by_a_look_up() -> None:
    thin = order_event("paid", "1", 1, subject=None, amount=None)
    order = state(thin)
    assert (order.buyer, order.contribution()) == (None, Contribution(None, 0, 0, at(1)))
    found = order_event("enriched", "2", 9, subject=None, amount=500, buyer="shop:u2")
    order = state(found, thin)
    assert (order.buyer, order.contribution()) == ("shop:u2", Contribution("CNY", 500, 0, at(1)))
    later = order_event("completed", "3", 20, subject="shop:u1", amount=1)
    assert state(later, found, thin).buyer == "shop:u2", "a look-up is believed before the subject of an event"


def test_other_events_and_those_without_content_say_nothing() -> None:
    bare = order_event("paid", "1")
    bare.data = OrderData.model_construct()  # type: ignore[call-arg]
    assert domain.fold([bare]) == ({}, {})


# Few orders and refunds, equal times: so that they meet.
order_events = st.builds(
    order_event,
    st.sampled_from(["created", "paid", "paid", "cancelled", "completed"]),
    st.just("e"),
    st.integers(0, 3),
    subject=st.sampled_from(BUYERS),
    amount=st.sampled_from([0, 5, 7]),
    currency=st.sampled_from(["CNY", "USD"]),
    platform=st.sampled_from(["shop", None]),
    order_id=st.sampled_from(["o1", "o2"]),
)
thin_events = st.builds(
    order_event,
    st.sampled_from(["created", "paid"]),
    st.just("e"),
    st.integers(0, 3),
    subject=st.none(),
    amount=st.none(),
    order_id=st.sampled_from(["o1", "o2"]),
)
look_ups = st.builds(
    order_event,
    st.just("enriched"),
    st.just("e"),
    st.integers(0, 3),
    subject=st.none(),
    amount=st.sampled_from([3, 9]),
    buyer=st.sampled_from(BUYERS),
    order_id=st.sampled_from(["o1", "o2"]),
)
refund_events = st.builds(
    order_event,
    st.just("refunded"),
    st.just("e"),
    st.integers(0, 3),
    subject=st.sampled_from(BUYERS),
    amount=st.sampled_from([0, 2, 5]),
    currency=st.sampled_from(["CNY", "CNY", "USD"]),
    platform=st.sampled_from(["shop", None]),
    order_id=st.sampled_from([None, "o1", "o2"]),
    refund_id=st.sampled_from(["r1", "r2"]),
)
histories = st.lists(st.one_of(order_events, thin_events, look_ups, refund_events), max_size=10).map(
    lambda events: [event.model_copy(update={"id": f"e{n}"}) for n, event in enumerate(events)]
)


def model(events: Sequence[AnyEvent]) -> dict[tuple[str, str | None], int]:
    """Net amount by buyer and currency, told without any merging."""
    seen = sorted(events, key=lambda event: (event.time, event.source, event.id))
    data: list[tuple[AnyEvent, Any]] = [(event, event.data) for event in seen]
    order_of = {}
    for event, said in sorted(data, key=lambda pair: pair[1].order_id or ""):
        if event.type == "order.refunded" and said.order_id:
            order_of[event.platform, said.refund_id] = said.order_id
    last = {(event.platform, said.refund_id): (event, said) for event, said in data if event.type == "order.refunded"}
    sums: dict[tuple[str, str | None], int] = {}
    for (platform, refund_id), (event, said) in last.items():
        if (platform, refund_id) not in order_of:
            assert event.subject
            sums[event.subject, said.currency] = sums.get((event.subject, said.currency), 0) - said.amount_minor
    for platform, order_id in {(event.platform, said.order_id) for event, said in data if said.order_id}:
        mine = [(event, said) for event, said in data if (event.platform, said.order_id) == (platform, order_id)]
        if all(event.type != "order.paid" for event, _ in mine):
            continue
        found = [said.buyer for event, said in mine if event.type == "order.enriched"]
        placed = [event.subject for event, _ in mine if event.subject and event.type != "order.refunded"]
        buyer = (found or placed or [event.subject for event, _ in mine if event.subject] or [None])[-1]
        priced = [
            (event, said) for event, said in mine if said.amount_minor is not None and event.type != "order.refunded"
        ]
        ranked = [
            [said for event, said in priced if event.type == kind] for kind in ("order.paid", "order.enriched")
        ] + [[said for _, said in priced]]
        price = next((group[-1] for group in ranked if group), None)
        if buyer is None or price is None:
            continue
        back = sum(
            said.amount_minor
            for key, (_, said) in last.items()
            if key[0] == platform and order_of.get(key) == order_id and said.currency == price.currency
        )
        sums[buyer, price.currency] = sums.get((buyer, price.currency), 0) + max(price.amount_minor - back, 0)
    return {key: value for key, value in sums.items() if value}


@given(st.data(), histories)
def test_the_pure_fold_knows_no_order(data: st.DataObject, events: list[AnyEvent]) -> None:
    whole = domain.fold(events)
    parts = [domain.fold(batch) for batch in data.draw(arrivals(events))]
    orders: dict[Any, list[Order]] = {}
    refunds: dict[Any, list[Refund]] = {}
    for some_orders, some_refunds in parts:
        for key, order in some_orders.items():
            orders.setdefault(key, []).append(order)
        for refund_key, refund in some_refunds.items():
            refunds.setdefault(refund_key, []).append(refund)
    assert {key: reduce(domain.merge, found) for key, found in orders.items()} == whole[0]
    assert {key: reduce(domain.merge_refunds, found) for key, found in refunds.items()} == whole[1]


@pytest.fixture(scope="module")
async def database(pg_server: TestServer) -> AsyncIterator[Sessions]:
    url = await pg_server.create_database()
    engine = make_engine(url, 4)
    metadata = MetaData()
    add_order_tables(metadata)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield make_sessions(engine)
    await engine.dispose()
    await pg_server.drop_database(url)


async def apply(sessions: Sessions, *events: AnyEvent) -> Folded:
    async with sessions() as session, session.begin():
        return await fold_orders(session, events)


async def sums(sessions: Sessions, as_of: datetime | None = None) -> dict[tuple[str, str | None], int]:
    async with sessions() as session:
        found = await read_paid(session, [("demo", buyer) for buyer in BUYERS], as_of)
    totals: dict[tuple[str, str | None], int] = {}
    for (_, buyer), bought in found.items():
        for order in bought.orders:
            brought = order.contribution(as_of)
            assert brought is not None
            assert sum(moved for time, moved in order.movements() if not as_of or time <= as_of) == brought.net_minor
            totals[buyer, brought.currency] = totals.get((buyer, brought.currency), 0) + brought.net_minor
        for refund in bought.refunds:
            key = (buyer, refund.currency)
            totals[key] = totals.get(key, 0) - (refund.amount_minor or 0)
    return {key: value for key, value in totals.items() if value}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), histories)
async def test_the_tables_know_no_order(database: Sessions, data: st.DataObject, events: list[AnyEvent]) -> None:
    await empty(database)
    orders: dict[Any, Order | None] = {}
    refunds: dict[Any, Refund | None] = {}
    for batch in data.draw(arrivals(events)):
        folded = await apply(database, *batch)
        for change in folded.orders:
            assert orders.get(change.after.key) == change.before
            assert change.before != change.after
            orders[change.after.key] = change.after
        for before, after in folded.refunds:
            assert refunds.get(after.key) == before
            refunds[after.key] = after
    assert await sums(database) == model(events)
    whole = domain.fold(events)
    for key, refund in refunds.items():
        assert refund == whole[1][key]
    async with database() as session:
        found = await read_paid(session, [("demo", buyer) for buyer in BUYERS])
    assert {order.key for bought in found.values() for order in bought.orders} == {
        order.key for order in whole[0].values() if order.paid_time and order.buyer
    }
    assert all(orders[order.key] == order for bought in found.values() for order in bought.orders)
    # Nothing of it is news a second time.
    assert await apply(database, *events) == Folded()


async def test_as_of(database: Sessions) -> None:
    await empty(database)
    await apply(
        database,
        order_event("paid", "1", 1),
        order_event("refunded", "2", 3, refund_id="a", amount=300),
        order_event("refunded", "3", 5, refund_id="b", amount=50, order_id=None),
    )
    nets = [(await sums(database, at(hours))).get(("shop:u1", "CNY")) for hours in (0.9, 1, 2.9, 3, 4.9, 5)]
    assert nets == [None, 1000, 1000, 700, 700, 650]


async def test_who_is_touched(database: Sessions) -> None:
    await empty(database)
    thin = order_event("paid", "1", 1, subject=None, amount=None)
    assert (await apply(database, thin)).subjects() == set()
    found = await apply(database, order_event("enriched", "2", 2, subject=None, buyer="shop:u1"))
    assert found.subjects() == {("demo", "shop:u1")}
    moved = await apply(database, order_event("enriched", "3", 3, subject=None, buyer="shop:u2"))
    assert moved.subjects() == {("demo", "shop:u1"), ("demo", "shop:u2")}
    loose = await apply(database, order_event("refunded", "4", 4, refund_id="a", order_id=None, amount=1))
    assert loose.subjects() == {("demo", "shop:u1")}
    # The same refund, now with its order: it lowers that one, and no longer what its subject has paid in all.
    named = await apply(database, order_event("refunded", "5", 3, refund_id="a", subject=None, amount=None))
    assert named.subjects() == {("demo", "shop:u1"), ("demo", "shop:u2")}
    assert await sums(database) == {("shop:u2", "CNY"): 999}


async def test_transactions_of_one_order_wait_for_each_other(database: Sessions) -> None:
    await empty(database)
    events = [order_event("paid", f"p{n}", n, order_id=f"o{n % 3}", amount=n) for n in range(30)]
    events += [
        order_event("refunded", f"r{n}", n, order_id=f"o{n % 3}", refund_id=f"r{n}", amount=1) for n in range(12)
    ]
    rounds = [asyncio.create_task(apply(database, *events[n::4][:: 1 if n % 2 else -1])) for n in range(4)]
    await asyncio.gather(*rounds)
    assert await sums(database) == {("shop:u1", "CNY"): 27 + 28 + 29 - 12}
    async with database() as session:
        assert await session.scalar(text("select count(*) from order_state")) == 3


def test_the_types() -> None:
    assert "order.enriched" in ORDER_TYPES
    assert len(ORDER_TYPES) == 7
