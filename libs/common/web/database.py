"""The request's database session: commit at the edge, and the database's own troubles as 503."""

import socket
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from libs.common.telemetry import get_logger
from libs.common.web.problems import Problem, problem_response, unavailable

log = get_logger(__name__)


async def _write_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session
        await session.commit()


async def _read_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session


# "function": the commit comes before the answer is sent, so that a failed commit is never answered with 200.
SessionDep = Annotated[AsyncSession, Depends(_write_session, scope="function")]
ReadSessionDep = Annotated[AsyncSession, Depends(_read_session, scope="function")]


def unavailable_problem(exc: BaseException) -> Problem | None:
    """The 503 for an error that may be gone on the next try; None for one that is a bug."""
    if isinstance(exc, PoolTimeoutError):
        return unavailable("All database connections are in use.", "database_busy", 1)
    if isinstance(exc, ConnectionError | TimeoutError | socket.gaierror):
        return unavailable("The database cannot be reached.", "database_unavailable")
    state = _sqlstate(exc)
    if state == "57014":
        return unavailable("The database did not answer in time.", "database_timeout", 1)
    if state in ("40001", "40P01", "55P03"):
        return unavailable("Another request holds the same rows.", "database_busy", 1)
    if state[:2] in ("08", "53") or state in ("57P01", "57P02", "57P03", "57P05"):
        return unavailable("The database cannot be reached.", "database_unavailable")
    if isinstance(exc, DBAPIError) and (exc.connection_invalidated or _is_interface_error(exc)):
        return unavailable("The connection to the database was lost.", "database_unavailable", 1)
    return None


def _sqlstate(exc: BaseException) -> str:
    for error in (exc, getattr(exc, "orig", None), getattr(getattr(exc, "orig", None), "__cause__", None)):
        state = getattr(error, "sqlstate", None)
        if isinstance(state, str):
            return state
    return ""


def _is_interface_error(exc: DBAPIError) -> bool:
    return "InterfaceError" in {kind.__name__ for kind in type(exc.orig).__mro__}


async def _on_database_error(_request: Request, exc: Exception) -> Response:
    problem = unavailable_problem(exc)
    if problem is None:
        raise exc
    log.warning("database unavailable", code=problem.code, reason=f"{type(exc).__name__}: {exc}")
    return problem_response(problem)


def add_database(app: FastAPI, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Give `app`'s routes their sessions."""
    import asyncpg

    app.state.sessions = sessions
    kinds: tuple[Any, ...] = (
        DBAPIError,
        PoolTimeoutError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        ConnectionError,
        TimeoutError,
        socket.gaierror,
    )
    for kind in kinds:
        app.add_exception_handler(kind, _on_database_error)
