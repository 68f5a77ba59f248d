"""Sessions that commit before the answer, and idempotency keys, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Response
from pydantic import BaseModel
from sqlalchemy import text

from libs.common.auth import Caller, require
from libs.common.db import AsyncEngine, make_engine, make_sessions
from libs.common.tables import make_metadata
from libs.common.web import Problem, conflict, unavailable
from libs.common.web.database import ReadSessionDep, SessionDep
from libs.common.web.idempotency import IdempotencyDep, first_difference
from tests.support.web import KEY, OTHER_KEY, client, make_app, places, problem

router = APIRouter()
CallerDep = Annotated[Caller, Depends(require("rewards:write"))]


class Award(BaseModel):
    points: int
    note: str = ""
    tags: list[str] = []


class Awarded(BaseModel):
    entry: int
    total: int
    left: int | None = None


@router.post("/write/{how}")
async def write(how: str, session: SessionDep) -> str:
    await session.execute(text("insert into entry (points) values (1)"))
    if how == "refused":
        raise conflict("no")
    if how == "bug":
        raise RuntimeError
    if how == "commit-fails":
        await session.execute(text("insert into entry (points, other) values (1, -1)"))
    if how == "slow":
        await session.execute(text("set local statement_timeout = '20ms'"))
        await session.execute(text("select pg_sleep(10)"))
    if how == "hangs":
        await asyncio.Event().wait()
    return how


@router.get("/read")
async def read(session: ReadSessionDep) -> int:
    await session.execute(text("insert into entry (points) values (1)"))
    return await session.scalar(text("select count(*) from entry")) or 0


gate = asyncio.Event()


@router.post("/awards/{user}", status_code=201, response_model_exclude_none=True)
async def award(
    user: str,
    body: Award,
    caller: CallerDep,
    session: SessionDep,
    idempotency: IdempotencyDep,
    response: Response,
) -> Awarded:
    async def effect() -> Awarded:
        entry = await session.scalar(
            text("insert into entry (points) values (:points) returning id"), {"points": body.points}
        )
        if body.note == "wait":
            await gate.wait()
        if body.note == "refuse":
            raise conflict("The budget is used up.", "no_budget", [{"pointer": "/points", "detail": "too many"}])
        if body.note == "busy":
            raise unavailable("Try later.")
        if body.note == "too fast":
            raise Problem(429, "too_fast", "Slower.")
        if body.note == "ok":
            response.status_code = 200
        total = await session.scalar(text("select sum(points) from entry"))
        return Awarded(entry=entry or 0, total=total or 0)

    return await idempotency.run(session, caller, body, effect)


@router.post("/touch")
async def touch(caller: CallerDep, session: SessionDep, idempotency: IdempotencyDep) -> None:
    async def effect() -> None:
        await session.execute(text("insert into entry (points) values (1)"))

    return await idempotency.run(session, caller, None, effect)


@pytest.fixture
async def engine(pg_url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(pg_url, 2)
    async with engine.begin() as connection:
        await connection.run_sync(make_metadata().tables["idempotency_key"].create)
        await connection.execute(
            text(
                "create table entry (id bigint primary key generated always as identity, points bigint not null,"
                " other bigint references entry deferrable initially deferred)"
            )
        )
    yield engine
    await engine.dispose()


@pytest.fixture
def app(tmp_path: Path, engine: AsyncEngine) -> FastAPI:
    return make_app(tmp_path, router, sessions=make_sessions(engine))


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as api:
        yield api


async def value(engine: AsyncEngine, query: str) -> Any:
    async with engine.begin() as connection:
        return (await connection.execute(text(query))).scalar()


async def entries(engine: AsyncEngine) -> int:
    return int(await value(engine, "select count(*) from entry"))


async def test_a_good_write_is_committed_when_the_answer_arrives(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    assert (await api.post("/write/well")).status_code == 200
    assert await entries(engine) == 1


async def test_a_failed_commit_is_never_answered_with_200(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    problem(await api.post("/write/commit-fails"), 500, "internal_error")
    assert await entries(engine) == 0


async def test_refusals_bugs_and_reads_leave_nothing(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    problem(await api.post("/write/refused"), 409, "conflict")
    problem(await api.post("/write/bug"), 500, "internal_error")
    assert (await api.get("/read")).json() == 1
    assert await entries(engine) == 0


async def test_a_statement_that_takes_too_long_is_503(api: httpx.AsyncClient) -> None:
    answer = await api.post("/write/slow")
    problem(answer, 503, "database_timeout")
    assert answer.headers["retry-after"] == "1"


async def test_connections_come_back_after_errors_and_cancelled_requests(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    for _ in range(4):
        await api.post("/write/bug")
        await api.post("/write/slow")
        request = asyncio.create_task(api.post("/write/hangs"))
        await asyncio.sleep(0.05)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert (await api.post("/write/well")).status_code == 200


async def test_an_absent_database_is_503_with_retry_after(tmp_path: Path) -> None:
    engine = make_engine("postgresql://nobody:hunter2@127.0.0.1:1/none", 1)
    async with client(make_app(tmp_path, router, sessions=make_sessions(engine))) as api:
        answer = await api.post("/write/well")
    problem(answer, 503, "database_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert "hunter2" not in answer.text


async def test_a_full_pool_is_503(tmp_path: Path, engine: AsyncEngine, api: httpx.AsyncClient) -> None:
    engine.pool._timeout = 0.05  # type: ignore[attr-defined]
    async with engine.connect(), engine.connect():
        problem(await api.post("/write/well"), 503, "database_busy")


async def test_a_connection_that_the_server_ends_is_503_once(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    request = asyncio.create_task(api.post("/write/slow"))
    while not await value(engine, "select count(*) from pg_stat_activity where query like '%pg_sleep(1%'"):
        await asyncio.sleep(0)
        if request.done():
            request = asyncio.create_task(api.post("/write/slow"))
    await value(engine, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    assert (await request).status_code == 503
    assert (await api.post("/write/well")).status_code == 200


def key(name: str, credential: str = KEY) -> dict[str, str]:
    return {"Idempotency-Key": name, "Authorization": f"Bearer {credential}"}


async def test_without_a_key_each_request_takes_effect(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    for _ in range(2):
        assert (await api.post("/awards/u1", json={"points": 5})).status_code == 201
    assert await entries(engine) == 2


async def test_a_repeat_gets_the_first_answer_and_changes_nothing(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    first = await api.post("/awards/u1", json={"points": 5}, headers=key("k"))
    await api.post("/awards/u1", json={"points": 7})
    again = await api.post("/awards/u1", json={"note": "", "points": 5}, headers=key("k"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json() == {"entry": first.json()["entry"], "total": 5}
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert await entries(engine) == 2


async def test_a_route_without_bodies_can_be_repeated(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    answers = [await api.post("/touch", headers=key("k")) for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, None), (200, None)]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert await entries(engine) == 1


async def test_the_status_that_the_route_chose_is_repeated(api: httpx.AsyncClient) -> None:
    for _ in range(2):
        answer = await api.post("/awards/u1", json={"points": 5, "note": "ok"}, headers=key("k"))
        assert answer.status_code == 200


async def test_another_body_is_409_that_names_the_first_difference(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await api.post("/awards/u1", json={"points": 5, "tags": ["a", "b"]}, headers=key("k"))
    answer = await api.post("/awards/u1", json={"points": 6, "tags": ["a", "b"]}, headers=key("k"))
    assert places(problem(answer, 409, "idempotency_key_reused")) == ["/points"]
    answer = await api.post("/awards/u1", json={"points": 5, "tags": ["a", "c"]}, headers=key("k"))
    assert places(problem(answer, 409, "idempotency_key_reused")) == ["/tags/1"]
    assert await entries(engine) == 1


async def test_another_operation_is_409(api: httpx.AsyncClient) -> None:
    await api.post("/awards/u1", json={"points": 5}, headers=key("k"))
    answer = await api.post("/awards/u2", json={"points": 5}, headers=key("k"))
    assert "POST /awards/u1" in problem(answer, 409, "idempotency_key_reused")["detail"]


async def test_keys_of_accounts_are_apart(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await api.post("/awards/u1", json={"points": 5}, headers=key("k"))
    answer = await api.post("/awards/u2", json={"points": 6}, headers=key("k", OTHER_KEY))
    assert answer.status_code == 201
    assert await entries(engine) == 2


async def test_while_the_first_is_running_the_second_is_told_to_come_again(
    api: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    gate.clear()
    body = {"points": 5, "note": "wait"}
    first = asyncio.create_task(api.post("/awards/u1", json=body, headers=key("k")))
    while not await value(engine, "select count(*) from pg_locks where locktype = 'advisory'"):
        await asyncio.sleep(0.01)
    second = await api.post("/awards/u1", json=body, headers=key("k"))
    problem(second, 409, "request_in_progress")
    assert second.headers["retry-after"] == "1"
    gate.set()
    assert (await first).status_code == 201
    third = await api.post("/awards/u1", json=body, headers=key("k"))
    assert third.json() == (await first).json()
    assert await entries(engine) == 1


async def test_refusals_are_stored_without_their_effect(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    body = {"points": 5, "note": "refuse"}
    first = await api.post("/awards/u1", json=body, headers=key("k"))
    again = await api.post("/awards/u1", json=body, headers=key("k"))
    one, other = problem(first, 409, "no_budget"), problem(again, 409, "no_budget")
    assert {**one, "request_id": ""} == {**other, "request_id": ""}
    assert places(other) == ["/points"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await entries(engine) == 0


@pytest.mark.parametrize(("note", "status"), [("busy", 503), ("too fast", 429)])
async def test_what_may_succeed_later_is_not_stored(
    api: httpx.AsyncClient, engine: AsyncEngine, note: str, status: int
) -> None:
    for _ in range(2):
        answer = await api.post("/awards/u1", json={"points": 5, "note": note}, headers=key("k"))
        assert answer.status_code == status
        assert "idempotent-replayed" not in answer.headers
    assert await value(engine, "select count(*) from idempotency_key") == 0
    assert await entries(engine) == 0


async def test_answers_are_forgotten_after_a_day(api: httpx.AsyncClient, engine: AsyncEngine) -> None:
    for name in ("old", "older", "fresh"):
        await api.post("/awards/u1", json={"points": 5}, headers=key(name))
    await value(
        engine,
        "update idempotency_key set created_at = now() - interval '24 hours 1 second' where key <> 'fresh' returning 1",
    )
    answer = await api.post("/awards/u1", json={"points": 6}, headers=key("old"))
    assert answer.status_code == 201
    assert await value(engine, "select string_agg(key, ' ' order by key) from idempotency_key") == "fresh old"


async def test_answers_are_kept_for_ever_where_the_service_says_so(tmp_path: Path, engine: AsyncEngine) -> None:
    app = make_app(tmp_path, router, sessions=make_sessions(engine), keep_idempotency_keys=None)
    async with client(app) as api:
        await api.post("/awards/u1", json={"points": 5}, headers=key("k"))
        await value(engine, "update idempotency_key set created_at = now() - interval '10 years' returning 1")
        again = await api.post("/awards/u1", json={"points": 5}, headers=key("k"))
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("name", ["", "a b", "x" * 256, "é"])
async def test_a_key_is_1_to_255_visible_characters(api: httpx.AsyncClient, name: str) -> None:
    headers = {b"Idempotency-Key": name.encode(), b"Authorization": f"Bearer {KEY}".encode()}
    answer = await api.post("/awards/u1", json={"points": 5}, headers=headers)
    assert places(problem(answer, 422, "invalid_request")) == ["header/idempotency-key"]


def test_the_first_difference_of_two_bodies() -> None:
    assert first_difference({"a": 1, "b": [1, {"c": 2}]}, {"b": [1, {"c": 2}], "a": 1}) is None
    assert first_difference({"a": 1}, {"a": True}) == "/a"
    assert first_difference({"a": 1}, {}) == "/a"
    assert first_difference({"a/b": {"~": 1}}, {"a/b": {"~": None}}) == "/a~1b/~0"
    assert first_difference([1, 2], [1]) == "/1"
    assert first_difference(1, "1") == ""


async def test_openapi_tells_the_header(api: httpx.AsyncClient) -> None:
    operation = (await api.get("/openapi.json")).json()["paths"]["/awards/{user}"]["post"]
    assert "idempotency-key" in {parameter["name"].lower() for parameter in operation["parameters"]}
