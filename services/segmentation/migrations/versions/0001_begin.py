"""Begin: the common tables, active days, the lifecycle as announced, the history of memberships."""

from alembic import op

from libs.common.migrate import create_common_tables_0001, drop_common_tables_0001

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_common_tables_0001()
    op.execute("""
        create table active_day (
            account text not null, subject text not null, day date not null,
            constraint pk_active_day primary key (account, subject, day))
    """)
    op.execute("""
        create table lifecycle_state (
            account text not null, user_id text not null,
            first_day date, last_day date, returned_day date,
            state text not null, since timestamptz, flips_on date, revision bigint not null, updated_at timestamptz,
            constraint pk_lifecycle_state primary key (account, user_id))
    """)
    op.execute("create index ix_lifecycle_state_account_last_day on lifecycle_state (account, last_day)")
    op.execute("create index ix_lifecycle_state_account_flips_on on lifecycle_state (account, flips_on)")
    op.execute("""
        create table membership_change (
            account text not null, user_id text not null, layering text not null, revision bigint not null,
            segment_from text, segment_to text, reason text not null, initial boolean not null,
            since timestamptz, decided_at timestamptz not null,
            constraint pk_membership_change primary key (account, user_id, layering, revision))
    """)


def downgrade() -> None:
    op.execute("drop table membership_change")
    op.execute("drop table lifecycle_state")
    op.execute("drop table active_day")
    drop_common_tables_0001()
