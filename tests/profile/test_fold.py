"""profile's facts are the same for any permutation, repetition and split of the same events."""

from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import ACTIVE_TYPES, AnyEvent, new_event
from services.profile.main import SERVICE
from tests.support.folding import NOW, Log, arrivals, empty, rows

START = datetime(2026, 3, 1, tzinfo=UTC)
ZONES = {"demo": ZoneInfo("Asia/Shanghai"), "london": ZoneInfo("Europe/London")}
DAY_MS = 24 * 60 * 60 * 1000


@st.composite
def events(draw: st.DrawFn) -> AnyEvent:
    event_type = draw(st.sampled_from(["follow", "unfollow", "view", "view", "like", "sign_in", "order.paid"]))
    data: dict[str, object] = {}
    if event_type == "view":
        milliseconds = st.sampled_from([0, 1, 5, 10, DAY_MS, 2**63 - 1])
        data = {"content_id": "c", "watch_ms": draw(milliseconds), "duration_ms": draw(milliseconds)}
    if event_type == "order.paid":
        data = {"order_id": "o", "amount_minor": 100, "currency": "CNY"}
    if event_type == "sign_in" and draw(st.booleans()):
        data = {"utc_offset_minutes": draw(st.sampled_from([0, 840, -600]))}
    return new_event(
        event_type,
        account=draw(st.sampled_from(["demo", "london"])),
        source=draw(st.sampled_from(["/a", "/B", "/ä"])),
        id=draw(st.text("abzAZ19é中", min_size=1, max_size=3)),
        subject=draw(st.sampled_from(["douyin:u1", "douyin:u2"])),
        platform="douyin",
        time=START
        + timedelta(minutes=draw(st.integers(0, 3 * 24 * 60)))
        - draw(st.sampled_from([timedelta(0), timedelta(1)])),
        received=START,
        data=data,
    )


Key = tuple[Any, ...]


def model(distinct: list[AnyEvent]) -> dict[str, dict[Key, Any]]:
    """The facts, said in the plainest way."""
    counts: Counter[Key] = Counter()
    hours: Counter[Key] = Counter()
    watched: dict[Key, list[int]] = defaultdict(lambda: [0] * 5)
    sign_ins: set[Key] = set()
    fans: dict[Key, Any] = {}
    for event in distinct:
        local = event.time.astimezone(ZONES[event.account])
        key = (event.account, event.subject, local.date())
        data: Any = event.data
        counts[*key, event.type] += 1
        if event.type in ACTIVE_TYPES:
            hours[*key, local.hour] += 1
        if event.type == "view":
            watch, whole = min(data.watch_ms, DAY_MS), min(data.duration_ms, DAY_MS)
            measured = [1, int(watch >= whole), min(watch, whole), whole] if whole else [0] * 4
            watched[key] = [a + b for a, b in zip(watched[key], [watch, *measured], strict=True)]
        if event.type == "sign_in":
            # demo asks the person's own clock, london the account's
            own = event.account == "demo" and data.utc_offset_minutes is not None
            day: date = (event.time + timedelta(minutes=data.utc_offset_minutes)).date() if own else local.date()
            sign_ins.add((event.account, event.subject, day))
    for subject in {(event.account, event.subject) for event in distinct}:
        his = [event for event in distinct if (event.account, event.subject) == subject]
        moves = sorted((e.time, e.source, e.id, e.type == "follow") for e in his if e.type in ("follow", "unfollow"))
        fans[subject] = (
            min(event.time for event in his),
            max(event.time for event in his),
            min((event.time for event in his if event.type == "follow"), default=None),
            moves[-1][3] if moves else None,
        )
    return {
        "activity_day": {key: (count,) for key, count in counts.items()},
        "activity_hour": {key: (count,) for key, count in hours.items()},
        "watch_day": {key: tuple(sums) for key, sums in watched.items()},
        "sign_in_day": dict.fromkeys(sign_ins, ()),
        "fan": fans,
    }


TABLES = {
    "activity_day": (4, "account, subject, day, type, count"),
    "activity_hour": (4, "account, subject, day, hour, count"),
    "watch_day": (3, "account, subject, day, watch_ms, measured, completed, within_ms, duration_ms"),
    "sign_in_day": (3, "account, subject, day"),
    "fan": (2, "account, subject, first_seen, last_seen, first_follow, following"),
}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(), some=st.lists(events(), min_size=1, max_size=12, unique_by=lambda e: (e.account, e.source, e.id))
)
async def test_any_order_repetition_and_split(
    database: Sessions, config: ConfigFile, data: st.DataObject, some: list[AnyEvent]
) -> None:
    await empty(database)
    log = Log("profile", database, SERVICE.make_handler(config.account), SERVICE.keep_data)
    for batch in data.draw(arrivals(some)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    for table, facts in model(some).items():
        key, columns = TABLES[table]
        assert {row[:key]: row[key:] for row in await rows(database, table, columns)} == facts


# What is said more than once: the believed one stands


@st.composite
def sayings(draw: st.DrawFn) -> AnyEvent:
    """Traits, and notices of the other services with a few entities and revisions."""
    kind = draw(
        st.sampled_from(["profile.traits", "segment.entered", "segment.left", "message.sent", "message.skipped"])
    )
    names = st.sampled_from(["city", "Ort", "phone"])
    if kind == "profile.traits":
        data: dict[str, Any] = {"traits": draw(st.dictionaries(names, st.sampled_from(["x", None, 1, ["y"]])))}
        revision = draw(st.integers(0, 10**6))
    else:
        revision = draw(st.integers(1, 3))
        entity = draw(st.sampled_from(["usr_a/lifecycle", "usr_a/Ä"]))
        data = {"entity": entity, "revision": revision, "since": START, "user_id": "usr_a", "initial": False}
        data |= {"segment": f"s{revision}", "reason": "event", "journey": "j", "step": "s", "channel": "in_app"}
    return new_event(
        kind,
        account="demo",
        source=draw(st.sampled_from(["/a", "/B", "/ä"])),
        id=f"{kind}/{data.get('entity')}/{revision}",
        subject="douyin:u1",
        time=START + timedelta(minutes=draw(st.integers(0, 3))),
        received=START,
        data=data,
        trust=draw(st.sampled_from(["platform", "server", "client"])),
    )


def model_sayings(distinct: list[AnyEvent]) -> tuple[dict[str, Any], dict[Key, Any]]:
    traits: dict[str, Any] = {}
    notices: dict[Key, Any] = {}
    by_belief = sorted((event.trust != "client", event.time, event.source, event.id) for event in distinct)
    by_id = {(event.source, event.id): event for event in distinct}
    for _, _, source, event_id in by_belief:
        event: Any = by_id[source, event_id]
        if event.type == "profile.traits":
            traits |= {name: (value, event.trust, event.time) for name, value in event.data.traits.items()}
    others: list[Any] = [event for event in distinct if event.type != "profile.traits"]
    for event in sorted(others, key=lambda event: (event.data.revision, event.source, event.id)):
        family = "segment" if event.type.startswith("segment.") else event.type
        notices[family, event.data.entity] = (event.data.revision, event.type, event.source, event.data.entity)
    return traits, notices


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), some=st.lists(sayings(), min_size=1, max_size=10, unique_by=lambda e: (e.source, e.id)))
async def test_what_is_believed_does_not_depend_on_order(
    database: Sessions, config: ConfigFile, data: st.DataObject, some: list[AnyEvent]
) -> None:
    await empty(database)
    log = Log("profile", database, SERVICE.make_handler(config.account), SERVICE.keep_data)
    for batch in data.draw(arrivals(some)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    traits, notices = model_sayings(some)
    assert {row[0]: row[1:] for row in await rows(database, "trait", "name, value, trust, time")} == traits
    stored = await rows(database, "notice_state", "family, entity, revision, type, source, data ->> 'entity'")
    assert {row[:2]: row[2:] for row in stored} == notices


async def test_notices_are_no_deeds(sessions: Sessions, log: Log) -> None:
    notice = new_event(
        "points.awarded",
        account="demo",
        source="/rewards",
        id="x",
        subject="douyin:u1",
        time=START,
        received=START,
        data={
            "user_id": "usr_x",
            "points": 1,
            "balance": 1,
            "rule": "follow",
            "rule_version": 1,
            "entry_id": "e",
            "caused_by": "ab" * 16,
            "entity": "usr_x",
            "revision": 1,
            "since": START.isoformat(),
        },
    )
    published = new_event(
        "content.published",
        account="demo",
        source="/a",
        id="c",
        subject="content:c1",
        time=START,
        received=NOW,
        data={"content_id": "c1"},
    )
    await log.apply([notice, published])
    for table in TABLES:
        assert await rows(sessions, table, "subject") == []
    assert await rows(sessions, "event", "type") == [("content.published",), ("points.awarded",)]
    assert await rows(sessions, "alias", "subject") == [("douyin:u1",)]
