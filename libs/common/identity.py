"""Who a subject is: facts are stored per subject, questions are asked per user.

`user_id` is computed from (account, subject), so every service knows it alone. The table `alias` says which user each
subject belongs to; a user's own ids and all subjects of the group are valid references.
"""

import hashlib
from base64 import b32encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

USER_PREFIX = "usr_"


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
