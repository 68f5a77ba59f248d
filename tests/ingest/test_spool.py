"""The spool on a real disk: what it promises once an append has returned, and what it does with a bad disk."""

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from libs.common.kafka import Record
from services.ingest.spool import EVENT_HEADERS, Row, Spool, SpoolError, scan
from tests.support.waiting import until


def record(number: int, size: int = 10) -> Record:
    return Record("superfan.views", b"demo/douyin:u%d" % number, b"%0*d" % (size, number), EVENT_HEADERS)


@asynccontextmanager
async def opened(folder: Path, limit_bytes: int = 1 << 30, limit_seconds: float = 3600) -> AsyncIterator[Spool]:
    spool = Spool(folder, limit_bytes=limit_bytes, limit_seconds=limit_seconds)
    await spool.start()
    try:
        yield spool
    finally:
        await spool.stop()


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"superfan_spool_{name}", {"service": "ingest"}) or 0.0


def numbers(rows: list[Row]) -> list[int]:
    return [int(row.record.key.rpartition(b"u")[2]) for row in rows]


async def test_what_was_appended_is_read_back_whole_and_deleted(tmp_path: Path) -> None:
    before = metric("appended_total"), metric("drained_total")
    async with opened(tmp_path / "a" / "spool") as spool:
        assert spool.problem is None
        await spool.append([record(1), record(2)])
        await spool.append([record(3)])
        rows = await spool.read(0, 2)
        assert [row.record for row in rows] == [record(1), record(2)]
        assert numbers(await spool.read(rows[-1].id, 2)) == [3]
        assert (spool.figures.events, metric("events")) == (3, 3)
        assert spool.figures.oldest == rows[0].stored
        await spool.delete([row.id for row in rows])
        await spool.delete([row.id for row in rows])
        assert numbers(await spool.read(0, 9)) == [3]
        assert (spool.figures.events, metric("events")) == (1, 1)
        assert metric("bytes") == spool.figures.bytes > 0
    assert (metric("appended_total") - before[0], metric("drained_total") - before[1]) == (3, 2)


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        modes = ("journal_mode", "synchronous")
        found = await spool._do(lambda file: [file._db.execute(f"pragma {mode}").fetchone()[0] for mode in modes])
        assert found == ["wal", 2]


async def test_many_callers_share_commits_and_all_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await asyncio.gather(*(spool.append([record(number)]) for number in range(600)))
    async with opened(tmp_path) as spool:
        assert spool.figures.events == 600
        assert sorted(numbers(await spool.read(0, 1000))) == list(range(600))


async def test_a_full_spool_takes_nothing_until_it_is_drained(tmp_path: Path) -> None:
    async with opened(tmp_path, limit_bytes=10_000) as spool:
        for number in range(4):
            await spool.append([record(number, 2000)])
        with pytest.raises(SpoolError, match="full"):
            await spool.append([record(4, 2000)])
        rows = await spool.read(0, 9)
        assert numbers(rows) == [0, 1, 2, 3]
        await spool.delete([rows[0].id])
        await spool.append([record(4, 2000)])


async def test_an_old_event_stops_it_until_it_is_drained(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([record(1)])
    async with opened(tmp_path, limit_seconds=0.000001) as spool:
        assert "oldest" in str(spool.problem)
        with pytest.raises(SpoolError, match="oldest"):
            await spool.append([record(2)])
        await spool.delete([row.id for row in await spool.read(0, 9)])
        assert spool.problem is None
        await spool.append([record(2)])


async def test_more_than_memory_should_hold_is_refused_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        ends = await asyncio.gather(
            *(spool.append([record(number, 1_000_000)]) for number in range(80)), return_exceptions=True
        )
        refused = [end for end in ends if end is not None]
        assert refused
        assert all(isinstance(end, SpoolError) for end in refused)
        assert spool.figures.events == 80 - len(refused)
        await spool.append([record(1)])


def damage(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


async def test_a_damaged_event_is_skipped_and_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([record(number) for number in range(1001, 1004)])
    damage(tmp_path / "events.db", b"0000001002", b"0000009999")
    assert [row and int(row.record.value) for row in scan(tmp_path)] == [1001, None, 1003]
    before = metric("skipped_total")
    async with opened(tmp_path) as spool:
        assert numbers(await spool.read(0, 9)) == [1001, 1003]
        assert spool.figures.events == 2
        assert metric("skipped_total") == before + 1


async def test_a_torn_tail_costs_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    """The log of a process that died in the middle of a write."""
    live, dead = tmp_path / "live", tmp_path / "dead"
    async with opened(live) as spool:
        await spool.append([record(number) for number in range(50)])
        acknowledged = (live / "events.db-wal").stat().st_size
        await spool.append([record(number, 20_000) for number in range(50, 60)])
        dead.mkdir()
        (dead / "events.db").write_bytes((live / "events.db").read_bytes())
        log = (live / "events.db-wal").read_bytes()
    torn = random.Random(1).randrange(acknowledged, len(log) - 1)
    (dead / "events.db-wal").write_bytes(log[:torn] + b"\xff" * 100)
    async with opened(dead) as spool:
        assert numbers(await spool.read(0, 99)) == list(range(50))
        await spool.append([record(50)])


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\x00" + b"\xff" * 8000])
async def test_a_file_that_is_no_spool_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "events.db").write_bytes(content)
    before = metric("set_aside_total")
    async with opened(tmp_path) as spool:
        assert spool.problem is None
        await spool.append([record(1)])
    assert metric("set_aside_total") == before + 1
    [aside] = tmp_path.glob("events.db.damaged-*")
    assert aside.read_bytes() == content


async def test_of_a_file_with_broken_pages_both_ends_are_rescued(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([record(number, 500) for number in range(2000)])
    path = tmp_path / "events.db"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    before = metric("set_aside_total")
    async with opened(tmp_path) as spool:
        found = numbers(await spool.read(0, 5000))
    assert metric("set_aside_total") == before + 1
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == 1999
    assert len(found) > 1900


async def test_pages_that_break_while_it_is_open_are_rescued_from_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append([record(number, 500) for number in range(20_000)])
        path = tmp_path / "events.db"
        sqlite3.connect(path).execute("pragma wal_checkpoint(truncate)").fetchall()
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2 // 4096 * 4096)
            file.write(b"\xff" * 4096)
        found: list[int] = []
        after = 0
        while rows := await spool.read(after, 500):
            found += numbers(rows)
            after = rows[-1].id
        assert len(set(found)) > 19_900
        assert found[-1] == 19_999
        await spool.append([record(1)])


async def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        assert "another process" in str(second.problem)
        with pytest.raises(SpoolError, match="another process"):
            await second.append([record(1)])
        await first.append([record(2)])
        await first.stop()
        await until(lambda: second.problem is None)
        assert numbers(await second.read(0, 9)) == [2]


async def test_an_emptied_spool_gives_the_disk_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for number in range(30):
            await spool.append([record(number, 1_000_000)])
        assert (tmp_path / "events.db").stat().st_size > 20_000_000
        while rows := await spool.read(0, 100):
            await spool.delete([row.id for row in rows])
        assert (tmp_path / "events.db").stat().st_size < 100_000
        assert spool.figures.events == 0
        await spool.append([record(7)])
        assert numbers(await spool.read(0, 9)) == [7]


async def test_a_folder_that_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with opened(tmp_path / "file" / "spool") as spool:
        assert spool.problem is not None
        with pytest.raises(SpoolError):
            await spool.append([record(1)])
        (tmp_path / "file").unlink()
        await until(lambda: spool.problem is None)
        await spool.append([record(1)])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and sys.platform == "linux"
    if mounted:
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not mounted:
        pytest.skip("a small file system can be mounted by root on Linux only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_refuses_loses_nothing_and_is_drained(small_disk: Path) -> None:
    kept: list[int] = []
    async with opened(small_disk) as spool:
        for number in range(2000):
            try:
                await spool.append([record(number, 50_000)])
            except SpoolError:
                continue
            kept.append(number)
            assert number < 1900
        assert 200 < len(kept) < 1000
        assert spool.problem is not None
        (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096))
    async with opened(small_disk) as spool:
        drained: list[int] = []
        while rows := await spool.read(0, 20):
            drained += numbers(rows)
            await spool.delete([row.id for row in rows])
        assert drained == kept
        (small_disk / "filler").unlink()
        await until(lambda: spool.problem is None)
        await spool.append([record(1)])
