"""A PostgreSQL server for one test run."""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil

from libs.cli.local.postgres import PostgresServer, choose_programs
from libs.common.db import Sessions, make_engine, make_sessions
from libs.common.migrate import upgrade


class TestServer:
    """The server and the databases made on it; everything goes with `close`."""

    __test__ = False

    def __init__(self, *, fsync: bool = False) -> None:
        # Not pytest's own folder: when tests run as root, the server runs as another user and could not enter it.
        folder = Path(tempfile.mkdtemp(prefix="superfan-tests-", dir="/var/tmp"))
        folder.chmod(0o755)
        self.folder = folder
        self.server = PostgresServer(folder, choose_programs(folder, print), log=folder / "postgres.log", fsync=fsync)

    async def start(self) -> None:
        await self.server.start()

    async def restart(self) -> None:
        """In good order ("fast"): open sessions are ended."""
        await self.server.stop()
        await self.server.start()

    async def crash(self) -> None:
        """SIGKILL of the main process, whose children then end by themselves; recovers and returns when it answers."""
        assert self.server.child is not None
        children = psutil.Process(self.server.child.pid).children(recursive=True)
        await self.server.child.kill()
        await asyncio.to_thread(psutil.wait_procs, children, timeout=30)
        await self.server.start()

    async def close(self) -> None:
        await self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def create_database(self, template: str | None = None) -> str:
        """A new database, empty or a copy of another one (by name); returns its address postgresql://…"""
        name = f"t_{uuid.uuid4().hex[:16]}"
        await self.execute(f'create database "{name}"' + (f' template "{template}"' if template else ""))
        return self.server.url(name)

    async def drop_database(self, url: str) -> None:
        """Removes a database, closing what is still connected to it."""
        await self.execute(f'drop database if exists "{url.rpartition("/")[2]}" with (force)')

    @asynccontextmanager
    async def sessions_of(self, service: str) -> AsyncIterator[Sessions]:
        """Sessions of a fresh database with the tables of `service`."""
        url = await self.create_database()
        await upgrade(url, service)
        engine = make_engine(url, 10)
        yield make_sessions(engine)
        await engine.dispose()
        await self.drop_database(url)

    async def execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server.url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
