"""One partition batch = one transaction: who may apply it, what counts, and what happens to a bad event."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from libs.common import outbox
from libs.common.config import UnknownAccountError
from libs.common.consumer import Applier
from libs.common.consumer.offsets import StoredPositions
from libs.common.consumer.transaction import OffsetConflictError, WaitForAccountError
from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.kafka import Batch
from libs.common.tracing import traceparent_of
from tests.support.folding import CLUSTER, NOW, FakeMessage, Log, rows
from tests.support.spans import spans_kept


def follow(
    id: str,  # noqa: A002
    subject: str = "douyin:u1",
    **changes: object,
) -> AnyEvent:
    fields: dict[str, object] = {"account": "demo", "source": "/t", "time": NOW, "received": NOW, "data": {}, **changes}
    return new_event("follow", id=id, subject=subject, **fields)  # type: ignore[arg-type]


@dataclass
class Recorder:
    """A use case that remembers what it was given and fails on demand."""

    seen: list[str]
    poison: frozenset[str] = frozenset()
    error: Exception | None = None
    publish: bool = False

    async def __call__(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        if self.error:
            raise self.error
        bad = [event.id for event in events if event.id in self.poison]
        if bad:
            raise ValueError(f"cannot fold {bad}")
        if self.publish:
            await outbox.add(session, events)
        self.seen.extend(event.id for event in events)


def batch_of(events: list[AnyEvent], position: int = 0) -> Batch:
    messages = [FakeMessage("superfan.follows", 0, position + n, event.to_json()) for n, event in enumerate(events)]
    return Batch("superfan.follows", 0, position, position + len(events), messages)


async def test_a_batch_counts_each_event_once(sessions: Sessions) -> None:
    recorder = Recorder([])
    log = Log("profile", sessions, recorder, lambda _: True)
    await log.apply([follow("a"), follow("b"), follow("a")])
    await log.apply([follow("b"), follow("c")])
    assert recorder.seen == ["a", "b", "c"]
    assert await rows(sessions, "event", "id") == [("a",), ("b",), ("c",)]
    assert await rows(sessions, "alias", "account, subject") == [("demo", "douyin:u1")]


async def test_identity_is_account_source_and_id(sessions: Sessions) -> None:
    recorder = Recorder([])
    log = Log("profile", sessions, recorder, lambda _: True)
    await log.apply([follow("a"), follow("a", account="other"), follow("a", source="/u")])
    assert len(recorder.seen) == 3


async def test_the_first_of_two_contents_counts_and_the_other_is_counted(sessions: Sessions) -> None:
    from prometheus_client import REGISTRY

    def conflicts() -> float:
        value = REGISTRY.get_sample_value("superfan_events_repeated_total", {"service": "profile", "kind": "conflict"})
        return value or 0.0

    before = conflicts()
    log = Log("profile", sessions, Recorder([]), lambda _: True)
    await log.apply([follow("a", data={"acquisition": {"channel": "organic"}})])
    await log.apply([follow("a", data={"acquisition": {"channel": "referral"}}), follow("a", time=NOW - timedelta(1))])
    await log.apply([follow("b"), follow("b", subject="douyin:u2")])
    assert conflicts() - before == 3
    assert await rows(sessions, "event", "id, data->'acquisition'->>'channel'") == [("a", "organic"), ("b", None)]


async def test_a_repeat_with_another_receipt_time_is_no_conflict(sessions: Sessions) -> None:
    from prometheus_client import REGISTRY

    labels = {"service": "profile", "kind": "conflict"}
    before = REGISTRY.get_sample_value("superfan_events_repeated_total", labels) or 0.0
    log = Log("profile", sessions, Recorder([]), lambda _: True)
    await log.apply([follow("a")])
    await log.apply([follow("a", received=NOW + timedelta(minutes=5))])
    assert (REGISTRY.get_sample_value("superfan_events_repeated_total", labels) or 0.0) == before


async def test_data_is_stored_only_where_it_is_read_again(sessions: Sessions) -> None:
    log = Log("profile", sessions, Recorder([]), lambda _: False)
    await log.apply([follow("a", data={"acquisition": {"channel": "organic"}})])
    assert await rows(sessions, "event", "data") == [(None,)]


async def test_a_stale_position_is_refused_and_changes_nothing(sessions: Sessions) -> None:
    recorder = Recorder([])
    log = Log("profile", sessions, recorder, lambda _: True)
    await log.apply([follow("a")])
    applier = Applier("profile", sessions, recorder, lambda _: True)
    with pytest.raises(OffsetConflictError):
        await applier.apply(CLUSTER, [batch_of([follow("b")], position=0)], NOW)
    with pytest.raises(OffsetConflictError):
        await applier.apply("another cluster", [batch_of([follow("b")], position=1)], NOW)
    assert await rows(sessions, "event", "id") == [("a",)]


async def test_of_several_partitions_all_are_applied_or_none(sessions: Sessions) -> None:
    recorder = Recorder([], poison=frozenset({"bad"}))
    applier = Applier("profile", sessions, recorder, lambda _: True)
    await StoredPositions("profile", sessions).reset(CLUSTER, {("superfan.follows", n): 0 for n in range(3)})
    first, second, third = (
        Batch("superfan.follows", n, 0, 2, batch_of([follow(f"{n}a"), follow("bad" if n == 1 else f"{n}b")]).records)
        for n in range(3)
    )
    await applier.apply(CLUSTER, [first], NOW)
    with pytest.raises(OffsetConflictError) as refused:
        await applier.apply(CLUSTER, [first, second, third], NOW)
    assert refused.value.batches == [first]
    assert await rows(sessions, "event", "id") == [("0a",), ("0b",)]
    await applier.apply(CLUSTER, [second, third], NOW)
    assert await rows(sessions, "event", "id") == [("0a",), ("0b",), ("1a",), ("2a",), ("2b",)]
    assert await rows(sessions, "dead_letter", "reason") == [("cannot fold ['bad']",)]
    assert await rows(sessions, "consumer_offset", "partition, next_offset") == [(0, 2), (1, 2), (2, 2)]


async def test_of_two_owners_of_a_partition_one_applies_each_batch(sessions: Sessions) -> None:
    """Both believe to own the partition and read the same records; the chain of batches has no gap and no overlap."""
    recorders = [Recorder([]), Recorder([])]
    appliers = [Applier("profile", sessions, recorder, lambda _: True) for recorder in recorders]
    await StoredPositions("profile", sessions).reset(CLUSTER, {("superfan.follows", 0): 0})

    async def claim(applier: Applier, position: int) -> None:
        try:
            await applier.apply(CLUSTER, [batch_of([follow(f"e{position}")], position)], NOW)
        except OffsetConflictError:
            return

    for position in range(40):
        await asyncio.gather(*(claim(applier, position) for applier in appliers))
    assert sorted(recorders[0].seen + recorders[1].seen) == sorted(f"e{n}" for n in range(40))
    assert await rows(sessions, "consumer_offset", "next_offset") == [(40,)]


async def test_a_bad_event_is_set_aside_alone(sessions: Sessions) -> None:
    recorder = Recorder([], poison=frozenset({"e5"}))
    log = Log("profile", sessions, recorder, lambda _: True)
    await log.apply([follow(f"e{n}") for n in range(9)])
    assert {"e0", "e8"} <= set(recorder.seen)
    assert ("e5",) not in await rows(sessions, "event", "id")
    letters = await rows(sessions, "dead_letter", "type, error, reason, attempts")
    assert letters == [("follow", "ValueError", "cannot fold ['e5']", 1)]
    assert await rows(sessions, "consumer_offset", "next_offset") == [(9,)]


async def test_a_dead_letter_that_comes_again_is_one_row(sessions: Sessions) -> None:
    log = Log("profile", sessions, Recorder([], poison=frozenset({"a"})), lambda _: True)
    await log.apply([follow("a")])
    await log.apply([follow("a")])
    assert await rows(sessions, "dead_letter", "attempts") == [(2,)]


async def test_bytes_that_are_no_event_are_set_aside(sessions: Sessions) -> None:
    recorder = Recorder([])
    log = Log("profile", sessions, recorder, lambda _: True)
    await log.apply([b"\xff\xfe", follow("a"), b'{"type":"nonsense"}', b""])
    assert recorder.seen == ["a"]
    assert await rows(sessions, "dead_letter", "value") == [(b"",), (b"\xff\xfe",), (b'{"type":"nonsense"}',)]


async def test_what_became_of_a_traced_event_is_told_in_its_trace(sessions: Sessions) -> None:
    traces = {name: f"00-{number:032x}-{'b' * 16}-01" for number, name in enumerate(("new", "bad"), 1)}
    log = Log("profile", sessions, Recorder([], poison=frozenset({"bad"}), publish=True), lambda _: True)
    with spans_kept() as sent, capture_logs() as logs:
        events = [follow("untraced"), *(follow(name, traceparent=trace) for name, trace in traces.items())]
        await log.apply(events)
        await log.apply([follow("new", traceparent=traces["new"])])
    spans = sent.get_finished_spans()
    found = {(span.get_span_context().trace_id, dict(span.attributes or {})["superfan.outcome"]) for span in spans}  # type: ignore[union-attr]
    assert found == {(1, "applied"), (2, "dead_letter"), (1, "repeat")}
    published = [orjson.loads(value) for (value,) in await rows(sessions, "outbox", "value")]
    assert {event["id"]: event.get("traceparent") for event in published} == {
        "untraced": None,
        "new": next(traceparent_of(span) for span in spans if "applied" in span.to_json()),  # type: ignore[arg-type]
    }
    [entry] = [entry for entry in logs if entry["event"] == "an event went to the dead letters"]
    assert entry["trace_id"] == f"{2:032x}"


async def test_what_was_published_by_a_bad_event_is_undone(sessions: Sessions) -> None:
    recorder = Recorder([], poison=frozenset({"e1"}), publish=True)
    log = Log("profile", sessions, recorder, lambda _: True)
    await log.apply([follow("e0"), follow("e1"), follow("e2")])
    assert len(await rows(sessions, "outbox", "id")) == 2


async def test_a_failing_database_makes_no_dead_letter(sessions: Sessions) -> None:
    log = Log("profile", sessions, Recorder([], error=ConnectionResetError("gone")), lambda _: True)
    with pytest.raises(ConnectionResetError):
        await log.apply([follow("a")])
    assert await rows(sessions, "dead_letter", "digest") == []
    assert await rows(sessions, "event", "id") == []
    assert await rows(sessions, "consumer_offset", "next_offset") == [(0,)]


async def test_a_new_account_is_waited_for_and_an_unknown_one_set_aside(sessions: Sessions) -> None:
    log = Log("profile", sessions, Recorder([], error=UnknownAccountError("demo")), lambda _: True)
    with pytest.raises(WaitForAccountError):
        await log.apply([follow("a")])
    log = Log("profile", sessions, Recorder([], error=UnknownAccountError("demo")), lambda _: True)
    await log.apply([follow("a")], now=NOW + timedelta(minutes=5))
    assert await rows(sessions, "dead_letter", "error") == [("UnknownAccountError",)]


async def test_a_wrong_type_for_a_column_is_the_events_fault(sessions: Sessions) -> None:
    """A value that the driver cannot encode must not be tried again for ever."""

    async def handle(session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        await session.execute(text("select cast(:n as bigint)"), {"n": "not a number"})

    await Log("profile", sessions, handle, lambda _: True).apply([follow("a")])
    assert len(await rows(sessions, "dead_letter", "digest")) == 1


async def test_a_partition_without_a_position_starts_at_the_earliest_record(sessions: Sessions) -> None:
    positions = StoredPositions("profile", sessions)
    assert await positions.load(CLUSTER, [("superfan.follows", 0)]) == {}
    await positions.reset(CLUSTER, {("superfan.follows", 0): 7, ("superfan.follows", 1): 3})
    loaded = await positions.load(CLUSTER, [("superfan.follows", 0), ("superfan.follows", 1), ("superfan.views", 0)])
    assert loaded == {("superfan.follows", 0): 7, ("superfan.follows", 1): 3}
    assert await positions.load("another cluster", [("superfan.follows", 0)]) == {}
