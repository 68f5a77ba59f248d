"""Facts that commute: who follows, what people allow, where segmentation and profile say they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events.derived import ProfileUpdated
from services.engagement.domain.consents import ConsentKey, Word
from services.engagement.domain.follows import Follower, Key, Mark
from services.engagement.domain.segments import EntityKey, SegmentNotice, segment_of


async def add_follows(session: AsyncSession, followers: Mapping[Key, Follower]) -> dict[Key, Mark]:
    """Bring follower rows up to date and tell the newest mark of each; one statement, commutative."""
    if not followers:
        return {}
    rows = sorted(followers.items())
    marks = [follower.newest for _, follower in rows]
    result = await session.execute(
        text(
            "insert into follower as f"
            " (account, subject, follow_time, follow_source, follow_id, following, first_follow)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]),"
            " cast(:follow_time as timestamptz[]), cast(:follow_source as text[]), cast(:follow_id as text[]),"
            " cast(:following as boolean[]), cast(:first_follow as timestamptz[]))"
            " on conflict (account, subject) do update set"
            " first_follow = least(f.first_follow, excluded.first_follow),"
            f" follow_time = {_newer('follow_time')}, follow_source = {_newer('follow_source')},"
            f" follow_id = {_newer('follow_id')}, following = {_newer('following')}"
            " returning account, subject, follow_time, follow_source, follow_id, following"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "follow_time": [mark.time for mark in marks],
            "follow_source": [mark.source for mark in marks],
            "follow_id": [mark.id for mark in marks],
            "following": [mark.following for mark in marks],
            "first_follow": [follower.first_follow for _, follower in rows],
        },
    )
    return {
        (row.account, row.subject): Mark(row.follow_time, row.follow_source, row.follow_id, row.following)
        for row in result
    }


async def add_consents(session: AsyncSession, words: Mapping[ConsentKey, Word]) -> None:
    """Bring consent rows up to date; one statement, commutative."""
    if not words:
        return
    rows = sorted(words.items())
    await session.execute(
        text(
            "insert into consent as f (account, subject, purpose, channel, time, source, id, granted)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]), cast(:purpose as text[]),"
            " cast(:channel as text[]), cast(:time as timestamptz[]), cast(:source as text[]), cast(:id as text[]),"
            " cast(:granted as boolean[]))"
            " on conflict (account, subject, purpose, channel) do update set"
            " time = excluded.time, source = excluded.source, id = excluded.id, granted = excluded.granted"
            f" where {_IS_NEWER.format('')}"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "purpose": [key[2] for key, _ in rows],
            "channel": [key[3] for key, _ in rows],
            "time": [word.time for _, word in rows],
            "source": [word.source for _, word in rows],
            "id": [word.id for _, word in rows],
            "granted": [word.granted for _, word in rows],
        },
    )


_IS_NEWER = (
    '(excluded.{0}time, excluded.{0}source collate "C", excluded.{0}id collate "C")'
    ' > (f.{0}time, f.{0}source collate "C", f.{0}id collate "C")'
)
"""Whether the new row's mark (time, source, id) is greater; text is compared as bytes, as in Python."""


def _newer(column: str) -> str:
    """SQL for the column's value from the newer mark of a follower."""
    return f"case when {_IS_NEWER.format('follow_')} then excluded.{column} else f.{column} end"


async def note_segments(session: AsyncSession, notices: Mapping[EntityKey, SegmentNotice]) -> list[SegmentNotice]:
    """Keep the newest notice of each entity; returns those of `notices` that were newer than what was known and say
    something else. One statement: whoever acts on what it returns acts once per entity and revision, and not again when
    a segmentation that was restored from a backup tells once more what is known."""
    if not notices:
        return []
    rows = sorted(notices.items())
    advanced = await session.execute(
        text(
            "with n as (select * from unnest(cast(:account as text[]), cast(:entity as text[]),"
            " cast(:revision as bigint[]), cast(:segment as text[]), cast(:since as timestamptz[]))"
            " as n(account, entity, revision, segment, since)), noted as ("
            "insert into segment_notice as s (account, entity, revision, segment, since) select * from n"
            " on conflict (account, entity) do update set"
            " revision = excluded.revision, segment = excluded.segment, since = excluded.since"
            " where excluded.revision > s.revision returning account, entity, segment, since"
            # The table as it was before this statement:
            ") select account, entity from noted where not exists (select 1 from segment_notice s"
            " where (s.account, s.entity, s.segment, s.since)"
            " = (noted.account, noted.entity, noted.segment, noted.since))"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "entity": [key[1] for key, _ in rows],
            "revision": [event.data.revision for _, event in rows],
            "segment": [segment_of(event) for _, event in rows],
            "since": [event.data.since for _, event in rows],
        },
    )
    return [notices[row.account, row.entity] for row in advanced]


async def note_zones(session: AsyncSession, notices: Mapping[Key, ProfileUpdated]) -> None:
    """Keep the newest notice about each subject; one statement, commutative."""
    if not notices:
        return
    rows = sorted(notices.items())
    await session.execute(
        text(
            "insert into zone_notice as z (account, subject, revision, zone, since)"
            " select * from unnest(cast(:account as text[]), cast(:subject as text[]), cast(:revision as bigint[]),"
            " cast(:zone as text[]), cast(:since as timestamptz[]))"
            " on conflict (account, subject) do update set"
            " revision = excluded.revision, zone = excluded.zone, since = excluded.since"
            " where excluded.revision > z.revision"
        ),
        {
            "account": [key[0] for key, _ in rows],
            "subject": [key[1] for key, _ in rows],
            "revision": [event.data.revision for _, event in rows],
            "zone": [event.data.traits.zone for _, event in rows],
            "since": [event.data.since for _, event in rows],
        },
    )


async def read_consents(session: AsyncSession, account: str, subjects: Sequence[str]) -> list[Any]:
    """The newest word of these subjects on each purpose and channel, in order of those."""
    rows = await session.execute(
        text(
            "select distinct on (purpose, channel) subject, purpose, channel, granted, time, source, id from consent"
            " where account = :account and subject = any(cast(:subjects as text[]))"
            ' order by purpose, channel, time desc, source collate "C" desc, id collate "C" desc, subject'
        ),
        {"account": account, "subjects": list(subjects)},
    )
    return list(rows.all())


async def is_following(session: AsyncSession, account: str, subjects: Sequence[str]) -> bool:
    """Whether one of these subjects follows."""
    found = await session.scalar(
        text(
            "select exists(select 1 from follower where account = :account"
            " and subject = any(cast(:subjects as text[])) and following)"
        ),
        {"account": account, "subjects": list(subjects)},
    )
    return bool(found)
