"""The rules of the welcome, without a database."""

from datetime import timedelta
from itertools import permutations

import pytest

from libs.common.events import AnyEvent
from services.engagement import domain
from services.engagement.domain import Mark, UserState, decide_welcome, decide_welcomes, fold_follows
from tests.engagement.support import HOUR, WELCOME_AGE, event
from tests.support.folding import NOW

SECOND = timedelta(seconds=1)
KEY = ("demo", "douyin:u1")


def mark(made: AnyEvent) -> Mark:
    return Mark(made.time, made.source, made.id, made.type == "follow")


def test_a_young_follow_is_welcomed() -> None:
    follow = event("a")
    assert decide_welcome(follow, NOW, None, mark(follow)) == (
        None,
        {
            "earlier_message_id": None,
            "backfill": False,
            "age_seconds": 3600,
            "max_age_seconds": 86400,
            "following": True,
        },
    )


@pytest.mark.parametrize(
    ("age", "reason", "seconds"),
    [
        (WELCOME_AGE - timedelta(microseconds=1), None, 86399),
        (WELCOME_AGE, "too_old", 86400),
        (WELCOME_AGE + timedelta(days=9000), "too_old", 86400 * 9001),
        (timedelta(0), None, 0),
        (-5 * SECOND, None, -5),
    ],
)
def test_the_age_limit(age: timedelta, reason: str | None, seconds: int) -> None:
    follow = event("a", age)
    verdict = decide_welcome(follow, NOW, None, mark(follow))
    assert verdict.reason == reason
    assert verdict.values["age_seconds"] == seconds


def test_reasons_are_asked_in_their_order_and_told_with_the_values_used() -> None:
    """Everything speaks against it at first; then one reason after another is taken away."""
    gone = mark(event("z", HOUR / 2, type="unfollow"))
    old = event("a", 30 * HOUR, backfill=True)
    assert decide_welcome(old, NOW, "msg_1", gone) == ("already_welcomed", {"earlier_message_id": "msg_1"})
    assert decide_welcome(old, NOW, None, gone) == ("backfilled", {"earlier_message_id": None, "backfill": True})
    old = event("a", 30 * HOUR)
    too_old = decide_welcome(old, NOW, None, gone)
    assert too_old.reason == "too_old"
    assert too_old.values == {
        "earlier_message_id": None,
        "backfill": False,
        "age_seconds": 30 * 3600,
        "max_age_seconds": 86400,
    }
    young = event("a")
    not_following = decide_welcome(young, NOW, None, gone)
    assert not_following.reason == "not_following"
    assert not_following.values["following"] is False
    assert not_following.values["unfollowed_at"] == (NOW - HOUR / 2).isoformat()
    assert decide_welcome(young, NOW, None, mark(young)).reason is None
    assert [too_old.reason, not_following.reason] == list(domain.REASONS)[2:]
    assert list(domain.REASONS)[:2] == ["already_welcomed", "backfilled"]


def test_the_newest_mark_is_by_time_then_source_then_id() -> None:
    some = [
        event("b", 3 * HOUR, type="unfollow"),
        event("a", 2 * HOUR, source="/B"),
        event("a", 2 * HOUR, source="/a", type="unfollow"),
        event("b", 2 * HOUR, source="/a"),
    ]
    for order in permutations(some):
        follower = fold_follows([*order, order[0]])[KEY]
        assert follower.newest == (NOW - 2 * HOUR, "/a", "b", True)
        assert follower.first_follow == NOW - 2 * HOUR


def test_consents_and_other_types_say_nothing_about_following() -> None:
    consent = event("c", type="consent.granted", data={"purpose": "marketing", "channel": "sms"})
    assert fold_follows([consent]) == {}
    only_left = fold_follows([event("u", type="unfollow")])[KEY]
    assert (only_left.newest.following, only_left.first_follow) == (False, None)


def test_of_several_follows_the_earliest_is_welcomed_and_revisions_count_on() -> None:
    state = UserState("usr_1", None, 4)
    follows = [event("c", HOUR), event("old", 30 * HOUR), event("a", 2 * HOUR), event("b", 2 * HOUR)]
    newest = {KEY: mark(follows[0])}
    made = decide_welcomes(follows, NOW, newest, {KEY: state})
    assert [(row.follow.id, row.verdict.reason, row.revision) for row in made] == [
        ("old", "too_old", 5),
        ("a", None, 6),
        ("b", "already_welcomed", 7),
        ("c", "already_welcomed", 8),
    ]
    sent = made[1].message_id
    assert sent == domain.message_id("demo", "usr_1", "welcome", "hello")
    assert made[2].verdict.values == {"earlier_message_id": sent}
    assert [row.message_id for row in made] == [None, sent, None, None]


def test_two_subjects_of_one_user_share_his_one_welcome() -> None:
    state = UserState("usr_1")
    first, second = event("a", 2 * HOUR), event("b", HOUR, subject="wechat.x:u9")
    keys = [KEY, ("demo", "wechat.x:u9")]
    newest = dict(zip(keys, (mark(first), mark(second)), strict=True))
    made = decide_welcomes([second, first], NOW, newest, dict.fromkeys(keys, state))
    assert [(row.subject, row.outcome) for row in made] == [("douyin:u1", "sent"), ("wechat.x:u9", "skipped")]


def test_ids_depend_on_what_they_name_and_on_nothing_else() -> None:
    ids = {
        domain.message_id(*parts)
        for parts in [
            ("demo", "usr_1", "welcome", "hello"),
            ("other", "usr_1", "welcome", "hello"),
            ("demo", "usr_2", "welcome", "hello"),
            ("demo", "usr_1", "welcome", "day_1"),
            ("demo", "usr_1welcome", "", "hello"),
        ]
    }
    assert len(ids) == 5
    assert all(len(found) == 36 for found in ids)
    assert domain.decision_id("welcome", bytes(16)) == "welcome:" + "0" * 32


def test_every_journey_has_its_text_in_both_languages() -> None:
    for versions in domain.JOURNEYS.values():
        for version, journey in versions.items():
            assert journey.version == version
            assert set(journey.texts) == {"zh", "en"}
            assert all(text.title and text.body for text in journey.texts.values())
