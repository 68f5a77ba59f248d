"""Begin: the common tables, sign-in days, holders, ledger, balances."""

from alembic import op

from libs.common.migrate import create_common_tables_0001, drop_common_tables_0001

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_common_tables_0001()
    op.execute("""
        create table sign_in_day (
            account text not null, subject text not null, day date not null,
            kind text not null default 'sign', time timestamptz not null,
            constraint pk_sign_in_day primary key (account, subject, day))
    """)
    op.execute("""
        create table holder (
            account text not null, subject text not null, account_ref uuid not null default gen_random_uuid(),
            constraint pk_holder primary key (account, subject))
    """)
    op.execute("""
        create table ledger_entry (
            account text not null, entry_id uuid not null, account_ref uuid not null, points bigint not null,
            rule text not null, rule_version integer not null, event_digest bytea not null,
            event_time timestamptz not null, created_at timestamptz not null,
            constraint pk_ledger_entry primary key (account, entry_id),
            constraint uq_ledger_entry_account_event_digest_rule unique (account, event_digest, rule))
    """)
    op.execute("""
        create index ix_ledger_entry_statement
            on ledger_entry (account, account_ref, created_at, event_time, entry_id)
    """)
    op.execute("""
        create table balance (
            account text not null, account_ref uuid not null, points bigint not null, revision bigint not null,
            constraint pk_balance primary key (account, account_ref))
    """)


def downgrade() -> None:
    for table in ("balance", "ledger_entry", "holder", "sign_in_day"):
        op.execute(f"drop table {table}")
    drop_common_tables_0001()
