"""The composition root that the four consumer services share: settings → engine, Kafka, app, worker → a process."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from fastapi import APIRouter, FastAPI, Request, Response
from sqlalchemy import text

from libs.common import process, tracing
from libs.common.applied import router as applied_router
from libs.common.config import Account, ConfigError, ConfigFile, UnknownAccountError
from libs.common.consumer import Applier, Handler, Worker
from libs.common.consumer.api import router as consumer_router
from libs.common.consumer.offsets import StoredPositions
from libs.common.db import Database, Sessions, make_engine, make_sessions
from libs.common.dead_letters.api import router as dead_letters_router
from libs.common.health import Health
from libs.common.identity import UnknownUserError
from libs.common.kafka import Producer
from libs.common.outbox import Relay
from libs.common.process import Component
from libs.common.rebuild import Facts, rebuild
from libs.common.roles import USAGE, Role, parse_role
from libs.common.settings import DatabaseSettings, load_settings
from libs.common.sweep import DueWork, Sweep
from libs.common.telemetry import configure_logging, get_logger
from libs.common.version import VERSION
from libs.common.web import DEFAULT_LIMITS, Limits, create_app, not_found
from libs.common.web.problems import problem_response

log = get_logger(__name__)

STOP_SECONDS = 45
"""Most that stopping takes, after draining; a supervisor must wait longer before it kills."""


@dataclass(frozen=True)
class Service:
    """What makes a service itself; everything else is the same for all.

    `make_handler` gets the look-up of an account by name and gives the use case of a batch. `keep_data` says of which
    event types the content is stored. `facts` says what `job rebuild` folds again. `due_work` is what a worker does by
    the calendar, beside its consumers; `background` gives further components of a worker.
    """

    name: str
    title: str
    description: str
    routers: Sequence[APIRouter]
    topics: Sequence[str]
    make_handler: Callable[[Callable[[str], Account]], Handler]
    keep_data: Callable[[str], bool]
    facts: Facts
    due_work: DueWork | None = None
    background: Callable[[ConfigFile, Sessions, Relay], Sequence[Component]] | None = None
    tags: Sequence[Mapping[str, str]] = ()
    keep_idempotency_keys_for_ever: bool = False

    def build_app(self, config: ConfigFile, sessions: Sessions, limits: Limits = DEFAULT_LIMITS) -> FastAPI:
        """The REST API over `sessions`."""
        app = create_app(
            service=self.name,
            title=self.title,
            version=VERSION,
            description=self.description,
            routers=[*self.routers, applied_router, dead_letters_router, consumer_router],
            config=config,
            sessions=sessions,
            state={} if sessions is None else {"applier": self.make_applier(config, sessions), "topics": self.topics},
            tags=self.tags,
            keep_idempotency_keys=None if self.keep_idempotency_keys_for_ever else timedelta(hours=24),
            limits=limits,
        )
        app.add_exception_handler(UnknownUserError, _on_unknown_user)
        return app

    def make_applier(self, config: ConfigFile, sessions: Sessions) -> Applier:
        """What applies batches to the database."""
        return Applier(self.name, sessions, self.make_handler(config.account), self.keep_data)

    def run(self, settings_type: type[DatabaseSettings], arguments: Sequence[str] = sys.argv[1:]) -> NoReturn:
        """`python -m services.<name> ROLE`, as libs.common.roles says; never returns."""
        try:
            role = parse_role(arguments, self.topics)
        except ValueError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(2)
        if role is None:
            sys.stderr.write(f"usage: python -m services.{self.name} {USAGE}\n")
            sys.exit(2)
        settings = load_settings(settings_type)
        configure_logging(self.name, settings.log_format, settings.log_level)
        if role.name == "migrate":
            process.main(_migrate(settings.database, self.name, wait=role.wait))
        try:
            config = ConfigFile(settings.config, self.name)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(2)
        if role.name == "job rebuild":
            process.main(self._rebuild(settings.database, config))
        process.main(self._serve(role, settings, config))

    async def _rebuild(self, database: Database, config: ConfigFile) -> int:
        try:
            done = await rebuild(database, self.facts, config.account, datetime.now(UTC))
        except UnknownAccountError as error:
            sys.stderr.write(f"{error}; nothing was changed\n")
            return 1
        log.info("rebuilt", events=done.events, changed=done.changed, announced=done.announced)
        return 0

    async def _serve(self, role: Role, settings: DatabaseSettings, config: ConfigFile) -> int:
        engine = make_engine(settings.database, settings.db_pool)
        sessions = make_sessions(engine)
        health = Health(self.name)

        async def ping() -> None:
            async with sessions() as session:
                await session.execute(text("select 1"))

        health.add_readiness("database", ping)
        health.add_notice("configuration", config.notice)
        components = [
            *tracing.start(self.name),
            health.serve(settings.http_host, settings.metrics_port),
            Component("configuration", run=config.poll),
            Component("database", stop=engine.dispose, deadline=5),
        ]
        if role.name in ("worker", "all"):
            producer = Producer(settings.kafka, f"superfan-{self.name}", security=settings.security, linger_ms=5)
            relay = Relay(self.name, sessions, producer)
            applier = self.make_applier(config, sessions)
            worker = Worker(
                self.name,
                settings.kafka,
                role.topics,
                security=settings.security,
                applier=applier,
                positions=StoredPositions(self.name, sessions),
                relay=relay,
            )
            health.add_liveness("consumer", worker.stuck)
            health.add_readiness("consumer", worker.unready)
            health.add_notice("line", applier.line.stop_notice)
            health.add_notice("paused", applier.line.pause_notice)
            health.add_readiness("kafka", lambda: producer.problem)
            components += [
                Component("kafka producer", start=producer.start, stop=producer.stop, deadline=6),
                Component("outbox relay", start=relay.start, stop=relay.stop),
                Component("consumer", start=worker.start, stop=worker.stop, deadline=15),
            ]
            if self.due_work is not None:
                sweep = Sweep(self.name, config, sessions, relay, self.due_work)
                components.append(Component("sweep", run=sweep.run, stop=sweep.stop, deadline=20))
            if self.background is not None:
                components += self.background(config, sessions, relay)
        if role.name in ("api", "all"):
            app = self.build_app(config, sessions, Limits(settings.max_in_flight, settings.rate_per_second))
            components.append(process.serve_http(app, settings.http_host, settings.http_port))
        return await process.run(components, stop_deadline=STOP_SECONDS, drain_seconds=settings.drain_seconds)

    def openapi_app(self) -> FastAPI:
        """The API without connections, for writing its OpenAPI document."""
        return self.build_app(None, None)  # type: ignore[arg-type]


async def _migrate(database: Database, service: str, *, wait: bool) -> int:
    from libs.common.migrate import upgrade, wait_until_migrated  # late: Alembic is 10 MB that no worker needs

    if wait:
        # Nothing is to be put in order. Without a handler the first process of a container does not end at all.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 128 + signal.SIGTERM)
        await wait_until_migrated(database, service)
    else:
        await upgrade(database, service)
    return 0


async def _on_unknown_user(_request: Request, error: Exception) -> Response:
    return problem_response(not_found(f"No event has named the user {error}.", "unknown_user"))
