"""What a service consumes, over REST: pause topics, let them go on, end a stop. The same in every consumer service."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from libs.common.auth import Caller, require
from libs.common.consumer import line
from libs.common.events import Id
from libs.common.web import Problem
from libs.common.web.database import ReadSessionDep, SessionDep

log = structlog.get_logger(__name__)

router = APIRouter(tags=["operations"])

PAUSED: dict[str, Any] = {
    "topic": "superfan.follows",
    "paused": True,
    "paused_at": "2026-06-01T08:00:00.352000Z",
    "paused_by": "demo/operator",
    "reason": "the new fold of follows is rolled out first",
}
RUNNING: dict[str, Any] = {
    "topic": "superfan.orders",
    "paused": False,
    "paused_at": None,
    "paused_by": None,
    "reason": None,
}
Topics = Annotated[list[Id], Field(min_length=1, max_length=100)]


class TopicState(BaseModel):
    """One topic that this service reads."""

    model_config = ConfigDict(json_schema_extra={"example": PAUSED})

    topic: str
    paused: bool
    paused_at: datetime | None = None
    paused_by: str | None = Field(None, description="account and key of the operator")
    reason: str | None = None


class Consumption(BaseModel):
    """What this service consumes: nothing while it is stopped, else the topics that are not paused."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"stopped": False, "stopped_at": None, "reason": None, "topics": [PAUSED, RUNNING]}
        }
    )

    stopped: bool = Field(description="too many dead letters have stopped everything")
    stopped_at: datetime | None = None
    reason: str | None = Field(None, description="of the stop")
    topics: list[TopicState]


class Pause(BaseModel):
    """What to pause, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"topics": ["superfan.follows"], "reason": PAUSED["reason"]}}
    )

    topics: Topics | None = Field(None, description="all that the service reads if absent")
    reason: Id = Field(description="why, for whoever wonders")


class Resume(BaseModel):
    """What to let go on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"topics": ["superfan.follows"]}})

    topics: Topics | None = Field(None, description="if absent everything, after a stop by dead letters too")


async def _topics(request: Request) -> Sequence[str]:
    topics: Sequence[str] = request.app.state.topics
    return topics


TopicsDep = Annotated[Sequence[str], Depends(_topics)]
WriterDep = Annotated[Caller, Depends(require("ops:write"))]


@router.get("/v1/consumer", summary="What does this service consume?")
async def get_consumer(
    _caller: Annotated[Caller, Depends(require("ops:read"))], session: ReadSessionDep, topics: TopicsDep
) -> Consumption:
    """Everything stops when 100 events went to the dead letters within 5 minutes, or a tenth of the last 1,000."""
    return await _consumption(session, topics)


@router.post("/v1/consumer:pause", summary="Consume topics no more for now")
async def pause_consumer(body: Pause, caller: WriterDep, session: SessionDep, topics: TopicsDep) -> Consumption:
    """All workers of the service hold these topics within seconds, and keep their place: records wait in Kafka.

    A topic that is paused already keeps its first reason. Restarts change nothing; `resume` ends it.
    """
    chosen = topics if body.topics is None else _known(body.topics, topics)
    paused = await line.pause(session, chosen, body.reason, _name(caller), datetime.now(UTC))
    if paused:
        log.info(
            "topics were paused",
            topics=paused,
            reason=body.reason,
            account=caller.account.name,
            key_id=caller.key_id,
        )
    return await _consumption(session, topics)


@router.post("/v1/consumer:resume", summary="Consume again")
async def resume_consumer(
    caller: WriterDep, session: SessionDep, topics: TopicsDep, body: Resume | None = None
) -> Consumption:
    """All workers of the service go on within seconds. Harmless for what was neither paused nor stopped.

    When it ends a stop by dead letters, both limits count from now.
    """
    chosen = None if body is None or body.topics is None else _known(body.topics, topics)
    ended = await line.resume(session, chosen, _name(caller), datetime.now(UTC))
    if ended:
        log.info(
            "the consumer was resumed",
            topics=[topic for topic in ended if topic],
            stop="" in ended,
            account=caller.account.name,
            key_id=caller.key_id,
        )
    return await _consumption(session, topics)


def _name(caller: Caller) -> str:
    return f"{caller.account.name}/{caller.key_id}"


def _known(asked: Sequence[str], topics: Sequence[str]) -> Sequence[str]:
    errors = [
        {"pointer": f"/topics/{index}", "detail": f"is not a topic of this service; there are {', '.join(topics)}"}
        for index, topic in enumerate(asked)
        if topic not in topics
    ]
    if errors:
        raise Problem(422, "invalid_request", "The request is not valid.", errors)
    return asked


async def _consumption(session: SessionDep, topics: Sequence[str]) -> Consumption:
    state = await line.read(session)
    told = []
    for topic in topics:
        pause = state.pauses.get(topic)
        told.append(
            TopicState(topic=topic, paused=False)
            if pause is None
            else TopicState(topic=topic, paused=True, paused_at=pause.at, paused_by=pause.by, reason=pause.reason)
        )
    stop = state.stop
    return Consumption(
        stopped=stop is not None,
        stopped_at=stop.at if stop else None,
        reason=stop.reason if stop else None,
        topics=told,
    )
