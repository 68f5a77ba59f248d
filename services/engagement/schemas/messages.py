"""Messages and consents."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.engagement.domain.journeys import Lang

USER_ID = "usr_mfzwizltoqfi4bqxc5ubzqxrvlyhaeoz"
MESSAGE_EXAMPLE: dict[str, Any] = {
    "message_id": "msg_3qz5n2c7wq2y6kzv4m4bq3f6o7x5t2da",
    "subject": "douyin:u42",
    "journey": "welcome",
    "journey_version": 1,
    "step": "hello",
    "channel": "in_app",
    "purpose": "service",
    "state": "sent",
    "lang": "en",
    "title": "Welcome!",
    "body": "Thank you for following us. Sign in every day to collect points; news reaches you first.",
    "created_at": "2026-06-01T08:00:00.352000Z",
    "sent_at": "2026-06-01T08:00:00.352000Z",
    "expires_at": "2026-06-02T08:00:00Z",
    "held_until": None,
    "attempts": 0,
    "failure": None,
}
CONSENTS_EXAMPLE: dict[str, Any] = {
    "user_id": USER_ID,
    "following": True,
    "items": [
        {
            "purpose": "marketing",
            "channel": "sms",
            "granted": True,
            "subject": "douyin:u42",
            "time": "2026-06-01T08:00:00Z",
            "source": "shop-app",
            "id": "consent-17",
        }
    ],
    "effective": [{"purpose": "marketing", "channel": "sms", "allowed": True, "rule": "record"}],
}

State = Literal["planned", "sending", "sent", "failed", "unknown", "expired", "cancelled"]


class Message(BaseModel):
    """A message to a user: of the in-app inbox or of another channel."""

    model_config = ConfigDict(json_schema_extra={"example": MESSAGE_EXAMPLE})

    message_id: str
    subject: str = Field(description="The subject whose event caused it.")
    journey: str
    journey_version: int
    step: str
    channel: str
    purpose: str
    state: State = Field(
        description="`planned`: decided or waiting; `sending`: the call is being made; `failed`: the channel refused it"
        " and it will be tried again; `unknown`: it was handed over and nobody answered."
    )
    lang: Lang
    title: str
    body: str
    created_at: datetime
    sent_at: datetime | None
    expires_at: datetime = Field(description="It is not sent from then on.")
    held_until: datetime | None = Field(description="While it waits for a gate: when it is asked about again.")
    attempts: int = Field(description="How often a worker took it up.")
    failure: str | None = Field(description="Why the last call failed.")


class Consent(BaseModel):
    """The newest word of a user on a purpose and channel."""

    purpose: str
    channel: str
    granted: bool
    subject: str = Field(description="The subject that gave it.")
    time: datetime
    source: str
    id: str


class Allowed(BaseModel):
    """What holds for a purpose and channel now."""

    purpose: str
    channel: str
    allowed: bool
    rule: Literal["record", "needs_grant", "while_following", "always"] = Field(
        description="`record`: the user said so; `needs_grant`: nothing was said, and this channel needs it;"
        " `while_following`: nothing was said, and followers may be reached; `always`: nothing was said, and it is"
        " allowed to all."
    )


class Consents(BaseModel):
    """What a user allows, over all his subjects."""

    model_config = ConfigDict(json_schema_extra={"example": CONSENTS_EXAMPLE})

    user_id: str
    following: bool = Field(description="Whether one of his subjects follows.")
    items: list[Consent] = Field(description="What he said, newest per purpose and channel.")
    effective: list[Allowed] = Field(description="What holds now for every purpose and channel.")
