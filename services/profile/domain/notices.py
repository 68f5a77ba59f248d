"""What the other services tell about a user: of each thing the highest revision. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from libs.common.events import AnyEvent

FAMILIES = {
    "segment.entered": "segment",
    "segment.left": "segment",
    # Each is kept on its own: what was sent last stays known when something else was skipped after it.
    "message.sent": "message.sent",
    "message.skipped": "message.skipped",
    "points.awarded": "points",
    "points.spent": "points",
    "points.adjusted": "points",
    "level.changed": "level",
}
"""Notices that are kept, and which of them tell of the same thing: revisions are compared within a family."""

NoticeKey = tuple[str, str, str]
"""(account, family, entity)"""


class Notice(NamedTuple):
    """The last that was told of a thing. `time` is when it was told."""

    revision: int
    source: str
    id: str
    user_id: str
    type: str
    since: datetime
    time: datetime
    data: dict[str, Any]


def fold(events: Iterable[AnyEvent]) -> dict[NoticeKey, Notice]:
    """The newest notice of each thing among `events`."""
    found: dict[NoticeKey, Notice] = {}
    for event in events:
        family = FAMILIES.get(event.type)
        if family is None:
            continue
        data: Any = event.data
        key = (event.account, family, data.entity)
        notice = Notice(
            data.revision,
            event.source,
            event.id,
            data.user_id,
            event.type,
            data.since,
            event.time,
            data.model_dump(mode="json", exclude_none=True),
        )
        if key not in found or notice[:3] > found[key][:3]:
            found[key] = notice
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """All that was told of a user, sorted out. `balance` is over all his subjects."""

    segments: dict[str, Notice]
    level: Notice | None
    balance: int
    balance_at: datetime | None
    last_message: Notice | None


def sort_out(rows: Iterable[tuple[str, str, Notice]], user_id: str, own_ids: Sequence[str]) -> Told:
    """From rows (family, entity, notice) about a user, or about one of `own_ids`, those of his subjects.

    Of a layering or level, what was told of the user stands; until something was, the newest told of those that are he.
    Wallets are his subjects' own.
    """
    rows = list(rows)
    layerings: dict[str, tuple[tuple[bool, datetime, str], Notice]] = {}
    levels: list[tuple[tuple[bool, datetime, str], Notice]] = []
    wallets = []
    messages = []
    for family, entity, notice in rows:
        if family == "points":
            if entity in own_ids:
                wallets.append(notice)
            continue
        rank = (notice.user_id == user_id, notice.time, entity)
        if family == "segment":
            layering = entity.partition("/")[2]
            if layering not in layerings or rank > layerings[layering][0]:
                layerings[layering] = (rank, notice)
        elif family == "level":
            levels.append((rank, notice))
        elif family == "message.sent":
            messages.append(notice)
    return Told(
        segments={name: notice for name, (_, notice) in sorted(layerings.items()) if notice.type == "segment.entered"},
        level=max(levels)[1] if levels else None,
        balance=sum(int(notice.data["balance"]) for notice in wallets),
        balance_at=max((notice.time for notice in wallets), default=None),
        last_message=max(messages, key=lambda notice: (notice.time, notice.id), default=None),
    )
