"""Each role of each service alone: how long its start takes, and what it costs to have it do nothing."""

import asyncio
import time

import psutil

from libs.common.migrate import upgrade
from tests.bench.report import Row
from tests.support.postgres import TestServer
from tests.support.services import SERVICES, WITH_DATABASE, System

MIB = 2**20
IDLE_SECONDS = 5
BUDGET = {"api": 170, "worker": 130, "all": 170}
"""MB of resident memory; an API has less to do than `all`, so the same must do for it."""


async def measure(server: TestServer) -> list[Row]:
    """A row for each role; one role at a time of all services, so that no two consumers share a group."""
    system = System(server, {"demo": {}})
    system.log_format = "json"
    try:
        await system.start(())
        for service in WITH_DATABASE:
            system.databases[service] = await server.create_database()
            await upgrade(system.databases[service], service)
        rows = await _row_for_each(system, "api", SERVICES)
        rows += await _row_for_each(system, "worker", WITH_DATABASE)
        return rows + await _row_for_each(system, "all", WITH_DATABASE)
    finally:
        await system.stop()


async def _row_for_each(system: System, role: str, services: tuple[str, ...]) -> list[Row]:
    seconds = {}
    for service in services:
        began = time.monotonic()
        await system.spawn(service, role)
        await system.wait_ready([service])
        seconds[service] = time.monotonic() - began
    await asyncio.sleep(IDLE_SECONDS)
    rows = []
    for service in services:
        memory = psutil.Process(system.children[service].pid).memory_full_info()
        resident = memory.rss / MIB
        measured = f"{resident:.0f} MB ({memory.pss / MIB:.0f} its share); ready after {seconds[service]:.1f} s"
        rows.append(Row(f"idle {service} {role}", measured, f"< {BUDGET[role]} MB", resident < BUDGET[role]))
    await asyncio.gather(*(system.children[service].stop() for service in services))
    return rows
