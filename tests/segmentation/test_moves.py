"""What is told when users move: reasons, first placements, history that arrives late."""

from datetime import timedelta

from libs.common.db import Sessions
from libs.common.events import parse_event
from libs.common.identity import user_id_of
from libs.common.revisions import next_revision
from tests.segmentation.support import LIFECYCLE_MOVES, event, link, notices, told, utc
from tests.support.folding import NOW, Log, rows

U1 = user_id_of("demo", "douyin:u1")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_the_first_placement(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 0.01, type="follow", traceparent=TRACE)])
    (notice,) = await notices(sessions)
    assert notice["data"] == {
        "segment": "lifecycle.new",
        "entity": f"{U1}/lifecycle",
        "revision": 1,
        "since": "2026-06-14T16:00:00Z",
        "reason": "event",
        "initial": True,
        "user_id": U1,
    }
    assert (notice["type"], notice["source"], notice["id"]) == (
        "segment.entered",
        "/segmentation",
        f"{U1}/lifecycle/{next_revision(0, NOW)}",
    )
    assert (notice["subject"], notice["account"], notice["traceparent"]) == ("douyin:u1", "demo", TRACE)
    assert notice["time"] == "2026-06-15T12:00:00Z"
    assert parse_event(await _only_outbox_value(sessions)).topic == "superfan.segments"
    assert await rows(sessions, LIFECYCLE_MOVES, "user_id, segment_from, segment_to, reason, initial") == [
        (U1, None, "lifecycle.new", "event", True)
    ]


async def _only_outbox_value(sessions: Sessions) -> bytes:
    ((value,),) = await rows(sessions, "outbox where encode(value, 'escape') like '%/lifecycle%'", "value")
    return bytes(value)


async def test_a_first_placement_by_backfill_is_initial_too(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 100, backfill=True), event("b", 20, backfill=True)])
    (notice,) = await notices(sessions)
    assert told(notice) == ("segment.entered", "lifecycle.dormant", 1, "event", True)
    assert notice["data"]["since"] == "2026-06-02T16:00:00Z", "8 days after the last active day, 2026-05-26"
    assert notice["backfill"] is True


async def test_what_changes_nothing_tells_nothing(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 3), event("b", 5)])
    before = await rows(sessions, "lifecycle_state", "state, since, revision")
    await log.apply([event("c", 4), event("d", 3), event("e", 0), event("f", 4.1, backfill=True)])
    assert len(await notices(sessions)) == 1
    assert await rows(sessions, "lifecycle_state", "state, since, revision") == before


async def test_a_late_event_can_move(sessions: Sessions, log: Log) -> None:
    """Known as new; then it turns out that he had been there long before: he is back."""
    await log.apply([event("a", 1)])
    await log.apply([event("b", 20)])
    assert [told(notice) for notice in await notices(sessions)] == [
        ("segment.entered", "lifecycle.new", 1, "event", True),
        ("segment.left", "lifecycle.new", 2, "event", False),
        ("segment.entered", "lifecycle.returned", 3, "event", False),
    ]


async def test_returning_after_a_silence_that_nobody_told(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 40)], now=NOW - timedelta(days=40))
    await log.apply([event("b", 0, traceparent=TRACE)])
    moves = await notices(sessions)
    assert [told(notice) for notice in moves[1:]] == [
        ("segment.left", "lifecycle.new", 2, "event", False),
        ("segment.entered", "lifecycle.returned", 3, "event", False),
    ]
    assert {notice["data"]["since"] for notice in moves[1:]} == {"2026-06-14T16:00:00Z"}
    assert {notice["traceparent"] for notice in moves[1:]} == {TRACE}
    assert {notice["backfill"] for notice in moves} == {False}


async def test_a_move_that_the_event_only_brought_to_light_is_due_to_time(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 20)], now=NOW - timedelta(days=20))
    await log.apply([event("b", 22)])
    assert [told(notice) for notice in (await notices(sessions))[1:]] == [
        ("segment.left", "lifecycle.new", 2, "time_passed", False),
        ("segment.entered", "lifecycle.dormant", 3, "time_passed", False),
    ]


async def test_time_does_not_run_back(sessions: Sessions, log: Log) -> None:
    """A transaction that began before midnight and got its turn after one that began later."""
    after_midnight = utc("2026-06-15T16:00:01")
    await log.apply([event("a", 7), event("b", 8)], now=after_midnight)
    assert (await notices(sessions))[-1]["data"]["segment"] == "lifecycle.dormant"
    await log.apply([event("c", 7.1), event("d", 9)], now=after_midnight - timedelta(seconds=2))
    assert len(await notices(sessions)) == 1
    assert await rows(sessions, "lifecycle_state", "state, updated_at") == [("dormant", after_midnight)]


async def test_an_event_dated_tomorrow_waits_for_its_day(sessions: Sessions, log: Log) -> None:
    tomorrow = NOW.date() + timedelta(days=1)
    await log.apply([event("a", -0.5)])
    assert await notices(sessions) == []
    assert await rows(sessions, "lifecycle_state", "state, revision, first_day, flips_on") == [
        ("none", 0, tomorrow, tomorrow)
    ]
    await log.apply([event("b", -0.6, type="view"), event("c", 3)], now=NOW + timedelta(days=1))
    assert [told(notice) for notice in await notices(sessions)] == [
        ("segment.entered", "lifecycle.new", 1, "time_passed", True)
    ]


async def test_two_subjects_of_one_user_are_one(sessions: Sessions, log: Log) -> None:
    await link(sessions, "demo", U1, "douyin:u1", "wechat:w1")
    await log.apply([event("a", 20, subject="wechat:w1"), event("b", 9, subject="douyin:u1")])
    await log.apply([event("c", 0, subject="wechat:w1")])
    assert [told(notice)[:3] for notice in await notices(sessions)] == [
        ("segment.entered", "lifecycle.dormant", 1),
        ("segment.left", "lifecycle.dormant", 2),
        ("segment.entered", "lifecycle.returned", 3),
    ]
    assert await rows(sessions, "lifecycle_state", "user_id, state") == [(U1, "returned")]


async def test_what_is_no_activity_leaves_no_trace(sessions: Sessions, log: Log) -> None:
    await log.apply([event("a", 0, type="unfollow"), event("b", 0, type="order.paid", subject=None)])
    assert await rows(sessions, "lifecycle_state", "user_id") == []
    assert await rows(sessions, "active_day", "subject") == []
    assert await rows(sessions, "dead_letter", "reason") == []
