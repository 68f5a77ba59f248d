"""ingest's settings, from variables that begin with SUPERFAN_INGEST_."""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from libs.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """See libs.common.settings; ingest needs no database."""

    model_config = SettingsConfigDict(env_prefix="SUPERFAN_INGEST_")

    max_in_flight: int = Field(512, ge=1, description="requests handled at once; more are answered 503 at once")
    ack_seconds: float = Field(
        0.8, gt=0, le=5, description="how long Kafka may take to acknowledge before the events go to the spool"
    )
    spool: Path = Field(
        default_factory=lambda: Path(os.environ.get("SUPERFAN_DATA") or ".local") / "spool",
        description="folder of the spool, on a disk that outlives the process; of this process alone",
    )
    spool_bytes: int = Field(1 << 30, ge=1 << 20, description="most that may wait in the spool")
    spool_age_seconds: float = Field(
        86_400, gt=0, description="nothing more is taken while the spool's oldest event has waited longer"
    )
    drain_rate: int = Field(2000, ge=1, description="most events a second from the spool to Kafka")
