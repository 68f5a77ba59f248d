"""engagement's own tables, beside the common ones of libs.common.tables.

| table | kind | what it is |
|---|---|---|
| follower | fact | per subject: the newest follow or unfollow by (time, source, id), and the first follow |
| consent | fact | per subject, purpose and channel: the newest word by (time, source, id) |
| segment_notice | notice | the newest notice of each entity of segmentation: where a user is, and what was acted on |
| zone_notice | notice | per subject the time zone that profile told with the highest revision |
| journey | decision | the versions of journeys that accounts have stored, who changed them and when |
| contact_policy | decision | the versions of caps, gap and quiet hours that accounts have stored |
| message | decision | one row per message: the in-app inbox, what waits, what is being sent, what became of it |
| decision | decision | sent, held or skipped: one row per event and journey, and one for each time it was asked again |
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.leases import lease_columns
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

consent = Table(
    "consent",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("granted", Boolean, nullable=False),
    Column("time", instant, nullable=False),
    Column("source", Text, nullable=False),
    Column("id", Text, nullable=False),
)

segment_notice = Table(
    "segment_notice",
    metadata,
    Column("account", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("segment", Text),
    Column("since", instant, nullable=False),
)

zone_notice = Table(
    "zone_notice",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("zone", Text),
    Column("since", instant, nullable=False),
)

journey = Table(
    "journey",
    metadata,
    Column("account", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("status", Text, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("action", Text, nullable=False),
    Column("changed_at", instant, nullable=False),
    Column("changed_by", Text, nullable=False),
)

contact_policy = Table(
    "contact_policy",
    metadata,
    Column("account", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("policy", JSONB, nullable=False),
    Column("changed_at", instant, nullable=False),
    Column("changed_by", Text, nullable=False),
)

message = Table(
    "message",
    metadata,
    Column("account", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("journey", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("journey_version", Integer, nullable=False),
    Column("subject", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("entity", Text),
    Column("turns", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("created_at", instant, nullable=False),
    Column("let_through_at", instant),
    Column("expires_at", instant, nullable=False),
    Column("sent_at", instant),
    Column("failure", Text),
    Column("variables", JSONB),
    Column("revision", BigInteger, nullable=False),
    Column("traceparent", Text),
    *lease_columns(),
    Index("ix_message_account_subject_created_at", "account", "subject", "created_at", "message_id"),
    Index("ix_message_held_due_at", "due_at", postgresql_where=text("held and due_at is not null")),
    Index(
        "ix_message_account_channel_due_at",
        "account",
        "channel",
        "due_at",
        postgresql_where=text("not held and due_at is not null"),
    ),
)

decision = Table(
    "decision",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("event_digest", LargeBinary, primary_key=True),
    Column("journey", Text, primary_key=True),
    Column("turn", Integer, primary_key=True, autoincrement=False),
    Column("decision_id", Text, nullable=False),
    Column("journey_version", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("until", instant),
    Column("values", JSONB, nullable=False),
    Column("gates", JSONB, nullable=False),
    Column("message_id", Text),
    Column("event_type", Text, nullable=False),
    Column("event_source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_time", instant, nullable=False),
    Column("decided_at", instant, nullable=False),
    UniqueConstraint("account", "user_id", "journey", "revision", name="uq_decision_account_user_id_journey_revision"),
    Index("ix_decision_account_decided_at", "account", "decided_at", "revision", "decision_id"),
)
