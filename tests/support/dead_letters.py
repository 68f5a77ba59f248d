"""A desk for dead letters: one service's database, its API, and a use case with an effect and a bug or two."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import text

from libs.common import outbox
from libs.common.config import hash_key, make_key
from libs.common.consumer import Applier
from libs.common.db import AsyncSession, Sessions
from libs.common.dead_letters.api import router
from libs.common.events import AnyEvent, new_event
from libs.common.kafka import Batch
from libs.common.web import create_app
from tests.support.folding import CLUSTER, NOW, FakeMessage, Log, rows
from tests.support.web import client, config_file

DEMO, READER, OTHER = (make_key(name, "secret") for name in ("demo", "reader", "other"))
SCOPES = {"demo": '"ops:read", "ops:write"', "reader": '"ops:read"', "other": '"ops:read", "ops:write"'}
TOML = "[accounts.demo]\n[accounts.other]\n" + "".join(
    f'[[keys]]\nid = "{name}"\naccount = "{"other" if name == "other" else "demo"}"\n'
    f'sha256 = "{hash_key(make_key(name, "secret"))}"\nscopes = [{SCOPES[name]}]\n'
    for name in SCOPES
)


@dataclass
class Handler:
    """A use case with an effect for each event (a row of the outbox), and a bug or two."""

    poison: set[str] = field(default_factory=set)
    error: Exception | None = None
    during: Any = None

    async def __call__(self, session: AsyncSession, events: list[AnyEvent], now: datetime) -> None:
        if self.error:
            raise self.error
        if self.during:
            await self.during()
        await outbox.add(session, events)
        if bad := [event.id for event in events if event.id in self.poison]:
            raise ValueError(f"cannot fold {bad}")


@dataclass
class Desk:
    """One service: its log, its database and its API."""

    handler: Handler
    sessions: Sessions
    applier: Applier
    log: Log
    app: FastAPI

    async def call(self, method: str, path: str, key: str = DEMO, body: Any = None) -> httpx.Response:
        async with client(self.app, key) as http:
            return await http.request(method, f"/v1/{path}", json=body)

    async def ok(self, method: str, path: str, key: str = DEMO, body: Any = None) -> Any:
        response = await self.call(method, path, key, body)
        assert response.status_code == 200, response.text
        return response.json()

    async def ids(self, query: str = "", key: str = DEMO) -> list[str]:
        return [item["id"] for item in (await self.ok("GET", f"dead-letters{query}", key))["items"]]

    async def applied(self) -> list[str]:
        """Ids of events in the history; each must have had its effect once."""
        events = [row[0] for row in await rows(self.sessions, "event", "id")]
        effects = [row[0] for row in await rows(self.sessions, "outbox", "convert_from(value, 'UTF8')::json->>'id'")]
        assert sorted(effects) == sorted(events)
        return sorted(events)


def make_desk(database: Sessions, folder: Path) -> Desk:
    """On an empty database; its configuration goes into `folder`."""
    handler = Handler()
    applier = Applier("profile", database, handler, lambda _: True)
    app = create_app(
        service="profile",
        title="Test",
        version="1",
        description="Dead letters alone.",
        routers=[router],
        config=config_file(folder, TOML),
        sessions=database,
        state={"applier": applier},
    )
    return Desk(handler, database, applier, Log("profile", database, handler, lambda _: True), app)


def follow(
    id: str,  # noqa: A002
    **changes: object,
) -> AnyEvent:
    fields: dict[str, Any] = {"account": "demo", "source": "/t", "time": NOW, "received": NOW, "data": {}, **changes}
    return new_event("follow", id=id, subject=fields.pop("subject", "douyin:u1"), **fields)


def document(event: AnyEvent, **changes: object) -> dict[str, Any]:
    return {**json.loads(event.to_json()), **changes}


async def refuse(desk: Desk, *records: FakeMessage) -> None:
    """One batch of raw records on a partition of their own."""
    partition = records[0].partition
    async with desk.sessions() as session, session.begin():
        await session.execute(
            text("insert into consumer_offset values (:cluster, 'superfan.follows', :partition, 0)"),
            {"cluster": CLUSTER, "partition": partition},
        )
    await desk.applier.apply(CLUSTER, [Batch("superfan.follows", partition, 0, len(records), records)], NOW)
