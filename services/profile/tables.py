"""profile's own tables, beside the common ones of libs.common.tables.

| table | kind | what it is |
|---|---|---|
| activity_day | fact | events per subject, local day of the account's zone, and type |
| fan | fact | firsts and lasts per subject; following now = the newest follow or unfollow by (time, source, id) |
"""

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Table, Text

from libs.common.tables import make_metadata

metadata = make_metadata()
instant = DateTime(timezone=True)

activity_day = Table(
    "activity_day",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

fan = Table(
    "fan",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("first_seen", instant, nullable=False),
    Column("last_seen", instant, nullable=False),
    Column("first_follow", instant),
    Column("follow_time", instant),
    Column("follow_source", Text),
    Column("follow_id", Text),
    Column("following", Boolean),
)
