"""The two tables of orders, both facts, in every service that folds them."""

from sqlalchemy import BigInteger, Column, DateTime, Index, MetaData, SmallInteger, Table, Text


def add_order_tables(metadata: MetaData) -> tuple[Table, Table]:
    """Declare `order_state` and `refund_state`, and return them. The columns …_rank, …_time, …_source and …_id name the
    event that is believed."""
    instant = DateTime(timezone=True)
    order_state = Table(
        "order_state",
        metadata,
        Column("account", Text, primary_key=True),
        Column("platform", Text, primary_key=True),
        Column("order_id", Text, primary_key=True),
        Column("status", Text),
        Column("paid_time", instant),
        Column("buyer", Text),
        Column("buyer_rank", SmallInteger),
        Column("buyer_time", instant),
        Column("buyer_source", Text),
        Column("buyer_id", Text),
        Column("amount_minor", BigInteger),
        Column("currency", Text),
        Column("amount_rank", SmallInteger),
        Column("amount_time", instant),
        Column("amount_source", Text),
        Column("amount_id", Text),
        Index("ix_order_state_account_buyer", "account", "buyer"),
    )
    refund_state = Table(
        "refund_state",
        metadata,
        Column("account", Text, primary_key=True),
        Column("platform", Text, primary_key=True),
        Column("refund_id", Text, primary_key=True),
        Column("order_id", Text),
        Column("subject", Text),
        Column("time", instant),
        Column("amount_minor", BigInteger),
        Column("currency", Text),
        Column("said_rank", SmallInteger),
        Column("said_time", instant),
        Column("said_source", Text),
        Column("said_id", Text),
        Index("ix_refund_state_account_platform_order_id", "account", "platform", "order_id"),
        Index("ix_refund_state_account_subject", "account", "subject"),
    )
    return order_state, refund_state
