"""The tables that every consumer service has, and the first migration that makes them.

| table | kind | what it is |
|---|---|---|
| consumer_offset | decision | how far each Kafka partition has been applied, by cluster |
| event | fact | inbox and history in one: each event once, by the digest of its identity |
| alias | fact | which user each subject belongs to |
| outbox | notice | derived events on their way to Kafka |
| dead_letter | decision | records that no code could apply, with the reason |
| consumer_stop | decision | when and why they stopped the service's line, or who paused a topic; who resumed it |
| idempotency_key | decision | the stored answer of each HTTP write |
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB


def make_metadata() -> MetaData:
    """A service's own metadata with the common tables in it; constraints get names that migrations can use."""
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    def column(name: str, kind: Any, *rest: Any, **options: Any) -> Column[Any]:
        return Column(name, kind, *rest, nullable=options.pop("nullable", False), **options)

    now = text("now()")
    instant = DateTime(timezone=True)
    Table(
        "consumer_offset",
        metadata,
        column("cluster_id", Text, primary_key=True),
        column("topic", Text, primary_key=True),
        column("partition", Integer, primary_key=True, autoincrement=False),
        column("next_offset", BigInteger),
        column("updated_at", instant, server_default=now),
    )
    Table(
        "event",
        metadata,
        column("digest", LargeBinary, primary_key=True),
        column("fingerprint", BigInteger),
        column("account", Text),
        column("source", Text),
        column("id", Text),
        column("type", Text),
        column("subject", Text, nullable=True),
        column("platform", Text, nullable=True),
        column("time", instant),
        column("timemark", Text, nullable=True),
        column("received", instant),
        column("applied", instant, server_default=now),
        column("trust", Text),
        column("backfill", Boolean),
        column("data", JSONB, nullable=True),
        Index("ix_event_account_subject_time", "account", "subject", "time", "digest"),
        # By hash, never by time: a unique key over time partitions would not remove repeats.
        postgresql_partition_by="HASH (digest)",
    )
    Table(
        "alias",
        metadata,
        column("account", Text, primary_key=True),
        column("subject", Text, primary_key=True),
        column("own_id", Text),
        column("user_id", Text),
        column("revision", BigInteger, server_default=text("0")),
        Index("ix_alias_account_own_id", "account", "own_id", unique=True),
        Index("ix_alias_account_user_id", "account", "user_id"),
    )
    Table(
        "outbox",
        metadata,
        column("id", BigInteger, Identity(always=True), primary_key=True),
        column("topic", Text),
        column("key", LargeBinary),
        column("value", LargeBinary),
        column("created_at", instant, server_default=now),
    )
    Table(
        "dead_letter",
        metadata,
        column("digest", LargeBinary, primary_key=True),
        column("account", Text, nullable=True),
        column("type", Text, nullable=True),
        column("topic", Text),
        column("partition", Integer),
        column("offset", BigInteger),
        column("key", LargeBinary, nullable=True),
        column("value", LargeBinary, nullable=True),
        column("error", Text),
        column("reason", Text),
        column("attempts", Integer, server_default=text("1")),
        column("first_at", instant),
        column("last_at", instant),
        column("edited_at", instant, nullable=True),
        column("position", BigInteger, nullable=True),
        Index("ix_dead_letter_account_first_at_digest", "account", "first_at", "digest"),
        Index("ix_dead_letter_first_at", "first_at"),
        Index("ix_dead_letter_position", "position"),
    )
    Table(
        "consumer_stop",
        metadata,
        column("stopped_at", instant, primary_key=True),
        column("reason", Text),
        column("resumed_at", instant, nullable=True),
        column("resumed_by", Text, nullable=True),
        column("topic", Text, primary_key=True, server_default=text("''")),
        column("stopped_by", Text, nullable=True),
        Index(
            "ix_consumer_stop_paused",
            "topic",
            unique=True,
            postgresql_where=text("resumed_at is null and topic <> ''"),
        ),
    )
    Table(
        "idempotency_key",
        metadata,
        column("account", Text, primary_key=True),
        column("key", Text, primary_key=True),
        column("operation", Text),
        column("request", JSONB),
        column("status", SmallInteger),
        column("response", JSONB),
        column("created_at", instant, server_default=now),
        Index("ix_idempotency_key_created_at", "created_at"),
    )
    return metadata
