"""The event table read back as events, for folding it again."""

from collections.abc import AsyncIterator, Collection
from typing import Any, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import EVENT_TYPES, AnyEvent

PAGE = 5000


async def read_events(
    session: AsyncSession, types: Collection[str], *, with_data: bool = False
) -> AsyncIterator[list[AnyEvent]]:
    """All events of `types` in the event table, in pages, in no order.

    Columns that are not stored (traceparent, originaltime, dataschema) are absent; so is `data`, unless asked for and
    kept. Other statements may run on the session between two pages.
    """
    found = await session.stream(
        text(
            "select account, source, id, type, subject, platform, time, timemark, received, trust, backfill,"
            f" {'cast(data as text)' if with_data else 'null'} as data"
            " from event where type = any(cast(:types as text[]))"
        ),
        {"types": sorted(types)},
        execution_options={"yield_per": PAGE},
    )
    async for rows in found.partitions(PAGE):
        yield [_event(row) for row in rows]


def _event(row: Any) -> AnyEvent:
    model = EVENT_TYPES[row.type].model
    data: Any = model.model_fields["data"].annotation
    # What is stored was validated when it was applied, and the rest of `data` may be missing: no second validation.
    return cast(
        "AnyEvent",
        model.model_construct(
            account=row.account,
            source=row.source,
            id=row.id,
            type=row.type,
            subject=row.subject,
            platform=row.platform,
            time=row.time,
            timemark=row.timemark,
            receivedtime=row.received,
            trust=row.trust,
            backfill=row.backfill,
            data=data.model_construct() if row.data is None else data.model_validate_json(row.data),
        ),
    )
