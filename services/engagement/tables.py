"""engagement's own tables, beside the common ones of libs.common.tables.

| table | kind | what it is |
|---|---|---|
| follower | fact | per subject: the newest follow or unfollow by (time, source, id), and the first follow |
| message | decision | the in-app inbox: one row per user, journey and step, for ever |
| decision | decision | one row per follow event and journey: sent or skipped, with the reason and the values used |
"""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Index, Integer, LargeBinary, Table, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.tables import make_metadata

metadata = make_metadata()
instant = DateTime(timezone=True)

follower = Table(
    "follower",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("following", Boolean, nullable=False),
    Column("follow_time", instant, nullable=False),
    Column("follow_source", Text, nullable=False),
    Column("follow_id", Text, nullable=False),
    Column("first_follow", instant),
)

message = Table(
    "message",
    metadata,
    Column("account", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("journey", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("journey_version", Integer, nullable=False),
    Column("subject", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("created_at", instant, nullable=False),
    Index("ix_message_account_subject_created_at", "account", "subject", "created_at", "message_id"),
)

decision = Table(
    "decision",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("event_digest", LargeBinary, primary_key=True),
    Column("journey", Text, primary_key=True),
    Column("decision_id", Text, nullable=False),
    Column("journey_version", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("values", JSONB, nullable=False),
    Column("message_id", Text),
    Column("event_source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_time", instant, nullable=False),
    Column("decided_at", instant, nullable=False),
    UniqueConstraint("account", "user_id", "journey", "revision", name="uq_decision_account_user_id_journey_revision"),
    Index("ix_decision_account_decided_at", "account", "decided_at", "revision", "decision_id"),
)
