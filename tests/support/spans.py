"""Tracing within a test: spans are kept instead of sent."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler

from libs.common import tracing
from libs.common.tracing import Tracer


def make_tracer(exporter: InMemorySpanExporter, sampler: Sampler = DEFAULT_ON) -> Tracer:
    """A tracer of the service `test` that samples as the SDK does by default."""
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracer("test", provider)


@contextmanager
def spans_kept() -> Iterator[InMemorySpanExporter]:
    """This process traces within the block."""
    exporter = InMemorySpanExporter()
    tracing.tracer = make_tracer(exporter)
    try:
        yield exporter
    finally:
        tracing.tracer = None
