"""segmentation's own tables, beside the common ones of libs.common.tables.

| table | kind | what it is |
|---|---|---|
| active_day | fact | local days of the account's zone on which a subject was active |
| lifecycle_state | notice | per user the state last announced; beside it, as facts, his first, last and return day |
| membership_change | decision | every move between segments as it was decided, never revised |
"""

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Index, Table, Text

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
)
