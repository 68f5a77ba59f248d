"""Waiting for something that comes in its own time."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Raises TimeoutError after so long a time that something must hang."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
