"""The request's database session: commit at the edge, and the database's own troubles as 503."""

import socket
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from libs.common.db import AsyncSession, Sessions, is_transient, sqlstate
from libs.common.telemetry import get_logger
from libs.common.web.problems import Problem, problem_response, unavailable

log = get_logger(__name__)

_BUSY = ("40001", "40P01", "55P03", "53300")  # serialization, deadlock, lock not available, too many connections
_CANCELLED = "57014"  # statement timeout


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
    if not is_transient(exc):
        return None
    state = sqlstate(exc) if isinstance(exc, DBAPIError) else None
    if isinstance(exc, PoolTimeoutError) or state in _BUSY:
        return unavailable("The database is busy.", "database_busy", 1)
    if isinstance(exc, TimeoutError) or state == _CANCELLED:
        return unavailable("The database did not answer in time.", "database_timeout", 1)
    return unavailable("The database cannot be reached.", "database_unavailable")


async def _on_database_error(_request: Request, exc: Exception) -> Response:
    problem = unavailable_problem(exc)
    if problem is None:
        raise exc
    log.warning(
        "database unavailable", code=problem.code, reason=f"{type(exc).__name__}: {getattr(exc, 'orig', None) or exc}"
    )
    return problem_response(problem)


def add_database(app: FastAPI, sessions: Sessions) -> None:
    """Give `app`'s routes their sessions."""
    app.state.sessions = sessions
    for kind in (DBAPIError, PoolTimeoutError, ConnectionError, TimeoutError, socket.gaierror):
        app.add_exception_handler(kind, _on_database_error)
