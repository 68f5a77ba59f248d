"""The table of the battery: how it is printed, and how docs/reliability.md keeps it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.report import machine
from tests.chaos.faults import FAULTS
from tests.chaos.run import Result, Soak

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
FAULT_MARKS = ("<!-- written by make chaos: faults -->", "<!-- end of faults -->")
SABOTAGE_MARKS = ("<!-- written by make chaos-sabotage -->", "<!-- end of sabotage -->")
SOAK_MARKS = ("<!-- written by make chaos: soak -->", "<!-- end of soak -->")
HEADINGS = (
    "fault",
    "lasted",
    "acknowledged",
    "refused",
    "no answer",
    "lost",
    "doubled",
    "p99.9 of the 202s",
    "slowest",
    "caught up after",
    "what was seen",
    "when",
)


def cells(result: Result) -> tuple[str, ...]:
    """One row."""
    name = result.fault.name
    if result.why_not:
        return (name, *[""] * (len(HEADINGS) - 3), f"not possible here: {result.why_not}", today())
    limit = f" (limit {result.fault.limit} s)" if result.fault.limit else ""
    return (
        name,
        f"{result.seconds:.0f} s",
        f"{result.acknowledged:,}",
        f"{result.refused:,}",
        f"{result.unanswered:,}",
        str(result.lost),
        str(result.doubled),
        f"{result.wait(0.999):.2f} s{limit}",
        f"{result.wait(1):.2f} s",
        f"{result.caught_up:.0f} s",
        result.note,
        today(),
    )


def row(columns: Sequence[str]) -> str:
    return "| " + " | ".join(columns) + " |"


def heading() -> list[str]:
    return [row(HEADINGS), "|" + "---|" * len(HEADINGS)]


def fault_table(rows: dict[str, str]) -> str:
    """The rows in the order of the battery, and what each fault is."""
    known = [rows[name] for name in FAULTS if name in rows]
    meaning = [f"- **{name}** {fault.what}" for name, fault in FAULTS.items()]
    where = machine().replace("before the run", "at its end")
    return "\n".join([f"Machine of the last run: {where}.", "", *heading(), *known, "", *meaning])


def soak_table(soak: Soak) -> str:
    """Verdict, then second minute and last minute of everything that was watched."""
    result = soak.result
    summary = (
        f"{today()}: {result.note}; {result.acknowledged:,} acknowledged, lost {result.lost}, doubled {result.doubled};"
        f" p99.9 of the 202s {result.wait(0.999):.2f} s, slowest {result.wait(1):.2f} s."
        f" {'Flat' if soak.good else '**Not flat**'}. {machine().replace('before the run', 'at its end')}."
    )
    lines = [
        summary,
        "",
        "| what | second minute | last minute | flat |",
        "|---|---|---|---|",
    ]
    for name in soak.samples[0]:
        first, last = soak.ends(name)
        unit = "" if "connections" in name else " MiB"
        verdict = "not judged" if name == "kafka" else "yes" if soak.flat(name) else "**no**"
        lines.append(row((name, f"{first:.0f}{unit}", f"{last:.0f}{unit}", verdict)))
    return "\n".join(lines)


def write_faults(results: Sequence[Result]) -> None:
    """Replace the rows of these faults in the page; the others stay as an earlier run left them."""
    kept = {line.split("|")[1].strip(): line for line in _between(FAULT_MARKS).splitlines() if line.startswith("| F")}
    kept.update({result.fault.name: row(cells(result)) for result in results})
    _replace(FAULT_MARKS, fault_table(kept))


def write_soak(soak: Soak) -> None:
    _replace(SOAK_MARKS, soak_table(soak))


def write_sabotage(text: str) -> None:
    _replace(SABOTAGE_MARKS, text)


def _between(marks: tuple[str, str]) -> str:
    return PAGE.read_text().partition(marks[0])[2].partition(marks[1])[0]


def _replace(marks: tuple[str, str], text: str) -> None:
    before, _, rest = PAGE.read_text().partition(marks[0])
    PAGE.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{rest.partition(marks[1])[2]}")


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
