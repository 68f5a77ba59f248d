"""segmentation's own tables, beside the common ones of libs.common.tables.

| table | kind | what it is |
|---|---|---|
| active_day | fact | local days of the account's zone on which a subject was active |
| following_change | fact | every follow and unfollow of a subject |
| first_interaction | fact | when a subject first did more than view |
| order_state, refund_state | fact | orders and refunds, as libs.common.orders folds them |
| lifecycle_state | notice | per user the state last announced; beside it, as facts, his first, last and return day |
| ladder_state | notice | per user the rung last announced |
| membership_change | decision | every move between segments as it was decided, never revised |
| rfm_run | decision | a run of RFM: what was asked, the boundaries it found, how many users went where |
| rfm_score | decision | what a run made of each user |
"""

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Index, Integer, Numeric, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.orders import add_order_tables
from libs.common.tables import make_metadata

metadata = make_metadata()
instant = DateTime(timezone=True)

active_day = Table(
    "active_day",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("day", Date, primary_key=True),
)

following_change = Table(
    "following_change",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("time", instant, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("following", Boolean, nullable=False),
)

first_interaction = Table(
    "first_interaction",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("time", instant, nullable=False),
)

order_state, refund_state = add_order_tables(metadata)

# first_day, last_day and returned_day are folded from all active days of the user's subjects, future ones included.
# flips_on is the next day on which the state has to be looked at although nothing happens.
lifecycle_state = Table(
    "lifecycle_state",
    metadata,
    Column("account", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("first_day", Date),
    Column("last_day", Date),
    Column("returned_day", Date),
    Column("state", Text, nullable=False),
    Column("since", instant),
    Column("flips_on", Date),
    Column("revision", BigInteger, nullable=False),
    Column("updated_at", instant),
    Index("ix_lifecycle_state_account_last_day", "account", "last_day"),
    Index("ix_lifecycle_state_account_flips_on", "account", "flips_on"),
)

ladder_state = Table(
    "ladder_state",
    metadata,
    Column("account", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("since", instant),
    Column("revision", BigInteger, nullable=False),
    Column("updated_at", instant),
)

membership_change = Table(
    "membership_change",
    metadata,
    Column("account", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("layering", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("segment_from", Text),
    Column("segment_to", Text),
    Column("reason", Text, nullable=False),
    Column("initial", Boolean, nullable=False),
    Column("since", instant),
    Column("decided_at", instant, nullable=False),
    # Moves of a day; and who has entered a segment, in the order of pages.
    Index("ix_membership_change_decided", "account", "layering", "decided_at", "segment_from", "segment_to"),
    Index("ix_membership_change_entered", "account", "segment_to", "user_id"),
)

rfm_run = Table(
    "rfm_run",
    metadata,
    Column("account", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("as_of", instant, nullable=False),
    Column("day", Date, nullable=False),
    Column("zone", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("window_days", Integer),
    Column("cut", Text, nullable=False),
    Column("users", BigInteger, nullable=False),
    Column("previous", Integer),
    Column("result", JSONB, nullable=False),
    Column("created_at", instant, nullable=False),
)

rfm_score = Table(
    "rfm_score",
    metadata,
    Column("account", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("user_id", Text, primary_key=True),
    Column("r_days", Integer, nullable=False),
    Column("f_orders", BigInteger, nullable=False),
    Column("m_minor", Numeric, nullable=False),
    Column("r_score", SmallInteger, nullable=False),
    Column("f_score", SmallInteger, nullable=False),
    Column("m_score", SmallInteger, nullable=False),
    Column("rfm_class", Text, nullable=False),
)
