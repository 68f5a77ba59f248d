"""Spans: off unless wanted, one for a request and for each sampled event of a transaction, nothing personal in them."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON
from structlog.testing import capture_logs

from libs.common import tracing
from libs.common.dead_letters.store import trace_id_in
from libs.common.events import AnyEvent, new_event
from libs.common.telemetry import current_traceparent, valid_traceparent
from libs.common.tracing import Tracer, is_sampled, traceparent_of
from tests.support.folding import NOW, FakeMessage
from tests.support.spans import make_tracer, spans_kept
from tests.support.web import client, make_app

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = SAMPLED[:-2] + "00"


@pytest.fixture
def sent() -> Iterator[InMemorySpanExporter]:
    with spans_kept() as exporter:
        yield exporter


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def follow(id: str, traceparent: str | None) -> AnyEvent:  # noqa: A002
    return new_event(
        "follow",
        id=id,
        account="demo",
        source="/t",
        subject="douyin:ou_secret",
        time=NOW,
        received=NOW,
        data={},
        traceparent=traceparent,
    )


def records(*events: AnyEvent) -> list[tuple[FakeMessage, AnyEvent]]:
    return [(FakeMessage("superfan.follows", 3, 40 + n, event.to_json()), event) for n, event in enumerate(events)]


def test_the_last_character_tells_whether_a_trace_is_recorded() -> None:
    assert is_sampled(SAMPLED)
    assert is_sampled(SAMPLED[:-2] + "03")  # sampled, and its id is random
    assert not is_sampled(UNSAMPLED)
    assert not is_sampled(SAMPLED[:-2] + "02")
    assert not is_sampled(None)
    assert not is_sampled("")


def test_a_span_continues_its_caller_and_begins_a_trace_without_one(sent: InMemorySpanExporter) -> None:
    assert tracing.tracer is not None
    for given in (SAMPLED, UNSAMPLED, None, "rubbish", "00-1-2-03"):
        with tracing.tracer.span("work", "producer", given, {}) as span:
            own = traceparent_of(span)
        assert valid_traceparent(own) == own
        assert (TRACE in own) == (given in (SAMPLED, UNSAMPLED))
        assert is_sampled(own) == (given != UNSAMPLED)
    first, *others = sent.get_finished_spans()
    assert first.parent is not None
    assert first.parent.span_id == 0x00F067AA0BA902B7
    assert [span.parent for span in others] == [None] * 3


def test_an_error_marks_the_span_by_its_name_alone(sent: InMemorySpanExporter) -> None:
    assert tracing.tracer is not None
    with pytest.raises(ValueError, match="secret"), tracing.tracer.span("work", "client", None, {}):
        raise ValueError("secret")
    [span] = sent.get_finished_spans()
    assert attributes(span) == {"error.type": "ValueError"}
    assert not span.status.is_ok
    assert "secret" not in span.to_json()


def test_each_sampled_event_of_a_transaction_has_a_span_and_hands_it_on(sent: InMemorySpanExporter) -> None:
    assert tracing.tracer is not None
    new, repeat, bad = (follow(name, SAMPLED) for name in ("new", "repeat", "bad"))
    others = [follow("unsampled", UNSAMPLED), follow("none", None), follow("odd", "nonsense-1")]
    applying = tracing.tracer.begin_events(records(new, repeat, bad, *others))
    assert sent.get_finished_spans() == ()
    assert new.traceparent not in (None, SAMPLED)
    assert [event.traceparent for event in others] == [UNSAMPLED, None, "nonsense-1"]
    applying.end(6, [new, *others], {id(bad): ValueError("douyin:ou_secret")})
    spans = sent.get_finished_spans()
    by_outcome = {attributes(span)["superfan.outcome"]: span for span in spans if TRACE in span.to_json()}
    assert set(by_outcome) == {"applied", "repeat", "dead_letter"}
    first = by_outcome["applied"]
    assert first.name == "apply follow"
    assert attributes(first) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": "superfan.follows",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 40,
        "messaging.batch.message_count": 6,
        "superfan.event.type": "follow",
        "superfan.service": "test",
        "superfan.outcome": "applied",
    }
    assert first.get_span_context() is not None
    assert traceparent_of(first) == new.traceparent  # type: ignore[arg-type]
    assert not first.links
    for outcome in ("repeat", "dead_letter"):
        assert [link.context.span_id for link in by_outcome[outcome].links] == [first.get_span_context().span_id]  # type: ignore[union-attr]
    assert not by_outcome["dead_letter"].status.is_ok
    assert not any("secret" in span.to_json() for span in spans)


def test_a_transaction_that_fails_leaves_no_span(sent: InMemorySpanExporter) -> None:
    assert tracing.tracer is not None
    tracing.tracer.begin_events(records(follow("a", SAMPLED)))
    assert sent.get_finished_spans() == ()


def test_without_sampling_events_stay_as_they_were() -> None:
    exporter = InMemorySpanExporter()
    event = follow("a", SAMPLED)
    make_tracer(exporter, ALWAYS_OFF).begin_events(records(event)).end(1, [event], {})
    assert event.traceparent == SAMPLED
    assert exporter.get_finished_spans() == ()


router = APIRouter()


@router.get("/v1/users/{ref}")
async def get_user(ref: str) -> str | None:
    if ref == "bug":
        raise RuntimeError(ref)
    return current_traceparent()


async def test_a_request_is_named_by_its_route(sent: InMemorySpanExporter, tmp_path: Path) -> None:
    async with client(make_app(tmp_path, router)) as api:
        within = (await api.get("/v1/users/ou_secret", headers={"traceparent": SAMPLED, "x-request-id": "r1"})).json()
        await api.get("/v1/users/ou_secret", headers={"traceparent": UNSAMPLED})
        assert (await api.get("/v1/users/bug")).status_code == 500
        assert (await api.get("/v1/ou_secret")).status_code == 404
    good, bug, unknown = sent.get_finished_spans()
    assert traceparent_of(good) == within  # type: ignore[arg-type]
    assert TRACE in within
    assert good.name == "GET /v1/users/{ref}"
    assert attributes(good) == {
        "url.scheme": "http",
        "superfan.request_id": "r1",
        "http.request.method": "GET",
        "http.route": "/v1/users/{ref}",
        "http.response.status_code": 200,
    }
    assert attributes(bug)["error.type"] == "500"
    assert not bug.status.is_ok
    assert (unknown.name, attributes(unknown)["http.response.status_code"]) == ("GET", 404)
    assert not any("secret" in span.to_json() for span in sent.get_finished_spans())


def test_the_trace_of_a_letter_is_read_however_wrong_it_is() -> None:
    assert trace_id_in(b'{"traceparent": "' + SAMPLED.encode() + b'", "type": 7}') == TRACE
    for value in (None, b"", b"{", b"[]", b'{"traceparent": 7}', b'{"traceparent": "00-1"}', b"\xff"):
        assert trace_id_in(value) is None


@pytest.fixture
def own_logger() -> Iterator[None]:
    logger = logging.getLogger("opentelemetry")
    yield
    logger.handlers.clear()
    logger.propagate = True
    tracing.tracer = None


@pytest.mark.usefixtures("own_logger")
async def test_nothing_is_traced_unless_an_endpoint_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.setenv(name, "")
    assert tracing.start("test") == []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.start("test") == []
    assert tracing.tracer is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=7")
    [component] = tracing.start("test")
    started = tracing.tracer
    assert started is not None
    resource = started._provider.resource.attributes
    assert (resource["service.name"], resource["service.version"]) == ("superfan-test", "7")
    assert component.stop is not None
    await component.stop()


async def test_stopping_sends_what_is_left() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=DEFAULT_ON, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=600_000))
    tracer = Tracer("test", provider)
    tracer.begin("work", "server", None, {}).end()
    assert exporter.get_finished_spans() == ()
    await tracer.stop()
    assert [span.name for span in exporter.get_finished_spans()] == ["work"]


@pytest.mark.usefixtures("own_logger")
@pytest.mark.parametrize(
    ("absent", "variables"),
    [("opentelemetry.sdk.trace", {}), (None, {"OTEL_BSP_SCHEDULE_DELAY": "-1"})],
)
def test_what_is_in_the_way_of_traces_is_one_line(
    monkeypatch: pytest.MonkeyPatch, absent: str | None, variables: dict[str, str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if absent:
        monkeypatch.setitem(sys.modules, absent, None)
    with capture_logs() as logs:
        assert tracing.start("test") == []
    assert tracing.tracer is None
    [entry] = logs
    assert entry["log_level"] == "warning"
    assert "no spans are sent" in entry["event"]


@pytest.mark.usefixtures("own_logger")
def test_the_sdk_complains_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    handler = tracing._Complaints()
    record = logging.makeLogRecord({"msg": "lost %s", "args": ("it",), "levelno": logging.WARNING})
    with capture_logs() as logs:
        for now in (1000.0, 1030.0, 1059.0, 1061.0):  # noqa: B007  read by the clock above
            handler.handle(record)
    assert [entry["reason"] for entry in logs] == ["lost it"] * 2


def test_the_sdk_is_not_imported_by_a_service_that_does_not_trace() -> None:
    code = (
        "import sys, services.ingest.main, services.profile.main; from libs.common import tracing;"
        "assert tracing.start('x') == [];"
        "print(*(name for name in sys.modules if name.startswith('opentelemetry.sdk')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")
