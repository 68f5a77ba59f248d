"""A Kafka broker for one test run."""

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path

from libs.cli.local.jars import fetch_jars
from libs.cli.local.kafka import KafkaServer, find_java
from libs.common.kafka import apply_topics, cluster_id


class TestBroker:
    """A real broker on a free port that stays the same over stops, kills and wipes; all topics are declared on it."""

    __test__ = False

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="superfan-tests-kafka-"))
        fetch_jars(print)
        self._server = KafkaServer(self.folder / "kafka", find_java(print), log=self.folder / "kafka.log")

    @property
    def bootstrap(self) -> str:
        return self._server.bootstrap

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def java(self) -> Path:
        return self._server.java

    async def start(self) -> None:
        """Returns when the broker answers and every topic is there."""
        await self._server.start()
        await apply_topics(self.bootstrap)

    async def stop(self) -> None:
        """Ends the broker in good order; `start` brings it back with its data."""
        await self._server.stop()

    async def kill(self) -> None:
        """SIGKILL; `start` brings it back with its data."""
        await self._server.kill()

    def freeze(self) -> None:
        """SIGSTOP: connections open and stay silent, as behind a black hole; `thaw` ends it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._server.child is not None
        os.kill(self._server.child.pid, number)

    async def wipe(self) -> None:
        """Ends the broker and throws its data away; `start` makes a new cluster on the same port."""
        await self._server.wipe()

    async def cluster_id(self) -> str:
        return await cluster_id(self.bootstrap)

    async def close(self) -> None:
        await self._server.stop()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
