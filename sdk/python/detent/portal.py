"""Runs async code for synchronous callers: one event loop in one daemon thread per process.

Every blocking call of the SDK is its async twin, run here, so there is one body for both.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar, cast

from detent_infra import event_loop, forks
from detent_state_machine.errors import InputError

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """The coroutine's result. Interrupting the caller (Ctrl-C) cancels the work.

    Raises `InputError` on the loop's own thread, which would wait for itself.
    """
    loop = _portal.loop()
    if asyncio._get_running_loop() is loop:
        work.close()
        raise InputError(
            "A blocking call was made by what another one runs: it would wait for itself.",
            advice="Make it before, and hand over what it gives.",
        )
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def check_no_loop(call: str, instead: str) -> None:
    """Raises `InputError` for a call that waits for a run where an event loop runs: the run may need that very loop."""
    if asyncio._get_running_loop() is not None:
        raise InputError(
            f"`{call}` waits for a run, and would meanwhile stop the event loop that runs here. The run may need it.",
            advice=f"Write `await {instead}`.",
        )


async def next_of(items: AsyncIterator[_T]) -> _T | None:
    """The next item; None at the end."""
    return await anext(items, None)


async def close_of(items: AsyncIterator[_T]) -> None:
    """Ends the iterator, wherever it is."""
    async with aclosing(cast("Any", items)):
        pass


class _Portal(forks.Forkable):
    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def loop(self) -> asyncio.AbstractEventLoop:
        forks.notice()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=event_loop.forever, args=(self._loop,), name="detent-portal", daemon=True
                )
                contextvars.Context().run(thread.start)  # it serves everybody, and belongs to no body that came first
            return self._loop

    def in_child(self) -> None:
        forks.abandon(self._loop)  # its thread stayed with the parent
        self._lock, self._loop = threading.Lock(), None


_portal = _Portal()
forks.follow_forks(_portal)
