"""The demo's made-up fans."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import orjson

from libs.cli.demo import cdnow
from libs.cli.demo.cast import ROLES, Cast, Post
from libs.common.events import validate_event

TODAY = date(2026, 6, 1)
BEGIN = datetime(2026, 5, 31, 16, tzinfo=UTC)


def cast(seed: int = 1, fans: int = 40) -> Cast:
    return Cast(TODAY, BEGIN, fans, seed, "douyin", "CNY")


def bodies(posts: list[Post]) -> list[bytes]:
    return [post.webhook or orjson.dumps(post.event) for post in posts]


def test_day_and_seed_decide_everything() -> None:
    assert bodies(list(cast().posts())) == bodies(list(cast().posts()))
    assert not set(bodies(list(cast().posts()))) & set(bodies(list(cast(seed=2).posts())))


def test_nothing_is_sent_twice() -> None:
    sent = bodies(list(cast().posts()))
    assert len(set(sent)) == len(sent)


def test_events_are_valid_and_at_no_hour_of_the_day_from_the_future() -> None:
    for post in cast().posts():
        if post.event is None:
            continue
        event = validate_event(post.event | {"account": "demo", "receivedtime": BEGIN})
        assert event.time <= BEGIN + timedelta(minutes=5)


def test_forty_fans_are_of_every_kind() -> None:
    assert {role.name for role in cast().fans.values()} == {role.name for role in ROLES}
    assert len(cast().subjects) == 40


def test_the_orders_of_cdnow_are_moved_by_whole_days_up_to_yesterday() -> None:
    orders = cdnow.read(cdnow.fetch(print))
    sent = list(cdnow.events(orders, TODAY, ZoneInfo("Asia/Shanghai"), "CNY", "demo"))

    # Published with the data: 2,357 customers, 6,919 orders.
    assert (len(orders), len({order.customer for order in orders})) == (6919, 2357)
    assert len({event["id"] for event in sent}) == 6919
    assert sent[-1]["time"] == "2026-05-31T12:00:00+08:00"
    first = min(datetime.fromisoformat(event["time"]) for event in sent)
    assert (datetime(2026, 5, 31) - first.replace(tzinfo=None) + timedelta(hours=12)).days == (
        cdnow.LAST_DAY - date(1997, 1, 1)
    ).days
    for event in sent[::100]:
        assert validate_event(event | {"account": "demo", "receivedtime": BEGIN}).backfill
