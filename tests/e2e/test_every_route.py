"""Every route of every service: first the caller without rights, then another account's data.

The routes are taken from the apps themselves, so a new one cannot be forgotten: it fails here until it is protected.
"""

import importlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from libs.common.config import SCOPES, ConfigFile, hash_key, make_key
from libs.common.db import make_engine, make_sessions
from libs.common.events import identity_digest, new_event
from libs.common.identity import user_id_of
from libs.common.migrate import upgrade
from services.rewards.domain.awards import transaction_id_of
from tests.support.folding import NOW, Log
from tests.support.postgres import TestServer
from tests.support.services import SERVICES, WITH_DATABASE

SUBJECT = "douyin:u1"
USER_ID = user_id_of("demo", SUBJECT)
FULL, POWERLESS, STRANGER = (make_key(name, "secret") for name in ("full", "powerless", "stranger"))

SIGNED = {"receive_webhook", "shake_hands"}
"""Operations that a platform's signature opens, not a key; tests/ingest shows that each refuses a wrong one."""

SAME_FOR_ALL = {
    "list_event_types",
    "list_journeys",
    "get_journey",
    "list_journey_versions",
    "get_contact_policy",
    "list_rules",
    "get_rule",
    "list_rule_versions",
    "get_levels",
    "list_level_versions",
    "audit_ledger",
    "get_consumer",
}
"""Operations whose answer holds no account's data."""

POISON = {"account": "demo", "source": "/t", "id": "poison", "type": "nonsense", "subject": SUBJECT}
DEEDS: dict[str, dict[str, Any]] = {
    "follow": {},
    "like": {},
    "sign_in": {},
    "order.paid": {"order_id": "o1", "amount_minor": 100, "currency": "CNY"},
}
PATH_VALUES: dict[str, Any] = {
    "ref": SUBJECT,
    "key": "lifecycle.new",
    "layering": "ladder",
    "version": 1,
    "letter_id": identity_digest("demo", "/t", "poison").hex(),
    "rule_key": "follow",
    "entry_id": transaction_id_of(identity_digest("demo", "/t", "follow-0"), "follow"),
}
QUERY_VALUES = {
    "get_applied_event": {"source": "/t", "id": "follow-0"},
    "list_decisions": {"user": SUBJECT},
    "list_members": {"as_of": NOW.isoformat()},
    "list_flow": {"from": "2026-06-01", "to": "2026-06-30"},
}
BODIES: dict[str, Any] = {
    "create_link": {"subjects": [SUBJECT, "wechat.x:u1"], "evidence": "login", "reason": "one login"},
    "unlink": {"subjects": ["wechat.x:u1"], "reason": "two persons"},
    "post_events": {"type": "follow", "subject": SUBJECT, "id": "x", "source": "/x"},
    "pause_consumer": {"reason": "a test"},
    "drop_dead_letter": {"reason": "noise"},
    "drop_dead_letters": {"reason": "noise"},
}


def toml() -> str:
    scopes = ", ".join(f'"{scope}"' for scope in SCOPES)
    keys = [
        ("full", "demo", scopes, FULL),
        ("powerless", "demo", "", POWERLESS),
        ("stranger", "other", scopes, STRANGER),
    ]
    return "[accounts.demo]\n[accounts.other]\n" + "".join(
        f'[[keys]]\nid = "{name}"\naccount = "{account}"\nsha256 = "{hash_key(key)}"\nscopes = [{granted}]\n'
        for name, account, granted, key in keys
    )


def operations(service: str) -> list[tuple[str, str, str]]:
    """(operation id, method, path) of every documented route."""
    app: FastAPI = importlib.import_module(f"services.{service}.main").openapi_app()
    return [
        (operation["operationId"], method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


ALL = [(service, *operation) for service in SERVICES for operation in operations(service)]
BY_KEY = [row for row in ALL if row[1] not in SIGNED]
OF_ACCOUNTS = [row for row in BY_KEY if row[0] in WITH_DATABASE and row[2] == "GET" and row[1] not in SAME_FOR_ALL]


@pytest.fixture(scope="module")
async def apps(pg_server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, FastAPI]]:
    """Every service's app; in each, account `demo` knows one fan and account `other` knows nobody."""
    file = tmp_path_factory.mktemp("routes") / "superfan.toml"
    file.write_text(toml())
    apps, engines = {}, []
    for service in WITH_DATABASE:
        url = await pg_server.create_database()
        await upgrade(url, service)
        engine = make_engine(url, 5)
        engines.append(engine)
        sessions = make_sessions(engine)
        parts = importlib.import_module(f"services.{service}.main").SERVICE
        config = ConfigFile(file, service)
        await Log(service, sessions, parts.make_handler(config.account), parts.keep_data).apply(
            [
                new_event(
                    event_type,
                    account="demo",
                    source="/t",
                    id=f"{event_type}-0",
                    subject=SUBJECT,
                    time=NOW - timedelta(hours=1),
                    received=NOW,
                    data=data,
                )
                for event_type, data in DEEDS.items()
            ]
            + [json.dumps(POISON).encode()]
        )
        apps[service] = parts.build_app(config, sessions)
        if service == "segmentation":
            await call(apps, (service, "run_rfm", "POST", "/v1/rfm/runs"), FULL)
    apps["ingest"] = importlib.import_module("services.ingest.main").openapi_app(ConfigFile(file, "ingest"))
    yield apps
    for engine in engines:
        await engine.dispose()


async def call(apps: dict[str, FastAPI], row: tuple[str, str, str, str], key: str | None) -> httpx.Response:
    service, operation, method, path = row
    transport = httpx.ASGITransport(apps[service], raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(
            method,
            path.format_map(PATH_VALUES),
            params=QUERY_VALUES.get(operation),
            json=BODIES.get(operation, {}) if method in ("POST", "PUT", "PATCH") else None,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )


@pytest.mark.parametrize("row", BY_KEY, ids=lambda row: f"{row[0]}.{row[1]}")
async def test_without_a_key_nothing_is_told(apps: dict[str, FastAPI], row: tuple[str, str, str, str]) -> None:
    for key in (None, "sf_full_wrong", "nonsense"):
        response = await call(apps, row, key)
        assert response.status_code == 401, (key, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        assert USER_ID not in response.text


@pytest.mark.parametrize("row", BY_KEY, ids=lambda row: f"{row[0]}.{row[1]}")
async def test_a_key_without_the_scope_is_refused(apps: dict[str, FastAPI], row: tuple[str, str, str, str]) -> None:
    response = await call(apps, row, POWERLESS)
    assert response.status_code == 403, response.text
    assert response.json()["code"] == "missing_scope"


@pytest.mark.parametrize("row", OF_ACCOUNTS, ids=lambda row: f"{row[0]}.{row[1]}")
async def test_another_accounts_data_are_not_there(apps: dict[str, FastAPI], row: tuple[str, str, str, str]) -> None:
    own = await call(apps, row, FULL)
    assert own.status_code == 200, own.text
    foreign = await call(apps, row, STRANGER)
    assert foreign.status_code in (200, 404), foreign.text
    assert USER_ID not in foreign.text
    if foreign.status_code == 200:
        assert foreign.json() != own.json()
        assert SUBJECT not in foreign.text
