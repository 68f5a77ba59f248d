"""What a service is asked to do on its command line, and in which order processes of several releases may meet."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from libs.common.db import make_engine
from libs.common.migrate import downgrade, head_revision, known_revisions, upgrade, wait_until_migrated
from libs.common.roles import Role, parse_role

TOPICS = ("superfan.follows", "superfan.orders", "superfan.views")


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        ("api", Role("api", TOPICS)),
        ("worker", Role("worker", TOPICS)),
        ("worker --topics views", Role("worker", ("superfan.views",))),
        ("all --topics superfan.orders,follows", Role("all", ("superfan.follows", "superfan.orders"))),
        ("migrate", Role("migrate", TOPICS)),
        ("migrate --wait", Role("migrate", TOPICS, wait=True)),
        ("job rebuild", Role("job rebuild", TOPICS)),
        ("", None),
        ("api --topics views", None),
        ("worker views", None),
        ("migrate --wait --wait", None),
    ],
)
def test_roles(arguments: str, role: Role | None) -> None:
    assert parse_role(arguments.split(), TOPICS) == role


@pytest.mark.parametrize("topics", ["traits", "views,traits", ",", ""])
def test_topics_that_are_not_the_services_are_refused(topics: str) -> None:
    with pytest.raises(ValueError, match="--topics"):
        parse_role(["worker", "--topics", topics], TOPICS)


def test_a_wrong_topic_ends_the_process_with_one_line() -> None:
    command = [sys.executable, "-m", "services.rewards", "worker", "--topics", "superfan.traits"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--topics: superfan.traits is not consumed here; there are superfan.")
    assert done.stderr.count("\n") == 1


async def revision(url: str) -> str:
    engine = make_engine(url, 1)
    try:
        async with engine.connect() as connection:
            return str((await connection.execute(text("select version_num from alembic_version"))).scalar_one())
    finally:
        await engine.dispose()


async def test_who_waits_goes_on_when_the_schema_is_his_or_a_newer_one(
    pg_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.migrate.WAIT_SECONDS", 0.05)
    waiting = asyncio.create_task(wait_until_migrated(pg_url, "profile"))
    older = sorted(known_revisions("profile") - {head_revision("profile")})
    for step in older:
        await upgrade(pg_url, "profile", step)
        await asyncio.sleep(0.3)
        assert not waiting.done()
    await upgrade(pg_url, "profile")
    await asyncio.wait_for(waiting, 10)

    engine = make_engine(pg_url, 1)
    async with engine.begin() as connection:
        await connection.execute(text("update alembic_version set version_num = '9999_of_a_later_release'"))
    await engine.dispose()
    await asyncio.wait_for(wait_until_migrated(pg_url, "profile"), 10)
    await upgrade(pg_url, "profile")  # as the job of an older release does when it is run again
    assert await revision(pg_url) == "9999_of_a_later_release"
    with pytest.raises(Exception, match="9999_of_a_later_release"):
        await downgrade(pg_url, "profile")
