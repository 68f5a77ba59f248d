"""The envelope of every event: CloudEvents 1.0 in JSON with this system's extension attributes."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from libs.common.events.fields import AccountName, EventTime, Id, IdSpace, Subject

Trust = Literal["platform", "server", "client"]
StrictBool = Annotated[bool, Field(strict=True)]


def identity_digest(account: str, source: str, id: str) -> bytes:  # noqa: A002
    """16 bytes of BLAKE2b over an event's identity; no part can hold the separator, so no two identities collide."""
    return blake2b(f"{account}\0{source}\0{id}".encode(), digest_size=16).digest()


class Data(BaseModel):
    """What happened, in the fields of one event type. Unknown fields are kept."""

    model_config = ConfigDict(extra="allow")


class Event(BaseModel):
    """One thing that happened, as it lies on Kafka. Identity is (account, source, id).

    Attributes that are not named here are kept. `None` stands for an absent attribute and is not written.
    """

    model_config = ConfigDict(extra="allow")

    topic: ClassVar[str]
    emitted_by: ClassVar[tuple[str, ...]] = ("ingest",)
    caused_by: ClassVar[frozenset[str]] = frozenset()

    specversion: Literal["1.0"] = Field(default="1.0", description="CloudEvents version.")
    id: Id = Field(description="Unique within account and source. The same id again is the same event.")
    source: Id = Field(description="Where the event was made: a platform's app, a service, an import.")
    type: str = Field(description="One of the types below.")
    subject: Subject | None = Field(default=None, description="Whom it is about: `<id space>:<id>`.")
    time: EventTime = Field(description="When it happened.")
    data: Data = Field(description="The fields of the type.")
    account: AccountName = Field(description="The business account, set from the credential.")
    platform: IdSpace | None = Field(default=None, description="The platform on which it happened.")
    receivedtime: EventTime = Field(description="When ingest, or the emitting service, took it.")
    dataschema: Id | None = Field(
        default=None, description="`urn:superfan:event:<type>:<version>`; absent means version 1."
    )
    traceparent: Id | None = Field(default=None, description="W3C trace context of the request that brought it.")
    backfill: StrictBool = Field(default=False, description="Imported history: counts, but starts no message.")
    trust: Trust = Field(default="server", description="How well the sender is known, set from the credential.")
    timemark: Literal["stamped", "clamped"] | None = Field(
        default=None, description="How ingest set `time`: it was absent, or too far in the future."
    )
    originaltime: Id | None = Field(default=None, description="The time as sent, when it was clamped.")

    @property
    def digest(self) -> bytes:
        """The identity in 16 bytes."""
        return identity_digest(self.account, self.source, self.id)

    @property
    def fingerprint(self) -> int:
        """Signed 64 bits over what the event says: equal for a repeat, different for another event under its id.

        A time that ingest set is left out: a retry of an event without time is stamped anew.
        """
        time = None if self.timemark else self.time
        content = orjson.dumps(
            [self.type, self.subject, time, self.data], default=_plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z
        )
        return int.from_bytes(blake2b(content, digest_size=8).digest(), signed=True)

    @property
    def key(self) -> bytes:
        """Kafka key: events of one subject stay in one partition."""
        return f"{self.account}/{self.subject}".encode()

    def data_json(self) -> bytes:
        """`data` alone, as `to_json` writes it."""
        return orjson.dumps(_plain(self.data), default=_plain, option=orjson.OPT_UTC_Z)

    def to_json(self) -> bytes:
        """CloudEvents structured mode: UTF-8 JSON, times in UTC, absent attributes left out."""
        return orjson.dumps(_plain(self), default=_plain, option=orjson.OPT_UTC_Z)


def _plain(value: Any) -> Mapping[str, Any]:
    """The set fields of a model and all unknown ones; a null in an unknown field is the sender's and stays."""
    if not isinstance(value, BaseModel):
        raise TypeError(f"{type(value).__name__} is not JSON")
    fields = {name: item for name, item in value.__dict__.items() if item is not None}
    if value.__pydantic_extra__:
        fields.update(value.__pydantic_extra__)
    return fields
