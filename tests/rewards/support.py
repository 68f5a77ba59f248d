"""Events and links for the tests of rewards."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text

from libs.common.config import ConfigFile
from libs.common.db import Sessions
from libs.common.events import AnyEvent, new_event
from libs.common.identity import user_id_of
from services.rewards.main import SERVICE
from services.rewards.store.audit import audit
from tests.support.folding import NOW, Log

FACTS_AND_DECISIONS = (
    "holder",
    "ledger_entry",
    "lot",
    "lot_use",
    "balance",
    "level_state",
    "sign_in_day",
    "order_state",
    "refund_state",
    "earn_rule",
    "level_table",
    "outbox",
    "alias",
)


def deed(
    kind: str, number: int | str, subject: str | None = "douyin:u1", time: datetime = NOW, **data: Any
) -> AnyEvent:
    """An event of account demo; its id names kind and number."""
    return new_event(
        kind,
        account="demo",
        source="/app",
        id=f"{kind}-{number}",
        subject=subject,
        platform="doudian" if kind.startswith("order.") else None,
        time=time,
        received=NOW,
        data=data,
    )


def linked(revision: int, *subjects: str, account: str = "demo") -> AnyEvent:
    """What profile tells of a group."""
    users = sorted(user_id_of(account, subject) for subject in subjects)
    return new_event(
        "profile.linked",
        account=account,
        source="/profile",
        id=f"{users[0]}/{revision}",
        subject=sorted(subjects)[0],
        time=NOW,
        received=NOW,
        data={
            "entity": users[0],
            "revision": revision,
            "since": NOW,
            "user_id": users[0],
            "subjects": sorted(subjects),
        },
    )


def log_of(sessions: Sessions, config: ConfigFile) -> Log:
    return Log("rewards", sessions, SERVICE.make_handler(config.account), SERVICE.keep_data)


async def checksum(sessions: Sessions, tables: Sequence[str] = FACTS_AND_DECISIONS) -> dict[str, str | None]:
    """A digest of every row of each table."""
    async with sessions() as session:
        return {
            table: await session.scalar(text(f"select md5(string_agg(t::text, '|' order by t::text)) from {table} t"))
            for table in tables
        }


async def check_ledger(sessions: Sessions) -> None:
    """Entries, lots and balances agree, transactions sum to 0, nothing is negative."""
    async with sessions() as session:
        found = await audit(session, None)
    assert found
    assert set(found.values()) == {0}, found
