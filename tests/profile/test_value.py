"""The value portrait: the same for any order of arrival, at any instant, and over all subjects of a user."""

from datetime import datetime, timedelta
from typing import Any

import httpx
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from services.profile.main import SERVICE
from tests.profile.conftest import KEY
from tests.support.folding import NOW, Log, arrivals, empty

START = NOW - timedelta(days=60)


def order(
    kind: str, number: int, day: float, amount: int | None = None, subject: str | None = "douyin:u1", **data: Any
) -> AnyEvent:
    money = {} if amount is None else {"amount_minor": amount, "currency": data.pop("currency", "CNY")}
    return new_event(
        f"order.{kind}",
        account="demo",
        source="/shop",
        id=f"{kind}-{number}-{day}-{subject}",
        subject=subject,
        platform="doudian",
        time=START + timedelta(days=day),
        received=NOW,
        data={"order_id": f"o{number}", **money, **data},
    )


async def value(app: FastAPI, ref: str, as_of: datetime | None = None) -> dict[str, Any]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        parameters = {} if as_of is None else {"as_of": as_of.isoformat()}
        response = await client.get(f"/v1/users/{ref}/value", params=parameters)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        page = (await client.get("/v1/users", params={"limit": 1000})).json()["items"]
        listed = next(user["value"] for user in page if ref in user["subjects"])
        assert (await client.get(f"/v1/users/{ref}")).json()["value"] == listed
        if as_of is None:
            assert {name: answer[name] for name in listed} == listed
        return answer


@st.composite
def purchases(draw: st.DrawFn) -> list[AnyEvent]:
    """Each order is paid once, whole or thin and looked up later, and refunded at most twice."""
    events: list[AnyEvent] = []
    for number in range(draw(st.integers(1, 4))):
        day, amount = draw(st.integers(0, 20)), draw(st.integers(0, 300))
        currency = draw(st.sampled_from(["CNY", "USD"]))
        if draw(st.booleans()):
            events.append(order("paid", number, day, amount, currency=currency))
        else:
            events.append(order("paid", number, day, subject=None))
            found = {"buyer": "douyin:u1", "currency": currency}
            events.append(order("enriched", number, 30, amount, subject="douyin:u1", **found))
        for refund in range(draw(st.integers(0, 2))):
            back = {"refund_id": f"r{number}-{refund}", "currency": currency}
            events.append(
                order("refunded", number, draw(st.integers(day, 40)) + refund / 10, draw(st.integers(0, 300)), **back)
            )
    if draw(st.booleans()):
        data = {"refund_id": "loose", "order_id": None}
        events.append(order("refunded", 9, draw(st.integers(0, 40)), 50, **data))
    return events


def model(events: list[AnyEvent], as_of: datetime | None) -> dict[str, tuple[int, ...]]:
    """(orders, refunded in full, gross, refunds, refunded) by currency, said in the plainest way."""
    known: Any = events
    by_currency: dict[str, list[int]] = {}
    for paid in (event for event in known if event.type == "order.paid"):
        number = paid.data.order_id
        told = next(e for e in known if e.data.order_id == number and e.type != "order.refunded" and e.data.currency)
        if as_of and paid.time > as_of:
            continue
        refunds = [e for e in known if e.type == "order.refunded" and e.data.order_id == number]
        refunds = [e.data.amount_minor for e in refunds if not as_of or e.time <= as_of]
        gross = told.data.amount_minor
        back = min(sum(refunds), gross)
        row = by_currency.setdefault(told.data.currency, [0] * 5)
        more = (1, gross > 0 and back == gross, gross, len(refunds), back)
        row[:] = [a + b for a, b in zip(row, more, strict=True)]
    for loose in (event for event in known if event.type == "order.refunded" and event.data.order_id is None):
        if not as_of or loose.time <= as_of:
            row = by_currency.setdefault(loose.data.currency, [0] * 5)
            row[3:] = [row[3] + 1, row[4] + loose.data.amount_minor]
    return {currency: tuple(row) for currency, row in by_currency.items()}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), events=purchases())
async def test_any_order_of_arrival(
    database: Sessions, config: ConfigFile, data: st.DataObject, events: list[AnyEvent]
) -> None:
    await empty(database)
    log = Log("profile", database, SERVICE.make_handler(config.account), SERVICE.keep_data)
    for batch in data.draw(arrivals(events)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    app = SERVICE.build_app(config, database)
    if not any(event.subject for event in events):
        return
    for as_of in (None, START + timedelta(days=data.draw(st.integers(0, 41)))):
        found = await value(app, "douyin:u1", as_of)
        names = ("orders", "refunded_orders", "gross_minor", "refunds", "refunded_minor")
        assert {row["currency"]: tuple(row[name] for name in names) for row in found["currencies"]} == model(
            events, as_of
        )
        for row in found["currencies"]:
            assert row["net_minor"] == row["gross_minor"] - row["refunded_minor"]
        times = [e.time for e in events if e.type == "order.paid" and (as_of is None or e.time <= as_of)]
        assert found["orders"] == len(times)
        assert found["first_order"] == (min(times).isoformat().replace("+00:00", "Z") if times else None)
        assert found["last_order"] == (max(times).isoformat().replace("+00:00", "Z") if times else None)
        days = {time.date() for time in times}  # noon in UTC is the same day in Shanghai
        gaps = [b - a for a, b in zip(sorted(days), sorted(days)[1:], strict=False)]
        expected = round(sum(gap.days for gap in gaps) / len(gaps), 2) if gaps else None
        assert found["days_between_orders"] == expected


async def test_both_subjects_of_a_user_and_nobody(app: FastAPI, api: httpx.AsyncClient, log: Log) -> None:
    await log.apply([order("paid", 1, 0, 100), order("paid", 2, 3, 51, "wechat.x:u2"), order("created", 3, 4, 7)])
    await log.apply([order("paid", 4, 5, subject=None)])
    await api.post(
        "/v1/links", json={"subjects": ["douyin:u1", "wechat.x:u2"], "evidence": "order", "reason": "same address"}
    )
    found = await value(app, "wechat.x:u2")
    (money,) = found["currencies"]
    assert (found["orders"], money["gross_minor"], money["average_minor"]) == (2, 151, 76)
    assert (found["days_between_orders"], found["orders_without_amount"]) == (3.0, 0)
    assert (await api.get("/v1/users/douyin:nobody/value")).status_code == 404
    await log.apply([order("enriched", 4, 6, subject="new:one", buyer="new:one", amount=1, paid_at=None)])
    assert (await value(app, "new:one"))["currencies"][0]["gross_minor"] == 1
