"""rewards' own tables, beside the common ones of libs.common.tables.

| table | kind | what it is |
|---|---|---|
| order_state, refund_state | fact | orders and refunds, folded (libs.common.orders) |
| sign_in_day | fact | the days on which a subject signed in, with the earliest time of a sign-in on each |
| holder | decision | the random account_ref of a subject: the one link between a person and the ledger |
| ledger_entry | decision | the legs of transactions, which sum to 0; only ever added |
| lot | decision | points of one grant: how many, how many are left, since when and how long they may be spent |
| lot_use | decision | which lot paid how much of which transaction |
| balance | decision | cache: sums and number of a holder's entries |
| level_state | notice | the level last told of a user, and when it has to be looked at again |
| earn_rule | decision | every version of an account's earn rules, with who stored it and when |
| level_table | decision | every version of an account's table of levels |

The row of `holder` is also the lock: whoever writes days, entries, lots or the balance of a subject holds it, and
whoever writes for a user holds those of all his subjects.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.orders import add_order_tables
from libs.common.tables import make_metadata

metadata = make_metadata()
order_state, refund_state = add_order_tables(metadata)
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
    Index("ix_holder_account_account_ref", "account", "account_ref", unique=True),
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("account", Text, primary_key=True),
    Column("transaction_id", Uuid, primary_key=True),
    Column("leg", SmallInteger, primary_key=True, autoincrement=False),
    Column("book", Text, nullable=False),
    Column("account_ref", Uuid),
    Column("points", BigInteger, nullable=False),
    Column("growth", BigInteger, nullable=False),
    Column("rule", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("event_digest", LargeBinary),
    Column("request_id", Text),
    Column("event_time", instant, nullable=False),
    Column("reference", Text),
    Column("reason", Text),
    Column("wanted", BigInteger),
    Column("made_by", Text),
    Column("created_at", instant, nullable=False),
    CheckConstraint("(book = 'wallet') = (account_ref is not null)", name="wallet_has_holder"),
    CheckConstraint("(event_digest is null) <> (request_id is null)", name="has_one_cause"),
    Index(
        "ix_ledger_entry_statement",
        "account",
        "account_ref",
        "created_at",
        "event_time",
        "transaction_id",
        postgresql_where=text("account_ref is not null"),
    ),
    Index(
        "ix_ledger_entry_counted",
        "account",
        "account_ref",
        "rule",
        "event_time",
        postgresql_include=["points", "growth"],
        postgresql_where=text("account_ref is not null"),
    ),
)

lot = Table(
    "lot",
    metadata,
    Column("account", Text, primary_key=True),
    Column("lot_id", Uuid, primary_key=True),
    Column("account_ref", Uuid, nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Column("earned_at", instant, nullable=False),
    Column("spendable_from", instant, nullable=False),
    Column("expires_at", instant),
    CheckConstraint("granted > 0 and remaining between 0 and granted", name="remaining"),
    Index(
        "ix_lot_open",
        "account",
        "account_ref",
        "expires_at",
        "earned_at",
        "lot_id",
        postgresql_where=text("remaining > 0"),
    ),
)

lot_use = Table(
    "lot_use",
    metadata,
    Column("account", Text, primary_key=True),
    Column("transaction_id", Uuid, primary_key=True),
    Column("lot_id", Uuid, primary_key=True),
    Column("points", BigInteger, nullable=False),
    CheckConstraint("points > 0", name="points"),
    Index("ix_lot_use_account_lot_id", "account", "lot_id"),
)

balance = Table(
    "balance",
    metadata,
    Column("account", Text, primary_key=True),
    Column("account_ref", Uuid, primary_key=True),
    Column("points", BigInteger, nullable=False),
    Column("growth", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("points >= 0", name="points"),
)

level_state = Table(
    "level_state",
    metadata,
    Column("account", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("level", Integer, nullable=False),
    Column("reached_on", Date),
    Column("flips_on", Date),
    Column("peak", BigInteger, nullable=False),
    Column("table_version", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("updated_at", instant, nullable=False),
    Index("ix_level_state_account_flips_on", "account", "flips_on"),
)

earn_rule = Table(
    "earn_rule",
    metadata,
    Column("account", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("effective_from", instant, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("created_at", instant, nullable=False),
    Column("created_by", Text, nullable=False),
)

level_table = Table(
    "level_table",
    metadata,
    Column("account", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("effective_from", Date, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("created_at", instant, nullable=False),
    Column("created_by", Text, nullable=False),
)
