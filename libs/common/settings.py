"""Typed settings from the environment; every problem is told at once.

Variables that all services share are `SUPERFAN_CONFIG`, `SUPERFAN_KAFKA` and those that begin with `SUPERFAN_KAFKA_`,
`SUPERFAN_LOG_LEVEL`, `SUPERFAN_LOG_FORMAT` and `SUPERFAN_RATE_PER_SECOND`; all others carry the service's own prefix.
A service's `settings.py` is:

    class Settings(DatabaseSettings):
        model_config = SettingsConfigDict(env_prefix="SUPERFAN_PROFILE_")
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.common.credentials import check_ca, check_password_file
from libs.common.kafka import Security
from libs.common.telemetry import LogFormat, LogLevel

if TYPE_CHECKING:
    from libs.common.db import Database

Port = Annotated[int, Field(ge=0, le=65535)]
CaFile = Annotated[Path, AfterValidator(check_ca)]
PasswordFile = Annotated[Path, AfterValidator(check_password_file)]


class KafkaSettings(BaseSettings):
    """With which credentials Kafka is reached."""

    model_config = SettingsConfigDict(
        env_prefix="SUPERFAN_", env_ignore_empty=True, populate_by_name=True, extra="ignore", frozen=True
    )

    kafka_ca: CaFile | None = Field(
        None,
        validation_alias="SUPERFAN_KAFKA_CA",
        description="file of the certificates (PEM) that Kafka's must come from; set = TLS with host name check",
    )
    kafka_user: str | None = Field(
        None, validation_alias="SUPERFAN_KAFKA_USER", description="user of Kafka, by SCRAM-SHA-512; only over TLS"
    )
    kafka_password_file: PasswordFile | None = Field(
        None,
        validation_alias="SUPERFAN_KAFKA_PASSWORD_FILE",
        description="file of the user's password, read for each new connection",
    )

    @model_validator(mode="after")
    def _check_kafka(self) -> Self:
        if (self.kafka_user is None) != (self.kafka_password_file is None):
            raise ValueError("SUPERFAN_KAFKA_USER and SUPERFAN_KAFKA_PASSWORD_FILE go together: set both or none")
        if self.kafka_user is not None and self.kafka_ca is None:
            raise ValueError("SUPERFAN_KAFKA_USER needs SUPERFAN_KAFKA_CA: nobody logs in without TLS")
        return self

    @property
    def security(self) -> Security:
        """How Kafka is reached."""
        return Security(self.kafka_ca, self.kafka_user, self.kafka_password_file)


def _check_pg_url(url: str) -> str:
    if not url.startswith("postgresql://"):
        raise ValueError("must look like postgresql://user:password@host:port/database")
    return url


class ServiceSettings(KafkaSettings):
    """Settings of a service without a database. A subclass sets `env_prefix`."""

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


class DatabaseSettings(ServiceSettings):
    """Settings of a service with a PostgreSQL database."""

    pg_url: Annotated[str, AfterValidator(_check_pg_url)] = Field(
        repr=False, description="postgresql://user:password@host:port/database"
    )
    pg_password_file: PasswordFile | None = Field(
        None, description="file of the password when pg_url has none, read for each new connection"
    )
    pg_ca: CaFile | None = Field(
        None,
        description="file of the certificates (PEM) that PostgreSQL's must come from; set = TLS with host name check",
    )
    db_pool: int = Field(8, ge=1, le=100, description="most database connections of one process")

    @model_validator(mode="after")
    def _check_password(self) -> Self:
        if self.pg_password_file is not None and urlsplit(self.pg_url).password is not None:
            url, file = (variable_name(type(self), name) for name in ("pg_url", "pg_password_file"))
            raise ValueError(f"{url} has a password already: leave it out there, or {file}")
        return self

    @property
    def database(self) -> "Database":
        """Where the database is and how it is reached."""
        from libs.common.db import Database  # late: ingest has no database, and SQLAlchemy is 17 MB

        return Database(self.pg_url, self.pg_password_file, self.pg_ca)


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
            reason = "is not set" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
            name = f"{variable_name(settings, str(problem['loc'][0]))}: " if problem["loc"] else ""
            lines.append(f"  {name}{reason}")
        sys.stderr.write("the settings are not complete:\n" + "\n".join(lines) + "\n")
        sys.exit(2)
