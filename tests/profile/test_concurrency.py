"""Evidence in several partitions, deeds, links and unlinks over REST, all at once."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

import httpx
from fastapi import FastAPI

from libs.common.config import ConfigFile
from libs.common.db import AsyncSession, Sessions
from libs.common.events import AnyEvent, new_event, parse_event
from libs.common.identity import fold_links
from libs.common.rebuild import rebuild
from services.profile.main import SERVICE
from tests.profile.conftest import KEY
from tests.support.folding import NOW, Log, empty, rows

ROUNDS = 12
SUBJECTS = [f"{space}:{person}" for space in ("douyin", "wechat.x", "app") for person in range(3)]


def deeds(partition: int, number: int) -> list[AnyEvent]:
    """Of everybody a like and what he shows; each partition names them in another order."""
    order = SUBJECTS[partition:] + SUBJECTS[:partition]
    return [
        new_event(
            kind,
            account="demo",
            source=f"/{partition}",
            id=f"{kind}-{number}-{subject}",
            subject=subject,
            time=NOW + timedelta(seconds=number),
            received=NOW,
            data=data,
        )
        for subject in order
        for kind, data in (
            ("like", {}),
            (
                "profile.traits",
                {"traits": {"login_id": f"v{subject.partition(':')[2]}-{number // 4}", "phone": "1380"}},
            ),
        )
    ]


async def test_nothing_is_lost_and_everybody_hears_the_truth(
    sessions: Sessions, config: ConfigFile, app: FastAPI
) -> None:
    handler = SERVICE.make_handler(config.account)

    async def work(partition: int) -> None:
        log = Log("profile", sessions, handler, SERVICE.keep_data)
        for number in range(ROUNDS):
            await log.apply(deeds(partition, number), partition=partition)

    async def speak(person: int) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {KEY}"}
        one, other = f"douyin:{person}", f"wechat.x:{person}"
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            for _ in range(ROUNDS):
                answers: list[Awaitable[httpx.Response]] = [
                    client.post("/v1/links", json={"subjects": [one, other], "evidence": "support", "reason": "asked"}),
                    client.post(f"/v1/users/{one}/unlink", json={"subjects": [other], "reason": "asked"}),
                ]
                for answer in answers:
                    assert (await answer).status_code in (200, 409)

    await asyncio.gather(*map(work, range(3)), *map(speak, range(2)))
    assert await rows(sessions, "dead_letter", "reason") == []
    likes = await rows(sessions, "activity_day where type = 'like'", "subject, count")
    assert likes == [(subject, 3 * ROUNDS) for subject in sorted(SUBJECTS)]
    assert len(await rows(sessions, "identifier where kind = 'login_id'", "value")) == len(SUBJECTS) * ROUNDS // 4

    engine = sessions.kw["bind"]
    url = engine.url.render_as_string(hide_password=False).replace("+asyncpg", "")
    done = await rebuild(url, SERVICE.facts, config.account, NOW)
    assert (sum(done.changed.values()), done.announced) == (0, 0)

    told = [parse_event(bytes(value)) for (value,) in await rows(sessions, "outbox", "value")]
    here = [row for row in await rows(sessions, "alias", "account, subject, user_id, revision") if row[3]]
    assert here
    assert len({(event.data.entity, event.data.revision) for event in told}) == len(told)  # type: ignore[union-attr]
    await empty(sessions)

    async def handle(session: AsyncSession, events: list[AnyEvent], now: object) -> None:
        await fold_links(session, events)

    await Log("segmentation", sessions, handle, lambda _: False).apply(told[::-1])
    assert await rows(sessions, "alias", "account, subject, user_id, revision") == here
