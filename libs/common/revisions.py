"""The revision of a notice: above all that its entity was ever told with, also by a database that is no more.

Counting from what the database holds is not enough: one that was restored from a backup would give out revisions again
with which other services already know something newer, and they would ignore it.
"""

from datetime import datetime


def floor(now: datetime) -> int:
    """What every revision that is given from `now` on lies above: the milliseconds since 1970."""
    return int(now.timestamp() * 1000)


def next_revision(last: int, now: datetime) -> int:
    """The revision after `last`, given at `now`."""
    return max(last, floor(now)) + 1
