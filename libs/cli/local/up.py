"""Starts a whole system in order, keeps it running, and stops it in order."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from libs.cli.local.devconfig import ensure_config, first_key, secret_files
from libs.cli.local.jars import KAFKA_VERSION, fetch_jars
from libs.cli.local.kafka import KafkaServer, find_java
from libs.cli.local.migrations import migrate_databases
from libs.cli.local.postgres import PostgresServer, choose_programs, cluster_folder, ensure_database, major_version
from libs.cli.local.processes import Child, LaunchError, Mark, free_ports, port_is_free, stop_marked
from libs.cli.local.progress import Progress
from libs.cli.local.state import ROOT, SERVICES, WITH_DATABASE, Folder, State

STEPS = 6
KAFKA_PORT = 19092
HTTP_PORTS = dict(zip(SERVICES, range(8001, 8006), strict=True))
METRICS_PORTS = dict(zip(SERVICES, range(9001, 9006), strict=True))
READY_SECONDS = 90
STOP_SECONDS = 50  # a little more than a service takes at most
RESTARTS, RESTART_WINDOW = 5, 60.0

PortChoice = Literal["fixed", "auto"]


@dataclass(frozen=True)
class Ports:
    """Where the servers of one system listen; PostgreSQL takes any free port."""

    kafka: int
    http: dict[str, int]
    metrics: dict[str, int]


def choose_ports(choice: PortChoice, *, own_kafka: bool) -> Ports:
    """Raises LaunchError with one line when a fixed port is taken."""
    if choice == "auto":
        numbers = free_ports(1 + 2 * len(SERVICES))
        half = 1 + len(SERVICES)
        http, metrics = (dict(zip(SERVICES, part, strict=True)) for part in (numbers[1:half], numbers[half:]))
        return Ports(numbers[0], http, metrics)
    wanted = [*HTTP_PORTS.items(), *((f"{name} metrics", port) for name, port in METRICS_PORTS.items())]
    if own_kafka:
        wanted.append(("kafka", KAFKA_PORT))
    for name, port in wanted:
        if not port_is_free(port):
            raise LaunchError(f"port {port} ({name}) is taken{_owner(port)}: stop that program, or use --ports auto")
    return Ports(KAFKA_PORT, HTTP_PORTS, METRICS_PORTS)


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", None) == port
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return ""


class System:
    """PostgreSQL, Kafka and the five services of one data folder."""

    def __init__(self, folder: Folder, config: Path | None, ports: PortChoice, progress: Progress) -> None:
        self.folder = folder
        self._given_config = config
        self._port_choice = ports
        self._progress = progress
        self._state = State()
        self._starts: dict[str, Callable[[], Awaitable[Child]]] = {}
        self._children: dict[str, Child] = {}
        self._postgres_urls: dict[str, str] = {}
        self._bootstrap = ""

    async def start(self) -> dict[str, Any]:
        """Returns what run.json then holds. Raises LaunchError."""
        self.folder.hold()
        before = self.folder.read_state()
        self.folder.forget()
        left = await stop_marked(list(before.processes.values()))
        if left:
            self._progress.note(f"ended {left} processes that an earlier start had left behind")
        self._state = State(Mark.of(os.getpid()))
        self.folder.write_state(self._state)

        config = self._check_config()
        external_kafka = os.environ.get("SUPERFAN_KAFKA")
        ports = choose_ports(self._port_choice, own_kafka=not external_kafka)
        # Kafka needs seconds to start; databases are made and migrated meanwhile.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_kafka(external_kafka, ports.kafka))
            group.create_task(self._start_databases())
        await self._start_services(config, ports)
        run = self._describe(config, ports)
        self.folder.write_run(run)
        self._state.phase = "ready"
        self.folder.write_state(self._state)
        return run

    def _check_config(self) -> Path:
        from libs.common.config import ConfigError, load

        began = time.monotonic()
        path = self._given_config.absolute() if self._given_config else ensure_config(self.folder.config)
        try:
            load(path)
        except ConfigError as error:
            raise LaunchError(str(error)) from None
        self._progress.done("config", str(path), began)
        return path

    async def _start_kafka(self, external: str | None, port: int) -> None:
        from libs.common.kafka import apply_topics

        began = time.monotonic()
        if external:
            self._bootstrap = external
            detail = f"{external} (SUPERFAN_KAFKA)"
        else:
            java = await asyncio.to_thread(find_java, self._progress.say)
            await asyncio.to_thread(fetch_jars, self._progress.say)
            self._progress.say(f"starting Apache Kafka {KAFKA_VERSION}")
            server = KafkaServer(self.folder.root / "kafka", java, self.folder.fresh_log("kafka"), port)
            await server.prepare()
            await self._keep("kafka", server.launch, server.ready)
            self._bootstrap = server.bootstrap
            detail = f"{KAFKA_VERSION}  {server.bootstrap}"
        self._progress.done("kafka", detail, began)
        began = time.monotonic()
        try:
            created = await asyncio.wait_for(apply_topics(self._bootstrap), 60)
        except Exception as error:
            raise LaunchError(f"topics could not be made on Kafka at {self._bootstrap}: {error!r}") from None
        self._progress.done("topics", f"{len(created)} new" if created else "all there", began)

    async def _start_databases(self) -> None:
        began = time.monotonic()
        server_url = os.environ.get("SUPERFAN_PG_URL")
        if server_url:
            detail = "SUPERFAN_PG_URL"
        else:
            folder = await cluster_folder(self.folder.root)
            programs = await asyncio.to_thread(choose_programs, folder, self._progress.say)
            server = PostgresServer(folder, programs, self.folder.fresh_log("postgres"))
            self._progress.say("starting PostgreSQL")
            await server.prepare()
            await self._keep("postgres", server.launch, server.ready)
            server_url = server.url()
            detail = f"{major_version(programs)}  127.0.0.1:{server.port}"
        try:
            for service in WITH_DATABASE:
                self._postgres_urls[service] = await ensure_database(server_url, f"superfan_{service}")
        except Exception as error:
            raise LaunchError(f"PostgreSQL ({detail}) cannot be used: {error!r}") from None
        self._progress.done("postgres", detail, began)
        began = time.monotonic()
        await asyncio.to_thread(migrate_databases, self._postgres_urls, self.folder.log("migrate"))
        self._progress.done("migrate", f"{len(WITH_DATABASE)} databases", began)

    async def _start_services(self, config: Path, ports: Ports) -> None:
        self._progress.say("starting the services")
        began = time.monotonic()
        for service in SERVICES:
            env = service_environment(service, config, self._bootstrap, self._postgres_urls.get(service))
            prefix = f"SUPERFAN_{service.upper()}_"
            env |= {
                prefix + "HTTP_PORT": str(ports.http[service]),
                prefix + "METRICS_PORT": str(ports.metrics[service]),
            }
            if service == "ingest":
                env.setdefault(prefix + "SPOOL", str(self.folder.root / "spool"))
            self.folder.fresh_log(service)

            def launch(service: str = service, env: dict[str, str] = env) -> Child:
                command = [sys.executable, "-m", f"services.{service}", "all"]
                return Child.spawn(service, command, log=self.folder.log(service), env=env, cwd=ROOT)

            await self._keep(service, launch, None)
        await asyncio.gather(*(self._until_ready(name, ports.metrics[name]) for name in SERVICES))
        self._progress.done("services", " ".join(SERVICES), began)

    async def _until_ready(self, service: str, port: int) -> None:
        import httpx

        end = time.monotonic() + READY_SECONDS
        reason = "no answer"
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            while True:
                self._children[service].check()
                try:
                    answer = await client.get(f"http://127.0.0.1:{port}/readyz")
                    if answer.status_code == 200:
                        return
                    reason = answer.text[:300]
                except httpx.HTTPError:
                    reason = "no answer"
                if time.monotonic() > end:
                    log = self.folder.log(service)
                    raise LaunchError(f"{service} is not ready after {READY_SECONDS} s: {reason}; see {log}")
                await asyncio.sleep(0.1)

    async def _keep(self, name: str, launch: Callable[[], Child], ready: Callable[[], Awaitable[None]] | None) -> None:
        """Starts a child now, and again whenever it ends while the system runs."""

        async def begin() -> Child:
            child = launch()
            self._children[name] = child
            with contextlib.suppress(psutil.Error):  # it ended at once: whoever waits for it reports that
                self._state.processes[name] = Mark.of(child.pid)
            self.folder.write_state(self._state)
            if ready is not None:
                await ready()
            return child

        self._starts[name] = begin
        await begin()

    def _describe(self, config: Path, ports: Ports) -> dict[str, Any]:
        urls = {name: f"http://127.0.0.1:{ports.http[name]}" for name in SERVICES}
        return {
            "services": {
                name: {"url": urls[name], "metrics": f"http://127.0.0.1:{ports.metrics[name]}"} for name in SERVICES
            },
            "kafka": self._bootstrap,
            "postgres": self._postgres_urls,
            "api_key": first_key(config),
            "config": str(config),
            "sources": {
                source: {"url": f"{urls['ingest']}/v1/webhooks/{source}", "secret_file": str(file)}
                for source, file in secret_files(config).items()
            },
        }

    async def watch(self) -> None:
        """Starts again what ends; raises LaunchError when something ends again and again."""
        ends: dict[str, list[float]] = {}
        while True:
            await asyncio.sleep(0.2)
            for name, child in list(self._children.items()):
                if child.running:
                    continue
                now = time.monotonic()
                ends[name] = [*(end for end in ends.get(name, []) if now - end < RESTART_WINDOW), now]
                if len(ends[name]) > RESTARTS:
                    child.check()
                code = child.popen.returncode if child.popen else None
                self._progress.note(f"{name} ended with exit code {code}; starting it again (log: {child.log})")
                await asyncio.sleep(min(2.0, 0.25 * 2 ** len(ends[name])))
                with contextlib.suppress(LaunchError):  # seen as ended in the next round
                    await self._starts[name]()

    def kill(self) -> None:
        """Ends everything at once."""
        for child in self._children.values():
            if child.running:
                os.kill(child.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Stops what runs: ingest, then the consumers, then Kafka and PostgreSQL."""
        if not self.folder.held:
            return
        self._state.phase = "stopping"
        self.folder.run_json.unlink(missing_ok=True)
        for group in (SERVICES[:1], WITH_DATABASE, ("kafka",), ("postgres",)):
            await asyncio.gather(*(self._children[name].stop(STOP_SECONDS) for name in group if name in self._children))
        self.folder.forget()
        self.folder.release()


def service_environment(service: str, config: Path, kafka: str, postgres_url: str | None) -> dict[str, str]:
    """The environment of a service's process; what the user has set for it besides stays."""
    env = {
        **os.environ,
        "SUPERFAN_CONFIG": str(config),
        "SUPERFAN_KAFKA": kafka,
        "SUPERFAN_LOG_FORMAT": os.environ.get("SUPERFAN_LOG_FORMAT", "json"),
        "PYTHONUNBUFFERED": "1",
    }
    if postgres_url:
        env[f"SUPERFAN_{service.upper()}_PG_URL"] = postgres_url
    return env


async def run_system(system: System, when_ready: Callable[[dict[str, Any]], None]) -> None:
    """Starts the system and keeps it until SIGINT or SIGTERM; a second signal ends everything at once."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            system.kill()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)

    async def work() -> None:
        when_ready(await system.start())
        await system.watch()

    task = asyncio.create_task(work())
    waiter = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
    except ExceptionGroup as group:
        raise _first_launch_error(group) from None
    finally:
        task.cancel()
        waiter.cancel()
        await asyncio.gather(task, waiter, return_exceptions=True)
        await system.stop()


def _first_launch_error(group: ExceptionGroup[Exception]) -> Exception:
    known = group.subgroup(LaunchError)
    error: BaseException = known or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else group
