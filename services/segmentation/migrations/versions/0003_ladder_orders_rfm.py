"""The ladder, orders, RFM, and what the history of moves is asked.

What follows from the event table alone is carried over. Of order events only the fact that they happened was kept: they
leave the event table, so that they count when they are sent again (`superfan export events --type …`, `superfan
replay`); active days stay as they are. `job rebuild` then places everybody on the ladder.
"""

from alembic import op

from libs.common.orders.migration import create_order_tables, drop_order_tables

revision = "0003"
down_revision = "0002"

INTERACTIONS = "('like', 'comment', 'share', 'message', 'sign_in', 'live.gift', 'live.fanclub', 'survey.answered')"


def upgrade() -> None:
    create_order_tables()
    op.execute("delete from event where type like 'order.%' and data is null")
    op.execute("""
        create table following_change (
            account text not null, subject text not null, time timestamptz not null, source text not null,
            id text not null, following boolean not null,
            constraint pk_following_change primary key (account, subject, time, source, id))
    """)
    op.execute("""
        insert into following_change
        select account, subject, time, source, id, type = 'follow' from event where type in ('follow', 'unfollow')
    """)
    op.execute("""
        create table first_interaction (
            account text not null, subject text not null, time timestamptz not null,
            constraint pk_first_interaction primary key (account, subject))
    """)
    op.execute(f"""
        insert into first_interaction
        select account, subject, min(time) from event where type in {INTERACTIONS} group by account, subject
    """)
    op.execute("""
        create table ladder_state (
            account text not null, user_id text not null, state text not null, since timestamptz,
            revision bigint not null, updated_at timestamptz,
            constraint pk_ladder_state primary key (account, user_id))
    """)
    op.execute("""
        create index ix_membership_change_decided
            on membership_change (account, layering, decided_at, segment_from, segment_to)
    """)
    op.execute("create index ix_membership_change_entered on membership_change (account, segment_to, user_id)")
    op.execute("""
        create table rfm_run (
            account text not null, version integer not null, as_of timestamptz not null, day date not null,
            zone text not null, currency text not null, window_days integer, cut text not null,
            users bigint not null, previous integer, result jsonb not null, created_at timestamptz not null,
            constraint pk_rfm_run primary key (account, version))
    """)
    op.execute("""
        create table rfm_score (
            account text not null, version integer not null, user_id text not null,
            r_days integer not null, f_orders bigint not null, m_minor numeric not null,
            r_score smallint not null, f_score smallint not null, m_score smallint not null, rfm_class text not null,
            constraint pk_rfm_score primary key (account, version, user_id))
    """)


def downgrade() -> None:
    for table in ("rfm_score", "rfm_run", "ladder_state", "first_interaction", "following_change"):
        op.execute(f"drop table {table}")
    op.execute("drop index ix_membership_change_entered")
    op.execute("drop index ix_membership_change_decided")
    drop_order_tables()
