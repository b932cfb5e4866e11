"""Runs async code for synchronous callers: one event loop in one daemon thread per process.

Every blocking call of the SDK is its async twin, run here, so there is one body for both.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner = 0


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """The coroutine's result. Interrupting the caller (Ctrl-C) cancels the work."""
    future = asyncio.run_coroutine_threadsafe(work, _running_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _owner
    with _lock:
        if _loop is None or _owner != os.getpid():  # A forked child has the object but not the thread.
            _loop, _owner = asyncio.new_event_loop(), os.getpid()
            thread = threading.Thread(target=_loop.run_forever, name="detent-portal", daemon=True)
            contextvars.Context().run(thread.start)  # it serves everybody, and belongs to no body that came first
        return _loop
