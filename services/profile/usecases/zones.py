"""Telling the other services in which time zone a person lives, once it is believed."""

from collections.abc import Iterable
from datetime import datetime

import structlog

from libs.common import outbox
from libs.common.db import AsyncSession
from libs.common.events import AnyEvent, new_event
from libs.common.identity import find_users, user_id_of
from libs.common.rebuild import AccountOf
from libs.common.telemetry import trace_id_of
from services.profile.domain.traits import ZONE, is_possible
from services.profile.store import zones as store
from services.profile.store.zones import Noted
from services.profile.usecases.links import SOURCE

log = structlog.get_logger(__name__)

PAGE = 5_000


async def tell_zones(session: AsyncSession, events: Iterable[AnyEvent], now: datetime) -> None:
    """Tell whatever zones `events` have changed, after their traits were added. Three statements at most, none without
    a zone. Which subjects are one user is settled before."""
    said: dict[store.SubjectKey, AnyEvent] = {}
    for event in events:
        if event.type != "profile.traits" or ZONE not in event.data.traits:
            continue
        if not is_possible(ZONE, event.data.traits[ZONE]):
            log.warning(
                "ignored a zone that does not exist",
                account=event.account,
                source=event.source,
                id=event.id,
                trace_id=trace_id_of(event.traceparent),
            )
            continue
        assert event.subject is not None
        said[event.account, event.subject] = event
    if said:
        noted = await store.note_changed(session, said, now)
        await _tell(session, noted, now, {key: event.traceparent for key, event in said.items()})


async def tell_all_zones(session: AsyncSession, now: datetime, _account_of: AccountOf) -> int:
    """After a rebuild: tell whatever was not told yet; returns how many that were."""
    count = 0
    while noted := await store.note_any_changed(session, PAGE, now):
        await _tell(session, noted, now, {})
        count += len(noted)
    return count


async def _tell(
    session: AsyncSession, noted: list[Noted], now: datetime, traces: dict[store.SubjectKey, str | None]
) -> None:
    if not noted:
        return
    users = await find_users(session, {(one.account, one.subject) for one in noted})
    await outbox.add(
        session,
        [_event(one, users[one.account, one.subject], now, traces.get((one.account, one.subject))) for one in noted],
    )


def _event(noted: Noted, user_id: str, now: datetime, traceparent: str | None) -> AnyEvent:
    entity = f"{user_id_of(noted.account, noted.subject)}/traits"
    return new_event(
        "profile.updated",
        account=noted.account,
        source=SOURCE,
        id=f"{entity}/{noted.revision}",
        subject=noted.subject,
        time=now,
        received=now,
        data={
            "entity": entity,
            "revision": noted.revision,
            "since": noted.since,
            "user_id": user_id,
            "traits": {ZONE: noted.zone},
        },
        traceparent=traceparent,
    )
