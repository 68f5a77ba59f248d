"""engagement's settings, from variables that begin with SUPERFAN_ENGAGEMENT_."""

from pydantic_settings import SettingsConfigDict

from libs.common.settings import DatabaseSettings


class Settings(DatabaseSettings):
    """See libs.common.settings; engagement adds none of its own."""

    model_config = SettingsConfigDict(env_prefix="SUPERFAN_ENGAGEMENT_")
