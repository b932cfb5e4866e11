"""Claims and commits that the backend does not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import Unavailable

from detent_infra.durations import duration

log = logging.getLogger("detent")

_T = TypeVar("_T")

TRIES = 5
PAUSES = Backoff(first=0.1, longest=3.0, factor=3.0)
"""Between the tries; in sum within every lease."""


async def retry_unanswered(act: Callable[[], Awaitable[_T]], jitter: Callable[[], float]) -> _T:
    """Repeats a claim or a commit that the backend did not answer, while the lease lasts.

    Giving up would throw an attempt away though its owner lives: an at_most_once body would never have run, or its
    result be lost. If an earlier try was applied after all, the next is refused, and `settle.is_mine` knows it.
    """
    for tries in range(1, TRIES):
        try:
            return await act()
        except Unavailable as error:
            pause = PAUSES.spread(tries, jitter())
            log.warning("tried again in %s: %s", duration(round(pause * 1000)), error)
            await asyncio.sleep(pause)
    return await act()
