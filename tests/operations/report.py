"""The tables of `make operations`: how they are printed, and how docs/operations/README.md keeps them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.report import machine
from tests.operations.configuration import LIMIT_SECONDS, Change
from tests.operations.run import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "README.md"
HEADINGS = ("step", "took", "delay p50", "p99", "longest", "most behind", "rebalances", "longest exit")


def outcome_text(outcome: Outcome) -> str:
    """What came of it in a sentence, and a row a step."""
    bad = [one.name for one in outcome.exits if not one.good]
    longest = max((one.seconds for one in outcome.exits), default=0)
    summary = (
        f"{_today()}: {outcome.rate:.0f} events/s; {outcome.events:,} events and {outcome.requests:,} REST requests,"
        f" **{len(outcome.failed)} failed, {outcome.lost} lost, {outcome.doubled} doubled**."
        f" Answers to events: p99 {quantile(outcome.event_waits, 0.99):.2f} s, slowest"
        f" {quantile(outcome.event_waits, 1):.2f} s; to REST: p99 {quantile(outcome.request_waits, 0.99):.2f} s,"
        f" slowest {quantile(outcome.request_waits, 1):.2f} s. {len(outcome.exits)} processes got SIGTERM,"
        f" {len(outcome.exits) - len(bad)} ended with exit code 0 in time, the slowest after {longest:.1f} s."
        f" {machine().replace('before the run', 'at its end')}."
    )
    rows = [
        (
            step.name,
            f"{step.seconds:.0f} s",
            f"{step.p50:.2f} s",
            f"{step.p99:.1f} s",
            f"{step.worst:.1f} s ({step.slowest})" if step.slowest else "",
            f"{step.lag:,}",
            str(step.rebalances),
            f"{step.longest_exit:.1f} s" if step.exits else "",
        )
        for step in outcome.steps
    ]
    return "\n".join([summary, "", _row(HEADINGS), "|" + "---|" * len(HEADINGS), *map(_row, rows)])


def changes_text(changes: Sequence[Change]) -> str:
    """A row a change of the configuration."""
    rows = [(change.what, f"{change.seconds:.1f} s") for change in changes]
    head = ("change of `superfan.toml`", f"everywhere after (limit {LIMIT_SECONDS} s)")
    return "\n".join([f"{_today()}:", "", _row(head), "|---|---|", *map(_row, rows)])


def write(part: str, text: str) -> None:
    """Replace what an earlier run wrote of this part."""
    begin, end = f"<!-- written by make operations: {part} -->", f"<!-- end of {part} -->"
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values; 0 without any."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0


def _row(columns: Sequence[str]) -> str:
    return "| " + " | ".join(columns) + " |"


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
