"""How long a batch's messages stay away: while a function works on them, and how soon they are back when it has died.

On a virtual clock, with a queue that hides what it hands over for 16 minutes, as a function's does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from detent_infra.memory import MemoryQueue
from detent_infra.ports import Received, Timing
from detent_infra.redelivery import keep_hidden
from detent_infra.virtual_time import VirtualLoop
from detent_state_machine.errors import Unavailable

TIMING = Timing()
OF_THE_QUEUE = 960.0


class Queue(MemoryQueue):
    """Refuses some changes of visibility, by their numbers from 1."""

    def __init__(self, refused: Sequence[int] = ()) -> None:
        super().__init__(lambda: round(asyncio.get_running_loop().time() * 1000))
        self.asked: list[list[str]] = []
        self._refused = refused

    async def extend_many(self, receipts: Sequence[str], visibility: float) -> None:
        self.asked.append(list(receipts))
        if len(self.asked) in self._refused:
            raise Unavailable("Throttled.")
        await super().extend_many(receipts, visibility)


def scenario(act: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await act()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


async def received(queue: Queue) -> list[Received]:
    await queue.send(["a", "b"])
    return await queue.receive(10, wait=0, visibility=OF_THE_QUEUE)


async def works(queue: Queue, seconds: float, batch: list[Received]) -> None:
    """A function that dies after so many seconds."""
    hiding = asyncio.create_task(keep_hidden(queue, lambda: [message.receipt for message in batch], TIMING))
    await asyncio.sleep(seconds)
    hiding.cancel()
    await asyncio.gather(hiding, return_exceptions=True)


@pytest.mark.parametrize("seconds", [0.3, 0.9, 10.1, 29.0, 45.0])
def test_a_function_that_dies_later_than_a_short_batch_ends_is_missed_within_a_visibility(seconds: float) -> None:
    async def act() -> None:
        queue = Queue()
        await works(queue, seconds, await received(queue))
        died = asyncio.get_running_loop().time()
        again = await queue.receive(10, wait=OF_THE_QUEUE, visibility=1)
        assert [message.count for message in again] == [2, 2]
        assert asyncio.get_running_loop().time() - died <= TIMING.visibility

    scenario(act)


def test_a_short_batch_asks_for_nothing() -> None:
    async def act() -> None:
        queue = Queue()
        await works(queue, TIMING.short_batch - 0.01, await received(queue))
        assert queue.asked == []

    scenario(act)


@pytest.mark.parametrize("refused", [(), (1,), (2, 3), (5, 6, 8, 9)])
def test_a_batch_that_is_at_work_for_longer_is_delivered_once_though_some_requests_fail(refused: Sequence[int]) -> None:
    async def act() -> None:
        queue = Queue(refused)
        working = asyncio.create_task(works(queue, 890.0, await received(queue)))
        assert await queue.receive(10, wait=889.0, visibility=1) == []
        await working

    scenario(act)


def test_a_message_that_is_done_with_is_not_asked_for_again() -> None:
    async def act() -> None:
        queue = Queue()
        batch = await received(queue)
        working = asyncio.create_task(works(queue, 15.0, batch))
        await asyncio.sleep(5.0)
        done = batch.pop()
        await queue.delete(done.receipt)
        await working
        assert [len(receipts) for receipts in queue.asked] == [2, 1]

    scenario(act)
