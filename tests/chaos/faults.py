"""The faults. Each is done to a running system under load, and puts right what an operator would have to.

Numbers are those of the battery that docs/reliability.md describes. A function gets the world and how many seconds the
fault should last, and returns what is worth telling.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import orjson

from libs.common.kafka import Producer, Record
from tests.chaos.load import History
from tests.chaos.world import UNCHECKED, World, fill
from tests.support.services import SERVICES, SPOOLED, WITH_DATABASE

ACK_LIMIT = 1.2
"""Seconds in which ingest promises its 202, whatever Kafka does."""
TELLING = ("segmentation", "engagement", "rewards")
"""Services that publish notices."""


class NotPossibleError(Exception):
    """This machine does not allow the fault."""


@dataclass(frozen=True)
class Fault:
    """`name` is the number in the battery; `limit` is what the slowest of the 202s should stay under, in seconds."""

    name: str
    do: Callable[[World, History, float], Awaitable[str]]
    limit: float | None = None

    @property
    def account(self) -> str:
        return self.name.lower()

    @property
    def what(self) -> str:
        assert self.do.__doc__ is not None
        return " ".join(self.do.__doc__.split())


async def killed_workers(world: World, history: History, seconds: float) -> str:
    """Workers get SIGKILL in the middle of what they do, one service after the other, and are started again."""
    end, kills = time.monotonic() + seconds, 0
    draw = random.Random(1)
    while time.monotonic() < end or kills < len(WITH_DATABASE):
        service = WITH_DATABASE[kills % len(WITH_DATABASE)]
        await world.kill(service)
        await world.respawn(service)
        kills += 1
        if time.monotonic() < end:
            await world.system.wait_ready([service])
        await asyncio.sleep(draw.uniform(0, 0.5))
    return f"{kills} kills"


async def zombies(world: World, history: History, seconds: float) -> str:
    """Every worker gets a second copy and is frozen (SIGSTOP) until Kafka has given its partitions to the copy; then
    it is woken, in the belief that they are still its own. The copy ends."""
    copies = [f"{service}-copy" for service in WITH_DATABASE]
    for service, copy in zip(WITH_DATABASE, copies, strict=True):
        await world.system.spawn(service, "worker", copy)
    await world.system.wait_ready(copies)
    world.signal(signal.SIGSTOP)
    await asyncio.sleep(max(seconds, 13))  # Kafka's session time-out is 10 s
    world.signal(signal.SIGCONT)
    await asyncio.sleep(3)
    refused = await world.total("superfan_offset_conflicts_total", WITH_DATABASE)
    await world.remove(copies)
    return f"frozen for {max(seconds, 13):.0f} s; {refused} batches of zombies refused"


async def killed_broker(world: World, history: History, seconds: float) -> str:
    """The broker gets SIGKILL and is started again at once; as often as there is time for."""
    end, kills = time.monotonic() + seconds, 0
    while kills == 0 or time.monotonic() < end:
        await world.system.broker.kill()
        kills += 1
        await world.system.broker.start()
        await asyncio.sleep(2)
    return f"{kills} kills; {await world.total(SPOOLED, ['ingest'])} events in the spool at the end"


async def kafka_down(world: World, history: History, seconds: float) -> str:
    """The broker is stopped in good order, stays away, and is started again."""
    await world.system.broker.stop()
    await asyncio.sleep(seconds)
    waiting = await world.total(SPOOLED, ["ingest"])
    await world.system.broker.start()
    return f"{waiting} events in the spool when it came back"


async def black_hole(world: World, history: History, seconds: float) -> str:
    """Every packet between the services and the broker is swallowed: connections stay open, nothing comes through."""
    world.proxy.swallow()
    await asyncio.sleep(seconds)
    waiting = await world.total(SPOOLED, ["ingest"])
    world.proxy.heal()
    return f"{waiting} events in the spool at the end"


async def slow_kafka(world: World, history: History, seconds: float) -> str:
    """Every packet to and from the broker is 0.1 s late, then 0.6 s, which is more than ingest waits for."""
    world.proxy.delay = 0.1
    await asyncio.sleep(seconds / 2)
    world.proxy.delay = 0.6
    await asyncio.sleep(seconds / 2)
    waiting = await world.total(SPOOLED, ["ingest"])
    world.proxy.heal()
    return f"{waiting} events in the spool at the end"


async def killed_ingest(world: World, history: History, seconds: float) -> str:
    """Kafka is a black hole, the spool fills, and ingest gets SIGKILL three times: with the spool filled, at once after
    its start, and while it drains."""
    world.proxy.swallow()
    await asyncio.sleep(seconds)
    waiting = await world.total(SPOOLED, ["ingest"])
    for _ in range(2):
        await world.kill("ingest")
        await world.respawn("ingest")
        await world.system.wait_ready(["ingest"])
    found = await world.total(SPOOLED, ["ingest"])
    world.proxy.heal()
    await asyncio.sleep(1)
    await world.kill("ingest")
    await world.respawn("ingest")
    return f"{waiting} events in the spool before the kills, {found} found after two of them"


async def spool_disk_full(world: World, history: History, seconds: float) -> str:
    """Kafka is a black hole and not a byte is free on the file system of ingest's spool (tmpfs of 64 MiB), nor in its
    file. ingest is restarted on it, still full; then the room comes back, and then Kafka."""
    if world.why_no_disks:
        raise NotPossibleError(world.why_no_disks)
    world.proxy.swallow()
    await asyncio.sleep(3)
    before = await world.total(SPOOLED, ["ingest"])
    ballast = await asyncio.to_thread(fill, world.spool_disk)
    try:
        await _stuff(world)
        await asyncio.sleep(seconds)
        full = history.statuses()[503]
        held = await world.total(SPOOLED, ["ingest"])
        await world.kill("ingest")
        await world.respawn("ingest")
        await asyncio.sleep(5)
    finally:
        ballast.unlink()
    await asyncio.sleep(5)
    accepted = await world.total(SPOOLED, ["ingest"])
    world.proxy.heal()
    return f"{full} refused with 503 while full; spool {before} → {held} while full → {accepted} with room again"


async def _stuff(world: World) -> None:
    """Large events of an account that nobody checks, until three of them are refused: the spool's file has room inside
    when it has been larger."""
    refused = 0
    for number in range(200):
        comment = {"content_id": "c", "comment_id": str(number), "text": "x" * 200_000}
        answer = await world.system.http.post(
            world.system.url("ingest", "/v1/events"),
            json={"type": "comment", "user": "u", "id": str(number), "data": comment},
            headers=world.system.authorization(UNCHECKED),
        )
        refused += answer.status_code == 503
        if refused == 3:
            return


async def kafka_disk_full(world: World, history: History, seconds: float) -> str:
    """Not a byte is free on the broker's file system (tmpfs of 1 GiB), until the broker gives up; it is started again
    when there is room."""
    if world.why_no_disks:
        raise NotPossibleError(world.why_no_disks)
    ballast = await asyncio.to_thread(fill, world.kafka_disk)
    await asyncio.sleep(seconds)
    gave_up = not world.system.broker.running
    waiting = await world.total(SPOOLED, ["ingest"])
    ballast.unlink()
    await world.system.broker.kill()
    await world.system.broker.start()
    return f"the broker {'ended itself' if gave_up else 'went on'}; {waiting} events in the spool at the end"


async def postgres_restarted(world: World, history: History, seconds: float) -> str:
    """PostgreSQL is restarted in good order, then its main process gets SIGKILL and it recovers from its log; as often
    as there is time for, and at last it stays away for 5 s."""
    end, rounds = time.monotonic() + seconds, 0
    while rounds == 0 or time.monotonic() < end:
        await world.postgres.restart()
        await asyncio.sleep(2)
        await world.postgres.crash()
        await asyncio.sleep(2)
        rounds += 1
    await world.postgres.server.stop()
    await asyncio.sleep(5)
    await world.postgres.server.start()
    return f"{rounds} restarts, {rounds} crashes, one stop of 5 s"


async def cut_sessions(world: World, history: History, seconds: float) -> str:
    """Ten times a second one of the services' database sessions is ended (pg_terminate_backend), whatever it does."""
    statement = (
        "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity where pid <> pg_backend_pid()"
        " and application_name = 'superfan' order by random() limit 1) one"
    )
    connection = await asyncpg.connect(world.postgres.server.url())
    ended, end = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            ended += await connection.fetchval(statement)
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
    return f"{ended} sessions ended"


async def rebalance_storm(world: World, history: History, seconds: float) -> str:
    """Second workers of all services come and go, every other time by SIGKILL, so that Kafka shares out the partitions
    anew again and again."""
    before = await world.total("superfan_consumer_rebalances_total", WITH_DATABASE)
    end, rounds = time.monotonic() + seconds, 0
    while rounds < 2 or time.monotonic() < end:
        extra = [f"{service}-extra" for service in WITH_DATABASE]
        for service, name in zip(WITH_DATABASE, extra, strict=True):
            await world.system.spawn(service, "worker", name)
        await world.system.wait_ready(extra)
        await world.remove(extra, politely=rounds % 2 == 0)
        rounds += 1
    after = await world.total("superfan_consumer_rebalances_total", WITH_DATABASE)
    return f"{rounds} rounds of four workers; {after - before} times partitions were given up"


async def poison(world: World, history: History, seconds: float) -> str:
    """Records that no service can apply are laid on Kafka among the good ones. Each must be a dead letter in every
    service that reads its topic; the others must have their effects."""
    producer = Producer(world.system.broker.bootstrap, "chaos-poison")
    await producer.start()
    try:
        for number in range(24):
            topic, kind = (("superfan.interactions", "like"), ("superfan.follows", "follow"))[number % 2]
            name = f"poison-{number}"
            value = {
                "specversion": "1.0",
                "id": name,
                "source": history.source,
                "type": kind,
                "subject": f"douyin:u{number}",
                "time": "yesterday",
                "account": history.account,
            }
            key = f"{history.account}/{value['subject']}".encode()
            (failure,) = await producer.send([Record(topic, key, orjson.dumps(value))], 30)
            if failure:
                raise failure
            history.poison[name] = topic
            await asyncio.sleep(seconds / 24)
    finally:
        await producer.stop()
    return f"{len(history.poison)} records of poison"


async def killed_relays(world: World, history: History, seconds: float) -> str:
    """Kafka's answers are swallowed, so that relays have published notices and cannot know it; then their processes get
    SIGKILL, before they could commit. What was published is published again: profile must have each notice once."""
    end, rounds = time.monotonic() + seconds, 0
    while rounds < 2 or time.monotonic() < end:
        world.proxy.swallow_answers()
        await asyncio.sleep(0.7)
        await world.kill(*TELLING)
        world.proxy.heal()
        await world.respawn(*TELLING)
        await world.system.wait_ready(TELLING)
        await asyncio.sleep(2)
        rounds += 1
    notices, copies = await world.published_twice(history.account)
    return f"{rounds} rounds; {copies} of {notices} notices on Kafka are copies"


async def rolling_restart(world: World, history: History, seconds: float) -> str:
    """Every process gets SIGTERM and is started again when it has ended, one after the other. ingest has no second
    process here, so its senders find nobody for as long."""
    slowest = 0.0
    for service in SERVICES:
        child = world.system.children[service]
        began = time.monotonic()
        await child.stop(deadline=50)
        slowest = max(slowest, time.monotonic() - began)
        if child.popen is None or child.popen.returncode != 0:
            raise AssertionError(f"{service} ended with {child.popen and child.popen.returncode}")
        await world.respawn(service)
        with contextlib.suppress(TimeoutError):
            await world.system.wait_ready([service])
    return f"all ended with exit code 0, the slowest after {slowest:.1f} s"


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("F1", killed_workers),
        Fault("F2", zombies),
        Fault("F3", killed_broker, ACK_LIMIT),
        Fault("F5", kafka_down, ACK_LIMIT),
        Fault("F6", black_hole, ACK_LIMIT),
        Fault("F6s", slow_kafka, ACK_LIMIT),
        Fault("F7", killed_ingest),
        Fault("F8", spool_disk_full, ACK_LIMIT),
        Fault("F8k", kafka_disk_full, ACK_LIMIT),
        Fault("F10", postgres_restarted),
        Fault("F11", cut_sessions),
        Fault("F13", rebalance_storm),
        Fault("F14", poison),
        Fault("F17", killed_relays),
        Fault("F19", rolling_restart),
    )
}
