"""Every service's migrations make exactly the tables that its code declares, and can be taken back and made again."""

import importlib

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from libs.common.migrate import downgrade, is_ours, upgrade
from tests.support.services import WITH_DATABASE


@pytest.mark.parametrize("service", WITH_DATABASE)
async def test_migrations_make_the_declared_tables(service: str, pg_url: str) -> None:
    metadata = importlib.import_module(f"services.{service}.tables").metadata

    def differences(connection: Connection) -> list[object]:
        options = {"include_object": is_ours, "compare_type": True, "compare_server_default": False}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    await upgrade(pg_url, service)
    engine = create_async_engine(pg_url.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []

    await downgrade(pg_url, service)
    async with engine.connect() as connection:
        left = await connection.execute(text("select tablename from pg_tables where schemaname = 'public'"))
        assert list(left.scalars()) == ["alembic_version"]
    await upgrade(pg_url, service)
    await upgrade(pg_url, service)
    await engine.dispose()
