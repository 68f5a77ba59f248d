import asyncpg

from tests.support.postgres import TestServer


async def test_each_test_gets_an_empty_database_of_its_own(pg_server: TestServer, pg_url: str) -> None:
    connection = await asyncpg.connect(pg_url)
    try:
        await connection.execute("create table only_here (id int)")
        other = await pg_server.create_database()
        second = await asyncpg.connect(other)
        try:
            assert await second.fetchval("select to_regclass('only_here')") is None
        finally:
            await second.close()
            await pg_server.drop_database(other)
    finally:
        await connection.close()


async def test_a_copy_of_a_database_has_its_content(pg_server: TestServer, pg_url: str) -> None:
    connection = await asyncpg.connect(pg_url)
    await connection.execute("create table fan (id int); insert into fan values (1), (2)")
    await connection.close()
    copy = await pg_server.create_database(template=pg_url.rpartition("/")[2])
    connection = await asyncpg.connect(copy)
    try:
        assert await connection.fetchval("select count(*) from fan") == 2
    finally:
        await connection.close()
        await pg_server.drop_database(copy)
