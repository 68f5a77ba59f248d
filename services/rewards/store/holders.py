"""Who holds points, and their locks."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.rewards.domain.awards import Holder, UserKey


@dataclass(frozen=True, slots=True)
class HolderRow:
    """A locked holder: the ledger's name for the subject, the user that the subject belongs to, and the id that it
    would have alone."""

    account_ref: UUID
    user_id: str
    own_id: str


class Locked:
    """Locked holders: always all subjects of each user, so that what is a user's own (caps, balance, level) is locked
    with him."""

    def __init__(self, rows: Mapping[Holder, HolderRow]) -> None:
        self.rows = rows
        self.of_user: defaultdict[UserKey, list[Holder]] = defaultdict(list)
        for holder, row in rows.items():
            self.of_user[holder[0], row.user_id].append(holder)

    def ref(self, holder: Holder) -> UUID:
        return self.rows[holder].account_ref

    def user(self, holder: Holder) -> UserKey:
        return holder[0], self.rows[holder].user_id


# All subjects of the users that the :subject belong to.
_GROUPS = (
    " from (select distinct s.account, s.user_id"
    " from unnest(cast(:account as text[]), cast(:subject as text[])) as n(account, subject)"
    " join alias s on s.account = n.account and s.subject = n.subject) u"
    " join alias a on a.account = u.account and a.user_id = u.user_id"
)


async def lock(session: AsyncSession, holders: Iterable[Holder]) -> Locked:
    """Make the holders where they are missing, and lock them and all other subjects of their users until the
    transaction ends, always in the same order. Two statements; the subjects are known to `alias`, and the groups do not
    change meanwhile (`identity.lock_groups`)."""
    keys = sorted(set(holders))
    values = {"account": [key[0] for key in keys], "subject": [key[1] for key in keys]}
    await session.execute(
        text(
            f"insert into holder (account, subject) select a.account, a.subject {_GROUPS}"
            ' order by a.account collate "C", a.subject collate "C" on conflict do nothing'
        ),
        values,
    )
    rows = await session.execute(
        text(
            f"select h.account, h.subject, h.account_ref, a.user_id, a.own_id {_GROUPS}"
            " join holder h on h.account = a.account and h.subject = a.subject"
            ' order by h.account collate "C", h.subject collate "C" for update of h'
        ),
        values,
    )
    return Locked({(row.account, row.subject): HolderRow(row.account_ref, row.user_id, row.own_id) for row in rows})


async def find_subjects(session: AsyncSession, account: str, users: Iterable[str]) -> list[Holder]:
    """All subjects of `users`; one statement."""
    rows = await session.execute(
        text("select subject from alias where account = :account and user_id = any(cast(:users as text[]))"),
        {"account": account, "users": list(users)},
    )
    return [(account, row.subject) for row in rows]
