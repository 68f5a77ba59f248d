"""Which time zone was last told of each subject."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import revisions
from services.profile.domain.traits import ZONE

SubjectKey = tuple[str, str]
"""(account, subject)"""

_NOTE = (
    "insert into zone_notice as z (account, subject, revision, zone, since)"
    " select t.account, t.subject, cast(:floor as bigint) + 1, t.value #>> '{{}}', t.time from trait t {0}"
    f" where t.name = '{ZONE}' and not exists (select 1 from zone_notice o where o.account = t.account"
    " and o.subject = t.subject and o.zone is not distinct from t.value #>> '{{}}' and o.since = t.time)"
    ' order by t.account collate "C", t.subject collate "C" {1}'
    " on conflict (account, subject) do update set"
    " revision = greatest(z.revision, :floor) + 1, zone = excluded.zone, since = excluded.since"
    " where (z.zone, z.since) is distinct from (excluded.zone, excluded.since)"
    " returning account, subject, revision, zone, since"
)
_OF_SUBJECTS = text(
    _NOTE.format(
        "join unnest(cast(:accounts as text[]), cast(:subjects as text[])) as n(account, subject)"
        " on t.account = n.account and t.subject = n.subject",
        "",
    )
)
_OF_ANY = text(_NOTE.format("", "limit :limit"))


class Noted(NamedTuple):
    """A zone that is to be told, None when none is believed any more. `since`: the time of the event that said it."""

    account: str
    subject: str
    revision: int
    zone: str | None
    since: datetime


async def note_changed(session: AsyncSession, subjects: Collection[SubjectKey], now: datetime) -> list[Noted]:
    """Note what is believed of `subjects` and was not told yet; one statement. Who wrote their traits in the same
    transaction holds those rows, so each revision is given once."""
    keys = sorted(subjects)
    of = {"accounts": [key[0] for key in keys], "subjects": [key[1] for key in keys]}
    rows = await session.execute(_OF_SUBJECTS, {**of, "floor": revisions.floor(now)})
    return [Noted(*row) for row in rows]


async def note_any_changed(session: AsyncSession, limit: int, now: datetime) -> list[Noted]:
    """The same of all subjects, up to `limit` of them, when nobody else writes traits."""
    rows = await session.execute(_OF_ANY, {"limit": limit, "floor": revisions.floor(now)})
    return [Noted(*row) for row in rows]
