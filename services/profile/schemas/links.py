"""Who is one person, and why."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from libs.common.events import Subject

LINK_EXAMPLE: dict[str, Any] = {
    "subjects": ["douyin:u42", "wechat.wx12ab:oA7x"],
    "evidence": "login",
    "reason": "logged in to the app with both",
}
UNLINK_EXAMPLE: dict[str, Any] = {"subjects": ["wechat.wx12ab:oA7x"], "reason": "a family shares the phone"}
GROUP_EXAMPLE: dict[str, Any] = {
    "user_id": "usr_7rcpombjse5gixnndzkrmsjemy4hblkz",
    "subjects": ["douyin:u42", "wechat.wx12ab:oA7x"],
    "revision": 1,
}
LINKS_EXAMPLE: dict[str, Any] = {
    **GROUP_EXAMPLE,
    "identifiers": [
        {
            "kind": "union_id",
            "space": "douyin",
            "value": "un_91",
            "subject": "douyin:u42",
            "first_time": "2026-06-01T08:00:00Z",
            "last_time": "2026-06-03T12:30:00Z",
            "trust": "platform",
            "held": True,
        }
    ],
    "decisions": [
        {
            "subject": "douyin:u42",
            "kind": "union_id",
            "space": "douyin",
            "value": "un_91",
            "outcome": "linked",
            "why": "first",
            "detail": {},
            "source": "/douyin-demo",
            "event_id": "6f0b3a5c9d2e4f81",
            "decided_by": None,
            "decided_at": "2026-06-01T08:00:00.352000Z",
        }
    ],
    "taken_apart": [],
}

Reason = Annotated[str, Field(min_length=1, max_length=500)]


def _check_different(subjects: list[str]) -> list[str]:
    if len(set(subjects)) < len(subjects):
        raise ValueError("names a subject twice")
    return subjects


class NewLink(BaseModel):
    """Subjects that are one person, and how that is known."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": LINK_EXAMPLE})

    subjects: Annotated[list[Subject], AfterValidator(_check_different)] = Field(
        min_length=2, max_length=20, json_schema_extra={"uniqueItems": True}, description="Also such as are new."
    )
    evidence: Literal["login", "union_id", "allied_id", "order", "phone", "email", "support"] = Field(
        description="How it is known: the person logged in, a platform or an order said so, gave a phone number or an "
        "e-mail address, or asked for it."
    )
    reason: Reason


class Unlink(BaseModel):
    """Subjects of a user that are another person."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": UNLINK_EXAMPLE})

    subjects: list[Subject] = Field(min_length=1, max_length=100, description="Some of the user's subjects, not all.")
    reason: Reason


class Group(BaseModel):
    """A user and all subjects that belong to him."""

    model_config = ConfigDict(json_schema_extra={"example": GROUP_EXAMPLE}, from_attributes=True)

    user_id: str = Field(description="The smallest of the ids of its subjects.")
    subjects: list[str]
    revision: int = Field(description="Rises with every link and unlink; 0 when there was none.")


class Unlinked(BaseModel):
    """What an unlink left: the user as he is now, and the one taken out."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "groups": [
                    {
                        "user_id": "usr_dirac6mnuktbdxhufboqu4ubix6agabc",
                        "subjects": ["douyin:u42"],
                        "revision": 2,
                    },
                    {
                        "user_id": "usr_7rcpombjse5gixnndzkrmsjemy4hblkz",
                        "subjects": ["wechat.wx12ab:oA7x"],
                        "revision": 2,
                    },
                ]
            }
        }
    )

    groups: list[Group]


class Identifier(BaseModel):
    """An identifier that a subject showed. Phone numbers and e-mail addresses are masked."""

    kind: str = Field(description="`union_id`, `login_id`, `phone`, `email` or `device_id`.")
    space: str = Field(description="Within which the value is unique; empty for kinds without spaces.")
    value: str
    subject: str
    first_time: datetime
    last_time: datetime
    trust: str
    held: bool = Field(
        description="Whether it counts as the user's: it was not dropped, nor is it one too many of its kind (those "
        "shown last count)."
    )


class Decision(BaseModel):
    """What became of an identifier, or of a subject: made once, on what was known then, and never revised."""

    subject: str
    kind: str | None = Field(
        description="Of the identifier; null when a link or unlink over REST was about the subject."
    )
    space: str | None
    value: str | None
    outcome: str = Field(description="`linked`, `dropped` or `unlinked`.")
    why: str = Field(
        description="`first` to show the identifier, `evidence` (others had shown it), `explicit` (over REST), "
        "`blocked_value`, `over_limit`, or `taken_apart` before."
    )
    detail: dict[str, Any] = Field(description="The values that decided: subjects, limit, the key's words.")
    source: str | None = Field(description="Of the event that brought it.")
    event_id: str | None
    decided_by: str | None = Field(description="The API key, when it was decided over REST.")
    decided_at: datetime


class Separation(BaseModel):
    """Two subjects that were taken apart: no evidence links them, only `POST /v1/links`."""

    subject: str
    other: str
    since: datetime
    reason: str


class Links(Group):
    """Who belongs to the user, and all that is known of why."""

    model_config = ConfigDict(json_schema_extra={"example": LINKS_EXAMPLE}, from_attributes=True)

    identifiers: list[Identifier]
    decisions: list[Decision] = Field(description="Newest first, 500 at most.")
    taken_apart: list[Separation]
