"""Spans over OTLP for those who want them: the extra `traces` is installed and OTEL_EXPORTER_OTLP_ENDPOINT is set.

Otherwise nothing of OpenTelemetry is imported and `tracer` stays None; to look at that is all that a request or a batch
does. All other OTEL_* variables are read by OpenTelemetry's SDK. Spans hold no personal data: no paths, only their
templates, no subjects, no bodies.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from libs.common.process import Component
from libs.common.telemetry import get_logger, valid_traceparent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from libs.common.events import AnyEvent
    from libs.common.kafka import Message

log = get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
STOP_SECONDS = 3
"""So long the last spans may take on their way; a collector that does not answer loses them."""
COMPLAINT_SECONDS = 60
_ODD = frozenset("13579bdf")

Kind = Literal["server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int]


def start(service: str) -> list[Component]:
    """Begin to trace if that is wanted and possible: sets `tracer`, and returns what must be stopped last. Whatever is
    in the way is one line in the log: spans are not worth a service."""
    global tracer  # noqa: PLW0603  one per process, as its variables are
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or not any(os.environ.get(name) for name in ENDPOINTS):
        return []
    logger = logging.getLogger("opentelemetry")
    logger.handlers[:] = [_Complaints()]
    logger.propagate = False
    try:
        tracer = Tracer(service, _make_provider(service))
    except ImportError as error:
        log.warning("no spans are sent: the extra `traces` is not installed", missing=error.name)
        return []
    except Exception as error:
        log.warning("no spans are sent: a variable OTEL_* is wrong", error=repr(error)[:300])
        return []
    return [Component("traces", stop=tracer.stop, deadline=STOP_SECONDS)]


def is_sampled(traceparent: str | None) -> bool:
    """Whether somebody before has decided to record this trace. Looks at one character."""
    return traceparent is not None and traceparent[-1:] in _ODD


def traceparent_of(span: "Span") -> str:
    """What the work below `span` is to carry."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Tracer:
    """Makes the spans of one process."""

    def __init__(self, service: str, provider: "TracerProvider") -> None:
        from opentelemetry import context, trace

        self._service = service
        self._provider = provider
        self._tracer = provider.get_tracer("superfan")
        self._nothing = context.Context()
        self._api = trace
        self._kinds = {
            "server": trace.SpanKind.SERVER,
            "client": trace.SpanKind.CLIENT,
            "producer": trace.SpanKind.PRODUCER,
            "consumer": trace.SpanKind.CONSUMER,
        }

    def begin(self, name: str, kind: Kind, traceparent: str | None, attributes: Attributes) -> "Span":
        """A span that has begun: a child of `traceparent`, the first of a new trace when that is absent or malformed.
        The caller ends it."""
        parent = self._nothing
        if traceparent := valid_traceparent(traceparent):
            above = self._api.SpanContext(
                int(traceparent[3:35], 16),
                int(traceparent[36:52], 16),
                is_remote=True,
                trace_flags=self._api.TraceFlags(int(traceparent[53:], 16)),
            )
            parent = self._api.set_span_in_context(self._api.NonRecordingSpan(above), parent)
        return self._tracer.start_span(name, parent, self._kinds[kind], attributes)

    @contextmanager
    def span(self, name: str, kind: Kind, traceparent: str | None, attributes: Attributes) -> "Iterator[Span]":
        """The same around a block; an exception marks it by its name and goes on."""
        span = self.begin(name, kind, traceparent, attributes)
        try:
            yield span
        except BaseException as error:
            self.fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def fail(self, span: "Span", error: str) -> None:
        """Mark `span` as an error of this kind."""
        span.set_attribute("error.type", error)
        span.set_status(self._api.StatusCode.ERROR)

    def begin_request(self, scheme: str, request_id: str, traceparent: str | None) -> "Span":
        """The span of a request, within the trace of its caller if he has one; `end_request` names and ends it."""
        return self.begin("request", "server", traceparent, {"url.scheme": scheme, "superfan.request_id": request_id})

    def end_request(self, span: "Span", method: str, route: str, status: int) -> None:
        """The end of a request's span; `route` is known only now."""
        if span.is_recording():
            known = route != "unmatched"
            span.update_name(f"{method} {route}" if known else method)
            span.set_attribute("http.request.method", method if method != "other" else "_OTHER")
            span.set_attribute("http.response.status_code", status)
            if known:
                span.set_attribute("http.route", route)
            if status >= 500:
                self.fail(span, str(status))
        span.end()

    def begin_events(self, events: "Iterable[tuple[Message, AnyEvent]]") -> "Applying":
        """A span for each sampled event of a transaction, below the one that published it. From here on the event
        carries its span, so that what is derived from it comes below that."""
        applying = Applying(self)
        for record, event in events:
            if is_sampled(event.traceparent) and valid_traceparent(event.traceparent):
                attributes: Attributes = {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": record.topic,
                    "messaging.destination.partition.id": str(record.partition),
                    "messaging.kafka.offset": record.offset,
                    "superfan.event.type": event.type,
                    "superfan.service": self._service,
                }
                span = self.begin(f"apply {event.type}", "consumer", event.traceparent, attributes)
                if span.is_recording():
                    applying.add(event, span)
        return applying

    async def stop(self) -> None:
        """Send what is left; whoever waits no longer loses it."""
        # A daemon: neither the event loop nor the end of the process waits for a collector that does not answer.
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        while thread.is_alive():  # noqa: ASYNC110  (a thread has no event for it)
            await asyncio.sleep(0.02)


class Applying:
    """The spans of one transaction, which link to the first of them. Never ended, and so never sent, if it fails."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._spans: list[tuple[AnyEvent, Span]] = []

    def add(self, event: "AnyEvent", span: "Span") -> None:
        """Trace `event` by `span`."""
        event.traceparent = traceparent_of(span)
        if self._spans:
            span.add_link(self._spans[0][1].get_span_context())
        self._spans.append((event, span))

    def end(self, size: int, applied: "Iterable[AnyEvent]", refused: "Mapping[int, Exception]") -> None:
        """After the commit of `size` events: which were `applied`, and by their id() which were refused, and why; all
        others were repeats."""
        if not self._spans:
            return
        new = {id(event) for event in applied}
        at = time.time_ns()
        for event, span in self._spans:
            error = refused.get(id(event))
            outcome = "applied" if id(event) in new else "repeat"
            if error is not None:
                outcome = "dead_letter"
                self._tracer.fail(span, type(error).__name__)
            span.set_attribute("superfan.outcome", outcome)
            span.set_attribute("messaging.batch.message_count", size)
            span.end(at)


class _Complaints(logging.Handler):
    """What the SDK complains about, a line a minute: with a dead collector there would be one every few seconds."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + COMPLAINT_SECONDS
            log.warning("a problem with traces", reason=record.getMessage()[:300])


def _make_provider(service: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {"service.name": f"superfan-{service}", **OTELResourceDetector().detect().attributes}
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


tracer: Tracer | None = None
"""None while nobody wants spans."""
