"""What profile tells of where people live: the believed zone of each subject, whenever it changes."""

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as hooks
from sqlalchemy import text

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event, parse_event
from libs.common.identity import user_id_of
from libs.common.revisions import next_revision
from services.profile.main import SERVICE
from services.profile.usecases.zones import tell_all_zones
from tests.support.folding import NOW, Log, arrivals, empty, rows

A, B = "douyin:a", "wechat.x:b"
LONDON, TOKYO = "Europe/London", "Asia/Tokyo"
IMPOSSIBLE = ("Mars/Base", "", "europe/london", "Europe", "../../etc/passwd", 8, True, ["Europe/London"], {"a": 1})
NUMBERS = itertools.count()


def traits(subject: str, at: int, trust: Any = "server", number: int | None = None, **values: Any) -> AnyEvent:
    return new_event(
        "profile.traits",
        account="demo",
        source="/t",
        id=f"z{next(NUMBERS) if number is None else number}",
        subject=subject,
        time=NOW + timedelta(minutes=at),
        received=NOW,
        data={"traits": values},
        trust=trust,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


async def told(sessions: Sessions) -> list[Any]:
    """The notices `profile.updated` in the outbox, in order."""
    events = [parse_event(bytes(value)) for _, value in sorted(await rows(sessions, "outbox", "id, value"))]
    return [event for event in events if event.type == "profile.updated"]


async def said(sessions: Sessions) -> list[tuple[int, str | None, datetime]]:
    """(rank of the revision, zone, since)"""
    notices = await told(sessions)
    ranks = {revision: rank for rank, revision in enumerate(sorted({one.data.revision for one in notices}), 1)}
    return [(ranks[one.data.revision], one.data.traits.zone, one.data.since) for one in notices]


def minute(number: int) -> datetime:
    return NOW + timedelta(minutes=number)


async def test_what_is_told_and_when(sessions: Sessions, log: Log) -> None:
    await log.apply([traits(A, 0, city="London", nickname="x")])
    assert await told(sessions) == []
    await log.apply([traits(A, 1, zone=LONDON, phone="13800000000"), traits(A, 0, zone=TOKYO)])
    (first,) = await told(sessions)
    own, revision = user_id_of("demo", A), next_revision(0, NOW)
    assert (first.account, first.source, first.id, first.subject) == ("demo", "/profile", f"{own}/traits/{revision}", A)
    assert first.traceparent == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert first.data.model_dump() == {
        "entity": f"{own}/traits",
        "revision": revision,
        "since": minute(1),
        "user_id": own,
        "traits": {"zone": LONDON},
    }
    # older, no word about it, and what a public key says later: nothing to tell
    await log.apply([traits(A, 0, zone=TOKYO), traits(A, 5, city="x"), traits(A, 9, "client", zone=TOKYO)])
    assert len(await told(sessions)) == 1
    # said again later: it is true from then on, which counts against what his other subjects said
    await log.apply([traits(A, 2, zone=LONDON)])
    await log.apply([traits(A, 3, zone=None)])
    assert (await said(sessions))[1:] == [(2, LONDON, minute(2)), (3, None, minute(3))]
    assert "zone" not in (await rows(sessions, "outbox", "id, convert_from(value, 'UTF8')"))[-1][1]


@pytest.mark.parametrize("name", IMPOSSIBLE, ids=repr)
async def test_a_zone_that_does_not_exist_is_passed_over(sessions: Sessions, log: Log, name: Any) -> None:
    await log.apply([traits(A, 1, zone=LONDON)])
    await log.apply([traits(A, 2, zone=name, city="x")])
    await log.apply([traits(B, 2, zone=name)])
    assert await said(sessions) == [(1, LONDON, minute(1))]
    assert await rows(sessions, "trait", "subject, name, value") == [(A, "city", "x"), (A, "zone", LONDON)]
    assert await rows(sessions, "dead_letter", "reason") == []


async def test_of_linked_subjects_each_is_told_with_the_user_that_it_is(sessions: Sessions, log: Log) -> None:
    await log.apply([traits(A, 0, login_id="7")])
    await log.apply([traits(B, 1, login_id="7", zone=TOKYO), traits(A, 2, zone=LONDON)])
    found = {one.subject: one.data for one in await told(sessions)}
    joint = min(user_id_of("demo", A), user_id_of("demo", B))
    assert {subject: (data.user_id, data.entity) for subject, data in found.items()} == {
        subject: (joint, f"{user_id_of('demo', subject)}/traits") for subject in (A, B)
    }


words = st.builds(
    traits,
    st.sampled_from([A, B]),
    st.integers(0, 3),
    st.sampled_from(["platform", "server", "client"]),
    zone=st.sampled_from([LONDON, TOKYO, None, "Mars/Base"]),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), events=st.lists(words, min_size=1, max_size=8))
async def test_the_highest_revision_is_what_is_believed_whatever_the_order(
    database: Sessions, config: ConfigFile, data: st.DataObject, events: list[AnyEvent]
) -> None:
    await empty(database)
    log = Log("profile", database, SERVICE.make_handler(config.account), SERVICE.keep_data)
    for batch in data.draw(arrivals(events)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    believed = {}
    for event in sorted(events, key=lambda event: (event.trust != "client", event.time, event.id)):
        zone = event.data.traits["zone"]  # type: ignore[union-attr,index]
        if zone != "Mars/Base":
            believed[event.subject] = (zone, event.time)
    notices = await told(database)
    last = {one.subject: one for one in sorted(notices, key=lambda one: one.data.revision)}
    assert {subject: (one.data.traits.zone, one.data.since) for subject, one in last.items()} == believed
    for subject in last:
        revisions = [one.data.revision for one in notices if one.subject == subject]
        assert revisions == sorted(set(revisions))


async def test_what_was_never_told_is_told_after_a_rebuild(sessions: Sessions, log: Log) -> None:
    await log.apply([traits(A, 1, zone=LONDON), traits(B, 1, zone=TOKYO)])
    async with sessions() as session, session.begin():
        await session.execute(text("delete from zone_notice where subject = 'douyin:a'"))
        await session.execute(text("delete from outbox"))
        assert await tell_all_zones(session, NOW, lambda _name: None) == 1  # type: ignore[arg-type,return-value]
        assert await tell_all_zones(session, NOW, lambda _name: None) == 0  # type: ignore[arg-type,return-value]
    assert [(one.subject, one.data.traits.zone) for one in await told(sessions)] == [(A, LONDON)]


async def test_the_number_of_statements_does_not_grow(sessions: Sessions, log: Log) -> None:
    async def statements(count: int) -> int:
        found: list[str] = []
        engine = sessions.kw["bind"].sync_engine

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            found.append(statement)

        hooks.listen(engine, "before_cursor_execute", note)
        try:
            await log.apply([traits(f"douyin:{count}-{n}", 0, zone=LONDON) for n in range(count)])
        finally:
            hooks.remove(engine, "before_cursor_execute", note)
        return len(found)

    await log.apply([traits(A, 0, zone=LONDON)])
    few = await statements(2)
    assert await statements(200) == few
    assert len(await told(sessions)) == 203
