"""A Kafka broker for one test run."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from libs.cli.local.jars import fetch_jars
from libs.cli.local.kafka import KafkaServer, find_java
from libs.cli.local.processes import free_ports
from libs.common.kafka import apply_topics, cluster_id
from libs.common.kafka.admin import admin_client
from tests.support.proxy import Proxy


class TestBroker:
    """A real broker on a free port that stays the same over stops, kills and wipes; all topics are declared on it."""

    __test__ = False

    def __init__(self, proxy: Proxy | None = None) -> None:
        """With a `proxy` (started), who comes through it stays behind it; `bootstrap` is still the broker itself."""
        self.folder = Path(tempfile.mkdtemp(prefix="superfan-tests-kafka-"))
        fetch_jars(print)
        kind = self.kind if proxy is None else partial(_ProxiedServer, proxy)
        self._server = kind(self.folder / "kafka", find_java(print), log=self.folder / "kafka.log")

    kind: type[KafkaServer] = KafkaServer

    @property
    def bootstrap(self) -> str:
        return self._server.bootstrap

    @property
    def pid(self) -> int:
        assert self._server.child is not None
        return self._server.child.pid

    @property
    def running(self) -> bool:
        return self._server.child is not None and self._server.child.running

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
        os.kill(self.pid, number)

    async def wipe(self) -> None:
        """Ends the broker and throws its data away; `start` makes a new cluster on the same port."""
        await self._server.wipe()

    async def delete_records(self, before: Mapping[tuple[str, int], int]) -> None:
        """Removes what lies before these offsets, as retention does."""
        async with admin_client(self.bootstrap) as admin:
            await admin.delete_records(
                {TopicPartition(*key): RecordsToDelete(before_offset=offset) for key, offset in before.items()}
            )

    async def cluster_id(self) -> str:
        return await cluster_id(self.bootstrap)

    async def close(self) -> None:
        await self._server.stop()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


def add_listener(settings: Path, name: str, address: str, advertised: str, protocol: str) -> None:
    """A further listener in server.properties; clients go where brokers say that they are (`advertised`)."""
    lines = settings.read_text().splitlines()
    more = {
        "listeners": f"{name}://{address}",
        "advertised.listeners": f"{name}://{advertised}",
        "listener.security.protocol.map": f"{name}:{protocol}",
    }
    lines = [f"{line},{more[key]}" if (key := line.partition("=")[0]) in more else line for line in lines]
    settings.write_text("\n".join(lines) + "\n")


class _ProxiedServer(KafkaServer):
    """Has a second listener, whose advertised address is the proxy's."""

    def __init__(self, proxy: Proxy, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._proxy = proxy

    async def prepare(self) -> None:
        await super().prepare()
        self._proxy.target = self._proxy.target or free_ports(1)[0]
        add_listener(self._settings, "PROXIED", f"127.0.0.1:{self._proxy.target}", self._proxy.address, "PLAINTEXT")
