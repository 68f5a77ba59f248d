"""Layerings 用户分层 divide all users, each by one question; a user is in one segment of a layering at most."""

from datetime import UTC, date, datetime, time, tzinfo
from typing import Literal

from services.segmentation.domain import ladder, lifecycle

Layering = Literal["lifecycle", "ladder"]

STATES: dict[Layering, tuple[str, ...]] = {"lifecycle": lifecycle.STATES, "ladder": ladder.RUNGS}
"""The states of each layering; the first is `none`, which is no segment."""


def segment_key(layering: Layering, state: str) -> str | None:
    """The segment of a state: `lifecycle.new`, `ladder.fan`, …; nobody is in a segment for having done nothing."""
    return None if state == "none" else f"{layering}.{state}"


SEGMENTS: dict[str, tuple[Layering, str]] = {
    key: (layering, state)
    for layering, states in STATES.items()
    for state in states
    if (key := segment_key(layering, state))
}
"""key → (layering, state), in the order of the states."""


def midnight(day: date, zone: tzinfo) -> datetime:
    """The instant in UTC at which `day` begins in `zone`."""
    return datetime.combine(day, time.min, zone).astimezone(UTC)
