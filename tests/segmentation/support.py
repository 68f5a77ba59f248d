"""Events of fans, and what segmentation has told about them."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import text

from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.identity import add_subjects, user_id_of
from tests.support.folding import NOW

DATA: dict[str, dict[str, Any]] = {
    "view": {"content_id": "c1", "watch_ms": 1, "duration_ms": 2},
    "order.paid": {"order_id": "o1", "amount_minor": 100, "currency": "CNY"},
    "comment": {"comment_id": "m1"},
}

LIFECYCLE_MOVES = (
    "(select account, user_id, 2 * row_number() over (partition by account, user_id order by revision) - 1 as revision,"
    " segment_from, segment_to, reason, initial, since, decided_at from membership_change where layering = 'lifecycle')"
    " moves"
)
"""With ranks in place of revisions, as `notices` has them: everybody's first move is one notice, each later one two."""


def event(
    id: str,  # noqa: A002
    days_ago: float,
    *,
    type: str = "like",  # noqa: A002
    subject: str | None = "douyin:u1",
    account: str = "demo",
    now: datetime = NOW,
    backfill: bool = False,
    traceparent: str | None = None,
) -> AnyEvent:
    """What a fan did `days_ago` days before `now` (20:00 in Shanghai on 2026-06-15)."""
    made = new_event(
        type,
        account=account,
        source="/t",
        id=id,
        subject=subject,
        platform="douyin",
        time=now - timedelta(days=days_ago),
        received=now,
        data=DATA.get(type, {}),
        traceparent=traceparent,
    )
    made.backfill = backfill
    return made


def deed(
    id: str,  # noqa: A002
    ago: float,
    type: str,  # noqa: A002
    subject: str | None = "douyin:u1",
    backfill: bool = False,
    **data: Any,
) -> AnyEvent:
    """Any event of account demo, from `ago` days before NOW; `data` is its content."""
    made = new_event(
        type,
        account="demo",
        source="/t",
        id=id,
        subject=subject,
        platform="shop",
        time=NOW - timedelta(days=ago),
        received=NOW,
        data=data,
    )
    made.backfill = backfill
    return made


def linked(revision: int, *subjects: str) -> AnyEvent:
    """The group of `subjects` as profile tells it."""
    user_id = user_id_of("demo", subjects[0])
    return new_event(
        "profile.linked",
        account="demo",
        source="/profile",
        id=f"{user_id}/{revision}",
        subject=subjects[0],
        time=NOW,
        received=NOW,
        data={
            "entity": user_id,
            "revision": revision,
            "since": NOW,
            "user_id": user_id,
            "subjects": sorted(subjects),
        },
    )


async def link(sessions: Sessions, account: str, user_id: str, *subjects: str) -> None:
    """Make the subjects one user."""
    async with sessions() as session, session.begin():
        await add_subjects(session, [(account, subject) for subject in subjects])
        await session.execute(
            text(
                "update alias set user_id = :user_id where account = :account"
                " and subject = any(cast(:subjects as text[]))"
            ),
            {"account": account, "user_id": user_id, "subjects": list(subjects)},
        )


async def notices(sessions: Sessions, user_id: str | None = None, layering: str = "lifecycle") -> list[dict[str, Any]]:
    """The events about a layering in the outbox, in the order in which they were added, in which the revisions of an
    entity must rise; in their place stand their ranks: 1, 2, …"""
    async with sessions() as session:
        values = (await session.execute(text("select value from outbox order by id"))).scalars()
        found = [orjson.loads(value) for value in values]
    revisions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for notice in found:
        of_entity = revisions[notice["account"], notice["data"]["entity"]]
        of_entity.append(notice["data"]["revision"])
        assert of_entity == sorted(set(of_entity)), notice
        assert notice["id"] == f"{notice['data']['entity']}/{of_entity[-1]}"
        notice["data"]["revision"] = len(of_entity)
    return [
        notice
        for notice in found
        if notice["data"]["entity"].endswith(f"/{layering}") and user_id in (None, notice["data"]["user_id"])
    ]


def told(notice: dict[str, Any]) -> tuple[str, str, int, str, bool]:
    """(direction, segment, revision, reason, initial)."""
    data = notice["data"]
    return notice["type"], data["segment"], data["revision"], data["reason"], data["initial"]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
