"""Who follows: the newest follow or unfollow of each subject."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from libs.common.events import AnyEvent

Key = tuple[str, str]
"""(account, subject)"""

FOLLOWING = {"follow": True, "unfollow": False}


class Mark(NamedTuple):
    """A follow or unfollow of a subject; the greatest one tells whether he follows now."""

    time: datetime
    source: str
    id: str
    following: bool


@dataclass(slots=True)
class Follower:
    """What a list of follows and unfollows says about one subject."""

    newest: Mark
    first_follow: datetime | None = None


def fold_follows(events: Iterable[AnyEvent]) -> dict[Key, Follower]:
    """The newest mark and first follow of each subject; the same for any order and repetition."""
    followers: dict[Key, Follower] = {}
    for event in events:
        following = FOLLOWING.get(event.type)
        if following is None:
            continue
        assert event.subject is not None
        mark = Mark(event.time, event.source, event.id, following)
        follower = followers.setdefault((event.account, event.subject), Follower(mark))
        follower.newest = max(follower.newest, mark)
        if following:
            follower.first_follow = min(follower.first_follow or event.time, event.time)
    return followers
