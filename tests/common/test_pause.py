"""Paused topics: over REST, in the database beside older code, and on real workers."""

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from sqlalchemy import text
from structlog.testing import CapturingLogger

from libs.common.consumer import Applier, Worker, line
from libs.common.consumer.offsets import StoredPositions
from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.kafka import Producer, Record
from libs.common.migrate import downgrade, upgrade
from libs.common.outbox import Relay
from tests.support.consumer_app import OPERATOR, READER, consumer_app
from tests.support.folding import NOW, rows
from tests.support.kafka import TestBroker
from tests.support.waiting import until
from tests.support.web import client, places, problem

FOLLOWS, TRAITS = TOPICS = ("superfan.follows", "superfan.traits")


@pytest.fixture
def app(sessions: Sessions, tmp_path: Path) -> FastAPI:
    return consumer_app(sessions, tmp_path, TOPICS)


async def post(app: FastAPI, verb: str, body: Any = None) -> dict[str, Any]:
    """What holds then: the reason of each paused topic, and that of a stop under ''."""
    async with client(app, OPERATOR) as http:
        answer = await http.post(f"/v1/consumer:{verb}", **({} if body is None else {"json": body}))
        assert answer.status_code == 200, answer.text
        state = (await http.get("/v1/consumer")).json()
    assert state == answer.json()
    assert [topic["topic"] for topic in state["topics"]] == list(TOPICS)
    held = {topic["topic"]: topic["reason"] for topic in state["topics"] if topic["paused"]}
    return held | ({"": state["reason"]} if state["stopped"] else {})


async def stop(sessions: Sessions) -> None:
    """As workers do, also those that know of no pauses."""
    async with sessions() as session, session.begin():
        await session.execute(text("insert into consumer_stop (stopped_at, reason) values (now(), 'poison')"))


async def test_topics_are_paused_and_resumed_one_by_one_and_all_together(sessions: Sessions, app: FastAPI) -> None:
    assert await post(app, "pause", {"topics": [FOLLOWS], "reason": "first"}) == {FOLLOWS: "first"}
    assert await post(app, "pause", {"topics": [FOLLOWS, FOLLOWS], "reason": "again"}) == {FOLLOWS: "first"}
    assert await post(app, "pause", {"reason": "all"}) == {FOLLOWS: "first", TRAITS: "all"}
    await stop(sessions)
    assert await post(app, "resume", {"topics": [FOLLOWS]}) == {TRAITS: "all", "": "poison"}
    assert await post(app, "pause", {"topics": [FOLLOWS], "reason": "2nd"}) == {
        FOLLOWS: "2nd",
        TRAITS: "all",
        "": "poison",
    }
    assert await post(app, "resume") == {}
    assert await post(app, "resume", {}) == {}
    told = await rows(sessions, "consumer_stop", "topic, reason, stopped_by, resumed_by")
    who = "demo/operator"
    assert sorted(told) == sorted(
        [("", "poison", None, who), (FOLLOWS, "2nd", who, who), (FOLLOWS, "first", who, who), (TRAITS, "all", who, who)]
    )


async def test_who_paused_what_and_why_is_told_and_logged(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CapturingLogger()
    monkeypatch.setattr("libs.common.consumer.api.log", logger)
    for _ in range(2):
        await post(app, "pause", {"topics": [TRAITS], "reason": "a fix is on its way"})
    await post(app, "resume")
    async with client(app, OPERATOR) as http:
        await http.post("/v1/consumer:pause", json={"topics": [TRAITS], "reason": "x"})
    async with client(app, READER) as http:
        shown = (await http.get("/v1/consumer")).json()["topics"][1]
    assert shown["paused_by"] == "demo/operator"
    assert datetime.fromisoformat(shown["paused_at"]).tzinfo is not None
    who = {"topics": [TRAITS], "account": "demo", "key_id": "operator"}
    assert [(call.args, call.kwargs) for call in logger.calls[:2]] == [
        (("topics were paused",), who | {"reason": "a fix is on its way"}),
        (("the consumer was resumed",), who | {"stop": False}),
    ]


async def test_what_cannot_be_meant_is_refused_and_changes_nothing(sessions: Sessions, app: FastAPI) -> None:
    async with client(app, OPERATOR) as http:
        for verb, body, place in [
            ("pause", {"topics": [FOLLOWS, "superfan.orders"], "reason": "x"}, "/topics/1"),
            ("pause", {"topics": ["follows"], "reason": "x"}, "/topics/0"),
            ("resume", {"topics": ["superfan.orders"]}, "/topics/0"),
            ("pause", {"topics": [], "reason": "x"}, "/topics"),
            ("resume", {"topics": []}, "/topics"),
            ("pause", {"topics": [FOLLOWS]}, "/reason"),
            ("pause", {"topic": FOLLOWS, "reason": "x"}, "/topic"),
        ]:
            answer = await http.post(f"/v1/consumer:{verb}", json=body)
            assert places(problem(answer, 422, "invalid_request")) == [place]
        problem(await http.post("/v1/consumer:pause"), 422, "invalid_request")
    async with client(app, READER) as http:
        problem(await http.post("/v1/consumer:pause", json={"reason": "x"}), 403, "missing_scope")
    assert await rows(sessions, "consumer_stop", "topic") == []


async def test_code_from_before_holds_everything_while_a_topic_is_paused(sessions: Sessions, app: FastAPI) -> None:
    """Its statements: workers of both versions run side by side during an upgrade."""
    read = "select stopped_at, reason from consumer_stop where resumed_at is null order by stopped_at limit 1"
    ends = "update consumer_stop set resumed_at = now(), resumed_by = 'old' where resumed_at is null returning 1"
    stops = "insert into consumer_stop (stopped_at, reason) values (:now, :reason) on conflict do nothing returning 1"

    async def old(statement: str, **values: Any) -> list[Any]:
        async with sessions() as session, session.begin():
            return list((await session.execute(text(statement), values)).all())

    await post(app, "pause", {"reason": "all of them"})
    assert [row.reason for row in await old(read)] == ["all of them"]
    await post(app, "resume", {"topics": [TRAITS]})
    assert [row.reason for row in await old(read)] == ["all of them"], "the pause of the other topic goes on"
    await old(stops, now=NOW, reason="poison")
    assert await post(app, "resume", {"topics": [FOLLOWS]}) == {"": "poison"}
    await post(app, "pause", {"topics": [TRAITS], "reason": "one"})
    assert len(await old(ends)) == 2
    assert await post(app, "resume") == {}
    assert await old(read) == []


async def test_a_pause_neither_hides_a_stop_nor_forgives_dead_letters(sessions: Sessions) -> None:
    """The limits of dead letters count from the last end of a stop, whatever was paused meanwhile."""
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                'insert into dead_letter (digest, topic, partition, "offset", error, reason, first_at, last_at)'
                " select decode(md5(n::text), 'hex'), 't', 0, n, 'e', 'r', :now, :now from generate_series(1, 100) n"
            ),
            {"now": NOW},
        )
        await line.pause(session, [TRAITS], "x", "who", NOW)
        await line.resume(session, [TRAITS], "who", NOW)
        await line.pause(session, [FOLLOWS], "x", "who", NOW)
        assert await line.stop_if_needed(session, "c", NOW) is not None
        state = await line.read(session)
        assert state.stop is not None
        assert state.pauses.keys() == {FOLLOWS}


async def test_undoing_the_migration_keeps_what_is_held(pg_url: str) -> None:
    async def run(statement: str) -> list[Any]:
        import asyncpg

        connection = await asyncpg.connect(pg_url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    await upgrade(pg_url, "rewards", "0003")
    await run("insert into consumer_stop values ('2026-01-01Z', 'old', '2026-01-02Z', 'who')")
    await upgrade(pg_url, "rewards")
    await run(
        "insert into consumer_stop (stopped_at, topic, reason, resumed_at) values"
        " ('2026-01-03Z', 'a', 'pause', '2026-01-04Z'), ('2026-01-03Z', 'b', 'pause', null),"
        " ('2026-01-03Z', 'c', 'pause', null), ('2026-01-05Z', 'a', 'over', '2026-01-06Z')"
    )
    await downgrade(pg_url, "rewards", "0003")
    kept = await run("select reason, resumed_at is null from consumer_stop order by stopped_at")
    assert kept == [("old", False), ("pause", True), ("over", False)]
    await upgrade(pg_url, "rewards")
    assert await run("select count(*) from consumer_stop where topic = ''") == [(3,)]


@dataclass
class Recorder:
    """Remembers what was applied, by topic; can be made to lose the database."""

    away: bool = False
    seen: dict[str, set[str]] = field(default_factory=lambda: {topic: set() for topic in TOPICS})

    async def __call__(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        if self.away:
            raise ConnectionResetError("the database went away")
        for event in events:
            self.seen[event.topic].add(event.id)


class Pod:
    """One process of the service, so to speak."""

    def __init__(self, name: str, kafka: TestBroker, sessions: Sessions, producer: Producer) -> None:
        self.recorder = Recorder()
        self.applier = Applier(name, sessions, self.recorder, lambda _: False)
        self.worker = Worker(
            name,
            kafka.bootstrap,
            TOPICS,
            applier=self.applier,
            positions=StoredPositions(name, sessions),
            relay=Relay(name, sessions, producer),
        )


async def send(producer: Producer, count: int) -> dict[str, set[str]]:
    """`count` events on each topic, over many partitions; their ids."""
    now = datetime.now(UTC)
    sent: dict[str, set[str]] = {}
    kinds: list[tuple[str, str, dict[str, Any]]] = [("follow", FOLLOWS, {}), ("profile.traits", TRAITS, {"traits": {}})]
    for event_type, topic, data in kinds:
        events = [
            new_event(
                event_type,
                account="demo",
                source="/pause",
                id=uuid.uuid4().hex,
                subject=f"douyin:p{n}",
                time=now,
                received=now,
                data=data,
            )
            for n in range(count)
        ]
        assert set(await producer.send([Record(e.topic, e.key, e.to_json()) for e in events], 10)) == {None}
        sent[topic] = {event.id for event in events}
    return sent


async def test_workers_hold_a_paused_topic_alone_also_new_ones_and_lose_nothing(
    kafka: TestBroker, sessions: Sessions, producer: Producer, app: FastAPI
) -> None:
    name = f"profile-{uuid.uuid4().hex[:8]}"
    pods: list[Pod] = []

    def applied(topic: str) -> set[str]:
        return set().union(*(pod.recorder.seen[topic] for pod in pods))

    def metric(what: str, topic: str) -> float:
        return REGISTRY.get_sample_value(f"superfan_consumer_{what}", {"service": name, "topic": topic}) or 0.0

    async def start() -> None:
        """One more, of which the gauges tell from then on."""
        pod = Pod(name, kafka, sessions, producer)
        pods.append(pod)
        await pod.worker.start()
        await until(lambda: pod.worker.unready() is None)

    try:
        await start()
        first = await send(producer, 20)
        await until(lambda: all(first[topic] <= applied(topic) for topic in TOPICS))
        await until(lambda: metric("lag_seconds", FOLLOWS) == metric("lag_seconds", TRAITS) == 0)
        assert metric("held", FOLLOWS) == 0

        await post(app, "pause", {"topics": [FOLLOWS], "reason": "a new fold"})
        await until(lambda: pods[0].applier.line.is_paused(FOLLOWS))
        assert "superfan.follows since" in (notice := pods[0].applier.line.pause_notice() or "")
        assert notice.endswith("by demo/operator: a new fold")
        assert pods[0].applier.line.stop_notice() is None
        await asyncio.sleep(1)  # longer than one poll, so that the loop has seen it
        second = await send(producer, 20)
        await start()  # takes half of the partitions
        third = await send(producer, 20)
        await until(lambda: second[TRAITS] | third[TRAITS] <= applied(TRAITS))
        assert not (second[FOLLOWS] | third[FOLLOWS]) & applied(FOLLOWS)
        assert (metric("held", FOLLOWS), metric("held", TRAITS)) == (1, 0)
        late = metric("lag_seconds", FOLLOWS)
        await until(lambda: metric("lag_seconds", FOLLOWS) > late + 1)
        await until(lambda: metric("lag_seconds", TRAITS) == 0)
        assert not any(pod.worker.unready() or pod.worker.stuck() for pod in pods)
        assert not metric("rebuilds_total", FOLLOWS)

        await post(app, "resume", {"topics": [FOLLOWS]})
        await until(lambda: second[FOLLOWS] | third[FOLLOWS] <= applied(FOLLOWS))
        await until(lambda: metric("lag_seconds", FOLLOWS) == metric("held", FOLLOWS) == 0)
        assert not pods[0].recorder.seen[FOLLOWS] & pods[1].recorder.seen[FOLLOWS], "once"

        for pod in pods:
            pod.recorder.away = True
        fourth = await send(producer, 20)
        await until(lambda: metric("lag_seconds", FOLLOWS) > 1)
        for pod in pods:
            pod.recorder.away = False
        await until(lambda: fourth[FOLLOWS] <= applied(FOLLOWS))
        await until(lambda: metric("lag_seconds", FOLLOWS) == 0)
        await post(app, "pause", {"reason": "before the end"})
        await until(lambda: metric("lag_seconds", FOLLOWS) > 0)
    finally:
        for pod in pods:
            await pod.worker.stop()
    assert metric("partitions", FOLLOWS) == metric("lag_seconds", FOLLOWS) == 0, "it holds none any more"
