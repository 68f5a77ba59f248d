"""A real Apache Kafka broker on this machine: one node that is broker and controller."""

import asyncio
import logging
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.cli.local.jars import KAFKA_VERSION, jars_folder
from libs.cli.local.processes import Child, LaunchError, free_ports
from libs.cli.local.tools import Say, wheel_folder

OLDEST_JAVA = 17
MEMORY = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
QUIET = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={log_dirs}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
# A broker that was killed is taken back as soon as its old registration expires.
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=250
"""


def installed_java() -> Path | None:
    """The installed Java 17 or newer."""
    candidates = [Path(os.environ["JAVA_HOME"], "bin", "java")] if os.environ.get("JAVA_HOME") else []
    if found := shutil.which("java"):
        candidates.append(Path(found))
    for java in candidates:
        if java.exists() and java_major(java) >= OLDEST_JAVA:
            return java
    return None


def find_java(say: Say) -> Path:
    """The installed Java 17 or newer, else the one of the wheel."""
    return installed_java() or next(wheel_folder("java", "Java 17 or newer is not installed", say).glob("**/bin/java"))


def java_major(java: Path) -> int:
    """The major version of this Java; 0 when it does not run."""
    answer = subprocess.run([str(java), "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)', answer.stderr)
    return int(match[1]) if match else 0


@dataclass
class KafkaServer:
    """A broker of our own on loopback; its data, settings and cluster id lie in `folder`."""

    folder: Path
    java: Path
    log: Path
    port: int = 0
    child: Child | None = field(default=None, repr=False)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    async def start(self) -> None:
        """Returns when the broker answers and is known to be ours."""
        await self.prepare()
        self.launch()
        await self.ready()

    async def prepare(self) -> None:
        """Writes the settings and formats the folder when it is new."""
        controller_port, *more = free_ports(2)
        self.port = self.port or more[0]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_version()
        self._settings.write_text(
            PROPERTIES.format(port=self.port, controller_port=controller_port, log_dirs=self._data.absolute())
        )
        if not (self._data / "meta.properties").exists():
            shutil.rmtree(self._data, ignore_errors=True)
            await asyncio.to_thread(self._format)

    def launch(self) -> Child:
        """Starts the process."""
        command = self._command("kafka.Kafka", str(self._settings))
        self.child = Child.spawn("kafka", command, log=self.log, cwd=self.folder)
        return self.child

    def _command(self, main: str, *arguments: str) -> list[str]:
        heap_dumps_off = ["-XX:-HeapDumpOnOutOfMemoryError"]
        return [str(self.java), *MEMORY, *heap_dumps_off, *QUIET, "-cp", f"{jars_folder()}/*", main, *arguments]

    def _check_version(self) -> None:
        mark = self.folder / "version"
        if mark.exists() and _numbers(mark.read_text()) > _numbers(KAFKA_VERSION):
            raise LaunchError(
                f"{self.folder} was written by Apache Kafka {mark.read_text()} and this is {KAFKA_VERSION}: "
                "choose another data folder"
            )
        mark.write_text(KAFKA_VERSION)

    def _format(self) -> None:
        # "--cluster-id=" in one word: as a word of its own an id that begins with "-" would be read as an option.
        arguments = ["format", "--standalone", f"--cluster-id={uuid.uuid4().hex[:22]}", "-c", str(self._settings)]
        command = self._command("kafka.tools.StorageTool", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise LaunchError(
                f"Kafka's data folder could not be formatted: {(done.stderr or done.stdout).strip()[-400:]}"
            )

    def own_cluster_id(self) -> str:
        """The id that was given when the folder was formatted."""
        lines = (self._data / "meta.properties").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))

    async def ready(self, seconds: float = 90) -> None:
        """Returns when the broker answers and is known to be ours."""
        from libs.common.kafka import cluster_id

        assert self.child is not None
        end = time.monotonic() + seconds
        while True:
            self.child.check()
            if time.monotonic() > end:
                raise LaunchError(
                    f"Kafka is not ready after {seconds:.0f} s; see {self.log}\n{self.child.last_lines()}"
                )
            if await _accepts(self.port):
                try:
                    served = await _quietly(cluster_id(self.bootstrap))
                except Exception:  # not ready yet, whatever the client calls it; the time limit ends it
                    served = None
                if served is not None:
                    break
            await asyncio.sleep(0.05)
        self.child.check()
        if served != self.own_cluster_id():
            raise LaunchError(f"another Kafka broker answers on our port {self.port}: stop it, or use --ports auto")

    async def stop(self) -> None:
        """Ends the broker in good order."""
        if self.child is not None:
            await self.child.stop(deadline=15)

    async def kill(self) -> None:
        """SIGKILL."""
        if self.child is not None:
            await self.child.kill()

    async def wipe(self) -> None:
        """Ends the broker and throws its data away: the next start on the same port is another cluster."""
        await self.kill()
        shutil.rmtree(self._data, ignore_errors=True)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _quietly(call: Coroutine[Any, Any, str]) -> str:
    """Awaits with the client's log off: it reports every attempt on a broker that is still starting."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        return await asyncio.wait_for(call, 10)
    finally:
        logger.setLevel(level)
