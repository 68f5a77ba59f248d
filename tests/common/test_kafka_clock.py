"""How far Kafka's clock is from ours, told by every acknowledgement."""

import time
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from libs.common.kafka import Producer, Record
from libs.common.kafka.lanes import outside
from tests.support.kafka import TestBroker


@pytest.mark.parametrize(
    ("instant", "offset"), [(10.5, 0), (10.0, 0), (11.0, 0), (9.9995, 0), (12.5, 1.5), (8.0, -1.999), (0.0, -9.999)]
)
def test_an_append_between_sending_and_acknowledgement_shows_no_offset(instant: float, offset: float) -> None:
    assert outside(instant, 10.0, 11.0) == pytest.approx(offset)


async def test_a_broker_whose_clock_is_behind_is_seen(kafka: TestBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    producer = Producer(kafka.bootstrap, "superfan-clocked")
    await producer.start()

    async def offset() -> float | None:
        assert await producer.send([Record("superfan.rejected", b"k", b"{}")], 10) == [None]
        return REGISTRY.get_sample_value("superfan_kafka_clock_offset_seconds", {"service": "clocked"})

    try:
        assert await offset() == 0
        for ahead in (3600, -3600):
            moved = SimpleNamespace(time=lambda ahead=ahead: time.time() + ahead)
            monkeypatch.setattr("libs.common.kafka.lanes.time", moved)
            assert await offset() == pytest.approx(-ahead, abs=60)
    finally:
        await producer.stop()
