"""rewards' own tables, beside the common ones of libs.common.tables.

| table | kind | what it is |
|---|---|---|
| sign_in_day | fact | the days on which a subject signed in, with the earliest time of a sign-in on each |
| holder | decision | the random account_ref of a subject: the one link between a person and the ledger |
| ledger_entry | decision | points given for one event by one version of one rule; never changed |
| balance | decision | cache: sum and number of a holder's entries |

The row of `holder` is also the lock: whoever writes days, entries or the balance of a subject holds it.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from libs.common.tables import make_metadata

metadata = make_metadata()
instant = DateTime(timezone=True)

sign_in_day = Table(
    "sign_in_day",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("kind", Text, nullable=False, server_default=text("'sign'")),
    Column("time", instant, nullable=False),
)

holder = Table(
    "holder",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("account_ref", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("account", Text, primary_key=True),
    Column("entry_id", Uuid, primary_key=True),
    Column("account_ref", Uuid, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("rule", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("event_digest", LargeBinary, nullable=False),
    Column("event_time", instant, nullable=False),
    Column("created_at", instant, nullable=False),
    UniqueConstraint("account", "event_digest", "rule"),
    Index("ix_ledger_entry_statement", "account", "account_ref", "created_at", "event_time", "entry_id"),
)

balance = Table(
    "balance",
    metadata,
    Column("account", Text, primary_key=True),
    Column("account_ref", Uuid, primary_key=True),
    Column("points", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)
