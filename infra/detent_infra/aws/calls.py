"""One blocking boto3 call: on a thread of the backend's own pool, tried again where that is safe, errors translated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import Unavailable

from detent_infra import forks
from detent_infra.aws.errors import VENDOR_ERRORS, Contended, translate

T = TypeVar("T")

ATTEMPTS = 6
"""Tries of a contended write."""
PAUSES = Backoff(first=0.025, longest=0.8)
"""They add up to about a second at most, well inside a lease."""


class Pool(forks.Forkable):
    """So many threads, made as they are needed; a child of a fork makes its own."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads, self._name = threads, name
        self._executor = ThreadPoolExecutor(threads, name)
        forks.follow_forks(self)

    def submit(self, function: Callable[[Callable[[], T]], T], call: Callable[[], T]) -> Future[T]:
        forks.notice()
        return self._executor.submit(function, call)

    def close(self) -> None:
        """Starts nothing more, and does not wait."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def in_child(self) -> None:
        forks.abandon(self._executor)  # its threads stayed with the parent
        self._executor = ThreadPoolExecutor(self._threads, self._name)


class Calls:
    """Calls about one resource, named in words for error messages. Usable from any event loop and any thread."""

    def __init__(self, pool: Pool, resource: str) -> None:
        self._pool = pool
        self._resource = resource

    async def __call__(self, call: Callable[[], T]) -> T:
        """Runs the call and returns its answer.

        botocore has tried again after throttling and lost connections. Only contention is left to do here: botocore
        does not know that a cancelled transaction wrote nothing.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                return await asyncio.wrap_future(self.submit(call))
            except Contended:
                await pause(attempt)
        return await asyncio.wrap_future(self.submit(call))

    def submit(self, call: Callable[[], T]) -> Future[T]:
        try:
            return self._pool.submit(self.now, call)
        except RuntimeError:
            raise Unavailable("The backend is closed.", advice="Connect again.") from None

    def now(self, call: Callable[[], T]) -> T:
        """Runs the call on this thread."""
        try:
            return call()
        except VENDOR_ERRORS as error:
            translated = translate(error, self._resource)
            # What AWS says about a refused credential may repeat it, so it must not ride along as the cause.
            raise translated from (error if isinstance(translated, Unavailable) else None)


async def pause(attempt: int) -> None:
    """Sleeps before another try."""
    await asyncio.sleep(PAUSES.spread(attempt, random.random()))  # noqa: S311  # spreads load, hides nothing
