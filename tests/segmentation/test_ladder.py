"""The ladder and links: any order, repetition and split of the events gives the same rungs, lifecycles and groups."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.db import Sessions
from libs.common.events import ACTIVE_TYPES, AnyEvent
from libs.common.identity import user_id_of
from libs.common.rebuild import rebuild
from services.segmentation.consumer import keep_data, make_handler
from services.segmentation.domain.ladder import RUNGS, Facts, Step, stand
from services.segmentation.domain.lifecycle import lifecycle
from services.segmentation.jobs import FACTS
from services.segmentation.store.ladder import count_rungs, page_rung, read_facts
from tests.segmentation.conftest import account_of
from tests.segmentation.support import deed, event, linked, notices, told
from tests.support.folding import NOW, Log, arrivals, empty, rows

PAIR = ("douyin:u1", "wechat:u1")
SUBJECTS = (*PAIR, "douyin:u2")
OWN = {subject: user_id_of("demo", subject) for subject in SUBJECTS}
U1, W1, U2 = OWN.values()
ZONE = account_of("demo").zone
INTERACTIONS = {"like", "comment", "share", "message", "sign_in", "live.gift", "live.fanclub", "survey.answered"}


def paid(id: str, ago: float, amount: int = 10, **more: Any) -> AnyEvent:  # noqa: A002
    more = {"order_id": "o1", "currency": "CNY", **more}
    return deed(id, ago, "order.paid", amount_minor=amount, **more)


def refunded(id: str, ago: float, amount: int = 10, **more: Any) -> AnyEvent:  # noqa: A002
    more = {"order_id": "o1", "currency": "CNY", **more}
    return deed(id, ago, "order.refunded", amount_minor=amount, refund_id=f"r{id}", **more)


# --- the pure rule


@pytest.mark.parametrize(
    ("facts", "rung"),
    [
        (Facts(), "none"),
        (Facts(first_seen=NOW), "visitor"),
        (Facts(first_seen=NOW, followings=((NOW, "/t", "a", "s", True),)), "fan"),
        (Facts(followings=((NOW, "/t", "b", "s", False), (NOW, "/t", "a", "s", True))), "none"),
        (Facts(followings=((NOW, "/t", "a", "s", True), (NOW, "/t", "b", "other", False))), "fan"),
        (Facts(first_interaction=NOW, followings=((NOW, "/t", "a", "s", True),)), "user"),
        (Facts(payments=((NOW, "CNY", 1),)), "customer"),
        (Facts(first_interaction=NOW, payments=((NOW, "CNY", 1), (NOW, "CNY", -1))), "user"),
        (Facts(payments=((NOW, "CNY", -9), (NOW, "USD", 1))), "customer"),
        (Facts(payments=((NOW, None, 5), (NOW, "CNY", 0))), "none"),
    ],
)
def test_the_highest_rung_that_holds(facts: Facts, rung: str) -> None:
    assert stand(facts).rung == rung
    assert stand(facts, NOW).rung == rung
    assert stand(facts, NOW - timedelta(microseconds=1)) == stand(Facts())


def test_climbing_and_falling_back() -> None:
    def at(hours: int) -> datetime:
        return NOW + timedelta(hours=hours)

    facts = Facts(
        first_seen=at(0),
        first_interaction=at(6),
        followings=((at(5), "/t", "b", "s", False), (at(1), "/t", "a", "s", True)),
        payments=((at(7), "CNY", 100), (at(8), "CNY", -40), (at(9), "CNY", -60)),
    )
    steps = [("visitor", 0), ("fan", 1), ("visitor", 5), ("user", 6), ("customer", 7), ("user", 9)]
    assert stand(facts).steps == [Step(rung, at(hours)) for rung, hours in steps]  # type: ignore[arg-type]
    for hours in range(10):
        standing = stand(facts, at(hours))
        assert (standing.rung, standing.since) == [(rung, at(h)) for rung, h in steps if h <= hours][-1]
    assert stand(facts, at(8)).net_minor == {"CNY": 60}


# --- the database


def rung_by_the_book(events: Sequence[AnyEvent], subjects: Sequence[str], until: datetime) -> str:
    """The definition, sentence by sentence; each order and each refund has one event only."""
    mine = [e for e in events if e.time <= until and e.subject in subjects]
    net: dict[str, int] = {}
    refunds: list[Any] = [e for e in events if e.type == "order.refunded" and e.time <= until]
    for e in mine:
        order: Any = e.data
        if e.type == "order.paid":
            back = sum(r.data.amount_minor for r in refunds if r.data.order_id == order.order_id)
            net["CNY"] = net.get("CNY", 0) + max(order.amount_minor - back, 0)
        if e.type == "order.refunded" and order.order_id is None:
            net["CNY"] = net.get("CNY", 0) - order.amount_minor
    if any(amount > 0 for amount in net.values()):
        return "customer"
    if any(e.type in INTERACTIONS for e in mine):
        return "user"
    for subject in subjects:
        follows = [e for e in mine if e.subject == subject and e.type in ("follow", "unfollow")]
        if follows and max(follows, key=lambda e: (e.time, e.source, e.id)).type == "follow":
            return "fan"
    today = until.astimezone(ZONE).date()
    if any(
        e.type in ACTIVE_TYPES and e.subject in subjects and e.time.astimezone(ZONE).date() <= today for e in events
    ):
        return "visitor"
    return "none"


deeds = st.lists(
    st.tuples(
        st.sampled_from(["follow", "unfollow", "view", "like", "survey.answered", "paid", "paid", "refund", "refund"]),
        st.sampled_from(SUBJECTS),
        st.sampled_from([0.0, 0.5, 1.0, 8.0, 9.0, 17.0, 40.0]),
        st.integers(0, 3),
    ),
    max_size=10,
)
DATA: dict[str, dict[str, Any]] = {
    "view": {"content_id": "c", "watch_ms": 1, "duration_ms": 2},
    "survey.answered": {"survey_id": "s", "answers": []},
}
GROUPS: list[tuple[list[AnyEvent], dict[str, tuple[str, ...]]]] = [
    ([], {OWN[subject]: (subject,) for subject in SUBJECTS}),
    ([linked(1, *PAIR)], {U1: PAIR, U2: ("douyin:u2",)}),
    ([linked(1, *PAIR), linked(2, PAIR[0]), linked(3, PAIR[1])], {OWN[subject]: (subject,) for subject in SUBJECTS}),
    ([linked(1, *PAIR), linked(2, "douyin:u2", *PAIR)], {U2: SUBJECTS}),
]


def make(number: int, drawn: tuple[str, str, float, int]) -> AnyEvent:
    kind, subject, ago, n = drawn
    if kind == "paid":
        return paid(f"e{number}", ago, n, subject=subject, order_id=f"o{number}")
    if kind == "refund":
        return refunded(f"e{number}", ago, n, subject=subject, order_id=None if n == 3 else f"o{number - 1 - n}")
    return deed(f"e{number}", ago, kind, subject, **DATA.get(kind, {}))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), deeds, st.sampled_from(GROUPS))
async def test_any_order_repetition_and_split(
    sessions: Sessions,
    data: st.DataObject,
    drawn: list[tuple[str, str, float, int]],
    group: tuple[list[AnyEvent], dict[str, tuple[str, ...]]],
) -> None:
    events = [make(number, one) for number, one in enumerate(drawn)]
    links, users = group
    await empty(sessions)
    log = Log("segmentation", sessions, make_handler(account_of), keep_data)
    for number, batch in enumerate(data.draw(arrivals([*events, *links]))):
        await log.apply(batch, partition=number % 2)
    assert await rows(sessions, "dead_letter", "reason") == []

    today = NOW.astimezone(ZONE).date()
    wanted = {}
    for user, subjects in users.items():
        days = {e.time.astimezone(ZONE).date() for e in events if e.subject in subjects and e.type in ACTIVE_TYPES}
        wanted[user] = (lifecycle(days, today).state, rung_by_the_book(events, subjects, NOW))
    lifecycles = dict(await rows(sessions, "lifecycle_state", "user_id, state"))
    rungs = dict(await rows(sessions, "ladder_state", "user_id, state"))
    for user in OWN.values():
        state, rung = wanted.get(user, ("none", "none"))
        assert (lifecycles.get(user, "none"), rungs.get(user, "none")) == (state, rung)
        await check_chain(sessions, user, "lifecycle", state)
        await check_chain(sessions, user, "ladder", rung)

    for ago in (-1.0, 0.25, 8.5, 41.0):
        await check_as_of(sessions, events, users, NOW - timedelta(days=ago))
    assert (await rebuilt(sessions)) == (0, 0)


async def check_chain(sessions: Sessions, user: str, layering: str, state: str) -> None:
    """No revision missing or twice, left what was entered, the last one tells where he is."""
    moves = await notices(sessions, user, layering)
    assert [notice["data"]["revision"] for notice in moves] == list(range(1, len(moves) + 1))
    directions = ["segment.entered" if n % 2 == 0 else "segment.left" for n in range(len(moves))]
    assert [notice["type"] for notice in moves] == directions
    assert all(
        entered["data"]["segment"] == left["data"]["segment"]
        for entered, left in zip(moves[::2], moves[1::2], strict=False)
    )
    assert [n for n, notice in enumerate(moves) if notice["data"]["initial"]] == ([0] if moves else [])
    now_in = moves[-1]["data"]["segment"] if moves and moves[-1]["type"] == "segment.entered" else f"{layering}.none"
    assert now_in == f"{layering}.{state}"


async def check_as_of(
    sessions: Sessions, events: Sequence[AnyEvent], users: dict[str, tuple[str, ...]], as_of: datetime
) -> None:
    day = as_of.astimezone(ZONE).date()
    wanted = {user: rung_by_the_book(events, subjects, as_of) for user, subjects in users.items()}
    async with sessions() as session:
        facts = await read_facts(session, [("demo", user) for user in users], lambda _: ZONE)
        for user, rung in wanted.items():
            assert stand(facts.get(("demo", user), Facts()), as_of).rung == rung
        sizes = await count_rungs(session, "demo", as_of, day)
        for rung in RUNGS[1:]:
            there = sorted(user for user, his in wanted.items() if his == rung)
            assert sizes.get(rung, 0) == len(there)
            assert await page_rung(session, "demo", rung, as_of, day, "", 10) == there
            assert (
                await page_rung(session, "demo", rung, as_of, day, "usr_h", 1) == [u for u in there if u > "usr_h"][:1]
            )


async def rebuilt(sessions: Sessions) -> tuple[int, int]:
    """(rows of facts, moves) that a rebuild changes."""
    url = sessions.kw["bind"].url.set(drivername="postgresql").render_as_string(hide_password=False)
    done = await rebuild(url, FACTS, account_of, NOW)
    return sum(done.changed.values()), done.announced


# --- what is told


async def test_up_and_down_the_ladder(sessions: Sessions, log: Log) -> None:
    await log.apply([event("1", 5, type="view")])
    await log.apply([event("2", 4, type="follow")])
    await log.apply([event("3", 3)])
    await log.apply([paid("4", 2)])
    await log.apply([refunded("5", 1)])
    assert [told(notice) for notice in await notices(sessions, layering="ladder")] == [
        ("segment.entered", "ladder.visitor", 1, "event", True),
        ("segment.left", "ladder.visitor", 2, "event", False),
        ("segment.entered", "ladder.fan", 3, "event", False),
        ("segment.left", "ladder.fan", 4, "event", False),
        ("segment.entered", "ladder.user", 5, "event", False),
        ("segment.left", "ladder.user", 6, "event", False),
        ("segment.entered", "ladder.customer", 7, "event", False),
        ("segment.left", "ladder.customer", 8, "event", False),
        ("segment.entered", "ladder.user", 9, "event", False),
    ]
    last = (await notices(sessions, layering="ladder"))[-1]
    assert last["data"]["since"] == "2026-06-14T12:00:00Z"


async def test_the_buyer_of_a_thin_order_is_found_and_corrected(sessions: Sessions, log: Log) -> None:
    thin = deed("1", 3, "order.paid", subject=None, order_id="o1")
    await log.apply([thin])
    assert await notices(sessions, layering="ladder") == []
    found: dict[str, Any] = {"order_id": "o1", "amount_minor": 5, "currency": "CNY"}
    await log.apply([deed("2", 2, "order.enriched", subject=None, backfill=True, buyer="douyin:u2", **found)])
    (notice,) = await notices(sessions, layering="ladder")
    assert told(notice) == ("segment.entered", "ladder.customer", 1, "event", True)
    assert (notice["subject"], notice["backfill"]) == ("douyin:u2", True)
    assert notice["data"]["since"] == "2026-06-12T12:00:00Z", "from the payment on"
    await log.apply([deed("3", 1, "order.enriched", subject=None, buyer=PAIR[0], **found)])
    assert [told(notice)[:2] for notice in (await notices(sessions, layering="ladder"))[1:]] == [
        ("segment.entered", "ladder.customer"),
        ("segment.left", "ladder.customer"),
    ]


async def test_a_link_and_its_undoing(sessions: Sessions, log: Log) -> None:
    """Absorbed, he leaves his segments; taken apart again, both are where they were."""
    await log.apply([event("1", 20, type="follow", subject=PAIR[0]), paid("2", 1, subject=PAIR[1])])
    await log.apply([linked(1, *PAIR)])
    assert [(*told(n)[:2], told(n)[3]) for n in (await notices(sessions, W1))[1:]] == [
        ("segment.left", "lifecycle.new", "merged")
    ]
    assert [(*told(n)[:2], told(n)[3]) for n in (await notices(sessions, U1))[1:]] == [
        ("segment.left", "lifecycle.dormant", "merged"),
        ("segment.entered", "lifecycle.returned", "merged"),
    ]
    assert [(*told(n)[:2], told(n)[3]) for n in (await notices(sessions, U1, "ladder"))[1:]] == [
        ("segment.left", "ladder.fan", "merged"),
        ("segment.entered", "ladder.customer", "merged"),
    ]
    await log.apply([event("3", 0, subject=PAIR[1])])
    await log.apply([linked(2, PAIR[0]), linked(3, PAIR[1])])
    states = dict(await rows(sessions, "lifecycle_state", "user_id, state"))
    rungs = dict(await rows(sessions, "ladder_state", "user_id, state"))
    assert (states[U1], states[W1], rungs[U1], rungs[W1]) == ("dormant", "new", "fan", "customer")
    last = (await notices(sessions, W1, "ladder"))[-1]
    assert (*told(last)[:2], *told(last)[3:]) == ("segment.entered", "ladder.customer", "merged", False)
    assert await rows(sessions, "lifecycle_state where state <> 'none' and flips_on is null", "user_id") == []
