"""Real events with independently computed answers; they lie outside the repository and may be absent."""

import csv
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


def need_data() -> None:
    """Skip the calling test where the data are absent."""
    if not DATA.is_dir():
        pytest.skip("the real data sets are not on this machine")


def load_events(name: str) -> list[dict[str, Any]]:
    """The events of one data set, in the order in which they would arrive."""
    need_data()
    with gzip.open(DATA / "events" / f"{name}.events.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def load_expected(name: str) -> list[dict[str, str]]:
    """The expected answers of one data set, one row a user."""
    need_data()
    with gzip.open(DATA / "expected" / f"{name}.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


def shuffled_with_repeats(events: list[dict[str, Any]], seed: int, share: float = 0.05) -> list[dict[str, Any]]:
    """The same events in another order, `share` of them twice."""
    rng = random.Random(seed)
    arrivals = events + rng.sample(events, int(len(events) * share))
    rng.shuffle(arrivals)
    return arrivals
