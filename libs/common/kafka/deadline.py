"""A deadline that holds even for calls that swallow their cancellation, as aiokafka's do while a broker is away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    """The result of `call`, or TimeoutError after `seconds`: then it is cancelled, but not waited for.

    `asyncio.wait_for` waits until the cancelled call has ended, which may be never. A call that ends in a cancellation
    of its own is a TimeoutError too: passed on as it is, it would end the caller's task without a word.
    """
    task = asyncio.ensure_future(call)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise TimeoutError(f"no end after {seconds:g} s")
    if task.cancelled():
        raise TimeoutError("the call was cancelled from within")
    return task.result()


def _abandon(task: asyncio.Task[Any]) -> None:
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    task.cancel()
