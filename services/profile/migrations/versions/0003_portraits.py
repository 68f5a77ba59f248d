"""Links between subjects and what was decided about them; orders, hours, views, traits, notices of other services.

The new facts of events applied before come with `job rebuild`.
"""

from alembic import op

from libs.common.orders.migration import create_order_tables, drop_order_tables

revision = "0003"
down_revision = "0002"

TABLES = (
    *("separation", "link_decision", "identifier"),
    *("notice_state", "zone_notice", "trait", "sign_in_day", "watch_day", "activity_hour"),
)


def upgrade() -> None:
    create_order_tables()
    op.execute("""
        create table activity_hour (
            account text not null, subject text not null, day date not null, hour smallint not null,
            count bigint not null, constraint pk_activity_hour primary key (account, subject, day, hour))
    """)
    op.execute("""
        create table watch_day (
            account text not null, subject text not null, day date not null, watch_ms bigint not null,
            measured bigint not null, completed bigint not null, within_ms bigint not null, duration_ms bigint not null,
            constraint pk_watch_day primary key (account, subject, day))
    """)
    op.execute("""
        create table sign_in_day (
            account text not null, subject text not null, day date not null,
            constraint pk_sign_in_day primary key (account, subject, day))
    """)
    op.execute("""
        create table trait (
            account text not null, subject text not null, name text not null, verified boolean not null,
            time timestamptz not null, source text not null, event_id text not null, trust text not null,
            value jsonb not null, constraint pk_trait primary key (account, subject, name))
    """)
    op.execute("""
        create table zone_notice (
            account text not null, subject text not null, revision bigint not null, zone text,
            since timestamptz not null, constraint pk_zone_notice primary key (account, subject))
    """)
    op.execute("""
        create table notice_state (
            account text not null, family text not null, entity text not null, revision bigint not null,
            source text not null, event_id text not null, user_id text not null, type text not null,
            since timestamptz not null, time timestamptz not null, data jsonb not null,
            constraint pk_notice_state primary key (account, family, entity))
    """)
    op.execute("create index ix_notice_state_account_user_id on notice_state (account, user_id)")
    op.execute("""
        create table identifier (
            account text not null, kind text not null, space text not null, value text not null, subject text not null,
            first_time timestamptz not null, last_time timestamptz not null, trust text not null,
            constraint pk_identifier primary key (account, kind, space, value, subject))
    """)
    op.execute("create index ix_identifier_account_subject on identifier (account, subject)")
    op.execute("""
        create table link_decision (
            id bigint generated always as identity, account text not null, subject text not null,
            kind text, space text, value text, outcome text not null, why text not null, detail jsonb not null,
            source text, event_id text, decided_by text, decided_at timestamptz not null,
            constraint pk_link_decision primary key (id))
    """)
    op.execute("create index ix_link_decision_account_subject on link_decision (account, subject)")
    op.execute("create index ix_link_decision_account_kind_space_value on link_decision (account, kind, space, value)")
    op.execute("""
        create table separation (
            account text not null, subject text not null, other text not null, since timestamptz not null,
            reason text not null, constraint pk_separation primary key (account, subject, other))
    """)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"drop table {table}")
    drop_order_tables()
