"""What ingest is compared with, as a process: `python -m tests.bench.peers PORT KAFKA`.

`/bare` is the route that does nothing. `/plain` and `/plain-batch` are ingest as it is usually written: FastAPI reads
the body into a pydantic model, aiokafka publishes it, 202 after the acknowledgement; no signature, no strict JSON.
"""

import asyncio
import sys
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Response
from pydantic import BaseModel

from libs.common import process

TOPIC = "superfan.interactions"


class PlainEvent(BaseModel):
    """An event as most services would declare it."""

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: dict[str, Any]


def raw_producer(bootstrap: str) -> AIOKafkaProducer:
    """aiokafka with the settings of ingest."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        max_batch_size=262_144,
        linger_ms=0,
        compression_type="lz4",
    )


def make_app(producer: AIOKafkaProducer) -> FastAPI:
    app = FastAPI()

    async def publish(event: PlainEvent) -> "asyncio.Future[Any]":
        value = event.model_dump_json().encode()
        future: asyncio.Future[Any] = await producer.send(TOPIC, value, key=event.subject.encode())
        return future

    @app.post("/bare")
    async def bare() -> Response:
        return Response(status_code=202)

    @app.post("/plain", status_code=202)
    async def plain(event: PlainEvent) -> dict[str, int]:
        await (await publish(event))
        return {"accepted": 1}

    @app.post("/plain-batch", status_code=202)
    async def plain_batch(events: list[PlainEvent]) -> dict[str, int]:
        await asyncio.gather(*[await publish(event) for event in events])
        return {"accepted": len(events)}

    return app


async def _serve(port: int, bootstrap: str) -> int:
    producer = raw_producer(bootstrap)
    return await process.run(
        [
            process.Component("kafka producer", start=producer.start, stop=producer.stop),
            process.serve_http(make_app(producer), "127.0.0.1", port),
        ]
    )


if __name__ == "__main__":
    process.main(_serve(int(sys.argv[1]), sys.argv[2]))
