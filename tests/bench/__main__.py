"""python -m tests.bench [--rounds N] [--only gateway|consumers|idle|whole|flips …] [--write]"""

import argparse
import gc
import os
import time
from datetime import UTC, datetime

import structlog
import uvloop

from libs.common.process import GC_THRESHOLDS
from tests.bench import consumers, flips, gateway, idle, whole
from tests.bench.report import Row, machine, table, write
from tests.support.postgres import TestServer

PARTS = ("gateway", "consumers", "idle", "whole", "flips")


async def bench(parts: list[str], rounds: int) -> list[Row]:
    """The rows of the chosen parts, on servers that are started for them."""
    rows: list[Row] = []
    server = TestServer(fsync=True)
    await server.start()
    try:
        if "gateway" in parts:
            rows += await gateway.measure(server, rounds)
        if "consumers" in parts:
            rows += await consumers.measure(server, rounds)
        if "idle" in parts:
            rows += await idle.measure(server)
        if "whole" in parts:
            rows += await whole.measure(server)
        if "flips" in parts:
            rows += await flips.measure(server, rounds)
    finally:
        await server.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is told")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write", action="store_true", help="keep the result in docs/performance.md")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SUPERFAN_")]:
        del os.environ[name]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    gc.set_threshold(*GC_THRESHOLDS)  # as a service's process does
    where, began = machine(), time.monotonic()
    rows = uvloop.run(bench(arguments.only, arguments.rounds))
    result = (
        f"{datetime.now(UTC):%Y-%m-%d}: {where}; median of {arguments.rounds} rounds; PostgreSQL and Kafka on the same"
        f" cores, PostgreSQL with fsync; {time.monotonic() - began:.0f} s in all.\n\n{table(rows)}"
    )
    print(result)
    if arguments.write:
        write(result)


if __name__ == "__main__":
    main()
