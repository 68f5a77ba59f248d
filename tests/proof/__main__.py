"""python -m tests.proof [--events DIR] [--expected DIR] [--ways plain shuffled killed]"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import structlog

from tests.proof.files import DataSet, load_folder
from tests.proof.run import WAYS, Compared, prove
from tests.support.postgres import TestServer
from tests.support.realdata import DATA

SHOWN = 20


async def run(sets: list[DataSet], ways: list[str], seed: int) -> list[Compared]:
    server = TestServer()
    await server.start()
    try:
        return await prove(sets, ways, seed, server)
    finally:
        await server.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make proof", description=__doc__)
    parser.add_argument("--events", type=Path, default=DATA / "events", help="folder of *.events.jsonl.gz")
    parser.add_argument("--expected", type=Path, default=DATA / "expected", help="folder of the answers")
    parser.add_argument("--only", nargs="+", help="names of data sets")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="how the events arrive")
    parser.add_argument("--seed", type=int, default=20261122, help="of the shuffle")
    arguments = parser.parse_args()
    for folder in (arguments.events, arguments.expected):
        if not folder.is_dir():
            parser.error(f"{folder} is not here: name a folder of the same form with --events and --expected")
    for name in [name for name in os.environ if name.startswith("SUPERFAN_")]:
        del os.environ[name]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        sets = load_folder(arguments.events, arguments.expected)
    except ValueError as error:
        parser.error(str(error))
    chosen = [data_set for data_set in sets if not arguments.only or data_set.name in arguments.only]
    results = asyncio.run(run(chosen, arguments.ways, arguments.seed))
    differences = [difference for result in results for difference in result.differences]
    for difference in differences[:SHOWN]:
        print(difference)
    if len(differences) > SHOWN:
        print(f"… and {len(differences) - SHOWN} more")
    fields = sum(result.fields for result in results)
    print(
        f"{fields} fields of {sum(result.users for result in results)} users compared: {len(differences)} differences"
    )
    return 1 if differences or not fields else 0


if __name__ == "__main__":
    sys.exit(main())
