"""Keys that come and go, and a file that is wrong, in running processes that read `superfan.toml` by themselves."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from libs.common.config import SCOPES, hash_key, make_key
from tests.operations.fleet import service_of
from tests.support.services import System

LIMIT_SECONDS = 90
"""Within so long a change of the file holds in every process (design of the configuration)."""
FIRST, SECOND = make_key("first", "secret-1"), make_key("second", "secret-2")
READS = {
    "ingest": "/v1/event-types",
    "profile": "/v1/users",
    "segmentation": "/v1/segments",
    "engagement": "/v1/journeys",
    "rewards": "/v1/rules",
}
INVALID = '[[keys]]\nid = "third"\naccount = "nobody"\n'
REASON = "keys third sha256: is missing"


@dataclass(frozen=True)
class Change:
    """`seconds` until the last process had taken it up."""

    what: str
    seconds: float


def declare(account: str, *keys: str) -> str:
    """The blocks of `superfan.toml` for these keys."""
    scopes = ", ".join(f'"{scope}"' for scope in SCOPES)
    rest = f'account = "{account}"\nscopes = [{scopes}]\n'
    return "".join(f'[[keys]]\nid = "{key.split("_")[1]}"\nsha256 = "{hash_key(key)}"\n{rest}' for key in keys)


async def rotate(system: System, names: Iterable[str], account: str, said: Callable[[str], None]) -> list[Change]:
    """One key after the other in the processes of these names, all of which read `system.folder/superfan.toml`; between
    them a file that is wrong. Raises AssertionError or TimeoutError when something does not come about."""
    names = list(names)
    apis = [name for name in names if "worker" not in name]
    path = system.folder / "superfan.toml"
    text = path.read_text()
    changes: list[Change] = []

    async def change(what: str, content: str, done: Callable[[], Awaitable[bool]]) -> None:
        said(what)
        began = time.monotonic()
        put(path, content)
        async with asyncio.timeout(LIMIT_SECONDS):
            while not await done():
                await asyncio.sleep(0.2)
        changes.append(Change(what, time.monotonic() - began))

    async def taken(key: str) -> bool:
        return all(await asyncio.gather(*(accepts(system, name, key) for name in apis)))

    async def refused(key: str) -> bool:
        return not any(await asyncio.gather(*(accepts(system, name, key) for name in apis)))

    async def valid(value: int) -> bool:
        return all([await system.metric(name, "superfan_config_valid") == value for name in names])

    await change("a new key is accepted everywhere", text + declare(account, FIRST), lambda: taken(FIRST))
    before = {name: await digests(system, name) for name in names}
    assert len({digest for found in before.values() for digest in found}) == 1, before
    await change("an invalid file is told by every process", text + declare(account, FIRST) + INVALID, lambda: valid(0))
    assert await taken(FIRST)
    assert {name: await digests(system, name) for name in names} == before
    for name in names:
        assert REASON in system.children[name].log.read_text(), name
        ready = await system.http.get(f"{system.metrics_url(name)}/readyz")
        assert (ready.status_code, REASON in ready.json()["notices"]["configuration"]) == (200, True), ready.text
    both = text + declare(account, FIRST, SECOND)
    await change("the second key is accepted everywhere, beside the first", both, lambda: taken(SECOND))
    assert await taken(FIRST)
    assert await valid(1)
    await change("the first key is refused everywhere", text + declare(account, SECOND), lambda: refused(FIRST))
    assert await taken(SECOND)
    # A worker has no API to refuse a key: its hash tells that it has read the same file.
    after = {digest for name in names for digest in await digests(system, name)}
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(after) != 1:
            await asyncio.sleep(0.2)
            after = {digest for name in names for digest in await digests(system, name)}
    assert after != before[names[0]]
    return changes


def put(path: Path, content: str) -> None:
    """Replaces the file at once, as Kubernetes does: no reader sees a half of it."""
    new = path.with_suffix(".new")
    new.write_text(content)
    new.rename(path)


async def accepts(system: System, name: str, key: str) -> bool:
    """Whether the process of this name answers a request with this key; it must answer 401 otherwise."""
    path = READS[service_of(name)]
    response = await system.http.get(system.own_url(name, path), headers={"Authorization": f"Bearer {key}"})
    assert response.status_code in (200, 401), (name, response.status_code, response.text)
    return response.status_code == 200


async def digests(system: System, name: str) -> set[str]:
    """What `superfan_config_info` of a process says; one hash, if old ones have gone."""
    text = (await system.http.get(f"{system.metrics_url(name)}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("superfan_config_info{")]
    return {line.split('sha256="')[1].split('"')[0] for line in lines}
