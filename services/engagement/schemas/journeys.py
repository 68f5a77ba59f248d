"""Journeys: their definition, versions and texts."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from libs.common.events import Whole
from services.engagement.domain import journeys, templates
from services.engagement.domain.decisions import Reason
from services.engagement.domain.gates import QuietOutcome
from services.engagement.domain.journeys import Action, Entry, Lang, Purpose, Status, Trigger

Key = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$", description="Names the journey.", examples=["welcome"])]

NO_NUL = r"^[^\x00]*$"

TEXTS_EXAMPLE: dict[str, Any] = {
    "zh": {"title": "好久不见", "body": "这几天更新了不少新内容，有空来看看吧。"},
    "en": {"title": "It has been a while", "body": "Come and have a look."},
}
DEFINITION_EXAMPLE: dict[str, Any] = {
    "status": "live",
    "trigger": "segment.entered",
    "segment": "lifecycle.dormant",
    "max_age_seconds": 172800,
    "purpose": "marketing",
    "channel": "in_app",
    "step": "come_back",
    "entry": "again",
    "quiet_hours": "wait",
    "texts": TEXTS_EXAMPLE,
}
ONE_TRIGGER: list[Any] = [
    {"properties": {"trigger": {"const": "follow"}, "segment": {"type": "null"}}},
    {
        "properties": {"trigger": {"const": "segment.entered"}, "segment": {"type": "string"}},
        "required": ["segment"],
    },
]
"""A segment belongs to the trigger segment.entered and to no other."""
JOURNEY_EXAMPLE: dict[str, Any] = {
    "key": "reactivation",
    "version": 2,
    **DEFINITION_EXAMPLE,
    "action": "put",
    "changed_at": "2026-06-01T08:00:00Z",
    "changed_by": "dev",
    "reasons": {"too_old": "what starts the journey is as old as the maximum age, or older"},
}


class Text(BaseModel):
    """What the user reads, in one language: Liquid templates."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=1, max_length=templates.MOST_CHARACTERS, pattern=NO_NUL)
    body: str = Field(min_length=1, max_length=templates.MOST_CHARACTERS, pattern=NO_NUL)


class CheckedText(Text):
    """A text that may name account.name, user.id, user.subject, user.platform and event.type, event.time,
    event.segment."""

    @field_validator("title", "body")
    @classmethod
    def _renders(cls, template: str) -> str:
        try:
            templates.check(template)
        except templates.TemplateError as error:
            raise ValueError(str(error)) from None
        return template


class Definition(BaseModel):
    """A new version of a journey."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": DEFINITION_EXAMPLE, "anyOf": ONE_TRIGGER})

    status: Status = Field(
        description="`draft`: kept, and the version before it stays in effect; `live`; `paused`: whatever would start"
        " it is skipped; `ended`."
    )
    trigger: Trigger = Field(description="Type of the event that starts it.")
    segment: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9._:-]{1,100}$",
        validate_default=True,
        description="For `segment.entered`: which one.",
    )
    max_age_seconds: Annotated[int, Whole(60, 30 * 86400)] = Field(
        description="What is as old as this starts nothing; a message that waits so long expires."
    )
    purpose: Purpose
    channel: str = Field(
        pattern=r"^[a-z0-9_-]{1,40}$", description="`in_app`, or the id of a channel declared in superfan.toml."
    )
    step: str = Field(default="message", pattern=r"^[a-z0-9_-]{1,40}$", description="Names the message.")
    entry: Entry = Field(default="once", description="Whether a user may have its message more than once.")
    quiet_hours: QuietOutcome = Field(
        default="wait", description="In quiet hours of push, sms, dm and phone: wait until they end, or drop."
    )
    texts: dict[Lang, CheckedText] = Field(min_length=1)

    @field_validator("segment")
    @classmethod
    def _fits_trigger(cls, segment: str | None, info: ValidationInfo) -> str | None:
        trigger = info.data.get("trigger")
        if trigger == "segment.entered" and segment is None:
            raise ValueError("is needed when the trigger is segment.entered")
        if trigger == "follow" and segment is not None:
            raise ValueError("must be absent when the trigger is follow")
        return segment

    def journey(self, key: str, version: int, changed_at: datetime, changed_by: str) -> journeys.Journey:
        """The version that this body describes."""
        return journeys.Journey(
            key=key,
            version=version,
            status=self.status,
            trigger=self.trigger,
            segment=self.segment,
            max_age=timedelta(seconds=self.max_age_seconds),
            purpose=self.purpose,
            channel=self.channel,
            step=self.step,
            entry=self.entry,
            quiet=self.quiet_hours,
            texts={lang: journeys.Text(text.title, text.body) for lang, text in self.texts.items()},
            changed_at=changed_at,
            changed_by=changed_by,
            action="put",
        )


class Journey(BaseModel):
    """One version of a journey: a message, what starts it, and what may hold it back."""

    model_config = ConfigDict(json_schema_extra={"example": JOURNEY_EXAMPLE})

    key: str
    version: int
    status: Status
    trigger: Trigger
    segment: str | None
    max_age_seconds: int
    purpose: Purpose
    channel: str
    step: str
    entry: Entry
    quiet_hours: QuietOutcome
    texts: dict[Lang, Text]
    action: Action = Field(description="How this version came to be.")
    changed_at: datetime | None = Field(description="Null for a built-in version.")
    changed_by: str | None = Field(description="Id of the key that stored it.")
    reasons: dict[Reason, str] = Field(description="Why it is not sent, in the order in which it is asked.")


class Journeys(BaseModel):
    """All journeys of the account in their newest version."""

    items: list[Journey]


class RenderRequest(BaseModel):
    """What to render; without anything, the newest version with made-up values."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"user": "douyin:u42"}})

    user: str | None = Field(
        default=None, min_length=1, max_length=200, pattern=NO_NUL, description="a user id or any subject"
    )
    version: Annotated[int, Whole(1, 2**31 - 1)] | None = None
    texts: dict[Lang, CheckedText] | None = Field(default=None, description="Texts to try instead of the stored ones.")


class Rendered(BaseModel):
    """The texts as a user would read them."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"texts": TEXTS_EXAMPLE, "variables": dict(templates.EXAMPLE)}}
    )

    texts: dict[Lang, Text]
    variables: dict[str, dict[str, str]]
