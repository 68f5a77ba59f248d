"""profile's own tables, beside the common ones of libs.common.tables.

| table | kind | what it is |
|---|---|---|
| activity_day | fact | events per subject, local day of the account's zone, and type |
| activity_hour | fact | events of active types per subject, local day and hour |
| watch_day | fact | sums over views per subject and local day, in milliseconds |
| sign_in_day | fact | sign-in days per subject, by the account's setting in the person's own time or the account's |
| fan | fact | firsts and lasts per subject; following now = the newest follow or unfollow by (time, source, id) |
| order_state, refund_state | fact | orders and refunds of `libs.common.orders` |
| trait | fact | the believed value of each trait per subject: verified before not, then by (time, source, id) |
| zone_notice | notice | per subject the time zone that was last told, and the revision of the notice |
| notice_state | fact | of each thing that another service tells the notice with the highest revision |
| identifier | fact | which identifiers (union id, login, phone, …) each subject showed, first and last |
| link_decision | decision | what became of each of them, and of links over REST: never changed, the newest counts |
| separation | decision | pairs of subjects (both ways) that were taken apart and that no evidence links |
"""

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Identity, Index, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.orders import add_order_tables
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

activity_hour = Table(
    "activity_hour",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("hour", SmallInteger, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
)

watch_day = Table(
    "watch_day",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("watch_ms", BigInteger, nullable=False),
    Column("measured", BigInteger, nullable=False),
    Column("completed", BigInteger, nullable=False),
    Column("within_ms", BigInteger, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
)

sign_in_day = Table(
    "sign_in_day",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("day", Date, primary_key=True),
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

order_state, refund_state = add_order_tables(metadata)

trait = Table(
    "trait",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("verified", Boolean, nullable=False),
    Column("time", instant, nullable=False),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("trust", Text, nullable=False),
    Column("value", JSONB, nullable=False),
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

notice_state = Table(
    "notice_state",
    metadata,
    Column("account", Text, primary_key=True),
    Column("family", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("since", instant, nullable=False),
    Column("time", instant, nullable=False),
    Column("data", JSONB, nullable=False),
    Index("ix_notice_state_account_user_id", "account", "user_id"),
)

identifier = Table(
    "identifier",
    metadata,
    Column("account", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("space", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("first_time", instant, nullable=False),
    Column("last_time", instant, nullable=False),
    Column("trust", Text, nullable=False),
    Index("ix_identifier_account_subject", "account", "subject"),
)

link_decision = Table(
    "link_decision",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("kind", Text),
    Column("space", Text),
    Column("value", Text),
    Column("outcome", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("source", Text),
    Column("event_id", Text),
    Column("decided_by", Text),
    Column("decided_at", instant, nullable=False),
    Index("ix_link_decision_account_subject", "account", "subject"),
    Index("ix_link_decision_account_kind_space_value", "account", "kind", "space", "value"),
)

separation = Table(
    "separation",
    metadata,
    Column("account", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("other", Text, primary_key=True),
    Column("since", instant, nullable=False),
    Column("reason", Text, nullable=False),
)
