"""python -m tests.operations [--only scale,upgrade] [--rate N] [--hold SECONDS] [--previous REVISION] [--write]"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

import structlog
import uvloop

from tests.operations import report
from tests.operations.configuration import Change, rotate
from tests.operations.fleet import Fleet
from tests.operations.run import REST, Outcome, under_load
from tests.operations.scale import layout, roll, scale_workers
from tests.operations.upgrade import LATER, go_back, later_differences, upgrade_apis, upgrade_workers
from tests.operations.versions import ROOT, NoHistoryError, extract, previous_revision
from tests.operations.watch import Watch
from tests.support.postgres import TestServer
from tests.support.services import SERVICES, WITH_DATABASE

PARTS = ("scale", "upgrade")
REST_RATE = 4
"""Requests a second to each of the four APIs."""


async def run_scale(server: TestServer, rate: float, hold: float, drain: float) -> tuple[Outcome, list[Change]]:
    """Workers more and fewer, everything restarted, keys rotated, all under one load."""
    fleet = Fleet(server, ["scale", REST], drain=drain)
    changes: list[Change] = []

    async def operate(watch: Watch) -> None:
        async with watch.step("nothing is done, for comparison"):
            await asyncio.sleep(hold)
        await scale_workers(fleet, watch, hold)
        await roll(fleet, watch)
        async with watch.step("keys rotated, an invalid file between"):
            changes.extend(await rotate(fleet, list(fleet.children), REST, lambda what: print("   ", what, flush=True)))

    try:
        await fleet.launch(layout())
        outcome = await under_load(fleet, "scale", operate, services=WITH_DATABASE, rate=rate, rest_rate=REST_RATE)
    finally:
        await fleet.stop()
    return outcome, changes


async def run_upgrade(server: TestServer, old: Path, rate: float, hold: float, drain: float) -> Outcome:
    """From `old` to this version, back, and forward again. Whoever asks opens a connection for each request: `old` may
    not know how to drain."""
    fleet = Fleet(server, ["upgrade", REST, LATER], drain=drain)

    async def operate(watch: Watch) -> None:
        await upgrade_workers(fleet, watch, old, hold, WITH_DATABASE)
        await upgrade_apis(fleet, watch, [*WITH_DATABASE, "ingest"])
        await go_back(fleet, watch, old, hold, WITH_DATABASE)

    try:
        fleet.code = dict.fromkeys(SERVICES, old)
        await fleet.launch(layout())
        outcome = await under_load(
            fleet, "upgrade", operate, services=WITH_DATABASE, rate=rate, rest_rate=REST_RATE, keep_alive=False
        )
        outcome.failed += await later_differences(fleet, old)
    finally:
        await fleet.stop()
    return outcome


async def operations(arguments: argparse.Namespace) -> bool:
    """True when all went well."""
    server = TestServer(fsync=True)
    await server.start()
    good = True
    try:
        if "scale" in arguments.only:
            print("scale", flush=True)
            outcome, changes = await run_scale(server, arguments.rate, arguments.hold, arguments.drain)
            good &= tell(outcome, arguments.write)
            print(text := report.changes_text(changes))
            if arguments.write:
                report.write("configuration", text)
        if "upgrade" in arguments.only:
            revision = arguments.previous or previous_revision()
            print(f"upgrade from {revision[:12]}", flush=True)
            with tempfile.TemporaryDirectory(prefix="superfan-previous-") as folder:
                old = ROOT if revision == "here" else extract(revision, Path(folder))
                outcome = await run_upgrade(server, old, arguments.rate / 2, arguments.hold, arguments.drain)
            good &= tell(outcome, arguments.write)
    finally:
        await server.close()
    return good


def tell(outcome: Outcome, write: bool) -> bool:
    text = report.outcome_text(outcome)
    print("", outcome, text, "", sep="\n", flush=True)
    if write:
        report.write(outcome.name, text)
    return outcome.good


def main() -> None:
    parser = argparse.ArgumentParser(prog="make operations")
    parser.add_argument("--only", type=lambda text: text.split(","), default=PARTS, metavar="scale,upgrade")
    parser.add_argument("--rate", type=float, default=300, help="events a second; an upgrade gets half of it")
    parser.add_argument("--hold", type=float, default=5, help="seconds that each state is kept")
    parser.add_argument("--drain", type=float, default=2, help="SUPERFAN_DRAIN_SECONDS of every process")
    parser.add_argument("--previous", help="a git revision; if absent what was before the newest migration")
    parser.add_argument("--write", action="store_true", help="keep the result in docs/operations/README.md")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SUPERFAN_")]:
        del os.environ[name]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        good = uvloop.run(operations(arguments))
    except NoHistoryError as error:
        sys.exit(f"no upgrade can be tried: {error}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
