"""python -m tests.chaos.sabotage [--only KIND,…] [--seconds N] [--rate N] [--write]

Proof that the battery can fail: each promise is broken in turn (see tests.chaos.sabotaged), and the faults that fit are
done until the checker has noticed. With nothing broken, the same faults must leave nothing to notice.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from tests.chaos.faults import FAULTS
from tests.chaos.load import RATE
from tests.chaos.report import row, today, write_sabotage
from tests.chaos.run import Result, run_fault
from tests.chaos.sabotaged import KINDS
from tests.chaos.world import World
from tests.support.services import SERVICES

HONEST = "nothing"
FITTING: dict[str, tuple[str, ...]] = {
    "auto-commit": ("F1", "F10"),
    "no-identity": ("F6", "F17"),
    "early-answer": ("F7", "F6"),
    "early-publish": ("F11", "F1", "F10"),
}
"""The faults for each broken promise, the likeliest first. Those of nothing broken are the first of each."""
HEADINGS = ("broken on purpose", "fault", "lost", "doubled", "noticed by", "as", "when")


@dataclass(frozen=True)
class Trial:
    """One fault with one promise broken, or with none. `error`: the system did not even come back."""

    kind: str
    fault: str
    result: Result | None
    error: str = ""

    @property
    def noticed(self) -> bool:
        """By the checker; a system that hangs is no proof that it would."""
        return self.result is not None and not self.result.good

    @property
    def as_it_should_be(self) -> bool:
        return self.noticed if self.kind != HONEST else self.result is not None and self.result.good

    def cells(self) -> tuple[str, ...]:
        """One row of the table."""
        if self.result is None:
            return (self.kind, self.fault, "", "", "", self.error, today())
        bad = [verdict for verdict in self.result.verdicts if not verdict.good]
        details = [detail for verdict in bad for detail in verdict.details[:1]]
        return (
            self.kind,
            self.fault,
            str(self.result.lost),
            str(self.result.doubled),
            ", ".join(verdict.service for verdict in bad) or "nobody",
            (details[0] if details else "").partition(", such as")[0],
            today(),
        )


def faults_of(kind: str, kinds: Iterable[str]) -> tuple[str, ...]:
    """What is done with this promise broken; with none, what is done first with any of `kinds`."""
    return FITTING[kind] if kind != HONEST else tuple(dict.fromkeys(FITTING[other][0] for other in kinds))


def account_of(kind: str, fault: str) -> str:
    return f"{kind}-{fault}".lower()


async def trials(kinds: Sequence[str], seconds: float, rate: float) -> list[Trial]:
    """Every broken promise until it is noticed, and the honest services under all first faults."""
    plan = {kind: faults_of(kind, kinds) for kind in (HONEST, *kinds)}
    world = World([account_of(kind, fault) for kind, faults in plan.items() for fault in faults])
    done: list[Trial] = []
    try:
        await world.start()
        for kind, faults in plan.items():
            world.system.program = () if kind == HONEST else ("tests.chaos.sabotaged", kind)
            await restart(world)
            for name in faults:
                trial = await attempt(world, kind, name, seconds, rate)
                print(row(trial.cells()), flush=True)
                done.append(trial)
                if kind != HONEST and trial.noticed:
                    break
    finally:
        await world.close()
    return done


async def restart(world: World) -> None:
    """All services anew, in the way that `program` says."""
    await world.kill(*SERVICES)
    await world.respawn(*SERVICES)
    await world.system.wait_ready()


async def attempt(world: World, kind: str, name: str, seconds: float, rate: float) -> Trial:
    """One fault, whatever comes of it."""
    fault = replace(FAULTS[name], name=account_of(kind, name))
    try:
        return Trial(kind, name, await run_fault(world, fault, seconds, rate))
    except Exception as error:
        return Trial(kind, name, None, f"{type(error).__name__}: {error}"[:200])


def verdict_of(done: Sequence[Trial], kinds: Sequence[str]) -> list[str]:
    """What is wrong, a line each: a broken promise that nobody noticed, or something noticed with none broken."""
    wrong = [
        f"nothing was broken, and yet under {trial.fault}: {trial.error or 'something was noticed'}"
        for trial in done
        if trial.kind == HONEST and not trial.as_it_should_be
    ]
    noticed = {trial.kind for trial in done if trial.noticed}
    return [*wrong, *(f"{kind} was not noticed" for kind in kinds if kind not in noticed)]


def table(done: Sequence[Trial]) -> str:
    """What each broken promise is, then a row a trial."""
    meaning = [f"- **{name}** {' '.join((do.__doc__ or '').split())}" for name, do in KINDS.items()]
    rows = [row(trial.cells()) for trial in done]
    return "\n".join([*meaning, "", row(HEADINGS), "|" + "---|" * len(HEADINGS), *rows])


def kinds_of(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in KINDS]:
        raise argparse.ArgumentTypeError(f"no sabotage {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos-sabotage")
    parser.add_argument("--only", type=kinds_of, default=list(KINDS), metavar="auto-commit,no-identity")
    parser.add_argument("--seconds", type=float, default=8, help="how long each fault lasts, about")
    parser.add_argument("--rate", type=float, default=RATE, help="events a second")
    parser.add_argument("--write", action="store_true", help="keep the result in docs/reliability.md")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SUPERFAN_")]:
        del os.environ[name]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(row(HEADINGS), flush=True)
    done = asyncio.run(trials(arguments.only, arguments.seconds, arguments.rate))
    if arguments.write:
        write_sabotage(table(done))
    if wrong := verdict_of(done, arguments.only):
        sys.exit("\n".join(wrong))
    print(f"all {len(arguments.only)} were noticed, and nothing where nothing was broken")


if __name__ == "__main__":
    main()
