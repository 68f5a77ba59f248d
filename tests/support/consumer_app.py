"""The routes of `libs.common.consumer.api` in an app of their own."""

from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI

from libs.common.config import hash_key, make_key
from libs.common.consumer.api import router
from libs.common.db import Sessions
from libs.common.web import create_app
from tests.support.web import config_file

OPERATOR, READER = make_key("operator", "secret"), make_key("reader", "secret")
TOML = f"""
[accounts.demo]
[[keys]]
id = "operator"
account = "demo"
sha256 = "{hash_key(OPERATOR)}"
scopes = ["ops:read", "ops:write"]
[[keys]]
id = "reader"
account = "demo"
sha256 = "{hash_key(READER)}"
scopes = ["ops:read"]
"""


def consumer_app(sessions: Sessions, folder: Path, topics: Sequence[str]) -> FastAPI:
    """Of a service that reads `topics`; OPERATOR may pause and resume, READER only look."""
    return create_app(
        service="profile",
        title="Test",
        version="1",
        description="The consumer alone.",
        routers=[router],
        config=config_file(folder, TOML),
        sessions=sessions,
        state={"topics": topics},
    )
