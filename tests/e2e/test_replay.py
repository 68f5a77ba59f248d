"""Export and replay on the running services: nothing doubles, what is cut off goes on, a lost service is refilled."""

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from rich.console import Console

from libs.cli.connection import Connection
from libs.cli.local.processes import LaunchError
from libs.cli.replay import Replay
from libs.common.events import parse_event
from libs.common.migrate import upgrade
from tests.e2e.test_commands import run_json, superfan
from tests.support.postgres import TestServer
from tests.support.services import WITH_DATABASE, System

ACCOUNT = "demo"
ODD = [1.5, 1e22, -0.1, None, True, {"b": "", "a": 2**60}]
START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=20)


@pytest.fixture(scope="module")
def data(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that tells of the running system."""
    folder = tmp_path_factory.mktemp("replay")
    (folder / "run.json").write_text(json.dumps(run_json(system)))
    return folder


@pytest.fixture
async def connection(system: System) -> AsyncIterator[Connection]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        yield Connection(run_json(system), http)


def history(source: str) -> list[dict[str, Any]]:
    """Three people over two weeks; odd texts and numbers in unknown fields."""
    events = []
    for number in range(300):
        kind = ("sign_in", "like", "comment", "sign_in", "follow", "order.paid")[number % 6]
        person = number // 6 % 3
        contents: dict[str, dict[str, Any]] = {
            "sign_in": {"utc_offset_minutes": (0, 480, -600)[number % 5 % 3]},
            "comment": {"comment_id": f"c{number}", "text": '好看 \u2028 "x" 👍', "odd": ODD},
            "order.paid": {"order_id": f"{source}{number}", "amount_minor": number * 2**40, "currency": "CNY"},
        }
        events.append(
            {
                "specversion": "1.0",
                "id": f"{source}-{number}",
                "source": source,
                "type": kind,
                "subject": f"douyin:{source}-{person}",
                "time": (START + timedelta(hours=number, microseconds=number)).isoformat(),
                "data": contents.get(kind, {}),
            }
        )
    return events


def write(path: Path, lines: list[Any]) -> Path:
    text = b"".join(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


async def snapshot(system: System, source: str) -> dict[str, Any]:
    """What the services know of the people of `source`."""
    known: dict[str, Any] = {}
    for person in range(3):
        ref = f"/v1/users/douyin:{source}-{person}"
        known[f"profile {person}"] = await system.get("profile", ref, ACCOUNT)
        known[f"moves {person}"] = await system.get("segmentation", f"{ref}/memberships", ACCOUNT)
        known[f"messages {person}"] = await system.get("engagement", f"{ref}/messages", ACCOUNT)
        known[f"points {person}"] = await system.get("rewards", f"{ref}/points", ACCOUNT)
        known[f"streak {person}"] = await system.get("rewards", f"{ref}/streak", ACCOUNT, as_of=START.isoformat())
        for answer in known.values():
            answer.pop("known_at", None)
    for service in WITH_DATABASE:
        known[service] = await system.event_ids(service, ACCOUNT, source)
    return known


def quiet() -> Console:
    return Console(file=io.StringIO())


async def export(data: Path, file: Path, *options: str) -> list[dict[str, Any]]:
    done = await superfan(data, "export", "events", *options)
    assert done.code == 0, done.error
    file.write_text(done.out)
    events = [json.loads(line) for line in done.out.split("\n")[:-1]]
    assert f"{len(events):,} events" in done.error
    return events


async def test_an_export_is_complete_and_sent_again_changes_nothing(system: System, data: Path, tmp_path: Path) -> None:
    sent = history("again")
    await system.post(ACCOUNT, sent)
    await system.applied()
    before = await snapshot(system, "again")
    conflicts = "select count(*) from event where source = 'again'"
    assert await system.query("profile", conflicts) == [(300,)]

    exported = [event for event in await export(data, tmp_path / "all.jsonl") if event["source"] == "again"]
    by_id = {event["id"]: event for event in exported}
    assert len(exported) == len(by_id) == len(sent)
    for event in sent:
        found = by_id[event["id"]]
        parsed = parse_event(orjson.dumps(found))
        assert parsed.time == datetime.fromisoformat(event["time"])
        assert found["data"].items() >= event["data"].items()
        assert (found["account"], found["type"], found["subject"]) == (ACCOUNT, event["type"], event["subject"])
        stored = await system.query("profile", "select fingerprint from event where digest = $1", parsed.digest)
        assert stored == [(parsed.fingerprint,)], "the copy says the same in every bit"
    assert [event["receivedtime"] for event in exported] == sorted(event["receivedtime"] for event in exported)

    done = await superfan(data, "replay", str(tmp_path / "all.jsonl"))
    assert done.code == 0, done.error
    assert "accepted" in done.error
    await system.applied()
    assert await snapshot(system, "again") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.jsonl"], "nothing is left beside it"


async def test_an_export_can_be_narrowed(system: System, data: Path, tmp_path: Path) -> None:
    await system.post(ACCOUNT, history("narrow"))
    await system.applied()
    since, until = START + timedelta(hours=60), START + timedelta(hours=120)
    options = ("--since", since.isoformat(), "--until", until.isoformat(), "--type", "like", "--type", "comment")
    events = [event for event in await export(data, tmp_path / "some.jsonl", *options) if event["source"] == "narrow"]
    wanted = {f"narrow-{number}" for number in range(60, 120) if number % 6 in (1, 2)}
    assert {event["id"] for event in events} == wanted
    assert await export(data, tmp_path / "none.jsonl", "--account", "fire", "--until", "1990-01-01") == []
    for wrong in (("--type", "points.awarded"), ("--account", "nobody"), ("--since", "yesterday")):
        done = await superfan(data, "export", "events", *wrong)
        assert (done.code, done.out) == (1, "")
        assert done.error.count("\n") == 1


async def test_what_is_refused_is_kept_with_its_reason(system: System, data: Path, tmp_path: Path) -> None:
    good = history("mixed")[:20]
    bad: list[Any] = [
        {**good[0], "id": "other-account", "account": "fire"},
        {**good[0], "id": "derived", "type": "points.awarded"},
        {**good[0], "id": "unknown", "type": "dance"},
        {**good[0], "id": None},
        {**good[0], "id": "vouched", "trust": "client"},
        b'{"id": "nan", "x": NaN}\n',
        b"[]\n",
        b"\n",
    ]
    file = write(tmp_path / "mixed.jsonl.gz", [*good[:10], *bad, *good[10:]])
    done = await superfan(data, "replay", str(file), "--backfill")
    assert done.code == 1, done.error
    refused = [json.loads(line) for line in (tmp_path / "mixed.jsonl.gz.rejected.jsonl").read_text().splitlines()]
    reasons = {item["line"]: item["reason"] for item in refused}
    assert sorted(reasons) == list(range(11, 18))
    for line, words in {
        11: "another account",
        12: "points.awarded",
        13: "dance",
        14: "id",
        15: "public",
        16: "JSON",
    }.items():
        assert words in reasons[line], reasons
    assert json.loads(refused[0]["event"])["id"] == "other-account"
    assert "20 events accepted" in done.error
    assert "7 refused" in done.error
    await system.applied()
    stored = await system.query("profile", "select id, backfill from event where source = 'mixed'")
    assert sorted(stored) == sorted((event["id"], True) for event in good)
    assert await system.query("engagement", "select reason from decision where event_source = 'mixed'") == [
        ("backfilled",)
    ] * sum(event["type"] == "follow" for event in good)

    only_bad = write(tmp_path / "bad.jsonl", [bad[1]])
    assert (await superfan(data, "replay", str(only_bad))).code == 1


async def test_cut_off_it_goes_on_where_it_was(system: System, connection: Connection, tmp_path: Path) -> None:
    sent = history("cut")
    file = write(tmp_path / "cut.jsonl", [*sent[:150], b"not an event\n", *sent[150:]])
    replay = Replay(connection, file, None, rate=200, backfill=False)
    task = asyncio.create_task(replay.run(quiet()))
    progress = tmp_path / "cut.jsonl.progress.json"
    async with asyncio.timeout(30):
        while not (progress.exists() and json.loads(progress.read_text())["lines"] >= 200):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = json.loads(progress.read_text())
    assert 200 <= kept["lines"] < 301
    assert kept["refused"] == 1
    # As if it had been killed between writing the refusal and the progress.
    with (tmp_path / "cut.jsonl.rejected.jsonl").open("ab") as refused:
        refused.write(b"half a li")

    again = Replay(connection, file, None, rate=None, backfill=False)
    done = await again.run(quiet())
    assert (done.accepted, done.refused) == (300, 1)
    assert [json.loads(line)["line"] for line in done.refused_path.read_text().splitlines()] == [151]
    assert not progress.exists()
    await system.applied()
    assert await system.event_ids("profile", ACCOUNT, "cut") == dict.fromkeys((event["id"] for event in sent), 1)

    progress.write_text(json.dumps({**kept, "size": 1}))
    with pytest.raises(LaunchError, match="another file"):
        await Replay(connection, file, None, rate=None, backfill=False).run(quiet())


async def test_it_waits_for_an_ingest_that_has_to_wait_itself(
    system: System, connection: Connection, tmp_path: Path
) -> None:
    """503 with Retry-After, then an ingest that is not there at all, then the real one."""
    answers = [503, 429, None, None]
    asked: list[int | None] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        if answers:
            asked.append(answers.pop(0))
            if asked[-1] is None:
                raise httpx.ConnectError("nobody there")
            return httpx.Response(asked[-1], headers={"Retry-After": "0"}, json={"detail": "later"})
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            real = await http.post(str(request.url), content=request.content, headers=dict(request.headers))
            return httpx.Response(real.status_code, content=real.content)

    file = write(tmp_path / "wait.jsonl", history("wait")[:5])
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        slow = Connection(run_json(system), http)
        done = await Replay(slow, file, None, rate=None, backfill=False).run(quiet())
        assert asked == [503, 429, None, None]
        assert done.accepted == 5
        answers.extend([503] * 1000)
        with pytest.raises(LaunchError, match="run the same command again"):
            await Replay(slow, file, None, rate=None, backfill=False, patience=0.3).run(quiet())
        assert (tmp_path / "wait.jsonl").exists()


async def test_a_lost_service_is_filled_again(
    system: System, pg_server: TestServer, data: Path, tmp_path: Path
) -> None:
    """rewards loses its database, and Kafka no longer holds the events: the archive brings every balance back."""
    await system.post(ACCOUNT, history("lost"))
    await system.applied()
    file = tmp_path / "archive.jsonl"
    await export(data, file)
    wanted = await balances(system)
    assert any(points for points, _ in wanted.values())

    old = system.databases["rewards"]
    await system.children["rewards"].stop()
    # Without positions it would read again what Kafka still holds.
    system.databases["rewards"] = await pg_server.create_database()
    await upgrade(system.databases["rewards"], "rewards")
    try:
        await copy_positions(old, system.databases["rewards"])
        await system.spawn("rewards")
        await system.wait_ready(["rewards"])
        assert await balances(system) == {}
        for _ in range(2):
            done = await superfan(data, "replay", str(file), "--backfill")
            assert done.code == 0, done.error
            await system.applied()
            assert await balances(system) == wanted
    finally:
        await system.children["rewards"].stop()
        system.databases["rewards"] = old
        await system.spawn("rewards")
        await system.wait_ready(["rewards"])
    await system.applied()
    assert await balances(system) == wanted


async def copy_positions(old: str, new: str) -> None:
    source, target = await asyncpg.connect(old), await asyncpg.connect(new)
    try:
        rows = await source.fetch("select * from consumer_offset")
        await target.copy_records_to_table("consumer_offset", records=[tuple(row) for row in rows])
    finally:
        await source.close()
        await target.close()


async def balances(system: System) -> dict[str, tuple[int, int]]:
    """Points and sign-in days of every subject of the account."""
    found = await system.query(
        "rewards",
        "select h.subject, coalesce(sum(b.points), 0)::int, (select count(*) from sign_in_day d"
        " where d.account = h.account and d.subject = h.subject)::int"
        " from holder h left join balance b using (account, account_ref) where h.account = $1"
        " group by h.account, h.subject",
        ACCOUNT,
    )
    return {subject: (points, days) for subject, points, days in found}
