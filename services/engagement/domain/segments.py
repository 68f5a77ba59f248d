"""Segment notices: of each entity only the highest revision counts, and it counts once."""

from collections.abc import Iterable

from libs.common.events import AnyEvent
from libs.common.events.derived import SegmentEntered, SegmentLeft

SegmentNotice = SegmentEntered | SegmentLeft
EntityKey = tuple[str, str]
"""(account, entity)"""


def newest_notices(events: Iterable[AnyEvent]) -> dict[EntityKey, SegmentNotice]:
    """The segment notice of the highest revision of each entity."""
    newest: dict[EntityKey, SegmentNotice] = {}
    for event in events:
        if isinstance(event, SegmentNotice):
            key = (event.account, event.data.entity)
            if key not in newest or event.data.revision > newest[key].data.revision:
                newest[key] = event
    return newest


def segment_of(event: SegmentNotice) -> str | None:
    """The segment that the entity is in after this notice."""
    return event.data.segment if event.type == "segment.entered" else None
