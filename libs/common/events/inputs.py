"""What happens outside and is told to ingest: fans' actions, orders, consent, traits, content. All are facts."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from libs.common.events.envelope import Data, Event
from libs.common.events.fields import (
    Count,
    Currency,
    Id,
    JsonInt,
    Money,
    Positive,
    Subject,
    Text,
    Whole,
)


class FollowsEvent(Event):
    topic: ClassVar[str] = "superfan.follows"
    subject: Subject


class InteractionEvent(Event):
    topic: ClassVar[str] = "superfan.interactions"
    subject: Subject


class Acquisition(BaseModel):
    """Where a fan came from."""

    model_config = ConfigDict(extra="allow")
    channel: Id | None = None
    campaign: Id | None = None
    kol: Id | None = None
    content_id: Id | None = None
    referrer: Text | None = None
    code: Id | None = None


class FollowData(Data):
    acquisition: Acquisition | None = Field(default=None, description="Where the fan came from.")


class Follow(FollowsEvent):
    """Somebody follows the account."""

    type: Literal["follow"]
    data: FollowData = FollowData()


class UnfollowData(Data):
    reason: Text | None = None


class Unfollow(FollowsEvent):
    """Somebody follows the account no longer."""

    type: Literal["unfollow"]
    data: UnfollowData = UnfollowData()


class ConsentData(Data):
    purpose: Id = Field(description="What for: `marketing`, `service`, …")
    channel: Id = Field(description="By which way: `sms`, `email`, `phone`, `dm`, …")
    evidence: Text | None = Field(default=None, description="How it can be proved.")


class ConsentGranted(FollowsEvent):
    """A person allows a use of a channel for a purpose."""

    type: Literal["consent.granted"]
    data: ConsentData


class ConsentRevoked(FollowsEvent):
    """A person takes a consent back."""

    type: Literal["consent.revoked"]
    data: ConsentData


class ViewData(Data):
    content_id: Id
    watch_ms: Count = Field(description="Milliseconds watched; may pass the duration when watched again.")
    duration_ms: Count = Field(description="Length of the content in milliseconds.")
    category: Text | None = None
    tags: list[Text] | None = None
    session_id: Id | None = None
    device: Text | None = None


class View(Event):
    """A person watches a piece of content."""

    topic: ClassVar[str] = "superfan.views"
    subject: Subject
    type: Literal["view"]
    data: ViewData


class LikeData(Data):
    content_id: Id | None = None
    count: Positive = Field(default=1, description="Likes at once, as live rooms report them.")
    room_id: Id | None = None


class Like(InteractionEvent):
    """A person likes a piece of content or, in a live room, the show."""

    type: Literal["like"]
    data: LikeData = LikeData()


class CommentData(Data):
    content_id: Id | None = None
    comment_id: Id
    text: Text | None = None
    reply_to: Id | None = Field(default=None, description="comment_id of the comment that it answers.")
    room_id: Id | None = None


class Comment(InteractionEvent):
    """A person comments on a piece of content or in a live room."""

    type: Literal["comment"]
    data: CommentData


class ShareData(Data):
    content_id: Id
    to: Text | None = Field(default=None, description="Where it was shared to.")


class Share(InteractionEvent):
    """A person shares a piece of content."""

    type: Literal["share"]
    data: ShareData


class MessageData(Data):
    message_id: Id
    conversation_id: Id | None = None
    direction: Literal["in", "out"] = Field(description="`in`: from the person to the account.")
    text: Text | None = None


class Message(InteractionEvent):
    """A private message between a person and the account."""

    type: Literal["message"]
    data: MessageData


class SignInData(Data):
    utc_offset_minutes: Annotated[int, Whole(-1080, 1080)] | None = Field(
        default=None, description="Minutes by which the person's own clock is ahead of UTC. Decides the day."
    )


class SignIn(InteractionEvent):
    """A person signs in for the day (签到)."""

    emitted_by: ClassVar[tuple[str, ...]] = ("ingest", "rewards")
    type: Literal["sign_in"]
    data: SignInData = SignInData()


class LiveGiftData(Data):
    room_id: Id
    gift_id: Id
    count: Positive
    value_minor: Money = Field(description="Value of all `count` gifts together.")
    currency: Currency


class LiveGift(InteractionEvent):
    """A person gives gifts in a live room."""

    type: Literal["live.gift"]
    data: LiveGiftData


class LiveFanclubData(Data):
    room_id: Id
    action: Literal["join", "level_up"]
    level: Count


class LiveFanclub(InteractionEvent):
    """A person joins the fan club of a live room or reaches a level in it."""

    type: Literal["live.fanclub"]
    data: LiveFanclubData


class Answer(BaseModel):
    """One answer; the value is whatever the kind of question gives."""

    model_config = ConfigDict(extra="allow")
    question_id: Id
    value: Any


class SurveyAnsweredData(Data):
    survey_id: Id
    answers: list[Answer]
    score: JsonInt | None = None


class SurveyAnswered(InteractionEvent):
    """A person answers a survey."""

    type: Literal["survey.answered"]
    data: SurveyAnsweredData


class ContentPublishedData(Data):
    content_id: Id
    title: Text | None = None
    category: Text | None = None
    tags: list[Text] | None = None
    series_id: Id | None = None
    url: Text | None = None


class ContentPublished(InteractionEvent):
    """The account publishes a piece of content. The subject is `content:<content_id>`."""

    type: Literal["content.published"]
    data: ContentPublishedData

    @model_validator(mode="after")
    def _subject_is_the_content(self) -> Self:
        if self.subject != f"content:{self.data.content_id}":
            raise PydanticCustomError(
                "content_subject", "Input should be content:<content_id>", {"pointer": "/subject"}
            )
        return self


class TraitsData(Data):
    traits: dict[Id, Any] = Field(
        description="Trait name → value, any JSON; null takes it back. `union_id`, `login_id`, `phone`, `email` and "
        "`device_id` are identifiers: text, or for the first two `{space, id}`, for the others also a list. `zone` "
        "is the person's time zone, an IANA name; one that does not exist is passed over."
    )


class ProfileTraits(Event):
    """What is known of a person: age, city, nickname, phone, … Carries personal data."""

    topic: ClassVar[str] = "superfan.traits"
    subject: Subject
    type: Literal["profile.traits"]
    data: TraitsData
