"""python -m tests.chaos.sabotaged KIND services.profile all: a service with one of its promises broken on purpose.

The only way in: what it breaks, it replaces in its own process before the service starts. Each pause stands for work
that takes its time, so that a fault is likely to fall into the gap that the broken promise leaves open.
"""

import asyncio
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any

PAUSE = 0.3


def auto_commit() -> None:
    """The position moves on before the effects are committed, in a transaction of its own and wherever it stood."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession

    from libs.common.consumer import offsets

    async def advance(session: AsyncSession, cluster_id: str, batches: Sequence[Any]) -> list[Any]:
        async with AsyncSession(session.bind) as own, own.begin():
            for batch in batches:
                await own.execute(
                    text(
                        "update consumer_offset set next_offset = :next"
                        " where cluster_id = :cluster and topic = :topic and partition = :partition"
                    ),
                    {
                        "next": batch.next_offset,
                        "cluster": cluster_id,
                        "topic": batch.topic,
                        "partition": batch.partition,
                    },
                )
        await asyncio.sleep(PAUSE)
        return []

    offsets.advance = advance


def no_identity() -> None:
    """Every copy of an event counts as new."""
    from libs.common import inbox

    insert_new = inbox.insert_new

    async def insert_all(session: Any, events: Sequence[Any], keep: Any) -> inbox.Arrived:
        await insert_new(session, events, keep)
        return inbox.Arrived(list(events), 0, 0)

    inbox.insert_new = insert_all


def early_answer() -> None:
    """ingest answers before what it takes into the spool has been written, let alone synced."""
    from services.ingest.spool import Spool

    append = Spool.append
    writing = set()

    async def append_later(self: Spool, records: Sequence[Any]) -> None:
        async def write() -> None:
            await asyncio.sleep(PAUSE)
            await append(self, records)

        task = asyncio.create_task(write())
        writing.add(task)
        task.add_done_callback(writing.discard)

    Spool.append = append_later  # type: ignore[method-assign]


def early_publish() -> None:
    """Derived events go to Kafka before the transaction that they tell of is committed, not through the outbox."""
    from libs.common import outbox
    from libs.common.kafka import Producer, Record

    producers: list[Producer] = []

    async def publish(_session: Any, events: Sequence[Any]) -> None:
        if not events:
            return
        if not producers:
            producers.append(Producer(os.environ["SUPERFAN_KAFKA"], "sabotage"))
            await producers[0].start()
        waiting = [Record(event.topic, event.key, event.to_json()) for event in events]
        while waiting:
            outcomes = await producers[0].send(waiting, 5)
            waiting = [record for record, error in zip(waiting, outcomes, strict=True) if error is not None]
        await asyncio.sleep(PAUSE)

    outbox.add = publish  # type: ignore[assignment]


KINDS: dict[str, Callable[[], None]] = {
    "auto-commit": auto_commit,
    "no-identity": no_identity,
    "early-answer": early_answer,
    "early-publish": early_publish,
}


def main() -> None:
    kind, module, *arguments = sys.argv[1:]
    # First of all: what is imported below may look at them.
    sys.argv = [module, *arguments]
    KINDS[kind]()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
