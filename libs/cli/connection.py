"""The running system as the commands see it: its run.json, its configuration, and its REST APIs."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from libs.cli.local.processes import LaunchError
from libs.cli.local.state import Folder, data_folder
from libs.common.config import Account, ConfigError, Source, load

PAGE = 1000
ACT_SECONDS = 60.0


class ServiceDownError(LaunchError):
    """A service does not answer."""


class RefusedError(LaunchError):
    """A service answered with a problem."""

    def __init__(self, service: str, status: int, code: str, detail: str) -> None:
        super().__init__(f"{service} answered {status}: {detail}")
        self.status = status
        self.code = code


class Connection:
    """A running system: where it is, and the account that its key belongs to. `run` is what run.json holds."""

    def __init__(self, run: dict[str, Any], http: httpx.AsyncClient) -> None:
        self.run = run
        self.http = http
        self.kafka = str(run["kafka"])
        config_path = Path(run["config"])
        try:
            self.config = load(config_path)
        except ConfigError as error:
            raise LaunchError(str(error)) from None
        self.api_key = str(run["api_key"] or "")
        key = self.config.keys.get(self.api_key.split("_")[1] if self.api_key else "")
        if key is None:
            folder = config_path.parent / "keys"
            raise LaunchError(f"no API key to use: put the text of one of the configuration's keys into {folder}/<id>")
        self.account: Account = self.config.account(key.account)

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    def url(self, service: str, path: str = "") -> str:
        return str(self.run["services"][service]["url"]) + path

    def source(self, platform: str, source_id: str | None = None) -> Source:
        """The webhook source of this id, else the account's first of this platform; raises LaunchError."""
        usable = {
            source.id: source
            for source in self.config.sources.values()
            if source.platform == platform and source.account == self.account.name
        }
        chosen = usable.get(source_id) if source_id else next(iter(usable.values()), None)
        if chosen is None:
            there = f"there are: {', '.join(usable)}" if usable else "there is none"
            wanted = f"no source {source_id}" if source_id else "no source"
            raise LaunchError(f"{wanted} of platform {platform} in account {self.account.name} ({there})")
        return chosen

    def subject(self, user: str, id_space: str | None = None) -> str:
        """`user` itself when it names its id space, else in `id_space` (the account's if absent)."""
        return user if ":" in user else f"{id_space or self.account.id_space}:{user}"

    def local(self, instant: str | None) -> str:
        """An RFC 3339 time as the account's people write it."""
        if instant is None:
            return "never"
        return datetime.fromisoformat(instant).astimezone(self.account.zone).strftime("%Y-%m-%d %H:%M:%S")

    async def get(self, service: str, path: str, **parameters: Any) -> Any:
        """The JSON answer; raises ServiceDownError or RefusedError."""
        response = await self.send(service, "GET", self.url(service, path), params=parameters)
        if response.status_code != 200:
            raise refusal(service, response)
        return response.json()

    async def post(self, service: str, path: str, body: Any, *, idempotency_key: str) -> Any:
        """The JSON answer of a write, the same however often it is sent; raises ServiceDownError or RefusedError."""
        headers = self.authorization | {"Idempotency-Key": idempotency_key}
        response = await self.send(service, "POST", self.url(service, path), json=body, headers=headers)
        if not response.is_success:
            raise refusal(service, response)
        return response.json()

    async def act(self, service: str, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer of what an operator does, which may take a while; raises ServiceDownError or RefusedError."""
        given = {} if body is None else {"json": body}
        response = await self.send(service, method, self.url(service, path), timeout=ACT_SECONDS, **given)
        if response.status_code != 200:
            raise refusal(service, response)
        return response.json()

    async def of_user(self, service: str, ref: str, what: str = "", **parameters: Any) -> Any:
        """The JSON answer about one user: `what` is the path after `/v1/users/{ref}`."""
        return await self.get(service, f"/v1/users/{quote(ref, safe='')}{what}", **parameters)

    async def pages(self, service: str, path: str, **parameters: Any) -> list[Any]:
        """All items of a list."""
        items: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(service, path, limit=PAGE, **cursor, **parameters)
            items += page["items"]
            if not page["has_more"]:
                return items
            cursor = {"cursor": page["next_cursor"]}

    async def send(self, service: str, method: str, url: str, **request: Any) -> httpx.Response:
        """Any answer; raises ServiceDownError. The key goes with it unless `headers` are given."""
        request.setdefault("headers", self.authorization)
        try:
            return await self.http.request(method, url, **request)
        except httpx.TransportError:
            raise ServiceDownError(f"{service} does not answer at {self.url(service)}: see `superfan status`") from None


def refusal(service: str, response: httpx.Response) -> RefusedError:
    """What a problem+json answer says, in one line."""
    try:
        problem = response.json()
        detail = str(problem.get("detail") or problem.get("title") or response.text)
        errors = "; ".join(
            f"{error.get('pointer') or error.get('parameter', '')} {error['detail']}"
            for error in problem.get("errors", [])
        )
        code = str(problem.get("code", ""))
    except (ValueError, AttributeError, KeyError, TypeError):
        detail, errors, code = response.text[:200], "", ""
    return RefusedError(service, response.status_code, code, f"{detail} {errors}".strip())


@asynccontextmanager
async def connect(data: Path | None, api_key: str | None = None) -> AsyncIterator[Connection]:
    """The system of a data folder, with its own key unless another is given; raises LaunchError if none runs there."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what the user has to know is said in one line
    run = await asyncio.to_thread(Folder(data_folder(data)).read_run)
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        yield Connection(run | ({"api_key": api_key} if api_key else {}), http)
