"""Bodies of answers."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ItemError(BaseModel):
    pointer: str = Field(description="JSON pointer into the event", examples=["/data/amount_minor"])
    detail: str


class ItemResult(BaseModel):
    """What became of one event."""

    index: int = Field(ge=0, description="position in the request")
    id: str | None = Field(description="the event's id, given or made; null when it could not be read")
    source: str | None
    status: Literal["accepted", "invalid"]
    retry_safe: bool = Field(
        description="false: the id was made at random, so sending the event again would make it another event"
    )
    marks: list[Literal["stamped", "clamped"]] = Field(
        description="stamped: it had no time and got that of its receipt; clamped: its time lay more than 5 minutes "
        "ahead and became that of its receipt, `originaltime` keeps it"
    )
    errors: list[ItemError]


class Accepted(BaseModel):
    """At least one event is stored; the invalid ones are not and say why."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "accepted": 1,
                "invalid": 1,
                "results": [
                    {
                        "index": 0,
                        "id": "order-1001-paid",
                        "source": "/dev",
                        "status": "accepted",
                        "retry_safe": True,
                        "marks": ["stamped"],
                        "errors": [],
                    },
                    {
                        "index": 1,
                        "id": "order-1002-paid",
                        "source": None,
                        "status": "invalid",
                        "retry_safe": True,
                        "marks": [],
                        "errors": [
                            {
                                "pointer": "/data/amount_minor",
                                "detail": "Input should be an integer from 0 to 9223372036854775807",
                            }
                        ],
                    },
                ],
            }
        }
    )
    accepted: int = Field(ge=0)
    invalid: int = Field(ge=0)
    results: list[ItemResult]


class Acknowledgement(Accepted):
    """Answer to a platform that does not want one of its own. A challenge is answered as the platform asks instead."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "accepted": 1,
                "invalid": 0,
                "ignored": [],
                "results": [
                    {
                        "index": 0,
                        "id": "new_follow_action:5f0c5d1b3a5e4c0fb0a7b2b9d8e1c6aa",
                        "source": "/douyin-demo",
                        "status": "accepted",
                        "retry_safe": True,
                        "marks": [],
                        "errors": [],
                    }
                ],
            }
        }
    )
    ignored: list[str] = Field(description="kinds of events that are of no use here")


class EventTypeInfo(BaseModel):
    name: str = Field(examples=["follow"])
    description: str
    version: int = Field(ge=1)
    topic: str = Field(examples=["superfan.follows"])
    dataschema: str = Field(examples=["urn:superfan:event:follow:1"])
    json_schema: dict[str, Any] = Field(
        description="JSON Schema of the whole event as it is published; `account`, `receivedtime`, `trust` and, where "
        "absent, `id`, `source` and `time` are filled in on receipt",
        examples=[{"type": "object"}],
    )


class EventTypes(BaseModel):
    """Every type that may be sent."""

    items: list[EventTypeInfo]
