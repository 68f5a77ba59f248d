"""Everything that faults are done to: five services, a broker behind a proxy, PostgreSQL, two disks of bounded size."""

import asyncio
import errno
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from libs.common.kafka import end_offsets
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer
from tests.support.proxy import Proxy
from tests.support.services import SERVICES, WITH_DATABASE, System

MIB = 2**20
UNCHECKED = "unchecked"
"""An account for events that only have to be in the way."""
SPOOL_DISK = 64 * MIB
KAFKA_DISK = 1024 * MIB


class World:
    """Every service reaches Kafka through `proxy` and nothing else; the checker does not.

    With `small_disks`, ingest's spool and Kafka's log lie on file systems of their own (tmpfs) where the machine lets
    us mount them; `why_no_disks` says why not.
    """

    def __init__(self, accounts: Iterable[str], *, small_disks: bool = False) -> None:
        self.proxy = Proxy()
        self.postgres = TestServer(fsync=True)
        self.system: System
        self.why_no_disks: str | None = None if small_disks else "not asked for"
        self._accounts: Mapping[str, Mapping[str, str]] = {
            name: {"zone": "Asia/Shanghai"} for name in (*accounts, UNCHECKED)
        }
        self._mounted: list[Path] = []

    async def start(self) -> None:
        """Returns when all services are ready."""
        await self.proxy.start()
        await self.postgres.start()
        self.system = System(self.postgres, self._accounts, TestBroker(self.proxy))
        self.system.env = {"SUPERFAN_KAFKA": self.proxy.address, "SUPERFAN_LOG_LEVEL": "warning"}
        if self.why_no_disks is None:
            self.why_no_disks = self._mount(self.spool_disk, SPOOL_DISK) or self._mount(self.kafka_disk, KAFKA_DISK)
        await self.system.start()

    async def close(self) -> None:
        """Ends and removes everything."""
        self.proxy.heal()
        if hasattr(self, "system"):
            await self.system.stop()
        await self.proxy.close()
        await self.postgres.close()
        for folder in self._mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)

    @property
    def spool_disk(self) -> Path:
        return self.system.folder / "ingest-spool"

    @property
    def kafka_disk(self) -> Path:
        return self.system.broker.folder / "kafka" / "data"

    def _mount(self, folder: Path, size: int) -> str | None:
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "superfan-chaos", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"no file system can be mounted: {error}"
        if done.returncode != 0:
            return f"no file system can be mounted: {done.stderr.strip()[-80:]}"
        self._mounted.append(folder)
        return None

    async def kill(self, *services: str) -> None:
        """SIGKILL to the process of each."""
        for service in services:
            await self.system.children[service].kill()

    async def respawn(self, *services: str) -> None:
        for service in services:
            await self.system.spawn(service)

    def signal(self, number: signal.Signals, names: Iterable[str] = WITH_DATABASE) -> None:
        for name in names:
            os.kill(self.system.children[name].pid, number)

    async def remove(self, names: Iterable[str], *, politely: bool = True) -> None:
        """Ends processes that were started beside the usual ones."""
        children = [self.system.children.pop(name) for name in names]
        await asyncio.gather(*(child.stop() if politely else child.kill() for child in children))

    async def total(self, metric: str, names: Iterable[str] = SERVICES) -> int:
        """A metric's sum over the running processes of these names."""
        return int(sum([await self.system.metric(name, metric) for name in names]))

    async def published_twice(self, account: str) -> tuple[int, int]:
        """How many notices of an account lie on Kafka, and how many of these are copies."""
        ids: Counter[str] = Counter()
        broker = self.system.broker.bootstrap
        ends = await end_offsets(broker, ["superfan.segments", "superfan.messages", "superfan.rewards"])
        consumer = AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False)
        await consumer.start()
        try:
            for (topic, partition), end in ends.items():
                place = TopicPartition(topic, partition)
                consumer.assign([place])
                await consumer.seek_to_beginning(place)
                while await consumer.position(place) < end:
                    for record in (await consumer.getmany(timeout_ms=1000)).get(place, []):
                        notice = orjson.loads(record.value)
                        if notice["account"] == account:
                            ids[f"{notice['source']} {notice['id']}"] += 1
        finally:
            await consumer.stop()
        return ids.total(), ids.total() - len(ids)


def fill(folder: Path) -> Path:
    """Leave no byte free on the file system of `folder`; returns the file that takes the room."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    if file.write(b"\1" * size) < size:
                        break
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return ballast
