"""PostgreSQL as production has it: TLS only, and passwords in files that change; on a server of its own."""

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from sqlalchemy import text

from libs.cli.local.processes import Child, LaunchError
from libs.common.db import Database, is_transient, make_engine
from libs.common.migrate import head_revision, upgrade
from tests.support.postgres import TestServer
from tests.support.secured_postgres import SecuredServer

ROOT = Path(__file__).parents[2]
WHO = "select session_user, ssl from pg_stat_ssl where pid = pg_backend_pid()"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[SecuredServer]:
    server = SecuredServer()
    try:
        await server.start()
    except LaunchError:
        lacks_tls = server.lacks_tls
        await server.close()
        if lacks_tls:
            pytest.skip("the PostgreSQL of this machine was built without TLS")
        raise
    await server.execute("create role app login password 'one'")
    yield server
    await server.close()


@pytest.fixture
async def database(server: SecuredServer, tmp_path: Path) -> AsyncIterator[Database]:
    """One that belongs to the user app, who has its password in a file."""
    await server.execute("alter role app password 'one'")
    await server.execute("create database app owner app")
    password_file = tmp_path / "password"
    password_file.write_text("one\n")
    yield Database(server.url_of("app", "app"), password_file, server.ca)
    await server.execute("drop database app with (force)")


async def ask(database: Database, statement: str = WHO) -> tuple[object, ...]:
    engine = make_engine(database, 1)
    try:
        async with engine.connect() as connection:
            return tuple((await connection.execute(text(statement))).one())
    finally:
        await engine.dispose()


async def test_migrations_and_sessions_use_tls_and_the_password_file(database: Database) -> None:
    await upgrade(database, "profile")
    assert await ask(database) == ("app", True)
    assert await ask(database, "select version_num from alembic_version") == (head_revision("profile"),)


async def test_a_new_password_needs_no_restart_and_spoils_no_event_until_it_has_arrived(
    server: SecuredServer, database: Database
) -> None:
    engine = make_engine(database, 2)
    assert database.password_file is not None
    try:
        async with engine.connect() as old:
            await server.execute("alter role app password 'two'")
            assert (await old.execute(text("select 1"))).scalar_one() == 1
            with pytest.raises(Exception, match="password authentication failed") as refused:
                await engine.connect()
            assert is_transient(refused.value), "or the batch at hand would go to the dead letters"
            database.password_file.unlink()
            with pytest.raises(OSError, match="No such file") as missing:
                await engine.connect()
            assert is_transient(missing.value)
            database.password_file.write_text("two")
            async with engine.connect() as new:
                assert (await new.execute(text("select 1"))).scalar_one() == 1
    finally:
        await engine.dispose()


async def test_a_new_authority_needs_no_restart(server: SecuredServer, database: Database, tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(str(ca))
    engine = make_engine(dataclasses.replace(database, ca=ca), 1)
    try:
        with pytest.raises(OSError, match="unable to get local issuer certificate") as refused:
            await engine.connect()
        assert is_transient(refused.value)
        ca.write_bytes(server.ca.read_bytes())
        async with engine.connect() as connection:
            assert (await connection.execute(text("select 1"))).scalar_one() == 1
    finally:
        await engine.dispose()


async def test_what_cannot_be_trusted_is_refused(
    database: Database, pg_server: TestServer, server: SecuredServer
) -> None:
    by_address = dataclasses.replace(database, url=database.url.replace("localhost", "127.0.0.1"))
    with pytest.raises(OSError, match="IP address mismatch"):
        await ask(by_address)
    without_tls = Database(pg_server.server.url().replace("127.0.0.1", "localhost"), ca=server.ca)
    with pytest.raises(OSError, match="rejected SSL upgrade"):
        await ask(without_tls)


async def test_a_container_waits_for_its_database_and_for_the_migration(
    server: SecuredServer, database: Database, tmp_path: Path
) -> None:
    """As it runs in Kubernetes: the initContainer before the job, both by the same settings."""
    await server.execute("alter database app rename to not_yet")
    env = {name: value for name, value in os.environ.items() if not name.startswith("SUPERFAN_")} | {
        "SUPERFAN_CONFIG": "unused",
        "SUPERFAN_KAFKA": "unused",
        "SUPERFAN_LOG_FORMAT": "console",
        "SUPERFAN_PROFILE_PG_URL": database.url,
        "SUPERFAN_PROFILE_PG_PASSWORD_FILE": str(database.password_file),
        "SUPERFAN_PROFILE_PG_CA": str(database.ca),
    }

    def start(name: str, *arguments: str) -> Child:
        command = [sys.executable, "-m", "services.profile", "migrate", *arguments]
        return Child.spawn(name, command, log=tmp_path / name, env=env, cwd=ROOT)

    async def end_of(child: Child) -> int:
        assert child.popen is not None
        return await asyncio.to_thread(child.popen.wait, 60)

    async def told(child: Child, reason: str) -> None:
        async with asyncio.timeout(60):
            while reason not in child.log.read_text():
                await asyncio.sleep(0.05)

    waiting, other = start("waiting", "--wait"), start("other", "--wait")
    try:
        for child in (waiting, other):
            await told(child, 'database "app" does not exist')
        other_ended = asyncio.create_task(end_of(other))
        assert other.popen is not None
        other.popen.terminate()
        assert await other_ended == 143
        await server.execute("alter database not_yet rename to app")
        assert waiting.running
        assert await end_of(start("job")) == 0
        assert await end_of(waiting) == 0
    finally:
        await waiting.kill()
        await other.kill()
