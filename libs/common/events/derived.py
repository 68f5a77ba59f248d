"""What services conclude and tell the others. All are notices: consumers keep the highest revision per entity."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from libs.common.events.envelope import Data, Event, StrictBool
from libs.common.events.fields import Count, EventTime, Explained, Id, JsonInt, Positive, Subject

ACTIVE_TYPES = frozenset(
    {
        "follow",
        "view",
        "like",
        "comment",
        "share",
        "message",
        "sign_in",
        "live.gift",
        "live.fanclub",
        "order.paid",
    }
)
"""Types that make a day an active day of the person."""


class Notice(Data):
    entity: Id = Field(description="What the notice is about; revisions rise per entity.")
    revision: Positive = Field(description="Rises, with gaps; the highest one stands.")
    since: EventTime = Field(description="The business instant from which it is true.")
    user_id: Id = Field(description="`usr_…`")


class NoticeEvent(Event):
    subject: Subject
    data: Notice


class LinkedData(Notice):
    subjects: list[Subject] = Field(min_length=1, description="All subjects of the user, sorted: the whole group.")


class ProfileLinked(NoticeEvent):
    """Which subjects are one user: the whole group, told whenever it changes. The highest revision that names a subject
    says whose it is; after an unlink each of the resulting groups is told."""

    topic: ClassVar[str] = "superfan.profiles"
    emitted_by: ClassVar[tuple[str, ...]] = ("profile",)
    caused_by: ClassVar[frozenset[str]] = frozenset({"profile.traits"})
    type: Literal["profile.linked"]
    data: LinkedData


class BelievedTraits(Data):
    zone: Id | None = None


class UpdatedData(Notice):
    traits: BelievedTraits = Field(
        description="What others need to know of him, and nothing that names him. `zone`: IANA name of his time zone;"
        " absent: none is known."
    )


class ProfileUpdated(NoticeEvent):
    """What profile believes of a subject that others act on; of a user's subjects the newest `since` counts."""

    topic: ClassVar[str] = "superfan.profiles"
    emitted_by: ClassVar[tuple[str, ...]] = ("profile",)
    caused_by: ClassVar[frozenset[str]] = frozenset({"profile.traits"})
    type: Literal["profile.updated"]
    data: UpdatedData


class SegmentData(Notice):
    segment: Id = Field(description="Key of the segment.")
    reason: Literal["event", "time_passed", "rule_changed", "merged"]
    initial: StrictBool = Field(description="The first placement of this user; starts no message.")


class SegmentEvent(NoticeEvent):
    topic: ClassVar[str] = "superfan.segments"
    emitted_by: ClassVar[tuple[str, ...]] = ("segmentation",)
    caused_by: ClassVar[frozenset[str]] = ACTIVE_TYPES | {
        "unfollow",
        "survey.answered",
        "order.created",
        "order.shipped",
        "order.completed",
        "order.cancelled",
        "order.refunded",
        "order.enriched",
        "profile.linked",
    }
    data: SegmentData


class SegmentEntered(SegmentEvent):
    """A user entered a segment."""

    type: Literal["segment.entered"]


class SegmentLeft(SegmentEvent):
    """A user left a segment."""

    type: Literal["segment.left"]


class MessageNoticeData(Notice):
    message_id: Id | None = None
    journey: Id
    journey_version: Positive | None = Field(default=None, description="The version by which it was decided.")
    step: Id
    channel: Id
    reason: Id | None = None
    state: Literal["sent", "unknown", "cancelled", "expired"] | None = Field(
        default=None,
        description="What became of the message; `unknown`: it was handed over and nobody answered. Absent when there"
        " never was a message.",
    )


class MessageEvent(NoticeEvent):
    topic: ClassVar[str] = "superfan.messages"
    emitted_by: ClassVar[tuple[str, ...]] = ("engagement",)
    caused_by: ClassVar[frozenset[str]] = frozenset({"follow", "segment.entered"})
    data: MessageNoticeData


class MessageSent(MessageEvent):
    """A message was sent to a user, or may have reached him."""

    type: Literal["message.sent"]


class MessageSkipped(MessageEvent):
    """A message was not sent; `reason` says why."""

    type: Literal["message.skipped"]


EARNING_TYPES = frozenset(
    {
        "sign_in",
        "follow",
        "like",
        "comment",
        "share",
        "live.gift",
        "live.fanclub",
        "survey.answered",
        "order.created",
        "order.paid",
        "order.shipped",
        "order.completed",
        "order.cancelled",
        "order.refunded",
        "order.enriched",
    }
)
"""Types that may bring points: deeds, and whatever makes known that an order is paid, by whom and how much."""


class MovedData(Notice):
    points: JsonInt = Field(description="Points of this entry; below 0 if they were taken.")
    balance: JsonInt = Field(description="Points of the entity, which is one subject, after this entry.")
    user_balance: JsonInt | None = Field(
        default=None, description="Points of the user, who may have several subjects, after this entry."
    )
    entry_id: Id


class PointsData(MovedData):
    rule: Id
    rule_version: Positive
    caused_by: Annotated[
        str,
        Field(strict=True, pattern="^[0-9a-f]{32}$"),
        Explained("Input should be the digest of the causing event in 32 hexadecimal digits"),
    ] = Field(description="Digest of the causing event, in hexadecimal digits.")


class RewardsEvent(NoticeEvent):
    topic: ClassVar[str] = "superfan.rewards"
    emitted_by: ClassVar[tuple[str, ...]] = ("rewards",)


class PointsAwarded(RewardsEvent):
    """A user received points."""

    caused_by: ClassVar[frozenset[str]] = EARNING_TYPES
    type: Literal["points.awarded"]
    data: PointsData


class ByHandData(MovedData):
    reason: Id
    reference: Id | None = Field(default=None, description="What they were for, in the words of whoever asked.")


class PointsSpent(RewardsEvent):
    """A user spent points; one for each of his subjects that paid."""

    type: Literal["points.spent"]
    data: ByHandData


class PointsAdjusted(RewardsEvent):
    """Points were given or taken by hand; one for each subject that they were taken from."""

    type: Literal["points.adjusted"]
    data: ByHandData


class LevelData(Notice):
    rank: Count = Field(description="0 for the lowest level.")
    rank_before: Count
    level: Id = Field(description="Key of the level.")
    name: Id
    growth: JsonInt = Field(description="Growth value that counts.")
    reason: Literal["event", "time_passed", "rule_changed", "merged"]


class LevelChanged(RewardsEvent):
    """A user rose to a level or fell to one."""

    caused_by: ClassVar[frozenset[str]] = EARNING_TYPES | {"profile.linked"}
    type: Literal["level.changed"]
    data: LevelData
