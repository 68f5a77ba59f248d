"""Rows of the result, how they are printed and where they are kept."""

import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- written by make bench -->", "<!-- end of what make bench writes -->"
HEADINGS = ("path", "measured", "limit", "of the limit", "usual way", "× usual", "budget", "met")


@dataclass(frozen=True)
class Row:
    """One line of the table; texts carry their units."""

    path: str
    measured: str
    budget: str
    met: bool
    limit: str = ""
    of_limit: str = ""
    usual: str = ""
    times_usual: str = ""

    def cells(self) -> tuple[str, ...]:
        met = "yes" if self.met else "**no**"
        return (
            self.path,
            self.measured,
            self.limit,
            self.of_limit,
            self.usual,
            self.times_usual,
            self.budget,
            met,
        )


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with aligned columns."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    drawn = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([drawn[0], rule, *drawn[1:]])


def machine() -> str:
    """Processor, memory, versions, and how busy the machine was with other things."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.+)", cpuinfo.read_text())):
        model = found[1]
    load = os.getloadavg()[0]
    return (
        f"{psutil.cpu_count()} cores of {model or platform.machine()}, {psutil.virtual_memory().total / 2**30:.0f} GiB,"
        f" {platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()};"
        f" load average before the run {load:.1f}"
    )


def write(text: str) -> None:
    """Replace what an earlier run wrote in docs/performance.md."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def count(number: float) -> str:
    """A rate with thin precision: 12,300."""
    digits = 0 if number < 1000 else -2
    return f"{round(number, digits):,.0f}"


def share(number: float) -> str:
    return f"{number:.0%}"


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)
