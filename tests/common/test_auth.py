"""API keys: who gets in, and what the refusals say."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends

from libs.common.auth import Caller, authenticate, require
from libs.common.config import make_key
from libs.common.web import Problem
from tests.support.web import EXPIRED_KEY, KEY, OTHER_KEY, READ_KEY, client, config_file, make_app, problem

router = APIRouter()


@router.get("/read")
async def read(caller: Annotated[Caller, Depends(require("rewards:read"))]) -> dict[str, str]:
    return {"account": caller.account.name, "key_id": caller.key_id, "trust": caller.trust}


@router.get("/write")
async def write(caller: Annotated[Caller, Depends(require("rewards:read", "rewards:write"))]) -> str:
    return caller.key_id


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client(make_app(tmp_path, router), key=None) as api:
        yield api


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_the_account_and_trust_come_from_the_key(api: httpx.AsyncClient) -> None:
    assert (await api.get("/read", headers=bearer(KEY))).json() == {
        "account": "demo",
        "key_id": "test",
        "trust": "server",
    }
    assert (await api.get("/read", headers=bearer(READ_KEY))).json()["trust"] == "client"
    assert (await api.get("/read", headers=bearer(OTHER_KEY))).json()["account"] == "other"
    assert (await api.get("/read", headers={"Authorization": f"bearer  {KEY}"})).status_code == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY])
async def test_without_a_key_it_is_401_and_says_what_to_send(api: httpx.AsyncClient, header: str | None) -> None:
    answer = await api.get("/read", headers={} if header is None else {"Authorization": header})
    assert "Bearer sf_" in problem(answer, 401, "unauthorized")["detail"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="superfan"'


@pytest.mark.parametrize(
    "key", ["sf_test_wrong", "sf_nobody_wrong", "sf_expired_wrong", "sf_test", "sf__", "x", f"{KEY}x", KEY.upper()]
)
async def test_a_wrong_key_is_401_that_does_not_tell_whether_its_id_exists(api: httpx.AsyncClient, key: str) -> None:
    answer = await api.get("/read", headers=bearer(key))
    assert problem(answer, 401, "unauthorized")["detail"] == "The API key is not valid."
    assert answer.headers["www-authenticate"] == 'Bearer realm="superfan", error="invalid_token"'


async def test_bytes_that_are_no_text_are_401(api: httpx.AsyncClient) -> None:
    problem(await api.get("/read", headers={b"Authorization": b"Bearer sf_test_\xff"}), 401, "unauthorized")


async def test_an_expired_key_is_401(api: httpx.AsyncClient) -> None:
    problem(await api.get("/read", headers=bearer(EXPIRED_KEY)), 401, "expired_key")


async def test_a_missing_scope_is_403_and_named(api: httpx.AsyncClient) -> None:
    answer = await api.get("/write", headers=bearer(READ_KEY))
    assert "rewards:write" in problem(answer, 403, "missing_scope")["detail"]
    assert 'scope="rewards:write"' in answer.headers["www-authenticate"]
    assert (await api.get("/write", headers=bearer(KEY))).status_code == 200


async def test_a_revoked_key_stops_working_when_the_file_is_read_again(tmp_path: Path) -> None:
    app = make_app(tmp_path, router)
    async with client(app) as api:
        assert (await api.get("/read")).status_code == 200
        app.state.config.path.write_text("[accounts.demo]\n")
        app.state.config.reload()
        problem(await api.get("/read"), 401, "unauthorized")


def test_a_key_expires_at_its_very_instant(tmp_path: Path) -> None:
    config = config_file(tmp_path).current
    expiry = datetime(2019, 12, 31, 16, tzinfo=UTC)
    before = expiry.replace(hour=15, minute=59)
    assert authenticate(config, f"Bearer {EXPIRED_KEY}", before).key_id == "expired"
    with pytest.raises(Problem):
        authenticate(config, f"Bearer {EXPIRED_KEY}", expiry)


def test_scopes_that_do_not_exist_are_refused_when_the_route_is_written() -> None:
    with pytest.raises(ValueError, match="rewards:raed"):
        require("rewards:raed")


def test_a_key_id_cannot_hold_the_separator() -> None:
    assert make_key("dev", "a_b") == "sf_dev_a_b"
    with pytest.raises(ValueError, match="key id"):
        make_key("a_b", "x")
