"""`superfan doctor`: a healthy system is all ok, and each thing that is wrong is found, named, and has a remedy."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from libs.cli.doctor.finding import Finding
from libs.cli.doctor.machine import examine_machine
from libs.cli.doctor.running import examine
from libs.cli.local.processes import Mark, free_ports
from libs.cli.local.state import Folder, State
from tests.support.kafka import TestBroker
from tests.support.services import SERVICES, WITH_DATABASE, System

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
async def busy_system(system: System) -> System:
    """A system that has something to tell of, and has applied it."""
    now = datetime.now(UTC).isoformat()
    events = [
        {
            "specversion": "1.0",
            "type": kind,
            "source": "/doctor",
            "id": f"{kind}-{n}",
            "subject": f"demo:d{n}",
            "time": now,
        }
        for n in range(20)
        for kind in ("follow", "sign_in")
    ]
    await system.post("demo", [{**event, "data": {}} for event in events])
    await system.applied()
    return system


@pytest.fixture
def run(busy_system: System) -> dict[str, Any]:
    """What `superfan up` would have left behind."""
    return {
        "services": {
            name: {"url": busy_system.url(name), "metrics": busy_system.metrics_url(name)} for name in SERVICES
        },
        "kafka": busy_system.broker.bootstrap,
        "postgres": dict(busy_system.databases),
        "api_key": busy_system.keys["demo"],
        "config": str(busy_system.folder / "superfan.toml"),
    }


async def look(run: dict[str, Any], folder: Path) -> dict[str, Finding]:
    """All findings by their check; each that is not ok says what to do."""
    findings = await examine(run, Folder(folder))
    for finding in findings:
        assert finding.level == "ok" or finding.advice, finding
        assert "\n" not in finding.detail + finding.advice
    assert len({finding.check for finding in findings}) == len(findings)
    return {finding.check: finding for finding in findings}


def wrong(findings: dict[str, Finding]) -> dict[str, str]:
    """The level of each check that is not ok. Dead letters may be left by other tests."""
    return {
        check: finding.level
        for check, finding in findings.items()
        if finding.level != "ok" and not check.startswith("dead letters")
    }


async def superfan(folder: Path, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libs.cli.main", "doctor", *arguments, "--data", str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, error = await process.communicate()
    return process.returncode, out.decode(), error.decode()


async def test_a_healthy_system_is_all_ok(run: dict[str, Any], tmp_path: Path) -> None:
    findings = await look(run, tmp_path)
    assert wrong(findings) == {}
    expected = {"config", "disk", "kafka", "topics", "postgres", "clock", "config in use", "spool ingest"}
    for service in WITH_DATABASE:
        expected |= {f"{check} {service}" for check in ("database", "outbox", "dead letters", "positions", "lag")}
    assert findings.keys() == expected | {f"service {service}" for service in SERVICES}
    assert findings["lag rewards"].detail == "everything is applied"


async def test_the_command_prints_lines_or_json(run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run))
    code, out, _ = await superfan(tmp_path, "--json")
    answer = json.loads(out)
    assert (code, answer["running"], answer["ok"]) == (0, True, True)
    assert {tuple(finding) for finding in answer["findings"]} == {("check", "level", "detail", "advice")}

    run["services"]["rewards"]["metrics"] = f"http://127.0.0.1:{free_ports(1)[0]}"
    (tmp_path / "run.json").write_text(json.dumps(run))
    code, out, error = await superfan(tmp_path)
    assert (code, error) == (1, "")
    assert "ok    service ingest" in out
    assert "fail  service rewards" in out
    assert "→ see superfan status" in out
    assert out.rstrip().endswith("1 wrong")


async def test_a_dead_letter_is_told_with_its_error(system: System, run: dict[str, Any], tmp_path: Path) -> None:
    columns = 'digest, topic, partition, "offset", error, reason, first_at, last_at'
    values = "'\\x646f63746f72', 'superfan.follows', 0, 0, 'doctor_test', 'a test', now(), now()"
    await system.query("engagement", f"insert into dead_letter ({columns}) values ({values})")
    try:
        finding = (await look(run, tmp_path))["dead letters engagement"]
    finally:
        await system.query("engagement", "delete from dead_letter where error = 'doctor_test'")
    assert finding.level == "warn"
    assert "1 doctor_test" in finding.detail
    assert "superfan dead-letters" in finding.advice


async def test_an_outdated_database_fails(system: System, run: dict[str, Any], tmp_path: Path) -> None:
    before = await system.query("rewards", "select version_num from alembic_version")
    await system.query("rewards", "update alembic_version set version_num = '0000'")
    try:
        findings = await look(run, tmp_path)
    finally:
        await system.query("rewards", "update alembic_version set version_num = $1", before[0][0])
    assert wrong(findings) == {"database rewards": "fail"}
    assert "at migration 0000" in findings["database rewards"].detail
    assert "superfan migrate" in findings["database rewards"].advice


async def test_a_database_that_does_not_answer_or_is_empty(
    system: System, run: dict[str, Any], tmp_path: Path, pg_url: str
) -> None:
    host, _, name = run["postgres"]["profile"].rpartition("/")
    run["postgres"]["profile"] = f"{host.rpartition(':')[0]}:{free_ports(1)[0]}/{name}"
    run["postgres"]["segmentation"] = pg_url
    findings = await look(run, tmp_path)
    assert wrong(findings).items() >= {"database profile": "fail", "database segmentation": "fail"}.items()
    assert findings["database segmentation"].detail.startswith("has no tables")
    assert "lag profile" not in findings
    assert system.databases["rewards"].split("@")[0].rpartition(":")[2] not in json.dumps(
        [asdict(finding) for finding in findings.values()]
    )


async def test_what_waits_is_told_with_its_age(
    system: System,
    run: dict[str, Any],
    tmp_path: Path,
    service_database: Callable[[str], Awaitable[str]],
) -> None:
    system.databases["idle"] = run["postgres"]["rewards"] = await service_database("rewards")
    row = "insert into outbox (topic, key, value, created_at) select 't', 'k', 'v', now() - interval '10 minutes'"
    try:
        await system.query("idle", row)
        findings = await look(run, tmp_path)
        levels = wrong(findings)
        levels.pop("lag rewards", None)  # a matter of how old the events are by now
        assert levels == {"outbox rewards": "warn", "positions rewards": "warn"}
        assert findings["outbox rewards"].detail == "1 waiting, the oldest for 10 min"
        assert findings["positions rewards"].detail.startswith("never read: superfan.")
        assert "records behind, the oldest for" in findings["lag rewards"].detail

        await system.query("idle", f"{row} from generate_series(1, 100000)")
        assert (await look(run, tmp_path))["outbox rewards"].level == "fail"
    finally:
        del system.databases["idle"]


@pytest.fixture
async def other_broker() -> AsyncIterator[TestBroker]:
    broker = TestBroker()
    try:
        await broker.start()
        yield broker
    finally:
        await broker.close()


async def test_topics_that_are_missing_or_differ(run: dict[str, Any], tmp_path: Path, other_broker: TestBroker) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=other_broker.bootstrap)
    await admin.start()
    await admin.delete_topics(["superfan.views", "superfan.orders"])
    while "superfan.orders" in await admin.list_topics():
        await asyncio.sleep(0.05)
    created = await admin.create_topics([NewTopic("superfan.orders", 3, 1, topic_configs={"retention.ms": "60000"})])
    assert created.topic_errors[0][1] == 0
    await admin.close()
    run["kafka"] = other_broker.bootstrap
    findings = await look(run, tmp_path)
    assert findings["topics"] == Finding(
        "topics", "fail", "missing: superfan.views", "make them: superfan topics apply"
    )
    orders = findings["topic superfan.orders"]
    assert orders.level == "fail"
    assert "3 partitions, declared are 12" in orders.detail
    assert "retention.ms = 60000, declared is 1209600000" in orders.detail
    assert findings["positions profile"].level == "warn"
    assert findings["positions profile"].detail.startswith(
        f"none of cluster {await other_broker.cluster_id()}, only of"
    )


async def test_a_broker_that_does_not_answer(run: dict[str, Any], tmp_path: Path) -> None:
    run["kafka"] = f"127.0.0.1:{free_ports(1)[0]}"
    findings = await look(run, tmp_path)
    assert wrong(findings) == {"kafka": "fail"}
    assert not any(check.startswith(("topic", "lag", "positions")) for check in findings)


async def test_processes_with_another_configuration(run: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "superfan.toml"
    other.write_text("[accounts.other]\n")
    run["config"] = str(other)
    findings = await look(run, tmp_path)
    assert wrong(findings) == {"config in use": "warn"}
    assert all(service in findings["config in use"].detail for service in SERVICES)
    other.write_text("[accounts.other]\nzone = 'Mars'\n")
    findings = await look(run, tmp_path)
    assert wrong(findings) == {"config": "fail", "config in use": "warn"}
    assert "Mars" in findings["config"].detail


async def test_a_system_whose_launcher_is_gone(run: dict[str, Any], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    mark = Mark.of(process.pid)
    folder = Folder(tmp_path)
    folder.write_state(State(mark, "ready"))
    assert (await look(run, tmp_path))["system"].level == "ok"
    await process.communicate(b"\n")
    assert wrong(await look(run, tmp_path)) == {"system": "fail"}


async def test_with_nothing_running_it_looks_at_the_machine(tmp_path: Path) -> None:
    code, out, error = await superfan(tmp_path, "--json")
    answer = json.loads(out)
    assert (code, error, answer["running"], answer["ok"]) == (0, "", False, True)
    checks = {finding["check"]: finding for finding in answer["findings"]}
    assert checks.keys() == {"system", "python", "java", "kafka jars", "postgres", "ports", "disk", "config"}
    assert checks["kafka jars"]["level"] == "ok"
    assert "superfan up" in checks["system"]["advice"]


async def test_the_machine_is_told_what_stands_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERFAN_KAFKA", f"127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("SUPERFAN_PG_URL", f"postgresql://u:hush@127.0.0.1:{free_ports(1)[0]}/d")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "superfan.toml").write_text("nonsense")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", free_ports(1)[0]))
        taken.listen()
        monkeypatch.setattr("libs.cli.doctor.machine.HTTP_PORTS", {"ingest": taken.getsockname()[1]})
        findings = {finding.check: finding for finding in await examine_machine(Folder(tmp_path))}
    assert {check: findings[check].level for check in ("kafka", "postgres", "ports", "config")} == {
        "kafka": "fail",
        "postgres": "fail",
        "ports": "warn",
        "config": "fail",
    }
    assert "(ingest)" in findings["ports"].detail
    assert "hush" not in str(findings)
