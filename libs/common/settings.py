"""Typed settings from the environment; every problem is told at once.

Variables that all services share are `SUPERFAN_CONFIG`, `SUPERFAN_KAFKA`, `SUPERFAN_LOG_LEVEL`,
`SUPERFAN_LOG_FORMAT` and `SUPERFAN_RATE_PER_SECOND`; all others carry the service's own prefix.
A service's `settings.py` is:

    class Settings(DatabaseSettings):
        model_config = SettingsConfigDict(env_prefix="SUPERFAN_PROFILE_")
"""

import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.common.telemetry import LogFormat, LogLevel

Port = Annotated[int, Field(ge=0, le=65535)]


class ServiceSettings(BaseSettings):
    """Settings of a service without a database. A subclass sets `env_prefix`."""

    model_config = SettingsConfigDict(
        env_prefix="SUPERFAN_", env_ignore_empty=True, populate_by_name=True, extra="ignore", frozen=True
    )

    config: Path = Field(validation_alias="SUPERFAN_CONFIG", description="path of superfan.toml")
    kafka: str = Field(validation_alias="SUPERFAN_KAFKA", description="Kafka's host:port, several separated by commas")
    drain_seconds: float = Field(
        0,
        ge=0,
        le=300,
        validation_alias="SUPERFAN_DRAIN_SECONDS",
        description="how long a process works on after it was told to stop and has become unready",
    )
    log_level: LogLevel = Field("info", validation_alias="SUPERFAN_LOG_LEVEL")
    log_format: LogFormat = Field("json", validation_alias="SUPERFAN_LOG_FORMAT")
    http_host: str = Field("127.0.0.1", description="address that the API and the metrics port listen on")
    http_port: Port = Field(8080, description="port of the API")
    metrics_port: Port = Field(9090, description="port of /livez, /readyz and /metrics")
    max_in_flight: int = Field(256, ge=1, description="requests handled at once; more are answered 503 at once")
    rate_per_second: float = Field(
        1000,
        gt=0,
        le=1_000_000,
        validation_alias="SUPERFAN_RATE_PER_SECOND",
        description="requests a second of one key that has no rate_per_second of its own, in each process",
    )


def _check_pg_url(url: str) -> str:
    if not url.startswith("postgresql://"):
        raise ValueError("must look like postgresql://user:password@host:port/database")
    return url


class DatabaseSettings(ServiceSettings):
    """Settings of a service with a PostgreSQL database."""

    pg_url: Annotated[str, AfterValidator(_check_pg_url)] = Field(
        repr=False, description="postgresql://user:password@host:port/database"
    )
    db_pool: int = Field(8, ge=1, le=100, description="most database connections of one process")


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def variable_name(settings: type[BaseSettings], field: str) -> str:
    """The environment variable that sets `field`."""
    alias = settings.model_fields[field].validation_alias if field in settings.model_fields else None
    if isinstance(alias, str):
        return alias
    if field in settings.model_fields:
        return f"{settings.model_config.get('env_prefix', '')}{field}".upper()
    return field


def load_settings(settings: type[SettingsT]) -> SettingsT:
    """The settings from the environment; or one line per problem on stderr and exit code 2."""
    try:
        return settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = variable_name(settings, str(problem["loc"][0]))
            reason = "is not set" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
            lines.append(f"  {name}: {reason}")
        sys.stderr.write("the settings are not complete:\n" + "\n".join(lines) + "\n")
        sys.exit(2)
