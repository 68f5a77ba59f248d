"""Apps and configuration files for the tests of libs.common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI

from libs.common.config import ConfigFile, hash_key, make_key
from libs.common.web import create_app

KEY = make_key("test", "secret")
READ_KEY = make_key("reader", "secret")
EXPIRED_KEY = make_key("expired", "secret")
OTHER_KEY = make_key("other", "secret")

TOML = f"""
[accounts.demo]
[accounts.other]

[[keys]]
id = "test"
account = "demo"
sha256 = "{hash_key(KEY)}"
scopes = ["rewards:read", "rewards:write"]

[[keys]]
id = "reader"
account = "demo"
sha256 = "{hash_key(READ_KEY)}"
scopes = ["rewards:read"]
trust = "client"
expires = 2999-01-01T00:00:00Z

[[keys]]
id = "expired"
account = "demo"
sha256 = "{hash_key(EXPIRED_KEY)}"
scopes = ["rewards:read"]
expires = 2020-01-01T00:00:00+08:00

[[keys]]
id = "other"
account = "other"
sha256 = "{hash_key(OTHER_KEY)}"
scopes = ["rewards:read", "rewards:write"]
"""


def config_file(folder: Path, text: str = TOML, service: str = "test") -> ConfigFile:
    path = folder / "superfan.toml"
    path.write_text(text)
    return ConfigFile(path, service)


def make_app(folder: Path, *routers: APIRouter, **options: Any) -> FastAPI:
    return create_app(
        service=options.pop("service", "test"),
        title="Test",
        version="1",
        description="An app for tests.",
        routers=routers,
        config=config_file(folder),
        **options,
    )


def client(app: FastAPI, key: str | None = KEY) -> httpx.AsyncClient:
    """A client without a server between; exceptions that the app lets through reach the test."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem of `response`, after checking that it is a proper one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["code"] == code, body
    assert body["type"] == f"/problems/{code}"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def places(body: dict[str, Any]) -> Sequence[str]:
    return [error.get("pointer", error.get("parameter")) for error in body["errors"]]
