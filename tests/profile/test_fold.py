"""profile's facts are the same for any permutation, repetition and split of the same events."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from services.profile.main import SERVICE
from tests.support.folding import Log, arrivals, empty, rows
from tests.support.postgres import TestServer

START = datetime(2026, 3, 1, tzinfo=UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.fixture(scope="module")
async def sessions(pg_server: TestServer) -> AsyncIterator[Sessions]:
    async with pg_server.sessions_of("profile") as sessions:
        yield sessions


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    file = tmp_path_factory.mktemp("profile") / "superfan.toml"
    file.write_text('[accounts.demo]\n[accounts.london]\nzone = "Europe/London"\n')
    return ConfigFile(file, "profile")


@st.composite
def events(draw: st.DrawFn) -> AnyEvent:
    event_type = draw(st.sampled_from(["follow", "unfollow", "view", "like", "order.paid"]))
    data: dict[str, object] = {}
    if event_type == "view":
        data = {"content_id": "c", "watch_ms": 5, "duration_ms": 10}
    if event_type == "order.paid":
        data = {"order_id": "o", "amount_minor": 100, "currency": "CNY"}
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


def model(
    distinct: list[AnyEvent],
) -> tuple[Counter[tuple[str, str, date, str]], dict[tuple[str, str], tuple[object, ...]]]:
    """The facts, said in the plainest way."""
    counts: Counter[tuple[str, str, date, str]] = Counter()
    fans = {}
    for event in distinct:
        zone = SHANGHAI if event.account == "demo" else ZoneInfo("Europe/London")
        assert event.subject
        counts[event.account, event.subject, event.time.astimezone(zone).date(), event.type] += 1
    for key in {(event.account, event.subject) for event in distinct}:
        own = [event for event in distinct if (event.account, event.subject) == key]
        moves = sorted((e.time, e.source, e.id, e.type == "follow") for e in own if e.type in ("follow", "unfollow"))
        fans[key] = (
            min(event.time for event in own),
            max(event.time for event in own),
            min((event.time for event in own if event.type == "follow"), default=None),
            moves[-1][3] if moves else None,
        )
    return counts, fans  # type: ignore[return-value]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(), some=st.lists(events(), min_size=1, max_size=12, unique_by=lambda e: (e.account, e.source, e.id))
)
async def test_any_order_repetition_and_split(
    sessions: Sessions, config: ConfigFile, data: st.DataObject, some: list[AnyEvent]
) -> None:
    await empty(sessions)
    log = Log("profile", sessions, SERVICE.make_handler(config.account), SERVICE.keep_data)
    for batch in data.draw(arrivals(some)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    counts, fans = model(some)
    stored = await rows(sessions, "activity_day", "account, subject, day, type, count")
    assert {row[:4]: row[4] for row in stored} == counts
    stored = await rows(sessions, "fan", "account, subject, first_seen, last_seen, first_follow, following")
    assert {row[:2]: row[2:] for row in stored} == fans


async def test_notices_are_no_deeds(sessions: Sessions, config: ConfigFile) -> None:
    await empty(sessions)
    log = Log("profile", sessions, SERVICE.make_handler(config.account), SERVICE.keep_data)
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
        received=START,
        data={"content_id": "c1"},
    )
    await log.apply([notice, published])
    assert await rows(sessions, "activity_day", "subject") == []
    assert await rows(sessions, "fan", "subject") == []
    assert await rows(sessions, "event", "type") == [("content.published",), ("points.awarded",)]
    assert await rows(sessions, "alias", "subject") == [("douyin:u1",)]
