"""The migration that makes the tables of orders; apart, because a running worker needs no Alembic."""

from alembic import op


def create_order_tables() -> None:
    """For the migration that brings orders to a service."""
    op.execute("""
        create table order_state (
            account text not null, platform text not null, order_id text not null, status text, paid_time timestamptz,
            buyer text, buyer_rank smallint, buyer_time timestamptz, buyer_source text, buyer_id text,
            amount_minor bigint, currency text,
            amount_rank smallint, amount_time timestamptz, amount_source text, amount_id text,
            constraint pk_order_state primary key (account, platform, order_id))
    """)
    op.execute("create index ix_order_state_account_buyer on order_state (account, buyer)")
    op.execute("""
        create table refund_state (
            account text not null, platform text not null, refund_id text not null, order_id text, subject text,
            time timestamptz, amount_minor bigint, currency text,
            said_rank smallint, said_time timestamptz, said_source text, said_id text,
            constraint pk_refund_state primary key (account, platform, refund_id))
    """)
    op.execute("create index ix_refund_state_account_platform_order_id on refund_state (account, platform, order_id)")
    op.execute("create index ix_refund_state_account_subject on refund_state (account, subject)")


def drop_order_tables() -> None:
    """Undo `create_order_tables`."""
    op.execute("drop table refund_state")
    op.execute("drop table order_state")
