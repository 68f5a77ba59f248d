"""The rules of starting a journey, without a database."""

from datetime import timedelta
from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from libs.common.events import AnyEvent
from libs.common.events.derived import SegmentEntered
from libs.common.events.inputs import Follow
from services.engagement.domain import decisions, templates
from services.engagement.domain.decisions import Decision, Starter, decide_starts, start
from services.engagement.domain.follows import Key, Mark, fold_follows
from services.engagement.domain.gates import DEFAULT_POLICY
from services.engagement.domain.journeys import BUILT_IN, REACTIVATION, RECALL, WELCOME, Journey, Text, journey_of
from services.engagement.domain.templates import TemplateError
from services.engagement.domain.users import UserState
from tests.engagement.support import HOUR, WELCOME_AGE, event, segment
from tests.support.folding import NOW

SECOND = timedelta(seconds=1)
KEY = ("demo", "douyin:u1")


def mark(made: AnyEvent) -> Mark:
    return Mark(made.time, made.source, made.id, made.type == "follow")


def begin(journey: Journey, made: AnyEvent, earlier: str | None = None, newest: Mark | None = None) -> Any:
    assert isinstance(made, Follow | SegmentEntered)
    return start(journey, made, NOW, earlier, newest)


def decide(
    events: list[AnyEvent], newest: dict[Key, Mark], users: dict[Key, UserState], *journeys: Journey
) -> list[Decision]:
    starters: list[Starter] = [made for made in events if isinstance(made, Follow | SegmentEntered)]
    return decide_starts(
        starters,
        {"demo": journeys or [WELCOME]},
        users,
        newest,
        {"demo": DEFAULT_POLICY},
        NOW,
        zone_of=lambda _account: ZoneInfo("Asia/Shanghai"),
        kind_of=lambda _account, channel: channel if channel == "in_app" else None,
    )


def test_a_young_follow_is_welcomed() -> None:
    follow = event("a")
    assert begin(WELCOME, follow, None, mark(follow)) == (
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
    started = begin(WELCOME, follow, None, mark(follow))
    assert started.reason == reason
    assert started.values["age_seconds"] == seconds


def test_reasons_are_asked_in_their_order_and_told_with_the_values_used() -> None:
    """Everything speaks against it at first; then one reason after another is taken away."""
    gone = mark(event("z", HOUR / 2, type="unfollow"))
    old = event("a", 30 * HOUR, backfill=True)
    paused = journey_of("welcome", 2, "paused", WELCOME.definition())
    assert begin(paused, old, "msg_1", gone) == ("already_messaged", {"earlier_message_id": "msg_1"})
    assert begin(paused, old, None, gone) == ("paused", {"earlier_message_id": None, "status": "paused"})
    assert begin(WELCOME, old, None, gone) == ("backfilled", {"earlier_message_id": None, "backfill": True})
    too_old = begin(WELCOME, event("a", 30 * HOUR), None, gone)
    assert too_old == (
        "too_old",
        {"earlier_message_id": None, "backfill": False, "age_seconds": 30 * 3600, "max_age_seconds": 86400},
    )
    young = event("a")
    not_following = begin(WELCOME, young, None, gone)
    assert not_following.reason == "not_following"
    assert not_following.values["following"] is False
    assert not_following.values["unfollowed_at"] == (NOW - HOUR / 2).isoformat()
    assert begin(WELCOME, young, None, mark(young)).reason is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"reason": "time_passed"}, None),
        ({"reason": "rule_changed"}, "rule_or_merge"),
        ({"reason": "merged"}, "rule_or_merge"),
        ({"initial": True}, "first_placement"),
        ({"initial": True, "reason": "merged"}, "first_placement"),
        ({"since": NOW - 48 * HOUR}, "too_old"),
        ({"since": NOW - 48 * HOUR + SECOND}, None),
        ({"since": NOW - 400 * 24 * HOUR, "reason": "time_passed"}, "too_old"),
    ],
)
def test_what_of_segments_starts_a_journey(changes: dict[str, Any], reason: str | None) -> None:
    for journey in (REACTIVATION, RECALL):
        assert begin(journey, segment(**changes)).reason == reason
        assert begin(journey, segment(**changes, backfill=True)).reason == "backfilled"


def test_a_journey_starts_by_its_own_segment_only() -> None:
    dormant, lost = segment("lifecycle.dormant", revision=1), segment("lifecycle.lost", revision=2)
    user = UserState("demo", "usr_1", following=True)
    made = decide([dormant, lost], {}, {KEY: user}, RECALL, REACTIVATION, WELCOME)
    assert [(row.journey.key, row.outcome) for row in made] == [("reactivation", "sent"), ("recall", "held")]
    assert made[1].reason == "minimum_gap"
    assert made[1].until == NOW + 4 * HOUR


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
    state = UserState("demo", "usr_1", following=True, revisions={"welcome": 4})
    follows = [event("c", HOUR), event("old", 30 * HOUR), event("a", 2 * HOUR), event("b", 2 * HOUR)]
    made = decide(follows, {KEY: mark(follows[0])}, {KEY: state})
    assert [(row.event.id, row.reason, row.revision) for row in made if row.event] == [
        ("old", "too_old", 5),
        ("a", None, 6),
        ("b", "already_messaged", 7),
        ("c", "already_messaged", 8),
    ]
    sent = made[1].message_id
    assert sent == decisions.message_id("demo", "usr_1", "welcome", "hello")
    assert made[2].values == {"earlier_message_id": sent}
    assert [row.message_id for row in made] == [None, sent, None, None]


def test_two_subjects_of_one_user_share_his_one_welcome() -> None:
    state = UserState("demo", "usr_1", following=True)
    first, second = event("a", 2 * HOUR), event("b", HOUR, subject="wechat.x:u9")
    keys = [KEY, ("demo", "wechat.x:u9")]
    newest = dict(zip(keys, (mark(first), mark(second)), strict=True))
    made = decide([second, first], newest, dict.fromkeys(keys, state))
    assert [(row.subject, row.outcome) for row in made] == [("douyin:u1", "sent"), ("wechat.x:u9", "skipped")]


def test_a_message_that_may_come_again_gets_another_id_each_time() -> None:
    user = UserState("demo", "usr_1", following=True)
    (first,) = decide([segment(revision=3)], {}, {KEY: user}, REACTIVATION)
    user.messages[0] = user.messages[0]._replace(at=NOW - 8 * 24 * HOUR)
    (second,) = decide([segment(revision=5)], {}, {KEY: user}, REACTIVATION)
    assert (first.outcome, second.outcome) == ("sent", "sent")
    assert first.message_id != second.message_id


def test_ids_depend_on_what_they_name_and_on_nothing_else() -> None:
    ids = {
        decisions.message_id(*parts)
        for parts in [
            ("demo", "usr_1", "welcome", "hello"),
            ("other", "usr_1", "welcome", "hello"),
            ("demo", "usr_2", "welcome", "hello"),
            ("demo", "usr_1", "welcome", "day_1"),
            ("demo", "usr_1", "welcome", "hello", "welcome:00"),
            ("demo", "usr_1welcome", "", "hello"),
        ]
    }
    assert len(ids) == 6
    assert all(len(found) == 36 for found in ids)
    assert decisions.decision_id("welcome", bytes(16)) == "welcome:" + "0" * 32


def test_built_in_journeys_are_whole() -> None:
    assert list(BUILT_IN) == ["welcome", "reactivation", "recall"]
    for journey in BUILT_IN.values():
        assert (journey.version, journey.status, journey.channel) == (1, "live", "in_app")
        assert set(journey.texts) == {"zh", "en"}
        assert journey_of(journey.key, 1, "live", journey.definition(), action="built_in") == journey
        for part in (part for text in journey.texts.values() for part in text):
            assert part
            templates.check(part)


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("plain { words }", "plain { words }"),
        ("{{ user.subject | upcase }}", "DOUYIN:U42"),
        ("{% if event.segment == '' %}no segment{% endif %}", "no segment"),
        ("{% for n in (1..3) %}{{ n }}{% endfor %}", "123"),
        ("{% assign who = account.name %}{{ who }}", "demo"),
    ],
)
def test_templates_render(template: str, rendered: str) -> None:
    templates.check(template)
    assert templates.render(Text(template, "x"), templates.EXAMPLE).title == rendered


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{{ user.nickname }}", "user.nickname"),
        ("{{ nobody }}", "nobody"),
        ("{{ user }}", "user"),
        ("{{ user.id", "template"),
        ("{% nonsense %}", "nonsense"),
        ("{{ user.id | nonsense }}", "nonsense"),
        ("{% include 'other' %}", "include"),
        ("{% render 'other' %}", "render"),
        ("{% for n in (1..100000000) %}{% endfor %}", "loop"),
        ("{% for a in (1..900) %}{% for b in (1..900) %}x{% endfor %}{% endfor %}", "loop"),
        ("{% for a in (1..900) %}" + "x" * 3000 + "{% endfor %}", "output"),
        ("{{ 1 | divided_by: 0 }}", "template"),
        ("x" * 4001, "longer"),
    ],
)
def test_templates_that_cannot_be_used_are_refused_with_the_reason(template: str, word: str) -> None:
    with pytest.raises(TemplateError, match=word):
        templates.check(template)
