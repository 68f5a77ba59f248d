"""Follows and unfollows, the keys of callers, and what engagement has told."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import orjson
from sqlalchemy import text

from libs.common.config import Account, Channel, hash_key, make_key
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.identity import add_subjects, user_id_of
from services.engagement.consumer import keep_data, make_handler
from services.engagement.usecases.sending import claim_held
from services.engagement.usecases.waiting import ask_again
from tests.support.folding import NOW, Log, rows
from tests.support.web import TOML as REWARDS_TOML

UNSCOPED_KEY = make_key("unscoped", "secret")
TOML = f"""{REWARDS_TOML.replace('"rewards:', '"engagement:')}
[[keys]]
id = "unscoped"
account = "demo"
sha256 = "{hash_key(UNSCOPED_KEY)}"
scopes = ["rewards:read"]

[[channels]]
id = "texts"
account = "demo"
kind = "sms"
url = "https://texts.example/send"
secret_files = ["channel-secret"]

[[channels]]
id = "gateway"
account = "demo"
url = "https://gateway.example/send"
secret_files = ["channel-secret"]
"""
CHANNEL_SECRET = "whsec_" + "c2VjcmV0" * 4
HOUR = timedelta(hours=1)
DAY = 24 * HOUR
WELCOME_AGE = DAY
NIGHT = NOW + 3 * HOUR
"""23:00 in Shanghai; NOW is 20:00."""
MORNING = NOW + 12 * HOUR
DECISION = "journey, outcome, reason, turn, journey_version"


def event(
    id: str,  # noqa: A002
    age: timedelta = HOUR,
    *,
    type: str = "follow",  # noqa: A002
    subject: str = "douyin:u1",
    account: str = "demo",
    source: str = "/t",
    now: datetime = NOW,
    backfill: bool = False,
    traceparent: str | None = None,
    data: dict[str, Any] | None = None,
) -> AnyEvent:
    """A follow, or another type, that happened `age` before `now`."""
    made = new_event(
        type,
        account=account,
        source=source,
        id=id,
        subject=subject,
        platform="douyin",
        time=now - age,
        received=now,
        data=data or {},
        traceparent=traceparent,
    )
    made.backfill = backfill
    return made


def segment(
    name: str = "lifecycle.dormant",
    *,
    type: str = "segment.entered",  # noqa: A002
    revision: int = 2,
    since: datetime = NOW - HOUR,
    reason: str = "time_passed",
    initial: bool = False,
    subject: str = "douyin:u1",
    account: str = "demo",
    user_id: str | None = None,
    backfill: bool = False,
) -> AnyEvent:
    """What segmentation tells of a user's place in his life."""
    user_id = user_id or user_id_of(account, subject)
    made = new_event(
        type,
        account=account,
        source="/segmentation",
        id=f"{user_id}/lifecycle/{revision}",
        subject=subject,
        time=NOW,
        received=NOW,
        data={
            "entity": f"{user_id}/lifecycle",
            "revision": revision,
            "since": since,
            "user_id": user_id,
            "segment": name,
            "reason": reason,
            "initial": initial,
        },
    )
    made.backfill = backfill
    return made


def account_of(name: str) -> Account:
    """Accounts without channels of their own."""
    return Account(name, ZoneInfo("Asia/Shanghai"), "CNY", name, "user")


TEXTS = Channel("texts", "demo", "sms", "https://texts.example/send", (CHANNEL_SECRET,))
GATEWAY = Channel("gateway", "demo", "webhook", "https://gateway.example/send", (CHANNEL_SECRET,))


def with_channels(*channels: Channel) -> Callable[[str], Account]:
    """Accounts of which demo has `channels`."""

    def look_up(name: str) -> Account:
        return replace(account_of(name), channels={one.id: one for one in channels if one.account == name})

    return look_up


def definition(**changes: Any) -> dict[str, Any]:
    """A body for PUT /v1/journeys: a message to whoever becomes dormant."""
    return {
        "status": "live",
        "trigger": "segment.entered",
        "segment": "lifecycle.dormant",
        "max_age_seconds": 48 * 3600,
        "purpose": "marketing",
        "channel": "in_app",
        "step": "come_back",
        "entry": "again",
        "texts": {"zh": {"title": "回来", "body": "看看"}, "en": {"title": "Come back", "body": "Have a look"}},
    } | changes


async def decided(sessions: Sessions) -> list[tuple[Any, ...]]:
    """Every decision: the columns of DECISION."""
    return await rows(sessions, "decision", DECISION)


async def put(api: httpx.AsyncClient, key: str, **changes: Any) -> dict[str, Any]:
    """Store a new version of a journey, as `definition` makes it; returns the answer."""
    response = await api.put(f"/v1/journeys/{key}", json=definition(**changes))
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def wake(sessions: Sessions, now: datetime, accounts: Callable[[str], Account] = account_of) -> int:
    """Ask again about every message whose time has come, as the worker does; returns how many."""
    async with sessions() as session, session.begin():
        claimed = await claim_held(session, now, 100)
    if claimed:
        async with sessions() as session, session.begin():
            await ask_again(session, claimed, now, accounts)
    return len(claimed)


def make_log(sessions: Sessions, accounts: Callable[[str], Account] = account_of) -> Log:
    """A log whose events are applied as engagement's consumer does it."""
    return Log("engagement", sessions, make_handler(accounts), keep_data)


async def link(sessions: Sessions, account: str, *subjects: str) -> str:
    """Make the subjects one user; returns the id, the smallest of all."""
    user_id = min(user_id_of(account, subject) for subject in subjects)
    async with sessions() as session, session.begin():
        await add_subjects(session, [(account, subject) for subject in subjects])
        await session.execute(
            text(
                "update alias set user_id = :user_id where account = :account"
                " and subject = any(cast(:subjects as text[]))"
            ),
            {"account": account, "user_id": user_id, "subjects": list(subjects)},
        )
    return user_id


async def notices(sessions: Sessions) -> list[dict[str, Any]]:
    """The events in the outbox, in the order in which they were added."""
    async with sessions() as session:
        values = (await session.execute(text("select value from outbox order by id"))).scalars()
        return [orjson.loads(value) for value in values]


def linked(revision: int, *groups: tuple[str, ...], account: str = "demo") -> list[AnyEvent]:
    """What profile tells when the groups change."""
    made = []
    for subjects in groups:
        user_id = min(user_id_of(account, subject) for subject in subjects)
        data = {"entity": user_id, "revision": revision, "since": NOW, "user_id": user_id, "subjects": sorted(subjects)}
        made.append(
            new_event(
                "profile.linked",
                account=account,
                source="/profile",
                id=f"{user_id}/{revision}",
                subject=min(subjects),
                time=NOW,
                received=NOW,
                data=data,
            )
        )
    return made
