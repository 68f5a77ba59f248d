"""Double entry with lots, earn rules and levels as data. What was booked becomes two legs and a lot each."""

from alembic import op

from libs.common.orders.migration import create_order_tables, drop_order_tables

revision = "0003"
down_revision = "0002"

TABLES = [
    "create unique index ix_holder_account_account_ref on holder (account, account_ref)",
    """create table ledger_entry (
        account text not null, transaction_id uuid not null, leg smallint not null, book text not null,
        account_ref uuid, points bigint not null, growth bigint not null,
        rule text not null, rule_version integer not null, event_digest bytea, request_id text,
        event_time timestamptz not null, reference text, reason text, wanted bigint, made_by text,
        created_at timestamptz not null,
        constraint pk_ledger_entry primary key (account, transaction_id, leg),
        constraint ck_ledger_entry_wallet_has_holder check ((book = 'wallet') = (account_ref is not null)),
        constraint ck_ledger_entry_has_one_cause check ((event_digest is null) <> (request_id is null)))""",
    """create table lot (
        account text not null, lot_id uuid not null, account_ref uuid not null,
        granted bigint not null, remaining bigint not null, earned_at timestamptz not null,
        spendable_from timestamptz not null, expires_at timestamptz,
        constraint pk_lot primary key (account, lot_id),
        constraint ck_lot_remaining check (granted > 0 and remaining between 0 and granted))""",
    """create table lot_use (
        account text not null, transaction_id uuid not null, lot_id uuid not null, points bigint not null,
        constraint pk_lot_use primary key (account, transaction_id, lot_id),
        constraint ck_lot_use_points check (points > 0))""",
    "create index ix_lot_use_account_lot_id on lot_use (account, lot_id)",
    """create table level_state (
        account text not null, user_id text not null, level integer not null, reached_on date, flips_on date,
        peak bigint not null, table_version integer not null, revision bigint not null,
        updated_at timestamptz not null,
        constraint pk_level_state primary key (account, user_id))""",
    "create index ix_level_state_account_flips_on on level_state (account, flips_on)",
    """create table earn_rule (
        account text not null, key text not null, version integer not null, effective_from timestamptz not null,
        definition jsonb not null, created_at timestamptz not null, created_by text not null,
        constraint pk_earn_rule primary key (account, key, version))""",
    """create table level_table (
        account text not null, version integer not null, effective_from date not null,
        definition jsonb not null, created_at timestamptz not null, created_by text not null,
        constraint pk_level_table primary key (account, version))""",
]

# Everything booked so far was earned by built-in rules, of which every point counts for levels.
CARRIED = [
    """insert into ledger_entry (account, transaction_id, leg, book, account_ref, points, growth, rule, rule_version,
            event_digest, event_time, created_at)
        select account, entry_id, leg, case leg when 0 then 'wallet' else 'issued' end,
            case leg when 0 then account_ref end, case leg when 0 then points else -points end,
            case leg when 0 then points else 0 end, rule, rule_version, event_digest, event_time, created_at
        from ledger_entry_0001 cross join (values (0), (1)) as l(leg)""",
    """insert into lot (account, lot_id, account_ref, granted, remaining, earned_at, spendable_from)
        select account, entry_id, account_ref, points, points, event_time, created_at
        from ledger_entry_0001 where points > 0""",
    "drop table ledger_entry_0001",
    "alter table balance add column growth bigint not null default 0",
    "update balance set growth = points",
    "alter table balance alter column growth drop default",
    "alter table balance add constraint ck_balance_points check (points >= 0)",
]

INDEXES = [
    """create index ix_ledger_entry_statement on ledger_entry
        (account, account_ref, created_at, event_time, transaction_id) where account_ref is not null""",
    """create index ix_ledger_entry_counted on ledger_entry (account, account_ref, rule, event_time)
        include (points, growth) where account_ref is not null""",
    """create index ix_lot_open on lot (account, account_ref, expires_at, earned_at, lot_id) where remaining > 0""",
]


def upgrade() -> None:
    op.execute("alter table ledger_entry rename to ledger_entry_0001")
    op.execute("alter index pk_ledger_entry rename to pk_ledger_entry_0001")
    op.execute("drop index ix_ledger_entry_statement")
    for statement in (*TABLES, *CARRIED, *INDEXES):
        op.execute(statement)
    create_order_tables()


def downgrade() -> None:
    """Back to earned points alone: what was spent or adjusted is lost."""
    drop_order_tables()
    op.execute("alter table ledger_entry rename to ledger_entry_0003")
    op.execute("alter index pk_ledger_entry rename to pk_ledger_entry_0003")
    op.execute("""
        create table ledger_entry (
            account text not null, entry_id uuid not null, account_ref uuid not null, points bigint not null,
            rule text not null, rule_version integer not null, event_digest bytea not null,
            event_time timestamptz not null, created_at timestamptz not null,
            constraint pk_ledger_entry primary key (account, entry_id),
            constraint uq_ledger_entry_account_event_digest_rule unique (account, event_digest, rule))
    """)
    op.execute("""
        insert into ledger_entry
        select account, transaction_id, account_ref, points, rule, rule_version, event_digest, event_time, created_at
        from ledger_entry_0003 where book = 'wallet' and event_digest is not null on conflict do nothing
    """)
    for table in ("ledger_entry_0003", "lot", "lot_use", "level_state", "earn_rule", "level_table"):
        op.execute(f"drop table {table}")
    op.execute("""
        create index ix_ledger_entry_statement
            on ledger_entry (account, account_ref, created_at, event_time, entry_id)
    """)
    op.execute("drop index ix_holder_account_account_ref")
    op.execute("truncate balance")
    op.execute("alter table balance drop constraint ck_balance_points, drop column growth")
    op.execute("""
        insert into balance (account, account_ref, points, revision)
        select account, account_ref, sum(points), count(*) from ledger_entry group by account, account_ref
    """)
