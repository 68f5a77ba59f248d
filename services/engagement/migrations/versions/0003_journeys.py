"""Journeys as data, consents, gates, and messages that wait or are sent by other channels."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
        create table consent (
            account text not null, subject text not null, purpose text not null, channel text not null,
            granted boolean not null, time timestamptz not null, source text not null, id text not null,
            constraint pk_consent primary key (account, subject, purpose, channel))
    """)
    # What people allowed before this table was there lies in the event table.
    op.execute("""
        insert into consent (account, subject, purpose, channel, granted, time, source, id)
        select distinct on (account, subject, data ->> 'purpose', data ->> 'channel')
            account, subject, data ->> 'purpose', data ->> 'channel', type = 'consent.granted', time, source, id
        from event where type in ('consent.granted', 'consent.revoked')
        order by account, subject, data ->> 'purpose', data ->> 'channel',
            time desc, source collate "C" desc, id collate "C" desc
    """)
    op.execute("""
        create table segment_notice (
            account text not null, entity text not null, revision bigint not null, segment text,
            since timestamptz not null, constraint pk_segment_notice primary key (account, entity))
    """)
    op.execute("""
        create table zone_notice (
            account text not null, subject text not null, revision bigint not null, zone text,
            since timestamptz not null, constraint pk_zone_notice primary key (account, subject))
    """)
    op.execute("""
        create table journey (
            account text not null, key text not null, version integer not null, status text not null,
            definition jsonb not null, action text not null, changed_at timestamptz not null, changed_by text not null,
            constraint pk_journey primary key (account, key, version))
    """)
    op.execute("""
        create table contact_policy (
            account text not null, version integer not null, policy jsonb not null,
            changed_at timestamptz not null, changed_by text not null,
            constraint pk_contact_policy primary key (account, version))
    """)
    op.execute("""
        alter table message
            add column kind text, add column purpose text, add column run text, add column entity text,
            add column turns integer, add column state text, add column held boolean,
            add column let_through_at timestamptz, add column expires_at timestamptz, add column sent_at timestamptz,
            add column failure text, add column variables jsonb, add column revision bigint,
            add column due_at timestamptz, add column attempts integer not null default 0, add column lease uuid
    """)
    # Every message so far is a welcome in the in-app inbox, sent when it was made.
    op.execute("""
        update message m set kind = 'in_app', purpose = d.purpose, run = d.decision_id, turns = 1, state = 'sent',
            held = false, let_through_at = m.created_at, expires_at = d.event_time + interval '24 hours',
            sent_at = m.created_at, revision = d.revision
        from decision d where d.account = m.account and d.message_id = m.message_id and d.outcome = 'sent'
    """)
    op.execute("""
        alter table message
            alter column kind set not null, alter column purpose set not null, alter column run set not null,
            alter column turns set not null, alter column state set not null, alter column held set not null,
            alter column expires_at set not null, alter column revision set not null,
            drop constraint pk_message, add constraint pk_message primary key (account, user_id, message_id)
    """)
    op.execute("create index ix_message_held_due_at on message (due_at) where held and due_at is not null")
    op.execute("""
        create index ix_message_account_channel_due_at on message (account, channel, due_at)
        where not held and due_at is not null
    """)
    op.execute("""
        alter table decision
            add column turn integer not null default 1, add column until timestamptz,
            add column gates jsonb not null default '[]', add column event_type text not null default 'follow',
            drop constraint pk_decision,
            add constraint pk_decision primary key (account, subject, event_digest, journey, turn)
    """)
    op.execute("""
        alter table decision
            alter column turn drop default, alter column gates drop default, alter column event_type drop default
    """)
    op.execute("update decision set reason = 'already_messaged' where reason = 'already_welcomed'")


def downgrade() -> None:
    """What only this release knows is forgotten: messages that were not sent, and later decisions about them."""
    op.execute("update decision set reason = 'already_welcomed' where reason = 'already_messaged'")
    op.execute("delete from decision where journey <> 'welcome' or outcome = 'held' or turn > 1")
    op.execute("""
        alter table decision
            drop constraint pk_decision, drop column turn, drop column until, drop column gates,
            drop column event_type,
            add constraint pk_decision primary key (account, subject, event_digest, journey)
    """)
    op.execute("delete from message where journey <> 'welcome' or state <> 'sent' or channel <> 'in_app'")
    op.execute("drop index ix_message_held_due_at")
    op.execute("drop index ix_message_account_channel_due_at")
    op.execute("""
        alter table message
            drop constraint pk_message,
            drop column kind, drop column purpose, drop column run, drop column entity, drop column turns,
            drop column state, drop column held, drop column let_through_at, drop column expires_at,
            drop column sent_at, drop column failure, drop column variables, drop column revision,
            drop column due_at, drop column attempts, drop column lease,
            add constraint pk_message primary key (account, user_id, journey, step)
    """)
    op.execute("drop table contact_policy")
    op.execute("drop table journey")
    op.execute("drop table zone_notice")
    op.execute("drop table segment_notice")
    op.execute("drop table consent")
