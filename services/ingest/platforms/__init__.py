"""The platforms whose webhooks are understood, each in a module with its signer."""

from services.ingest.platforms import douyin
from services.ingest.platforms.adapter import Adapter

ADAPTERS: dict[str, Adapter] = {"douyin": douyin.ADAPTER}
"""By the `platform` of a source; `standard` (Standard Webhooks) is no platform and stands beside them."""
