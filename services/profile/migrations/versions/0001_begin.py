"""Begin: the common tables, counts by day, firsts and lasts."""

from alembic import op

from libs.common.migrate import create_common_tables_0001, drop_common_tables_0001

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_common_tables_0001()
    op.execute("""
        create table activity_day (
            account text not null, subject text not null, day date not null, type text not null, count bigint not null,
            constraint pk_activity_day primary key (account, subject, day, type))
    """)
    op.execute("""
        create table fan (
            account text not null, subject text not null,
            first_seen timestamptz not null, last_seen timestamptz not null, first_follow timestamptz,
            follow_time timestamptz, follow_source text, follow_id text, following boolean,
            constraint pk_fan primary key (account, subject))
    """)


def downgrade() -> None:
    op.execute("drop table fan")
    op.execute("drop table activity_day")
    drop_common_tables_0001()
