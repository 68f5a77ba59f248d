"""A folder of real events and a folder of answers: which belong together, and what is asked of them.

An events file `NAME.events.jsonl.gz` is a data set. An answers file belongs to the data set whose name stands in its
own between an optional prefix and a suffix: `cdnow_dev_users.csv.gz`, `rfm_cdnow_dev_users.csv.gz`,
`rfm_cdnow_dev.json`. Users' names are the part of the subject behind its id space.
What a table asks is told by its columns, so other sets of the same form need no change here.
"""

import csv
import gzip
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENDING = ".events.jsonl.gz"


@dataclass(frozen=True)
class Table:
    """Expected answers, one row a user; the first column names the user."""

    path: Path
    rows: list[dict[str, str]]
    totals: dict[str, Any]

    @property
    def columns(self) -> set[str]:
        return set(self.rows[0])

    @property
    def by_user(self) -> dict[str, dict[str, str]]:
        """Rows by the user's name."""
        first = next(iter(self.rows[0]))
        return {row[first]: row for row in self.rows}


@dataclass
class DataSet:
    """Events in the order of arrival, and the tables and totals that belong to them."""

    name: str
    events: list[dict[str, Any]]
    tables: list[Table] = field(default_factory=list)
    totals: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def currency(self) -> str:
        """The currency of most orders."""
        used = Counter(event["data"]["currency"] for event in self.events if "currency" in event["data"])
        return used.most_common(1)[0][0] if used else "CNY"


def load_folder(events: Path, expected: Path) -> list[DataSet]:
    """Every data set of the folder `events` with its answers. Raises ValueError when one has none, or when answers
    belong to no data set that is there."""
    sets = [DataSet(path.name.removesuffix(ENDING), read_events(path)) for path in sorted(events.glob(f"*{ENDING}"))]
    if not sets:
        raise ValueError(f"{events} holds no file *{ENDING}")
    for path in sorted(expected.iterdir()):
        if owner := _owner(path.name, sets):
            if path.name.endswith("_users.csv.gz"):
                owner.tables.append(_table(path))
            elif path.suffix == ".json":
                owner.totals[path.stem] = json.loads(path.read_text())
    for data_set in sets:
        if not data_set.tables and not data_set.totals:
            raise ValueError(f"{expected} holds no answers for {data_set.name}")
    return sets


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file."""
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def _owner(name: str, sets: list[DataSet]) -> DataSet | None:
    # The longest name first, so that `retail2_…` is not taken for a `retail`.
    for data_set in sorted(sets, key=lambda one: -len(one.name)):
        if re.match(rf"([a-z]+_)?{re.escape(data_set.name)}[_.]", name):
            return data_set
    return None


def _table(path: Path) -> Table:
    with gzip.open(path, "rt") as lines:
        rows = list(csv.DictReader(lines))
    totals = path.with_name(path.name.replace("_users.csv.gz", ".json"))
    return Table(path, rows, json.loads(totals.read_text()) if totals.exists() else {})
