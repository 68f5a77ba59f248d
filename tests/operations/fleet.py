"""The system as it runs in a cluster: roles apart, several processes of each, a load balancer in front of the APIs."""

import asyncio
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from libs.cli.local.processes import Child
from libs.common.migrate import upgrade
from libs.common.service import STOP_SECONDS
from services.ingest.main import STOP_SECONDS as INGEST_STOP_SECONDS
from tests.operations.versions import ROOT
from tests.support.balancer import Balancer
from tests.support.postgres import TestServer
from tests.support.services import SERVICES, WITH_DATABASE, System

DB_POOL = 4
"""Connections of one process: so many processes share one PostgreSQL."""


@dataclass(frozen=True)
class Exit:
    """How a process ended after SIGTERM. `limit` is how long it may take, in seconds."""

    name: str
    code: int | None
    seconds: float
    limit: float

    @property
    def good(self) -> bool:
        return self.code == 0 and self.seconds <= self.limit


class Fleet(System):
    """Processes have names such as `profile-api-1`; `url` of a service is that of its load balancer.

    `code` has the services whose processes run another version from now on, and where that lies.
    """

    def __init__(self, server: TestServer, accounts: Iterable[str], *, drain: float) -> None:
        super().__init__(server, {name: {"zone": "Asia/Shanghai"} for name in accounts})
        self.drain = drain
        self.code: dict[str, Path] = {}
        self.env = {
            "SUPERFAN_DRAIN_SECONDS": f"{drain:g}",
            "SUPERFAN_LOG_LEVEL": "warning",
            **{f"SUPERFAN_{service.upper()}_DB_POOL": str(DB_POOL) for service in WITH_DATABASE},
        }
        self.balancers = {service: Balancer() for service in SERVICES}
        self.exits: list[Exit] = []

    async def launch(self, names: Iterable[str]) -> None:
        """Broker, databases, then these processes; returns when all are ready."""
        await self.prepare()
        for service in WITH_DATABASE:
            if service in self.code:
                await self.migrate(service)
            else:
                await upgrade(self.databases[service], service)
        for balancer in self.balancers.values():
            await balancer.start()
        await self.add(*names)

    async def stop(self) -> None:
        await super().stop()
        for balancer in self.balancers.values():
            await balancer.close()

    def url(self, service: str, path: str = "") -> str:
        return self.balancers[service].url + path

    def of(self, role: str, services: Iterable[str] = SERVICES) -> list[str]:
        """The names of the running processes of this role."""
        return [name for name in self.children if role_of(name) == role and service_of(name) in services]

    async def add(self, *names: str) -> None:
        """Start processes; returns when they are ready and the balancer knows it."""
        for name in names:
            await self._begin(name)
        await self._await(names)

    async def end(self, *names: str, leave: float = 0) -> None:
        """SIGTERM, and wait for the end. With `leave`, no connection is opened to an API from so many seconds before:
        what a `preStop` hook that sleeps does for a version that cannot drain by itself."""
        for name in names:
            if leave and role_of(name) == "api":
                self.balancers[service_of(name)].remove(name)
        await asyncio.sleep(leave)
        await asyncio.gather(*map(self._end, names))

    async def migrate(self, service: str) -> None:
        """`python -m services.<service> migrate`, as the Job does."""
        command = [sys.executable, "-m", f"services.{service}", "migrate"]
        log = self.folder / f"{service}-migrate.log"
        child = Child.spawn(
            f"{service}-migrate", command, log=log, env=self.environment(service), cwd=self._tree_of(service)
        )
        assert child.popen is not None
        code = await asyncio.to_thread(child.popen.wait, 60)
        assert code == 0, f"{' '.join(command[1:])} ended with {code}\n{child.last_lines(20)}"

    def _tree_of(self, service: str) -> Path:
        return self.code.get(service, ROOT)

    async def _begin(self, name: str) -> None:
        service, role = service_of(name), role_of(name)
        self.tree = self._tree_of(service)
        await self.spawn(service, role, name)
        if role == "api":
            http, metrics = self._ports[name]
            self.balancers[service].add(name, http, f"http://127.0.0.1:{metrics}/readyz")

    async def _await(self, names: Iterable[str]) -> None:
        await self.wait_ready(names)
        for name in names:
            balancer = self.balancers[service_of(name)]
            while role_of(name) == "api" and name not in balancer.ready:
                await asyncio.sleep(0.05)

    async def _end(self, name: str) -> None:
        child = self.children[name]
        limit = self.drain + (INGEST_STOP_SECONDS if service_of(name) == "ingest" else STOP_SECONDS)
        began = time.monotonic()
        await child.stop(deadline=limit + 5)
        assert child.popen is not None
        self.exits.append(Exit(name, child.popen.returncode, time.monotonic() - began, limit))
        del self.children[name]
        if role_of(name) == "api":
            self.balancers[service_of(name)].forget(name)


def names_of(service: str, role: str, count: int) -> list[str]:
    """`profile-api-1`, `profile-api-2`, …"""
    return [f"{service}-{role}-{number}" for number in range(1, count + 1)]


def service_of(name: str) -> str:
    return name.partition("-")[0]


def role_of(name: str) -> str:
    return name.split("-")[1]
