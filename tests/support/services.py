"""The five services as real processes on a broker of their own, for tests of the whole."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from libs.cli.local.lag import LagReader
from libs.cli.local.processes import Child, free_ports
from libs.common.config import SCOPES, hash_key, make_key
from libs.common.migrate import upgrade
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer

SERVICES = ("ingest", "profile", "segmentation", "engagement", "rewards")
WITH_DATABASE = SERVICES[1:]
SPOOLED = "superfan_spool_events"
"""Accepted events that Kafka does not have yet."""
SECRETS = {"douyin": "douyin-secret", "standard": "whsec_" + "c2VjcmV0" * 4}
"""Of the sources douyin-demo and standard-demo of the first account."""


class System:
    """Starts on free ports. `program` names a module, with arguments, that starts a service in its way (see
    tests.chaos.sabotaged). `accounts` maps names to their settings in superfan.toml (zone, sign_in_day, …)."""

    def __init__(
        self, server: TestServer, accounts: Mapping[str, Mapping[str, str]], broker: TestBroker | None = None
    ) -> None:
        self.broker = broker or TestBroker()
        self.databases: dict[str, str] = {}
        self.keys = {name: make_key(name, f"secret-of-{name}") for name in accounts}
        self.folder = Path(tempfile.mkdtemp(prefix="superfan-tests-system-"))
        self.children: dict[str, Child] = {}
        self.http = httpx.AsyncClient(timeout=30)
        self.log_format = "console"
        self.program: tuple[str, ...] = ()
        self.tree = Path(__file__).parents[2]
        """The code that processes started from now on run."""
        self.env: dict[str, str] = {}
        self.service_env: dict[str, dict[str, str]] = {}
        self.key_rates: dict[str, float] = {}
        self._server = server
        self._accounts = accounts
        self._ports: dict[str, tuple[int, int]] = {}

    async def start(self, services: Iterable[str] = SERVICES) -> None:
        """Broker, databases, then each of `services` in role `all`; returns when all are ready."""
        await self.prepare(services)
        for service in services:
            if service in self.databases:
                await upgrade(self.databases[service], service)
            await self.spawn(service)
        await self.wait_ready(services)

    async def prepare(self, services: Iterable[str] = SERVICES) -> None:
        """Configuration, broker and empty databases."""
        self.write_config()
        await self.broker.start()
        for service in services:
            if service in WITH_DATABASE:
                self.databases[service] = await self._server.create_database()

    async def stop(self) -> None:
        """End everything that was started."""
        await self.http.aclose()
        for child in self.children.values():
            if child.running and child.popen:
                child.popen.send_signal(signal.SIGCONT)
        await asyncio.gather(*(child.stop() for child in self.children.values()))
        await self.broker.close()

    async def spawn(self, service: str, role: str = "all", name: str | None = None) -> Child:
        """Start a process of `service`, e.g. in role "worker --topics views"; a `name` of its own gives it ports of its
        own."""
        name = name or service
        if name not in self._ports:
            http_port, metrics_port = free_ports(2)
            self._ports[name] = (http_port, metrics_port)
        prefix = f"SUPERFAN_{service.upper()}_"
        env = self.environment(service)
        env[f"{prefix}HTTP_PORT"], env[f"{prefix}METRICS_PORT"] = map(str, self._ports[name])
        if service == "ingest":
            env[f"{prefix}SPOOL"] = str(self.folder / f"{name}-spool")
        command = [sys.executable, "-m", *self.program, f"services.{service}", *role.split()]
        self.children[name] = Child.spawn(name, command, log=self.folder / f"{name}.log", env=env, cwd=self.tree)
        return self.children[name]

    def environment(self, service: str) -> dict[str, str]:
        """The variables of every process of `service`."""
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SUPERFAN_")},
            "SUPERFAN_CONFIG": str(self.folder / "superfan.toml"),
            "SUPERFAN_KAFKA": self.broker.bootstrap,
            "SUPERFAN_LOG_FORMAT": self.log_format,
            **self.env,
            **self.service_env.get(service, {}),
        }
        if service in self.databases:
            env[f"SUPERFAN_{service.upper()}_PG_URL"] = self.databases[service]
        return env

    async def wait_ready(self, names: Iterable[str] = SERVICES, seconds: float = 60) -> None:
        """Until the processes of these names are ready."""
        for name in names:
            end = time.monotonic() + seconds
            while reason := await self._unready(name):
                self.children[name].check()
                if time.monotonic() > end:
                    raise TimeoutError(f"{name} is not ready: {reason}\n{self.children[name].last_lines(20)}")
                await asyncio.sleep(0.1)

    async def _unready(self, name: str) -> str | None:
        try:
            answer = await self.http.get(f"{self.metrics_url(name)}/readyz")
        except httpx.TransportError as error:
            return repr(error)
        return None if answer.status_code == 200 else answer.text

    async def metric(self, name: str, metric: str) -> float:
        """The sum of a metric over all its labels, of the process of this name."""
        text = (await self.http.get(f"{self.metrics_url(name)}/metrics")).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{metric}{{"))

    def url(self, service: str, path: str = "") -> str:
        return self.own_url(service, path)

    def own_url(self, name: str, path: str = "") -> str:
        """Of the process of this name."""
        return f"http://127.0.0.1:{self._ports[name][0]}{path}"

    def metrics_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name][1]}"

    async def get(self, service: str, path: str, account: str, **parameters: Any) -> Any:
        """The JSON answer of a GET that must succeed."""
        response = await self.http.get(self.url(service, path), params=parameters, headers=self.authorization(account))
        assert response.status_code == 200, (path, response.status_code, response.text)
        return response.json()

    async def post_json(
        self, service: str, path: str, account: str, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Any:
        """The JSON answer of a POST that must succeed."""
        headers = self.authorization(account) | ({"Idempotency-Key": idempotency_key} if idempotency_key else {})
        response = await self.http.post(self.url(service, path), json=body, headers=headers)
        assert response.is_success, (path, response.status_code, response.text)
        return response.json()

    async def pages(self, service: str, path: str, account: str, **parameters: Any) -> list[Any]:
        """All items of a list."""
        items: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(service, path, account, limit=1000, **cursor, **parameters)
            items += page["items"]
            if not page["has_more"]:
                return items
            cursor = {"cursor": page["next_cursor"]}

    def authorization(self, account: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[account]}"}

    async def post(self, account: str, events: list[dict[str, Any]], chunk: int = 500) -> None:
        """Hand `events` to ingest until each is acknowledged; a refusal of one is an error of the test."""
        for start in range(0, len(events), chunk):
            while True:
                response = await self.http.post(
                    self.url("ingest", "/v1/events"),
                    json=events[start : start + chunk],
                    headers={**self.authorization(account), "Content-Type": "application/cloudevents-batch+json"},
                )
                if response.status_code != 503:
                    break
                await asyncio.sleep(0.2)
            assert response.status_code == 202, response.text
            body = response.json()
            assert all(result["status"] == "accepted" for result in body["results"]), response.text

    async def applied(self, seconds: float = 240) -> None:
        """Until every service has applied everything that was acknowledged and published all that came of it."""
        async with asyncio.timeout(seconds):
            while any([await self.metric(name, SPOOLED) for name in self.children if name.startswith("ingest")]):
                await asyncio.sleep(0.1)
        await LagReader({"kafka": self.broker.bootstrap, "postgres": self.databases}).wait(seconds)

    async def query(self, service: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Rows of a service's database."""
        connection = await asyncpg.connect(self.databases[service])
        try:
            return [tuple(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    async def event_ids(self, service: str, account: str, source: str) -> Counter[str]:
        """The ids that a service has in its history."""
        rows = await self.query(service, "select id from event where account = $1 and source = $2", account, source)
        return Counter(row[0] for row in rows)

    def write_config(self) -> None:
        """superfan.toml and the secret files."""
        lines = []
        for name, settings in self._accounts.items():
            lines += [f"[accounts.{name}]", *(f'{key} = "{value}"' for key, value in settings.items())]
        for name, key in self.keys.items():
            rate = self.key_rates.get(name)
            scopes = ", ".join(f'"{scope}"' for scope in SCOPES)
            lines += ["[[keys]]", f'id = "{name}"', f'account = "{name}"', f'sha256 = "{hash_key(key)}"']
            lines += [f"scopes = [{scopes}]", *([f"rate_per_second = {rate}"] if rate else [])]
        first = next(iter(self._accounts))
        for platform, secret in SECRETS.items():
            (self.folder / platform).write_text(secret)
            lines += ["[[sources]]", f'id = "{platform}-demo"', f'account = "{first}"', f'platform = "{platform}"']
            lines += [f'id_space = "{platform}"', f'secret_files = ["{platform}"]']
        (self.folder / "superfan.toml").write_text("\n".join(lines) + "\n")
