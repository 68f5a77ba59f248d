"""`Idempotency-Key` on writes: the first answer is stored in the transaction of its effect, and given again.

@router.post("/v1/users/{ref}/sign-ins")
async def sign_in(ref: str, body: SignIn, caller: ..., session: SessionDep, idempotency: IdempotencyDep) -> Streak:
    return await idempotency.run(session, caller, body, lambda: usecases.sign_in(session, ...))
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from sqlalchemy import Interval, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.auth import Caller
from libs.common.db import AsyncSession
from libs.common.web.problems import Problem, conflict, pointer_to, problem_response

T = TypeVar("T")


_FIND = text(
    "select operation, request, status, response from idempotency_key where account = :account and key = :key"
    " and (:keep is null or created_at > now() - :keep)"
).bindparams(bindparam("keep", type_=Interval))

_STORE = text(
    "insert into idempotency_key (account, key, operation, request, status, response, created_at)"
    " values (:account, :key, :operation, :request, :status, :response, now())"
    # a row that is there is one that has expired
    " on conflict (account, key) do update set operation = excluded.operation, request = excluded.request,"
    " status = excluded.status, response = excluded.response, created_at = excluded.created_at"
).bindparams(bindparam("request", type_=JSONB), bindparam("response", type_=JSONB))

# Each answer stored takes a few expired ones away, so that no job is needed. It waits for nobody.
_FORGET = text(
    "with expired as (select account, key from idempotency_key where created_at < now() - :keep"
    " order by created_at limit 20 for update skip locked)"
    " delete from idempotency_key k using expired e where k.account = e.account and k.key = e.key"
).bindparams(bindparam("keep", type_=Interval))


class StoredAnswerError(Exception):
    """Not a failure: ends the route early with the answer that was stored."""

    def __init__(self, status: int, content: Any) -> None:
        super().__init__(status)
        self.status = status
        self.content = content


class Idempotency:
    """The request's `Idempotency-Key`, if it has one."""

    def __init__(
        self,
        request: Request,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                pattern=r"^[\x21-\x7e]{1,255}$",
                description="Any text of your choice, one per intended effect: a repeat with the same key and body "
                "gets the first answer and changes nothing.",
            ),
        ] = None,
    ) -> None:
        self._request = request
        self._response = response
        self.key = idempotency_key

    async def run(self, session: AsyncSession, caller: Caller, body: Any, action: Callable[[], Awaitable[T]]) -> T:
        """The result of `action`, which writes through `session`; or, when the key was used before, the first answer.

        Raises Problem 409 when the key was used for another operation or another `body` (a model or plain JSON),
        and while the first request with it is still running. Refusals (Problem below 500, except 429) are stored too,
        without what `action` wrote. Headers that the route sets are not stored.
        """
        if self.key is None:
            return await action()
        account, key = caller.account.name, self.key
        operation = _operation(self._request)
        request = jsonable_encoder(body)
        await _lock(session, account, key)
        keep: timedelta | None = self._request.app.state.keep_idempotency_keys
        stored = (await session.execute(_FIND, {"account": account, "key": key, "keep": keep})).one_or_none()
        if stored is not None:
            _check_same(stored.operation, stored.request, operation, request)
            raise StoredAnswerError(stored.status, stored.response)

        row = {"account": account, "key": key, "operation": operation, "request": request}
        try:
            async with session.begin_nested():
                result = await action()
        except Problem as problem:
            if problem.status < 500 and problem.status != 429:
                await _store(session, {**row, "status": problem.status, "response": problem.document()}, keep)
                await session.commit()  # the route ends with an exception, after which nothing would be committed
            raise
        route = self._request.scope["route"]
        status = self._response.status_code or route.status_code or 200
        content = jsonable_encoder(result, exclude_none=route.response_model_exclude_none)
        await _store(session, {**row, "status": status, "response": content}, keep)
        return result


IdempotencyDep = Annotated[Idempotency, Depends()]


def _operation(request: Request) -> str:
    path = request.url.path
    return f"{request.method} {path}?{request.url.query}" if request.url.query else f"{request.method} {path}"


async def _lock(session: AsyncSession, account: str, key: str) -> None:
    digest = hashlib.blake2b(f"idempotency\0{account}\0{key}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, signed=True)
    got = await session.scalar(text("select pg_try_advisory_xact_lock(:number)"), {"number": number})
    if not got:
        raise Problem(
            409,
            "request_in_progress",
            "A request with this Idempotency-Key is still running.",
            headers={"Retry-After": "1"},
        )


def _check_same(first_operation: str, first: Any, operation: str, request: Any) -> None:
    if first_operation != operation:
        raise conflict(f"This Idempotency-Key was used for {first_operation}.", "idempotency_key_reused")
    place = first_difference(first, request)
    if place is not None:
        detail = f"This Idempotency-Key was used with another body; the first difference is at {place or 'the root'}."
        errors = [{"pointer": place, "detail": "differs from the first request"}]
        raise conflict(detail, "idempotency_key_reused", errors)


def first_difference(first: Any, second: Any, path: tuple[str | int, ...] = ()) -> str | None:
    """The JSON pointer of the first difference between two JSON values, None when they are equal."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() | second.keys()):
            if name not in first or name not in second:
                return pointer_to((*path, name))
            place = first_difference(first[name], second[name], (*path, name))
            if place is not None:
                return place
        return None
    if isinstance(first, list) and isinstance(second, list):
        for index, (one, other) in enumerate(zip(first, second, strict=False)):
            place = first_difference(one, other, (*path, index))
            if place is not None:
                return place
        return None if len(first) == len(second) else pointer_to((*path, min(len(first), len(second))))
    same_kind = isinstance(first, bool) == isinstance(second, bool)
    return None if first == second and same_kind else pointer_to(path)


async def _store(session: AsyncSession, row: dict[str, Any], keep: timedelta | None) -> None:
    await session.execute(_STORE, row)
    if keep is not None:
        await session.execute(_FORGET, {"keep": keep})


async def on_stored_answer(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, StoredAnswerError)
    if exc.status >= 400:
        stored = exc.content
        problem = Problem(exc.status, stored["code"], stored["detail"], stored.get("errors", ()))
        response = problem_response(problem)
    else:
        response = JSONResponse(exc.content, exc.status)
    response.headers["Idempotent-Replayed"] = "true"
    return response
