"""A backend that does not answer: calls that are repeated, and one warning about all of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import Unavailable

from detent_infra.durations import duration

log = logging.getLogger("detent")

_T = TypeVar("_T")

TRIES = 5
PAUSES = Backoff(first=0.1, longest=3.0, factor=3.0)
"""Between the tries; in sum within every lease."""


QUIET = 30.0
"""Seconds between two warnings, however often a backend comes and goes."""


class Outage:
    """Tells once that the backend does not answer, and once that it does again, however many calls that concerns.

    Whoever repeats a call is `waiting`; the outage is over when something is answered and nobody waits any more.
    """

    def __init__(self) -> None:
        self._unanswered = 0
        self._lost_lines = 0
        self._waiting = 0
        self._since = 0.0
        self._told: float | None = None
        """When the last warning was written."""
        self._open = False
        """Whether this outage was told, and its end is to be told."""

    def met(self, error: Unavailable, *, lost_lines: int = 0) -> None:
        """A call was not answered. `lost_lines` of a run's log were lost with it."""
        import asyncio  # here, for it costs a page of help 80 ms

        now = asyncio.get_running_loop().time()
        if not self._unanswered:
            self._since = now
        self._unanswered += 1
        self._lost_lines += lost_lines
        if not self._open and (self._told is None or now - self._told >= QUIET):
            self._open, self._told = True, now
            log.warning("the backend does not answer; calls are repeated until it does: %s", error)

    @contextmanager
    def waiting(self) -> Generator[None]:
        """While it is open, a call is repeated."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def answered(self) -> None:
        """A call was answered."""
        if not self._unanswered or self._waiting:
            return
        if self._open:
            import asyncio  # here, for it costs a page of help 80 ms

            now = asyncio.get_running_loop().time()
            lost = f"; {self._lost_lines:,} lines of runs' logs are lost" if self._lost_lines else ""
            self._told = now
            after = duration(round((now - self._since) * 1000))
            log.warning("the backend answers again after %s: %d calls were unanswered%s", after, self._unanswered, lost)
        self._unanswered = self._lost_lines = 0
        self._open = False


async def retry_unanswered(act: Callable[[], Awaitable[_T]], jitter: Callable[[], float], outage: Outage) -> _T:
    """Repeats a claim or a commit that the backend did not answer, while the lease lasts.

    Giving up would throw an attempt away though its owner lives: an at_most_once body would never have run, or its
    result be lost. If an earlier try was applied after all, the next is refused, and `settle.is_mine` knows it.
    """
    try:
        return await act()
    except Unavailable as error:
        outage.met(error)
    import asyncio  # here, for it costs a page of help 80 ms

    with outage.waiting():
        for tries in range(1, TRIES - 1):
            await asyncio.sleep(PAUSES.spread(tries, jitter()))
            try:
                return await act()
            except Unavailable as error:
                outage.met(error)
        await asyncio.sleep(PAUSES.spread(TRIES - 1, jitter()))
        return await act()
