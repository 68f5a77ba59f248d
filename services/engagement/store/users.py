"""The lock on users, and what is known of them when something is decided."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.days import find_zone
from services.engagement.domain.consents import Word
from services.engagement.domain.follows import Key
from services.engagement.domain.users import Told, UserState

_SUBJECTS = "unnest(cast(:accounts as text[]), cast(:subjects as text[])) as n(account, subject)"

_LOCK = text(
    f"select 1 from alias r join (select distinct a.account, a.user_id from {_SUBJECTS}"
    " join alias a on a.account = n.account and a.subject = n.subject) u"
    " on u.account = r.account and u.user_id = r.own_id"
    " order by r.account, r.own_id for no key update of r"
)

_TOLD = "m.message_id, m.journey, m.purpose, m.kind, m.created_at, m.let_through_at, m.state"
_MATTERS = (
    "(m.let_through_at > :since or m.held or m.journey = any(cast(:entered_once as text[])))"
    # enough for any cap, and the planner keeps to index look-ups while the tables have no statistics yet
    " order by m.created_at desc limit 500"
)
_OWN = "from alias g join {0} on x.account = g.account and x.subject = g.subject where g.account = u.account"
_READ = text(
    "select u.account, u.user_id,"
    " (select array_agg(g.subject) from alias g where g.account = u.account and g.user_id = u.user_id) as subjects,"
    # a scalar query, which is looked up user by user; `exists` may be answered by hashing all followers there are
    f" coalesce((select true {_OWN.format('follower x')} and g.user_id = u.user_id and x.following limit 1), false)"
    " as following,"
    " (select jsonb_agg(jsonb_build_array(x.purpose, x.channel, x.time, x.source, x.id, x.granted))"
    f" {_OWN.format('consent x')} and g.user_id = u.user_id) as consents,"
    # What was said last counts, also when it was that no zone is known any more.
    f" (select x.zone {_OWN.format('zone_notice x')} and g.user_id = u.user_id"
    ' order by x.since desc, x.subject collate "C" limit 1) as zone,'
    # A message counts when it went to this user id or to any subject that is now his, so neither a merge nor an
    # unmerge brings a second one.
    " (select jsonb_agg(jsonb_build_array(t.message_id, t.journey, t.purpose, t.kind, t.created_at, t.let_through_at,"
    " t.state)) from ("
    f"(select {_TOLD} from message m where m.account = u.account and m.user_id = u.user_id and {_MATTERS})"
    f" union (select {_TOLD} from alias g cross join lateral (select * from message m"
    f" where m.account = g.account and m.subject = g.subject and {_MATTERS}) m"
    " where g.account = u.account and g.user_id = u.user_id)) t) as messages,"
    " (select jsonb_object_agg(j.key, greatest(0,"
    " (select d.revision from decision d where d.account = u.account and d.user_id = u.user_id and d.journey = j.key"
    " order by d.revision desc limit 1),"
    " (select max(m.revision) from message m where m.account = u.account and m.user_id = u.user_id"
    " and m.journey = j.key))) from unnest(cast(:journeys as text[])) as j(key)) as revisions"
    f" from (select distinct a.account, a.user_id from {_SUBJECTS}"
    " join alias a on a.account = n.account and a.subject = n.subject) u"
)


async def lock_users(session: AsyncSession, subjects: Iterable[Key]) -> None:
    """Nobody else decides about the users of `subjects` until the commit. One statement.

    The lock is the alias row of a user's representative: all subjects of a user share it.
    """
    keys = sorted(set(subjects))
    await session.execute(_LOCK, {"accounts": [key[0] for key in keys], "subjects": [key[1] for key in keys]})


async def read_users(
    session: AsyncSession,
    subjects: Iterable[Key],
    journeys: Iterable[str],
    entered_once: Iterable[str],
    since: datetime,
) -> dict[Key, UserState]:
    """What is known of the users of `subjects`: consents, zone, whether they follow, the last revision of each of
    `journeys`, and their messages since `since`, those that wait, and all of the journeys `entered_once`. One
    statement, to be asked after the lock: it sees what was committed while that waited. Subjects of one user share one
    UserState.
    """
    keys = sorted(set(subjects))
    rows = await session.execute(
        _READ,
        {
            "accounts": [key[0] for key in keys],
            "subjects": [key[1] for key in keys],
            "journeys": sorted(set(journeys)),
            "entered_once": sorted(set(entered_once)),
            "since": since,
        },
    )
    users = {}
    for row in rows:
        state = UserState(
            row.account,
            row.user_id,
            row.following,
            _newest_words(row.consents or ()),
            [_told(message) for message in row.messages or ()],
            row.revisions or {},
            find_zone(row.zone),
        )
        users.update({(row.account, subject): state for subject in row.subjects})
    return users


def _newest_words(rows: Iterable[Sequence[Any]]) -> dict[tuple[str, str], Word]:
    words: dict[tuple[str, str], Word] = {}
    for purpose, channel, time, source, id, granted in rows:  # noqa: A001
        word = Word(datetime.fromisoformat(time), source, id, granted)
        words[purpose, channel] = max(words.get((purpose, channel), word), word)
    return words


def _told(row: Sequence[Any]) -> Told:
    message_id, journey, purpose, kind, created_at, let_through_at, state = row
    return Told(
        message_id,
        journey,
        purpose,
        kind,
        datetime.fromisoformat(created_at),
        datetime.fromisoformat(let_through_at) if let_through_at else None,
        state not in ("cancelled", "expired"),
    )
