"""`superfan.toml`: accounts, API keys, webhook sources and channels. Read at start, polled, never half applied."""

import asyncio
import base64
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from libs.common.telemetry import CONFIG_INFO, CONFIG_VALID, get_logger

log = get_logger(__name__)

Scope = Literal[
    "events:write",
    "profile:read",
    "profile:write",
    "segmentation:read",
    "segmentation:write",
    "engagement:read",
    "engagement:write",
    "rewards:read",
    "rewards:write",
    "ops:read",
    "ops:write",
]
SCOPES: tuple[str, ...] = get_args(Scope)


class ConfigError(Exception):
    """The file cannot be used; the message lists every problem, one a line."""


class UnknownAccountError(LookupError):
    """No account of this name is declared."""


ChannelKind = Literal["sms", "email", "push", "dm", "phone", "webhook"]
"""What a channel is to the person who is reached; `webhook` is a system of the account's own."""


@dataclass(frozen=True)
class Channel:
    """A way out for messages: a signed POST (Standard Webhooks) to `url`. `secrets` holds one, or two while they are
    rotated; both sign. `idempotent`: the receiver takes a repeated webhook-id once, so that a message whose fate is
    unknown may be sent again. `allow_private`: `url` may be plain http and lie in the account's own network."""

    id: str
    account: str
    kind: ChannelKind
    url: str
    secrets: tuple[str, ...] = field(repr=False)
    idempotent: bool = True
    allow_private: bool = False


@dataclass(frozen=True)
class Account:
    """A business account (tenant)."""

    name: str
    zone: ZoneInfo
    currency: str
    id_space: str
    sign_in_day: Literal["user", "account"]
    channels: Mapping[str, Channel] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Key:
    """An API key. `sha256` is the hex digest of the whole key text; without `rate_per_second` (requests) the service's
    default holds."""

    id: str
    account: str
    sha256: str = field(repr=False)
    scopes: frozenset[str]
    trust: Literal["server", "client"]
    expires: datetime | None
    rate_per_second: float | None = None


@dataclass(frozen=True)
class Source:
    """A webhook source. `secrets` holds one, or two while they are rotated; a signature by either is good. Without
    `rate_per_second` (deliveries) there is no limit: a platform must not be refused at its normal rate."""

    id: str
    account: str
    platform: str
    id_space: str
    secrets: tuple[str, ...] = field(repr=False)
    rate_per_second: float | None = None


@dataclass(frozen=True)
class Config:
    """One valid reading of the file. `sha256` covers its text and the text of every secret file."""

    accounts: Mapping[str, Account]
    keys: Mapping[str, Key]
    sources: Mapping[str, Source]
    sha256: str

    def account(self, name: str) -> Account:
        """Raises UnknownAccountError."""
        try:
            return self.accounts[name]
        except KeyError:
            raise UnknownAccountError(f"no account {name!r} is declared in the configuration") from None


def hash_key(text: str) -> str:
    """What `[[keys]] sha256` must hold for the key `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


def make_key(key_id: str, secret: str) -> str:
    """The text of a key, as callers send it. Raises ValueError for an id that `[[keys]]` refuses."""
    if re.fullmatch(_KEY_ID, key_id) is None:
        raise ValueError(f"a key id is made of a-z, 0-9 and -: {key_id!r}")
    return f"sf_{key_id}_{secret}"


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not an IANA time zone") from None
    return name


_KEY_ID = r"[a-z0-9-]{1,40}"
_AccountName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
_Id = Annotated[str, StringConstraints(pattern=rf"^{_KEY_ID}$")]
_IdSpace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]{1,40}$")]


_Rate = Annotated[float, Field(gt=0, le=1_000_000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _AccountTable(_Table):
    zone: Annotated[str, AfterValidator(_zone)] = "Asia/Shanghai"
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "CNY"
    id_space: _IdSpace | None = None
    sign_in_day: Literal["user", "account"] = "user"


class _KeyTable(_Table):
    id: _Id
    account: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    scopes: list[Scope]
    trust: Literal["server", "client"] = "server"
    expires: AwareDatetime | None = None
    rate_per_second: _Rate | None = None


class _SourceTable(_Table):
    id: _Id
    account: str
    platform: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}$")]
    id_space: _IdSpace
    secret_files: Annotated[list[str], Field(min_length=1, max_length=2)]
    rate_per_second: _Rate | None = None


def _check_secret(secret: str) -> str | None:
    """What is wrong with a signing secret of Standard Webhooks."""
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except ValueError:
        return "is not base64 after whsec_"
    return None if 24 <= size <= 64 else "must hold 24 to 64 bytes in base64"


class _ChannelTable(_Table):
    id: _Id
    account: str
    kind: ChannelKind = "webhook"
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s#]*)?$", max_length=500)]
    secret_files: Annotated[list[str], Field(min_length=1, max_length=2)]
    idempotent: bool = True
    allow_private: bool = False

    @model_validator(mode="after")
    def _needs_tls(self) -> Self:
        if self.url.startswith("http://") and not self.allow_private:
            raise ValueError("url must begin with https:// unless allow_private is true")
        return self


class _File(_Table):
    accounts: dict[_AccountName, _AccountTable] = {}
    keys: list[_KeyTable] = []
    sources: list[_SourceTable] = []
    channels: list[_ChannelTable] = []


def load(path: str | Path) -> Config:
    """Read and check the file and the secret files that it names (relative to its folder). Raises ConfigError."""
    path = Path(path)
    try:
        text = path.read_bytes()
        raw = tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        raise _refused(path, (_describe(raw, problem) for problem in error.errors())) from None

    kinds = (("keys", file.keys), ("sources", file.sources), ("channels", file.channels))
    problems = [problem for kind, entries in kinds for problem in _repeated(kind, entries)]
    for kind, entries in kinds:
        problems += [
            f"{kind} {entry.id}: account {entry.account!r} is not declared"
            for entry in entries
            if entry.account not in file.accounts
        ]
    digest = hashlib.sha256(text)
    sources = {}
    for source in file.sources:
        secrets = _read_secrets(path, f"sources {source.id}", source.secret_files, digest, problems)
        sources[source.id] = Source(
            source.id, source.account, source.platform, source.id_space, secrets, source.rate_per_second
        )
    channels: dict[str, dict[str, Channel]] = {name: {} for name in file.accounts}
    for table in file.channels:
        place = f"channels {table.id}"
        secrets = _read_secrets(path, place, table.secret_files, digest, problems)
        problems += [f"{place}: secret {fault}" for secret in secrets if secret and (fault := _check_secret(secret))]
        channels.setdefault(table.account, {})[table.id] = Channel(
            table.id, table.account, table.kind, table.url, secrets, table.idempotent, table.allow_private
        )
    if problems:
        raise _refused(path, problems)

    accounts = {
        name: Account(
            name,
            ZoneInfo(table.zone),
            table.currency,
            table.id_space or name,
            table.sign_in_day,
            MappingProxyType(channels[name]),
        )
        for name, table in file.accounts.items()
    }
    keys = {
        key.id: Key(key.id, key.account, key.sha256, frozenset(key.scopes), key.trust, key.expires, key.rate_per_second)
        for key in file.keys
    }
    return Config(MappingProxyType(accounts), MappingProxyType(keys), MappingProxyType(sources), digest.hexdigest())


def _read_secrets(
    path: Path, place: str, names: Iterable[str], digest: "hashlib._Hash", problems: list[str]
) -> tuple[str, ...]:
    """The secrets in the files of these names beside the configuration; what is wrong with them goes to `problems`."""
    secrets: list[str] = []
    for name in names:
        try:
            secret = (path.parent / name).read_bytes()
            digest.update(b"\0" + secret)
            secrets.append(secret.decode().rstrip("\r\n"))
        except OSError as error:
            problems.append(f"{place}: secret file {name} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            problems.append(f"{place}: secret file {name} is not UTF-8 text")
        else:
            if not secrets[-1]:
                problems.append(f"{place}: secret file {name} is empty")
    return tuple(secrets)


def _refused(path: Path, problems: Iterable[str]) -> ConfigError:
    return ConfigError("\n".join([f"{path}: cannot be used:", *(f"  {problem}" for problem in problems)]))


def _repeated(kind: str, entries: Iterable[_KeyTable | _SourceTable | _ChannelTable]) -> list[str]:
    seen: set[str] = set()
    return [f"{kind} {entry.id}: declared twice" for entry in entries if entry.id in seen or seen.add(entry.id)]  # type: ignore[func-returns-value]


def _describe(raw: Any, problem: Any) -> str:
    """One problem found by pydantic, with the entry's own id in place of its index; never the value."""
    place: list[str] = []
    node = raw
    for part in problem["loc"]:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = None
        named = isinstance(part, int) and isinstance(node, dict) and isinstance(node.get("id"), str)
        if part != "[key]":
            place.append(str(node["id"]) if named and node is not None else str(part))
    reason = {"extra_forbidden": "is not a known setting", "missing": "is missing"}.get(problem["type"])
    return f"{' '.join(place)}: {reason or problem['msg'].removeprefix('Value error, ')}"


class ConfigFile:
    """The configuration in use; `poll` replaces it when the file or a secret file changes. Raises ConfigError when the
    first reading is not valid."""

    def __init__(self, path: str | Path, service: str) -> None:
        self.path = Path(path)
        self.service = service
        self.current = load(self.path)
        self._last_problem = ""
        CONFIG_VALID.labels(service).set(1)
        CONFIG_INFO.labels(service, self.current.sha256).set(1)

    def account(self, name: str) -> Account:
        """Raises UnknownAccountError."""
        return self.current.account(name)

    def notice(self) -> str | None:
        """Why the file on disk is not the one in use."""
        return f"invalid, the old one stays in use: {self._last_problem}" if self._last_problem else None

    def reload(self) -> None:
        """Read the file again. An invalid one changes nothing but the metric, and is logged once."""
        try:
            new = load(self.path)
        except ConfigError as error:
            CONFIG_VALID.labels(self.service).set(0)
            if str(error) != self._last_problem:
                self._last_problem = str(error)
                log.warning("configuration is invalid, the old one stays in use", reason=str(error))
            return
        self._last_problem = ""
        CONFIG_VALID.labels(self.service).set(1)
        if new.sha256 != self.current.sha256:
            CONFIG_INFO.remove(self.service, self.current.sha256)
            CONFIG_INFO.labels(self.service, new.sha256).set(1)
            log.info("configuration replaced", sha256=new.sha256)
        self.current = new

    async def poll(self, interval: float = 10) -> None:
        """Reload every `interval` seconds until cancelled."""
        while True:
            await asyncio.sleep(interval)
            await asyncio.to_thread(self.reload)
