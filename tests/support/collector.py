"""A collector: takes spans over OTLP/HTTP as the real ones do, or lets its callers wait for ever."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Sent:
    """A span as it came; ids are hex, `parent` is empty for the first of a trace."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    begin: int
    end: int
    error: bool
    attributes: Mapping[str, Any]


class Collector:
    """An HTTP server that keeps the spans it is sent."""

    def __init__(self, *, silent: bool = False) -> None:
        self.spans: list[Sent] = []
        self.calls = 0
        self._silent = silent
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            for writer in self._open:
                writer.close()

    @property
    def url(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                assert head[0] == "POST /v1/traces HTTP/1.1", head[0]
                fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(fields["content-length"]))
                self.calls += 1
                if self._silent:
                    await reader.read()
                    return
                self.spans += spans_in(body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller has gone
        finally:
            self._open.discard(writer)
            writer.close()


def spans_in(body: bytes) -> list[Sent]:
    """The spans of a request to /v1/traces."""
    return [
        Sent(
            service=_values(resource.resource.attributes)["service.name"],
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            links=tuple(link.span_id.hex() for link in span.links),
            begin=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
            attributes=_values(span.attributes),
        )
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def tree(spans: list[Sent]) -> str:
    """The spans of one trace, children below their parents in the order in which they began."""
    ids = {span.id for span in spans}
    first = min(span.begin for span in spans)

    def lines(parent: str, depth: int) -> list[str]:
        found = []
        for span in sorted(spans, key=lambda span: span.begin):
            if span.parent == parent or (parent == "" and span.parent not in ids):
                took = f"{(span.begin - first) / 1e6:.0f} ms + {(span.end - span.begin) / 1e6:.1f} ms"
                found += [f"{'  ' * depth}{span.service.removeprefix('superfan-')}: {span.name}  ({took})"]
                found += lines(span.id, depth + 1)
        return found

    return "\n".join(lines("", 0))


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    found = {}
    for attribute in attributes:
        kind = attribute.value.WhichOneof("value")
        found[attribute.key] = getattr(attribute.value, kind) if kind else None
    return found
