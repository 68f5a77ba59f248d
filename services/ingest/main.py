"""ingest, put together: settings → Kafka producer, spool, app → a process."""

import asyncio
import sys
from collections.abc import Sequence
from typing import NoReturn

from fastapi import FastAPI

from libs.common import process, tracing
from libs.common.config import Config, ConfigError, ConfigFile
from libs.common.health import Health
from libs.common.kafka import Producer
from libs.common.process import Component
from libs.common.settings import load_settings
from libs.common.telemetry import configure_logging, get_logger
from libs.common.version import VERSION
from libs.common.web import DEFAULT_LIMITS, Limits, create_app
from services.ingest.api import router
from services.ingest.api.events import EVENTS_PATH, hand_in
from services.ingest.domain.breaker import Breaker
from services.ingest.jobs import EMPTY_SECONDS, drain, empty
from services.ingest.platforms import ADAPTERS, standard
from services.ingest.schemas.requests import describe_bodies
from services.ingest.settings import Settings
from services.ingest.spool import Spool
from services.ingest.usecases import SERVICE, Stores

log = get_logger(__name__)

STOP_SECONDS = 35
"""Most that stopping takes, after draining; a supervisor must wait longer before it kills."""
ROLES = ("api", "worker", "all", "migrate")


def build_app(config: ConfigFile, stores: Stores, limits: Limits = DEFAULT_LIMITS) -> FastAPI:
    """The REST API over `stores`."""
    app = create_app(
        service=SERVICE,
        title="Superfan ingest",
        version=VERSION,
        description="Takes events in: from senders with a key, signed by Standard Webhooks, and from platforms.",
        routers=[router],
        config=config,
        state={"stores": stores},
        tags=[
            {"name": "events", "description": "The sender's own events."},
            {"name": "webhooks", "description": "What platforms push."},
        ],
        limits=limits,
        direct={("POST", EVENTS_PATH): hand_in},
    )
    describe_bodies(app)
    return app


def openapi_app(config: ConfigFile | None = None) -> FastAPI:
    """The API without connections: for its OpenAPI document, and for calls that are refused before they need one."""
    return build_app(config, None)  # type: ignore[arg-type]


def run(arguments: Sequence[str]) -> NoReturn:
    """`python -m services.ingest api|worker|all|migrate`; never returns."""
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.stderr.write(f"usage: python -m services.ingest {'|'.join(ROLES)}\n")
        sys.exit(2)
    if arguments[0] in ("worker", "migrate"):
        sys.stdout.write("ingest has no worker and no migrations\n")
        sys.exit(0)
    settings = load_settings(Settings)
    configure_logging(SERVICE, settings.log_format, settings.log_level)
    try:
        config = ConfigFile(settings.config, SERVICE)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    for problem in source_problems(config.current):
        log.error("a webhook source cannot work", reason=problem)
    process.main(_serve(settings, config))


def source_problems(config: Config) -> list[str]:
    """Sources whose platform has no adapter or whose secret cannot be one."""
    found = []
    for source in config.sources.values():
        if source.platform == "standard":
            if not all(standard.is_usable(secret) for secret in source.secrets):
                found.append(f"{source.id}: a secret is not `whsec_` and base64")
        elif source.platform not in ADAPTERS:
            known = ", ".join(["standard", *ADAPTERS])
            found.append(f"{source.id}: no adapter for platform {source.platform}; there are {known}")
    return found


async def _serve(settings: Settings, config: ConfigFile) -> int:
    health = Health(SERVICE)
    producer = Producer(settings.kafka, f"superfan-{SERVICE}", security=settings.security)
    spool = Spool(settings.spool, limit_bytes=settings.spool_bytes, limit_seconds=settings.spool_age_seconds)
    stores = Stores(producer, spool, Breaker(), settings.ack_seconds)
    health.add_readiness("kafka or spool", lambda: stores.problem)
    health.add_notice("configuration", config.notice)
    listening = asyncio.Event()
    health.add_readiness("http", lambda: None if listening.is_set() else "the API does not listen yet")

    async def announce() -> None:
        listening.set()

    app = build_app(config, stores, Limits(settings.max_in_flight, settings.rate_per_second))
    components = [
        *tracing.start(SERVICE),
        health.serve(settings.http_host, settings.metrics_port),
        Component("configuration", run=config.poll),
        Component("spool", start=spool.start, stop=spool.stop),
        Component("kafka producer", start=producer.start, stop=producer.stop, deadline=6),
        Component("emptying the spool", stop=lambda: empty(spool, producer), deadline=EMPTY_SECONDS + 2),
        Component("drain", run=lambda: drain(spool, producer, settings.drain_rate)),
        process.serve_http(app, settings.http_host, settings.http_port),
        Component("readiness", start=announce),
    ]
    return await process.run(components, stop_deadline=STOP_SECONDS, drain_seconds=settings.drain_seconds)
