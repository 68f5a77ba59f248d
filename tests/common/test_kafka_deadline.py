"""A deadline that holds for calls that ignore, or bring about, their own cancellation."""

import asyncio

import pytest

from libs.common.kafka.deadline import within


async def stubborn() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if stubborn_may_end.is_set():
                raise


stubborn_may_end = asyncio.Event()


async def test_a_result_and_an_error_are_passed_on() -> None:
    async def answer() -> int:
        return 7

    async def fail() -> None:
        raise KeyError("x")

    assert await within(1, answer()) == 7
    with pytest.raises(KeyError):
        await within(1, fail())


async def test_a_call_that_swallows_its_cancellation_is_left_behind() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(within(0.05, stubborn()), 5)
    stubborn_may_end.set()
    for task in asyncio.all_tasks():
        if task.get_coro().__name__ == "stubborn":  # type: ignore[union-attr]
            task.cancel()


async def test_a_call_that_is_cancelled_from_within_does_not_cancel_the_caller() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(TimeoutError):
        await within(5, give_up())


async def test_cancelling_the_caller_cancels_the_call() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def call() -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    caller = asyncio.create_task(within(60, call()))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.wait_for(ended.wait(), 5)
