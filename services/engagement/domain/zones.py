"""Where people live, as profile tells it: of each subject only the highest revision counts."""

from collections.abc import Iterable

from libs.common.events import AnyEvent
from libs.common.events.derived import ProfileUpdated
from services.engagement.domain.follows import Key


def newest_zones(events: Iterable[AnyEvent]) -> dict[Key, ProfileUpdated]:
    """The notice of the highest revision of each subject."""
    newest: dict[Key, ProfileUpdated] = {}
    for event in events:
        if isinstance(event, ProfileUpdated):
            key = (event.account, event.subject)
            if key not in newest or event.data.revision > newest[key].data.revision:
                newest[key] = event
    return newest
