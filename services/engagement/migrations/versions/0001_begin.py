"""Begin: the common tables, followers, the in-app inbox, decisions."""

from alembic import op

from libs.common.migrate import create_common_tables_0001, drop_common_tables_0001

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_common_tables_0001()
    op.execute("""
        create table follower (
            account text not null, subject text not null, following boolean not null,
            follow_time timestamptz not null, follow_source text not null, follow_id text not null,
            first_follow timestamptz,
            constraint pk_follower primary key (account, subject))
    """)
    op.execute("""
        create table message (
            account text not null, user_id text not null, journey text not null, step text not null,
            message_id text not null, journey_version integer not null, subject text not null, channel text not null,
            created_at timestamptz not null,
            constraint pk_message primary key (account, user_id, journey, step))
    """)
    op.execute("""
        create index ix_message_account_subject_created_at on message (account, subject, created_at, message_id)
    """)
    op.execute("""
        create table decision (
            account text not null, subject text not null, event_digest bytea not null, journey text not null,
            decision_id text not null, journey_version integer not null, step text not null, channel text not null,
            purpose text not null, user_id text not null, revision bigint not null, outcome text not null, reason text,
            values jsonb not null, message_id text, event_source text not null, event_id text not null,
            event_time timestamptz not null, decided_at timestamptz not null,
            constraint pk_decision primary key (account, subject, event_digest, journey),
            constraint uq_decision_account_user_id_journey_revision unique (account, user_id, journey, revision))
    """)
    op.execute("""
        create index ix_decision_account_decided_at on decision (account, decided_at, revision, decision_id)
    """)


def downgrade() -> None:
    op.execute("drop table decision")
    op.execute("drop table message")
    op.execute("drop table follower")
    drop_common_tables_0001()
