"""Quiet hours where the user lives: his own zone if profile knows it, else the account's."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event, parse_event
from libs.common.identity import user_id_of
from services.profile.main import SERVICE as PROFILE
from tests.engagement.support import HOUR, TEXTS, account_of, definition, event, linked, make_log, segment, wake
from tests.engagement.support import with_channels as channels
from tests.support.folding import NOW, Log, arrivals, empty, rows
from tests.support.postgres import TestServer

LONDONER, NEIGHBOUR, SECOND = "douyin:u1", "douyin:u2", "wechat.x:o1"
LONDON, TOKYO = "Europe/London", "Asia/Tokyo"
ZONE_NOTICE = "account, subject, revision, zone, since"
ACCOUNTS = channels(TEXTS)


def updated(
    subject: str, revision: int, zone: str | None, since: datetime = NOW, account: str = "demo", **extra: Any
) -> AnyEvent:
    """What profile tells of a subject."""
    own = user_id_of(account, subject)
    return new_event(
        "profile.updated",
        account=account,
        source="/profile",
        id=f"{own}/traits/{revision}",
        subject=subject,
        time=NOW,
        received=NOW,
        data={
            "entity": f"{own}/traits",
            "revision": revision,
            "since": since,
            "user_id": own,
            "traits": {"zone": zone, **extra},
        },
    )


async def prepare(api: httpx.AsyncClient, log: Log, *subjects: str) -> None:
    """Text messages to whoever becomes dormant; these people allow them."""
    response = await api.put("/v1/journeys/reactivation", json=definition(channel="texts"))
    assert response.status_code == 200, response.text
    allowed = {"purpose": "marketing", "channel": "sms"}
    await log.apply(
        [
            *(event(f"f{one}", 400 * 24 * HOUR, subject=one) for one in subjects),
            *(event(f"c{one}", type="consent.granted", subject=one, data=allowed) for one in subjects),
        ]
    )


async def last_decision(api: httpx.AsyncClient, subject: str) -> dict[str, Any]:
    """The newest decision about reactivation."""
    answer = await api.get("/v1/decisions", params={"user": subject, "journey": "reactivation", "limit": 1})
    (found,) = answer.json()["items"]
    return dict(found)


async def zone_asked(api: httpx.AsyncClient, subject: str) -> tuple[str, str]:
    """Which zone a decision made now would go by, and whose it is."""
    answer = await api.post("/v1/decisions/preview", json={"user": subject, "journey": "reactivation"})
    values = answer.json()["gates"][2]["values"]
    return values["zone"], values["zone_of"]


@pytest.fixture
async def profile(pg_server: TestServer) -> AsyncIterator[tuple[Sessions, Log]]:
    async with pg_server.sessions_of("profile") as found:
        yield found, Log("profile", found, PROFILE.make_handler(account_of), PROFILE.keep_data)


@pytest.mark.parametrize(
    ("night", "morning"),
    [
        (datetime(2026, 6, 16, 0, 30, tzinfo=UTC), datetime(2026, 6, 16, 7, tzinfo=UTC)),
        # the clock goes back at 1:00 UTC, and forward
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 8, tzinfo=UTC)),
        (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), datetime(2026, 3, 29, 7, tzinfo=UTC)),
    ],
    ids=["summer", "october", "march"],
)
async def test_from_a_trait_to_the_end_of_his_own_night(
    api: httpx.AsyncClient, sessions: Sessions, profile: tuple[Sessions, Log], night: datetime, morning: datetime
) -> None:
    """Of an account in Shanghai: 8:30 there, and night in London; eight hours before, the other way round."""
    log = make_log(sessions, ACCOUNTS)
    await prepare(api, log, LONDONER, NEIGHBOUR)
    of_profile, profile_log = profile
    traits: dict[str, Any] = {"account": "demo", "source": "/crm", "time": NOW, "received": NOW}
    await profile_log.apply(
        [
            new_event("profile.traits", id="1", subject=LONDONER, data={"traits": {"zone": LONDON}}, **traits),
            new_event("profile.traits", id="2", subject=NEIGHBOUR, data={"traits": {"city": "London"}}, **traits),
        ]
    )
    told = [parse_event(bytes(value)) for (value,) in await rows(of_profile, "outbox", "value")]
    assert [one.type for one in told] == ["profile.updated"]
    await log.apply(told)

    evening = night - 8 * HOUR
    await log.apply([segment(subject=one, since=evening) for one in (LONDONER, NEIGHBOUR)], now=evening)
    sent = await last_decision(api, LONDONER)
    values = sent["gates"][2]["values"]
    assert (sent["outcome"], values["zone"], values["zone_of"]) == ("sent", LONDON, "user")
    held = await last_decision(api, NEIGHBOUR)
    values = held["gates"][2]["values"]
    assert (held["reason"], values["zone"], values["zone_of"]) == ("quiet_hours", "Asia/Shanghai", "account")

    await empty_messages(sessions)
    await log.apply([segment(subject=one, since=night, revision=4) for one in (LONDONER, NEIGHBOUR)], now=night)
    assert (await last_decision(api, NEIGHBOUR))["outcome"] == "sent"
    held = await last_decision(api, LONDONER)
    until = datetime.fromisoformat(held["until"])
    assert (held["outcome"], held["reason"]) == ("held", "quiet_hours")
    assert morning <= until < morning + HOUR / 2
    assert await wake(sessions, until - timedelta(seconds=1), ACCOUNTS) == 0
    assert await wake(sessions, until, ACCOUNTS) == 1
    again = await last_decision(api, LONDONER)
    assert (again["turn"], again["outcome"]) == (2, "sent")
    assert again["gates"][2]["values"]["local_time"] == (until - morning + datetime(2026, 1, 1, 8)).strftime("%H:%M:%S")


async def empty_messages(sessions: Sessions) -> None:
    """No message before, so that neither gap nor cap stands in the way."""
    async with sessions() as session, session.begin():
        await session.execute(text("delete from message"))


async def test_of_linked_subjects_the_newest_word_counts(api: httpx.AsyncClient, sessions: Sessions) -> None:
    log = make_log(sessions, ACCOUNTS)
    await prepare(api, log, LONDONER, NEIGHBOUR, SECOND)
    assert await zone_asked(api, LONDONER) == ("Asia/Shanghai", "account")
    await log.apply([updated(LONDONER, 1, LONDON, NOW - HOUR), updated(SECOND, 1, TOKYO, NOW - 2 * HOUR)])
    await log.apply(linked(1, (LONDONER, SECOND)))
    for subject in (LONDONER, SECOND):
        assert await zone_asked(api, subject) == (LONDON, "user")
    await log.apply([updated(SECOND, 2, TOKYO)])
    for subject in (LONDONER, SECOND):
        assert await zone_asked(api, subject) == (TOKYO, "user")
    await log.apply([updated(LONDONER, 2, LONDON)])  # at the same instant: the smaller subject
    assert await zone_asked(api, SECOND) == (LONDON, "user")
    await log.apply([updated(SECOND, 3, None, NOW + HOUR)])  # taken back after all of that
    assert await zone_asked(api, LONDONER) == ("Asia/Shanghai", "account")
    await log.apply(linked(2, (LONDONER,), (SECOND,)))
    assert await zone_asked(api, LONDONER) == (LONDON, "user")
    assert await zone_asked(api, SECOND) == ("Asia/Shanghai", "account")
    # one that this machine does not know; and traits that a later release may tell
    await log.apply([updated(LONDONER, 3, "Mars/Base"), updated(NEIGHBOUR, 1, None, language="en")])
    for subject in (LONDONER, NEIGHBOUR):
        assert await zone_asked(api, subject) == ("Asia/Shanghai", "account")


notices = st.builds(
    updated,
    st.sampled_from([LONDONER, SECOND]),
    st.integers(1, 6),
    st.sampled_from([LONDON, TOKYO, None]),
    st.sampled_from([NOW, NOW - HOUR]),
    st.sampled_from(["demo", "other"]),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), some=st.lists(notices, min_size=1, max_size=10, unique_by=lambda one: (one.account, one.id)))
async def test_notices_in_any_order_give_the_same_zones(
    sessions: Sessions, data: st.DataObject, some: list[Any]
) -> None:
    await empty(sessions)
    log = make_log(sessions)
    for batch in data.draw(arrivals(some)):
        await log.apply(batch, partition=data.draw(st.integers(0, 2)))
    last = {(one.account, one.subject): one.data for one in sorted(some, key=lambda one: one.data.revision)}
    assert await rows(sessions, "zone_notice", ZONE_NOTICE) == sorted(
        [(*key, data.revision, data.traits.zone, data.since) for key, data in last.items()], key=repr
    )
