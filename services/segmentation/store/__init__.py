"""All SQL of segmentation. Writes touch rows in key order: facts first, then the rows of `lifecycle_state`, then those
of `ladder_state`; what a state depends on is read after its row is locked.

lifecycle, ladder: facts and announced states · due: moves that time alone brings about · moves: the history of moves ·
rfm: runs and their scores · corrections: what a rebuild looks for.
"""

from collections.abc import Sequence
from typing import Any

SubjectKey = tuple[str, str]
"""(account, subject)"""
UserKey = tuple[str, str]
"""(account, user_id)"""


def columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Rows turned into one array a column, for unnest."""
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}
