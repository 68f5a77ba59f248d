"""PostgreSQL: the engine with its timeouts, sessions, and which errors are not the fault of the data."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction

from libs.common.credentials import read_password, trust

__all__ = [
    "AsyncEngine",
    "AsyncSession",
    "Database",
    "Sessions",
    "after_commit",
    "is_transient",
    "make_engine",
    "make_sessions",
    "sqlstate",
]

Sessions = async_sessionmaker[AsyncSession]

TRANSIENT_SQLSTATES = ("08", "28", "40001", "40P01", "53", "55P03", "57", "25006", "58")
"""Lost connections, refused logins (a password that is just being changed), serialization and deadlock, no resources,
lock timeout, shutdown and cancel, read-only, I/O."""


@dataclass(frozen=True)
class Database:
    """Where a database is and how it is reached. Both files are read for each new connection.

    `url`: postgresql://user:password@host:port/database, without the password when `password_file` holds it.
    `ca`: a file of certificates; with one, connections are TLS with host name check, else as the server wants them.
    """

    url: str = field(repr=False)
    password_file: Path | None = None
    ca: Path | None = None

    @property
    def driver_url(self) -> str:
        """As SQLAlchemy wants it."""
        return self.url.replace("postgresql://", "postgresql+asyncpg://", 1)

    def connect_args(self) -> dict[str, Any]:
        """What asyncpg is given beside the url."""
        given: dict[str, Any] = {}
        if (password_file := self.password_file) is not None:
            given["password"] = lambda: read_password(password_file)
        if self.ca is not None:
            given["ssl"] = trust(self.ca)
        return given


def make_engine(database: Database | str, pool_size: int, *, patient: bool = False) -> AsyncEngine:
    """An engine on `database` (or its url) with at most `pool_size` connections; every wait in it is bounded, unless it
    is to be `patient`, for jobs that go through whole tables."""
    database = Database(database) if isinstance(database, str) else database
    engine = create_async_engine(
        database.driver_url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_use_lifo=True,  # few busy connections know all statements; many would each prepare them
        pool_recycle=1800,
        hide_parameters=True,  # values of events are personal data; they have no place in logs
        connect_args={
            **database.connect_args(),
            "timeout": 5,
            "command_timeout": None if patient else 20,
            "server_settings": {
                "application_name": "superfan",
                "statement_timeout": "0" if patient else "15s",
                "lock_timeout": "0" if patient else "3s",
                "idle_in_transaction_session_timeout": "0" if patient else "30s",
                "jit": "off",
                "timezone": "UTC",
            },
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """A lost connection is known without asking the server: `pool_pre_ping` costs three round trips a transaction."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError("the server has closed the connection")


def make_sessions(engine: AsyncEngine) -> Sessions:
    """Sessions of `engine`; whoever opens one commits it: the request's dependency or the consumer."""
    return async_sessionmaker(engine, expire_on_commit=False, sync_session_class=_Session)


class _Session(Session):
    """Of its own, so that the hooks below concern no other session."""


def after_commit(session: AsyncSession, act: Callable[[], None]) -> None:
    """Call `act` once what the session is doing now is committed, and never if it is rolled back: with the transaction,
    or with a savepoint around this call. For counters: a batch that is tried again must not count twice."""
    sync = session.sync_session
    sync.info.setdefault(_WAITING, []).append((sync.get_nested_transaction() or sync.get_transaction(), act))


_WAITING = "after_commit"


@event.listens_for(_Session, "after_commit")
def _act(session: Session) -> None:
    if session.get_nested_transaction() is None:  # else a savepoint is released
        for _, act in session.info.pop(_WAITING, ()):
            act()


@event.listens_for(_Session, "after_soft_rollback")
def _forget(session: Session, undone: SessionTransaction) -> None:
    waiting = session.info.get(_WAITING)
    if waiting:
        session.info[_WAITING] = [(within, act) for within, act in waiting if not _is_inside(within, undone)]


@event.listens_for(_Session, "after_transaction_end")
def _forget_all(session: Session, ended: SessionTransaction) -> None:
    if ended.parent is None:
        session.info.pop(_WAITING, None)


def _is_inside(transaction: SessionTransaction | None, outer: SessionTransaction) -> bool:
    while transaction is not None and transaction is not outer:
        transaction = transaction.parent
    return transaction is outer


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed later: the database or the network failed, not the data."""
    if isinstance(error, PoolTimeoutError | TimeoutError | OSError | asyncio.TimeoutError):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        state = sqlstate(error)
        return state is None or state.startswith(TRANSIENT_SQLSTATES)
    return isinstance(error, SQLAlchemyError) and "closed" in str(error).lower()


def sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's five-character code of `error`, or None when the server did not answer."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
