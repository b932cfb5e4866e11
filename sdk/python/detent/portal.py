"""Runs async code for synchronous callers: one event loop in one daemon thread per process.

Every blocking call of the SDK is its async twin, run here, so there is one body for both.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from detent_infra import forks

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """The coroutine's result. Interrupting the caller (Ctrl-C) cancels the work."""
    future = asyncio.run_coroutine_threadsafe(work, _portal.loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class _Portal(forks.Forkable):
    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def loop(self) -> asyncio.AbstractEventLoop:
        forks.notice()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._loop.run_forever, name="detent-portal", daemon=True)
                contextvars.Context().run(thread.start)  # it serves everybody, and belongs to no body that came first
            return self._loop

    def in_child(self) -> None:
        forks.abandon(self._loop)  # its thread stayed with the parent
        self._lock, self._loop = threading.Lock(), None


_portal = _Portal()
forks.follow_forks(_portal)
