"""ingest's settings, from variables that begin with SUPERFAN_INGEST_."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from libs.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """See libs.common.settings; ingest needs no database."""

    model_config = SettingsConfigDict(env_prefix="SUPERFAN_INGEST_")

    max_in_flight: int = Field(512, ge=1, description="requests handled at once; more are answered 503 at once")
    ack_seconds: float = Field(0.8, gt=0, le=5, description="how long Kafka may take to acknowledge before a 503")
