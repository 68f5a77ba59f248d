"""Alembic for one service at a time: every service has its own database, history and metadata.

A service's `migrations/env.py` calls `run`; `upgrade` is what the role `migrate` does. A starting API never migrates.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import structlog
from alembic import command, context, op
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

from libs.common.db import Database, make_engine

log = structlog.get_logger(__name__)

SERVICES = Path(__file__).parents[2] / "services"
MIGRATION_LOCK = 7_203_441
"""Advisory lock: two migration jobs of one database run one after the other."""


WAIT_SECONDS = 1.0
WAIT_TOLD_SECONDS = 10.0


async def upgrade(database: Database | str, service: str, revision: str = "head") -> None:
    """Bring the database of `service` (or its url) to `revision`, in one transaction.

    A database that newer code has migrated is left as it is: schemas only grow, so this code can work with it.
    """

    def act(config: Config) -> None:
        now = _current(config.attributes["connection"])
        if now is not None and now not in known_revisions(service):
            log.info("the database is newer than this code; nothing to migrate", service=service, revision=now)
        else:
            command.upgrade(config, revision)

    await _with_config(database, service, act)


async def downgrade(database: Database | str, service: str, revision: str = "base") -> None:
    """Take migrations back down to `revision`; for tests and for undoing a release."""
    await _with_config(database, service, lambda config: command.downgrade(config, revision))


async def wait_until_migrated(database: Database | str, service: str) -> None:
    """Return when the database has at least the schema of this code; until then, ask it every second, without end."""
    older = known_revisions(service) - {head_revision(service)}
    told = -WAIT_TOLD_SECONDS
    while True:
        try:
            reason = await _lacks(database, older)
        except Exception as error:  # whatever it is: it passes, or whoever reads the log mends it
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if reason is None:
            return
        if time.monotonic() - told >= WAIT_TOLD_SECONDS:
            told = time.monotonic()
            log.info("waiting for the database", service=service, needed=head_revision(service), reason=reason)
        await asyncio.sleep(WAIT_SECONDS)


async def _lacks(database: Database | str, older: set[str]) -> str | None:
    engine = make_engine(database, 1)
    try:
        async with engine.connect() as connection:
            now = await connection.run_sync(_current)
    finally:
        await engine.dispose()
    if now is None:
        return "it has not been migrated at all"
    return f"it has revision {now}" if now in older else None


def _current(connection: Connection) -> str | None:
    """The revision that the database has, which may be one that this code does not know."""
    return MigrationContext.configure(connection).get_current_revision()


def head_revision(service: str) -> str:
    """The newest migration of `service` that this code knows."""
    return str(_scripts(service).get_current_head())


def known_revisions(service: str) -> set[str]:
    """All migrations of `service` that this code knows."""
    return {script.revision for script in _scripts(service).walk_revisions()}


def _scripts(service: str) -> ScriptDirectory:
    return ScriptDirectory(str(SERVICES / service / "migrations"))


async def _with_config(database: Database | str, service: str, action: Any) -> None:
    database = Database(database) if isinstance(database, str) else database
    engine = create_async_engine(database.driver_url, connect_args=database.connect_args())
    try:
        async with engine.begin() as connection:

            def act(sync_connection: Connection) -> None:
                config = Config()
                config.set_main_option("script_location", str(SERVICES / service / "migrations"))
                config.attributes["connection"] = sync_connection
                action(config)

            await connection.run_sync(act)
    finally:
        await engine.dispose()


def run(metadata: MetaData) -> None:
    """Called by a service's migrations/env.py."""
    connection: Connection = context.config.attributes["connection"]
    connection.execute(text("set local lock_timeout = '5s'"))
    connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    context.configure(connection=connection, target_metadata=metadata)
    context.run_migrations()


def is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compared: object) -> bool:
    """Alembic's include_object: the partitions of `event` are not declared one by one."""
    return not (kind == "table" and name is not None and name.startswith("event_p"))


def create_common_tables_0001() -> None:
    """The common tables as of the first migration of every service; later changes get functions of their own."""
    for statement in COMMON_0001:
        op.execute(statement)


def drop_common_tables_0001() -> None:
    """Undo `create_common_tables_0001`."""
    for table in ("idempotency_key", "dead_letter", "outbox", "alias", "event", "consumer_offset"):
        op.execute(f"drop table {table}")


def change_common_tables_0002() -> None:
    """Dead letters over REST: whose each letter is, when it was edited, where it stood; the stopped line."""
    for statement in COMMON_0002:
        op.execute(statement)


def undo_common_tables_0002() -> None:
    """Undo `change_common_tables_0002`; the accounts found in keys stay."""
    op.execute("drop table consumer_stop")
    op.execute("drop index ix_dead_letter_account_first_at_digest")
    op.execute("drop index ix_dead_letter_first_at")
    op.execute("alter table dead_letter drop column position, drop column edited_at")


def add_pauses_0004() -> None:
    """Pauses of single topics beside the stop; who paused. Code of 0003 takes each open row for a stop."""
    for statement in COMMON_0004:
        op.execute(statement)


def remove_pauses_0004() -> None:
    """Undo `add_pauses_0004`: of what was paused at one instant one row stays, an open one if there is one."""
    op.execute("drop index ix_consumer_stop_paused")
    op.execute(
        "delete from consumer_stop a using consumer_stop b where a.stopped_at = b.stopped_at"
        " and (a.resumed_at is not null, a.topic) > (b.resumed_at is not null, b.topic)"
    )
    op.execute(
        "alter table consumer_stop drop constraint pk_consumer_stop,"
        " add constraint pk_consumer_stop primary key (stopped_at), drop column topic, drop column stopped_by"
    )


COMMON_0001 = [
    """create table consumer_offset (
        cluster_id text not null, topic text not null, partition integer not null,
        next_offset bigint not null, updated_at timestamptz not null default now(),
        constraint pk_consumer_offset primary key (cluster_id, topic, partition))""",
    """create table event (
        digest bytea not null, fingerprint bigint not null,
        account text not null, source text not null, id text not null, type text not null,
        subject text, platform text, time timestamptz not null, timemark text,
        received timestamptz not null, applied timestamptz not null default now(),
        trust text not null, backfill boolean not null, data jsonb,
        constraint pk_event primary key (digest)) partition by hash (digest)""",
    *(f"create table event_p{n} partition of event for values with (modulus 8, remainder {n})" for n in range(8)),
    "create index ix_event_account_subject_time on event (account, subject, time, digest)",
    """create table alias (
        account text not null, subject text not null, own_id text not null, user_id text not null,
        revision bigint not null default 0, constraint pk_alias primary key (account, subject))""",
    "create unique index ix_alias_account_own_id on alias (account, own_id)",
    "create index ix_alias_account_user_id on alias (account, user_id)",
    """create table outbox (
        id bigint generated always as identity, topic text not null, key bytea not null, value bytea not null,
        created_at timestamptz not null default now(), constraint pk_outbox primary key (id))
        with (autovacuum_vacuum_scale_factor = 0.01)""",
    """create table dead_letter (
        digest bytea not null, account text, type text, topic text not null, partition integer not null,
        "offset" bigint not null, key bytea, value bytea, error text not null, reason text not null,
        attempts integer not null default 1, first_at timestamptz not null, last_at timestamptz not null,
        constraint pk_dead_letter primary key (digest))""",
    """create table idempotency_key (
        account text not null, key text not null, operation text not null, request jsonb not null,
        status smallint not null, response jsonb not null, created_at timestamptz not null default now(),
        constraint pk_idempotency_key primary key (account, key))""",
    "create index ix_idempotency_key_created_at on idempotency_key (created_at)",
]

COMMON_0002 = [
    "alter table dead_letter add column edited_at timestamptz, add column position bigint",
    """update dead_letter set account = substring(encode(key, 'escape') from '^([a-z0-9-]{1,40})/')
        where account is null""",
    "create index ix_dead_letter_account_first_at_digest on dead_letter (account, first_at, digest)",
    "create index ix_dead_letter_first_at on dead_letter (first_at)",
    "create index ix_dead_letter_position on dead_letter (position)",
    """create table consumer_stop (
        stopped_at timestamptz not null, reason text not null, resumed_at timestamptz, resumed_by text,
        constraint pk_consumer_stop primary key (stopped_at))""",
]

COMMON_0004 = [
    "alter table consumer_stop add column topic text not null default '', add column stopped_by text",
    """alter table consumer_stop drop constraint pk_consumer_stop,
        add constraint pk_consumer_stop primary key (stopped_at, topic)""",
    """create unique index ix_consumer_stop_paused on consumer_stop (topic)
        where resumed_at is null and topic <> ''""",
]
