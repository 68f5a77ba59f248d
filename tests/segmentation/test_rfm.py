"""Runs of RFM against a plain model, against independently computed answers on real orders, and over REST."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common import orders
from libs.common.config import Account, ConfigFile, hash_key, make_key
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event, validate_event
from libs.common.identity import add_subjects, user_id_of
from services.segmentation.domain.rfm import NAMES, CutKind, Cuts
from services.segmentation.main import SERVICE
from services.segmentation.store import rfm as store
from services.segmentation.usecases.rfm import Question, run
from tests.segmentation.support import link
from tests.support.folding import NOW, empty
from tests.support.realdata import load_events, load_expected

LONDON = Account("london", ZoneInfo("Europe/London"), "GBP", "shop", "user")
# The hour that London skips and the one that comes twice lie in the days drawn.
AS_OF = datetime(2026, 3, 30, 11, tzinfo=UTC)


def order(
    id: str,  # noqa: A002
    hours_ago: float,
    amount: int | None = 10,
    *,
    type: str = "paid",  # noqa: A002
    subject: str | None = "shop:u1",
    currency: str = "GBP",
    account: str = "london",
    as_of: datetime = AS_OF,
    **data: Any,
) -> AnyEvent:
    money = {} if amount is None else {"amount_minor": amount, "currency": currency}
    return new_event(
        f"order.{type}",
        account=account,
        source="/shop",
        id=id,
        subject=subject,
        platform="shop",
        time=as_of - timedelta(hours=hours_ago),
        received=as_of,
        data={"order_id": f"o-{id}", **money, **data},
    )


async def fold(sessions: Sessions, events: Iterable[AnyEvent]) -> None:
    async with sessions() as session, session.begin():
        folded = await orders.fold_orders(session, events)
        await add_subjects(session, folded.subjects())


async def ask(sessions: Sessions, account: Account, question: Question) -> tuple[store.Run, dict[str, store.Score]]:
    async with sessions() as session, session.begin():
        made = await run(session, account, question, NOW)
        scores = await store.page_scores(session, account.name, made.version, None, "", 10**6)
    return made, {score.user_id: score for score in scores}


# --- against a plain model

USERS = {f"shop:u{n}": user_id_of("london", f"shop:u{n}") for n in range(1, 7)}
bought = st.lists(
    st.tuples(
        st.sampled_from(["paid", "paid", "paid", "refund", "loose", "thin"]),
        st.sampled_from(sorted(USERS)),
        st.sampled_from([0, 1, 5, 5, 9, 100]),
        st.sampled_from(["GBP", "GBP", "GBP", "USD"]),
        # Around the midnights of the week in which clocks change, around the ends of the windows, after the instant.
        st.one_of(st.integers(-3, 90), st.sampled_from([24 * 365 - 12, 24 * 365 + 12, 24 * 500])),
    ),
    min_size=1,
    max_size=14,
)
questions = st.tuples(
    st.sampled_from([None, 2, 3, 365]),
    st.sampled_from(["mean", "median", "fixed"]),
    st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(-5, 20)),
)


def model(drawn: Sequence[tuple[str, str, int, str, int]], window: int | None) -> dict[str, tuple[int, int, int]]:
    """(R, F, M) of each user who has paid an order in the window."""
    today = AS_OF.astimezone(LONDON.zone).date()

    def day_of(hours_ago: int) -> date | None:
        day = (AS_OF - timedelta(hours=hours_ago)).astimezone(LONDON.zone).date()
        return day if hours_ago >= 0 and (window is None or (today - day).days < window) else None

    last: dict[str, date] = {}
    count: dict[str, int] = defaultdict(int)
    spent: dict[str, int] = defaultdict(int)
    for number, (kind, subject, amount, currency, ago) in enumerate(drawn):
        day = day_of(ago)
        user = USERS[subject]
        if day is None:
            continue
        if kind == "loose" and currency == "GBP":
            spent[user] -= amount
        if kind in ("paid", "thin"):
            gross = amount if kind == "paid" else 0
            back = sum(
                other[2]
                for later, other in enumerate(drawn)
                if other[0] == "refund" and later - 1 == number and other[4] >= 0 and other[3] == currency
            )
            last[user] = max(last.get(user, day), day)
            count[user] += gross == 0 or back < gross
            if currency == "GBP" and kind == "paid":
                spent[user] += gross - min(back, gross)
    return {user: ((today - day).days, count[user], spent[user]) for user, day in last.items()}


def make(number: int, drawn: tuple[str, str, int, str, int]) -> AnyEvent:
    """A refund is of the order just before it."""
    kind, subject, amount, currency, ago = drawn
    if kind == "paid":
        return order(f"{number}", ago, amount, subject=subject, currency=currency)
    if kind == "thin":
        return order(f"{number}", ago, None, subject=None)
    order_id = f"o-{number - 1}" if kind == "refund" else None
    return order(
        f"{number}",
        ago,
        amount,
        type="refunded",
        subject=subject,
        currency=currency,
        order_id=order_id,
        refund_id=f"r{number}",
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bought, questions)
async def test_against_a_plain_model(
    sessions: Sessions,
    drawn: list[tuple[str, str, int, str, int]],
    question: tuple[int | None, CutKind, tuple[int, int, int]],
) -> None:
    window, cut, fixed = question
    await empty(sessions)
    events = [make(number, one) for number, one in enumerate(drawn)]
    # Who bought a thin order is found by a look-up that knows no amount.
    for number, (kind, subject, *_) in enumerate(drawn):
        if kind == "thin":
            events.append(
                order(f"found-{number}", 0, None, type="enriched", subject=None, order_id=f"o-{number}", buyer=subject)
            )
    await fold(sessions, events)
    cuts = Cuts(*map(Fraction, fixed)) if cut == "fixed" else None
    made, scores = await ask(sessions, LONDON, Question(AS_OF, window, cut, cuts))

    wanted = model(drawn, window)
    users = len(wanted)
    assert made.users == users
    assert {user: (s.r_days, s.f_orders, s.m_minor) for user, s in scores.items()} == wanted
    measures = list(zip(*wanted.values(), strict=True)) or [(), (), ()]
    if cuts is None:
        middle = [
            Fraction(0)
            if not users
            else Fraction(sum(v), users)
            if cut == "mean"
            else Fraction(median(map(Fraction, v)))
            for v in measures
        ]
    else:
        middle = [cuts.r_days, cuts.f_orders, cuts.m_minor]
    for user, values in wanted.items():
        r, f, m = values
        score = scores[user]
        assert (score.r_score, score.f_score, score.m_score) == (
            1 + 5 * sum(other > r for other in measures[0]) // users,
            1 + 5 * sum(other < f for other in measures[1]) // users,
            1 + 5 * sum(other < m for other in measures[2]) // users,
        )
        assert score.rfm_class == f"{r <= middle[0]:d}{f > middle[1]:d}{m > middle[2]:d}"
    for name, exact in zip(("r_days", "f_orders", "m_minor"), middle, strict=True):
        found = made.result["cuts"][name]
        assert Fraction(found["numerator"], found["denominator"]) == exact
    for position, name in enumerate("rfm"):
        for row in made.result["scores"][name]:
            mine = [s[1 + position] for s in scores.values() if s[4 + position] == row["score"]]
            assert (min(mine), max(mine), len(mine)) == (row["lowest"], row["highest"], row["users"])
    sizes = {row["rfm_class"]: row["users"] for row in made.result["classes"]}
    assert list(sizes) == list(NAMES)
    assert sum(sizes.values()) == users


# --- against independently computed answers


@pytest.mark.parametrize(
    ("name", "zone", "currency", "as_of"),
    [
        ("cdnow", "UTC", "USD", "1998-07-01T12:00:00Z"),
        ("retail", "Europe/London", "GBP", "2011-12-10T12:00:00Z"),
    ],
)
async def test_real_orders(sessions: Sessions, name: str, zone: str, currency: str, as_of: str) -> None:
    expected = {row["user"]: row for row in load_expected(f"rfm_{name}_dev_users")}
    events = [
        validate_event({**raw, "receivedtime": raw.get("receivedtime", raw["time"])}) for raw in load_events(name)
    ]
    for start in range(0, len(events), 2000):
        await fold(sessions, events[start : start + 2000])
    account = Account(name, ZoneInfo(zone), currency, name, "user")
    made, scores = await ask(sessions, account, Question(datetime.fromisoformat(as_of), None, "mean", None))
    found = {
        user: (s.r_days, s.f_orders, s.m_minor, s.r_score, s.f_score, s.m_score, s.rfm_class)
        for user in expected
        if (s := scores.get(user_id_of(name, f"{name}:{user}")))
    }
    numbers = ("R_days", "F_orders", "M_minor", "R", "F", "M")
    wanted = {user: (*(int(row[column]) for column in numbers), row["cls"]) for user, row in expected.items()}
    assert {user: (found.get(user), row) for user, row in wanted.items() if found.get(user) != row} == {}
    assert made.users == len(scores) == len(wanted)


# --- over REST

KEYS = {name: make_key(name, "secret") for name in ("writer", "reader", "stranger")}


@pytest.fixture
async def client(sessions: Sessions, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    file = tmp_path / "superfan.toml"
    file.write_text(
        '[accounts.london]\nzone = "Europe/London"\ncurrency = "GBP"\n[accounts.utc]\nzone = "UTC"\n'
        + "".join(
            f'[[keys]]\nid = "{name}"\naccount = "{account}"\nsha256 = "{hash_key(KEYS[name])}"\nscopes = {scopes}\n'
            for name, account, scopes in (
                ("writer", "london", '["segmentation:read", "segmentation:write"]'),
                ("reader", "london", '["segmentation:read"]'),
                ("stranger", "utc", '["segmentation:read"]'),
            )
        )
    )
    app = SERVICE.build_app(ConfigFile(file, "segmentation"), sessions)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers={"Authorization": f"Bearer {KEYS['writer']}"}
    ) as client:
        yield client


async def post(client: httpx.AsyncClient, body: Any = None, **headers: str) -> httpx.Response:
    return await client.post("/v1/rfm/runs", json=body, headers=headers)


async def get(client: httpx.AsyncClient, path: str, **params: str | int) -> Any:
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def test_runs_are_versions(client: httpx.AsyncClient, sessions: Sessions) -> None:
    await fold(
        sessions, [order("1", 100, 50), order("2", 50, 10, subject="shop:u2"), order("3", 90, 5, currency="USD")]
    )
    first = await post(client, {"as_of": AS_OF.isoformat(), "window_days": None}, **{"Idempotency-Key": "a"})
    assert first.status_code == 201, first.text
    body = first.json()
    assert {name: body[name] for name in ("version", "day", "zone", "currency", "window_days", "cut", "users")} == {
        "version": 1,
        "day": "2026-03-30",
        "zone": "Europe/London",
        "currency": "GBP",
        "window_days": None,
        "cut": "mean",
        "users": 2,
    }
    assert (body["previous"], body["migrations"], body["orders_in_other_currencies"]) == (None, [], 1)
    assert body["cuts"]["m_minor"] == {"value": 30.0, "numerator": 30, "denominator": 1}
    assert body["scores"]["m"] == [
        {"score": 1, "lowest": 10, "highest": 10, "users": 1},
        {"score": 3, "lowest": 50, "highest": 50, "users": 1},
    ]
    again = await post(client, {"as_of": AS_OF.isoformat(), "window_days": None}, **{"Idempotency-Key": "a"})
    assert (again.headers["Idempotent-Replayed"], again.json()) == ("true", body)

    await fold(sessions, [order("4", 1, 900, subject="shop:u2"), order("5", 2, 1, subject="shop:u3")])
    assert (await post(client, {"as_of": AS_OF.isoformat(), "cut": "median"})).json()["previous"] is None
    third = (await post(client, {"as_of": AS_OF.isoformat(), "window_days": None})).json()
    assert (third["version"], third["previous"]) == (3, 1)
    moves = {(row["class_from"], row["class_to"]): row["users"] for row in third["migrations"]}
    assert sum(moves.values()) == 3
    assert moves[None, "100"] == 1
    assert await get(client, "/v1/rfm/runs/1") == body, "a run stays as it was"

    listed = await get(client, "/v1/rfm/runs", limit=2)
    assert [item["version"] for item in listed["items"]] == [3, 2]
    rest = await get(client, "/v1/rfm/runs", limit=2, cursor=listed["next_cursor"])
    assert [item["version"] for item in rest["items"]] == [1]

    page = await get(client, "/v1/rfm/runs/3/users", limit=2)
    rest = await get(client, "/v1/rfm/runs/3/users", limit=2, cursor=page["next_cursor"])
    everybody = page["items"] + rest["items"]
    assert [item["user_id"] for item in everybody] == sorted(USERS[f"shop:u{n}"] for n in (1, 2, 3))
    for item in everybody:
        assert item["class_name"] == NAMES[item["rfm_class"]]
        same = await get(client, "/v1/rfm/runs/3/users", rfm_class=item["rfm_class"])
        assert item in same["items"]
    mine = await get(client, "/v1/users/shop:u2/rfm")
    assert {name: mine[name] for name in ("r_days", "f_orders", "m_minor")} == {
        "r_days": 0,
        "f_orders": 2,
        "m_minor": 910,
    }
    assert (mine["run"]["version"], mine["cuts"]) == (3, third["cuts"])
    assert (await get(client, "/v1/users/shop:u2/rfm", run=1))["m_minor"] == 10


async def test_a_run_knows_the_links_of_its_time(client: httpx.AsyncClient, sessions: Sessions) -> None:
    await fold(sessions, [order("1", 3, 50), order("2", 2, 10, subject="shop:u2")])
    question = {"as_of": AS_OF.isoformat()}
    assert (await post(client, question)).json()["users"] == 2
    await link(sessions, "london", USERS["shop:u2"], "shop:u1", "shop:u2", "shop:u9")
    assert (await get(client, "/v1/users/shop:u1/rfm", run=1))["m_minor"] == 10
    assert (await post(client, question)).json()["users"] == 1
    assert (await get(client, "/v1/users/shop:u1/rfm"))["m_minor"] == 60


async def test_nobody_has_bought(client: httpx.AsyncClient) -> None:
    body = (await post(client)).json()
    assert (body["users"], body["scores"]) == (0, {"r": [], "f": [], "m": []})
    assert {row["users"] for row in body["classes"]} == {0}
    assert (await get(client, "/v1/rfm/runs/1/users"))["items"] == []


async def test_what_is_refused(client: httpx.AsyncClient, sessions: Sessions) -> None:
    assert (await client.get("/v1/rfm/runs/1")).json()["code"] == "unknown_run"
    await fold(sessions, [order("1", 3, 50)])
    assert (await client.get("/v1/users/shop:u1/rfm")).json()["code"] == "unknown_run"
    fixed = {"r_days": 1, "f_orders": 0, "m_minor": 10}
    assert (await post(client, {"as_of": "2020-01-01T00:00:00Z", "cut": fixed})).json()["cut"] == "fixed"
    assert (await client.get("/v1/users/shop:u1/rfm")).json()["code"] == "not_scored"
    assert (await client.get("/v1/users/shop:nobody/rfm")).json()["code"] == "unknown_user"
    for body in ({"cut": "mode"}, {"window_days": 0}, {"as_of": "2026-01-01"}, {"days": 3}, {"cut": {"r_days": 1}}):
        assert (await post(client, body)).status_code == 422
    reader = await post(client, {}, Authorization=f"Bearer {KEYS['reader']}")
    assert (reader.status_code, reader.json()["code"]) == (403, "missing_scope")
    stranger = await client.get("/v1/rfm/runs/1", headers={"Authorization": f"Bearer {KEYS['stranger']}"})
    assert stranger.status_code == 404
    assert (await client.get("/v1/rfm/runs/0")).status_code == 422
    async with sessions() as session:
        assert await session.scalar(text("select count(*) from rfm_run")) == 1
