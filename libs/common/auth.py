"""API keys: who calls, for which account, and what it may do."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from libs.common.config import SCOPES, Account, Config
from libs.common.web.limits import RateLimits
from libs.common.web.problems import Problem

_UNKNOWN = hashlib.sha256(b"no key has this text").hexdigest()

_bearer = HTTPBearer(
    scheme_name="apiKey",
    bearerFormat="sf_<id>_<secret>",
    description="An API key declared in superfan.toml, sent as `Authorization: Bearer sf_<id>_<secret>`.",
    auto_error=False,
)


@dataclass(frozen=True)
class Caller:
    """The holder of a key."""

    account: Account
    key_id: str
    scopes: frozenset[str]
    trust: Literal["server", "client"]

    def check(self, *scopes: str) -> None:
        """Raises Problem 403 that names the scopes that this key lacks."""
        missing = [scope for scope in scopes if scope not in self.scopes]
        if missing:
            names = " ".join(missing)
            raise Problem(
                403,
                "missing_scope",
                f"This key lacks the scope {names}.",
                headers={"WWW-Authenticate": f'Bearer realm="superfan", error="insufficient_scope", scope="{names}"'},
            )


def authenticate(config: Config, authorization: str | None, now: datetime) -> Caller:
    """The caller behind an `Authorization` header. Raises Problem 401, which does not tell whether the key's id
    exists."""
    kind, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if kind.lower() != "bearer" or not token:
        raise _unauthorized("Send an API key as `Authorization: Bearer sf_<id>_<secret>`.", "")
    parts = token.split("_", 2)
    key = config.keys.get(parts[1]) if len(parts) == 3 and parts[0] == "sf" else None
    digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    same = hmac.compare_digest(digest, key.sha256 if key else _UNKNOWN)
    if key is None or not same:
        raise _unauthorized("The API key is not valid.", ', error="invalid_token"')
    if key.expires is not None and now >= key.expires:
        raise _unauthorized("The API key has expired.", ', error="invalid_token"', "expired_key")
    return Caller(config.account(key.account), key.id, key.scopes, key.trust)


def _unauthorized(detail: str, challenge: str, code: str = "unauthorized") -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": f'Bearer realm="superfan"{challenge}'})


def require(*scopes: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the Caller: `caller: Annotated[Caller, Depends(require("profile:read"))]`.

    Each request counts towards its key's rate limit, also one that lacks a scope.
    """
    unknown = set(scopes) - set(SCOPES)
    if unknown:
        raise ValueError(f"no such scope: {', '.join(sorted(unknown))}")

    async def caller_with_scopes(request: Request, _scheme: Annotated[object, Depends(_bearer)]) -> Caller:
        config: Config = request.app.state.config.current
        caller = authenticate(config, request.headers.get("authorization"), datetime.now(UTC))
        request.scope["superfan.caller"] = {"account": caller.account.name, "key_id": caller.key_id}
        limits: RateLimits = request.app.state.rate_limits
        limits.take_for_key(request.scope, caller.key_id, config.keys[caller.key_id].rate_per_second)
        caller.check(*scopes)
        return caller

    return caller_with_scopes
