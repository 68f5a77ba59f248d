"""python -m tests.chaos [--only F1,F6,soak] [--seconds N] [--rate N] [--soak-minutes N] [--write]"""

import argparse
import asyncio
import os
import sys

import structlog

from tests.chaos.faults import FAULTS
from tests.chaos.load import RATE
from tests.chaos.report import cells, heading, row, soak_table, write_faults, write_soak
from tests.chaos.run import Result, Soak, run_fault, soak
from tests.chaos.world import World

SOAK = "soak"


async def battery(arguments: argparse.Namespace) -> tuple[list[Result], Soak | None]:
    """The chosen faults one after the other on one system, then the soak."""
    names = arguments.only
    world = World([*(FAULTS[name].account for name in names if name != SOAK), SOAK], small_disks=True)
    results, soaked = [], None
    try:
        await world.start()
        for name in names:
            if name != SOAK:
                fault = FAULTS[name]
                print(f"\n{name}: {fault.what}", flush=True)
                results.append(await run_fault(world, fault, arguments.seconds, arguments.rate))
                print("\n".join(map(str, results[-1].verdicts)), results[-1].note, sep="\n", flush=True)
        if SOAK in names and arguments.soak_minutes:
            print(f"\nsoak: {arguments.rate:.0f} events/s for {arguments.soak_minutes:g} minutes", flush=True)
            soaked = await soak(world, arguments.soak_minutes, arguments.rate)
            print("\n".join(map(str, soaked.result.verdicts)), flush=True)
    finally:
        await world.close()
    return results, soaked


def names_of(text: str) -> list[str]:
    known = {name.lower(): name for name in (*FAULTS, SOAK)}
    unknown = [name for name in text.split(",") if name.lower() not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"no fault {', '.join(unknown)}; there are {', '.join(known.values())}")
    return [known[name.lower()] for name in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--only", type=names_of, default=[*FAULTS, SOAK], metavar="F1,F6,soak")
    parser.add_argument("--seconds", type=float, default=20, help="how long each fault lasts, about")
    parser.add_argument("--rate", type=float, default=RATE, help="events a second")
    parser.add_argument("--soak-minutes", type=float, default=10, help="0 leaves the soak out")
    parser.add_argument("--write", action="store_true", help="keep the result in docs/reliability.md")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SUPERFAN_")]:
        del os.environ[name]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    results, soaked = asyncio.run(battery(arguments))
    if results:
        print("", *heading(), *(row(cells(result)) for result in results), sep="\n")
    if soaked:
        print("", soak_table(soaked), sep="\n")
    if arguments.write:
        if results:
            write_faults(results)
        if soaked:
            write_soak(soaked)
    if not (all(result.good for result in results) and (soaked is None or soaked.good)):
        sys.exit(1)


if __name__ == "__main__":
    main()
