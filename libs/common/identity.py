"""Who a subject is: facts are stored per subject, questions are asked per user.

`user_id` is computed from (account, subject), so every service knows it alone. The table `alias` says which user each
subject belongs to; a user's own ids and all subjects of the group are valid references.

profile decides which subjects are one person and tells every whole group in `profile.linked`; `fold_links` writes that
into `alias`, where the highest revision that names a subject stands. Whoever changes groups holds the account's lock
alone and all other transactions share it (`lock_groups`), so no group changes within a transaction.
"""

import hashlib
from base64 import b32encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import AnyEvent

USER_PREFIX = "usr_"
LINKED: Final = "profile.linked"
LINKING_TRAITS = ("union_id", "login_id")
"""Traits of `profile.traits` by which profile links subjects, unless a public key (`trust: client`) sent them."""

BY_SUBJECT = text(
    "select a.user_id, a.subject from alias a join alias b on b.account = a.account and b.user_id = a.user_id"
    ' where b.account = :account and b.subject = :ref order by a.subject collate "C"'
)
BY_ID = text(
    "select a.user_id, a.subject from alias a join alias b on b.account = a.account and b.user_id = a.user_id"
    ' where b.account = :account and b.own_id = :ref order by a.subject collate "C"'
)


class UnknownUserError(LookupError):
    """No event has named this user or subject."""


@dataclass(frozen=True, slots=True)
class User:
    """A user as the service knows him: the representative id and all subjects of his group, sorted."""

    account: str
    user_id: str
    subjects: tuple[str, ...]


@lru_cache(maxsize=16_384)  # the same people come again and again
def user_id_of(account: str, subject: str) -> str:
    """`usr_` and 32 characters: base32 of the first 20 bytes of SHA-256 over account, NUL, subject."""
    digest = hashlib.sha256(f"{account}\0{subject}".encode()).digest()
    return USER_PREFIX + b32encode(digest[:20]).decode().lower()


async def resolve(session: AsyncSession, account: str, ref: str) -> User:
    """The user that `ref` names: a user id, old or present, or a subject. Raises UnknownUserError."""
    rows = await session.execute(BY_ID if ref.startswith(USER_PREFIX) else BY_SUBJECT, {"account": account, "ref": ref})
    found = rows.all()
    if not found:
        raise UnknownUserError(ref)
    return User(account, found[0].user_id, tuple(row.subject for row in found))


async def add_subjects(session: AsyncSession, subjects: Iterable[tuple[str, str]]) -> None:
    """Make every (account, subject) known, each as a user of its own until a link says otherwise."""
    pairs = sorted(set(subjects))
    if not pairs:
        return
    ids = [user_id_of(*pair) for pair in pairs]
    await session.execute(
        text(
            "insert into alias (account, subject, own_id, user_id)"
            " select account, subject, id, id"
            " from unnest(cast(:accounts as text[]), cast(:subjects as text[]), cast(:ids as text[]))"
            " as n(account, subject, id) on conflict do nothing"
        ),
        {"accounts": [pair[0] for pair in pairs], "subjects": [pair[1] for pair in pairs], "ids": ids},
    )


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A user whose subjects have changed. `former_user_ids` are the users that they belonged to before, sorted: several
    after a link, the user that they were taken from after an unlink; among them `user_id` itself if it was one."""

    account: str
    user_id: str
    subjects_after: tuple[str, ...]
    former_user_ids: tuple[str, ...]


async def lock_groups(session: AsyncSession, accounts: Iterable[str], *, exclusive: bool = False) -> None:
    """Keep the groups of `accounts` as they are until the transaction ends; `exclusive` to change them. To be taken
    before any other lock. `inbox.insert_new` does it for every batch; HTTP writes and sweeps do it first of all."""
    await _lock(session, dict.fromkeys(accounts, exclusive))


async def lock_for(session: AsyncSession, events: Iterable[AnyEvent]) -> None:
    """The locks that `events` need: exclusive for the accounts whose groups they may change."""
    needed: dict[str, bool] = {}
    for event in events:
        needed[event.account] = needed.get(event.account, False) or changes_groups(event)
    await _lock(session, needed)


def changes_groups(event: AnyEvent) -> bool:
    """Whether `event` is a link, or evidence of which profile makes one."""
    if event.type == "profile.traits":
        return event.trust != "client" and any(name in event.data.traits for name in LINKING_TRAITS)
    return event.type == LINKED


async def _lock(session: AsyncSession, needed: Mapping[str, bool]) -> None:
    # In one order everywhere, or two transactions could wait for each other.
    for exclusive, accounts in groupby(sorted(needed), key=needed.__getitem__):
        function = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        keys = [_lock_key(account) for account in accounts]
        await session.execute(
            text(f"select count({function}(key)) from unnest(cast(:keys as bigint[])) as n(key)"), {"keys": keys}
        )


def _lock_key(account: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"groups\0{account}".encode(), digest_size=8).digest(), signed=True)


async def fold_links(session: AsyncSession, events: Iterable[AnyEvent]) -> list[GroupChange]:
    """Write the groups that the `profile.linked` among `events` tell into `alias`; the same for any order and
    repetition. Returns every user that has other subjects now than before. Four statements at most, none without a
    link. Needs the exclusive lock of the accounts."""
    newest: dict[tuple[str, str], tuple[int, str]] = {}
    for event in events:
        if event.type == LINKED:
            for subject in event.data.subjects:
                key = (event.account, subject)
                newest[key] = max(newest.get(key, (0, "")), (event.data.revision, event.data.user_id))
    if not newest:
        return []
    before = await find_users(session, newest)
    rows = sorted(newest.items())
    written = await session.execute(
        text(
            "insert into alias as a (account, subject, own_id, user_id, revision)"
            " select * from unnest(cast(:accounts as text[]), cast(:subjects as text[]), cast(:own_ids as text[]),"
            " cast(:user_ids as text[]), cast(:revisions as bigint[]))"
            " on conflict (account, subject) do update set user_id = excluded.user_id, revision = excluded.revision"
            ' where (excluded.revision, excluded.user_id collate "C") > (a.revision, a.user_id collate "C")'
            " returning account, subject, user_id"
        ),
        {
            "accounts": [key[0] for key, _ in rows],
            "subjects": [key[1] for key, _ in rows],
            "own_ids": [user_id_of(*key) for key, _ in rows],
            "user_ids": [user_id for _, (_, user_id) in rows],
            "revisions": [revision for _, (revision, _) in rows],
        },
    )
    moved = {
        (row.account, row.subject): row.user_id
        for row in written
        if before.get((row.account, row.subject)) != row.user_id
    }
    affected = {(account, user_id) for (account, _), user_id in moved.items()}
    affected |= {(key[0], before[key]) for key in moved if key in before}
    groups = await read_groups(session, affected)
    return [
        GroupChange(
            account,
            user_id,
            subjects,
            tuple(
                sorted(
                    {
                        before[account, subject] if (account, subject) in moved else user_id
                        for subject in subjects
                        if (account, subject) not in moved or (account, subject) in before
                    }
                )
            ),
        )
        for (account, user_id), subjects in sorted(groups.items())
    ]


async def find_users(session: AsyncSession, subjects: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The user id of each known (account, subject); one statement."""
    pairs = sorted(set(subjects))
    rows = await session.execute(
        text(
            "select a.account, a.subject, a.user_id from alias a"
            " join unnest(cast(:accounts as text[]), cast(:subjects as text[])) as n(account, subject)"
            " on a.account = n.account and a.subject = n.subject"
        ),
        {"accounts": [pair[0] for pair in pairs], "subjects": [pair[1] for pair in pairs]},
    )
    return {(row.account, row.subject): row.user_id for row in rows}


async def read_groups(
    session: AsyncSession, users: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[str, ...]]:
    """All subjects, sorted, of each (account, user id) that has any; one statement."""
    pairs = sorted(set(users))
    if not pairs:
        return {}
    rows = await session.execute(
        text(
            'select a.account, a.user_id, array_agg(a.subject order by a.subject collate "C") as subjects from alias a'
            " join unnest(cast(:accounts as text[]), cast(:users as text[])) as n(account, user_id)"
            " on a.account = n.account and a.user_id = n.user_id group by a.account, a.user_id"
        ),
        {"accounts": [pair[0] for pair in pairs], "users": [pair[1] for pair in pairs]},
    )
    return {(row.account, row.user_id): tuple(row.subjects) for row in rows}


async def restore(session: AsyncSession) -> int:
    """Put back into `alias` what the event table says: every subject of a person, and every group that was told.
    Returns how many rows that were."""
    rows = await session.execute(
        text(
            "select account, subject from ("
            " select account, subject from event where subject is not null and subject not like 'content:%'"
            f" union select account, subject from ({_TOLD}) t"
            ") s where not exists (select 1 from alias a where a.account = s.account and a.subject = s.subject)"
        )
    )
    missing: Sequence[tuple[str, str]] = [(row.account, row.subject) for row in rows]
    await add_subjects(session, missing)
    regrouped = await session.execute(
        text(
            "update alias a set user_id = n.user_id, revision = n.revision from ("
            f" select distinct on (account, subject) account, subject, user_id, revision from ({_TOLD}) t"
            ' order by account, subject, revision desc, user_id collate "C" desc'
            ") n where a.account = n.account and a.subject = n.subject and a.revision <= n.revision"
            " and (a.user_id, a.revision) is distinct from (n.user_id, n.revision) returning a.account, a.subject"
        )
    )
    return len(set(missing) | {(row.account, row.subject) for row in regrouped})


_TOLD = (
    "select e.account, s.subject, e.data ->> 'user_id' as user_id, cast(e.data ->> 'revision' as bigint) as revision"
    " from event e cross join lateral jsonb_array_elements_text(e.data -> 'subjects') as s(subject)"
    f" where e.type = '{LINKED}'"
)
