"""Threads for synchronous bodies.

Unlike `concurrent.futures`, a body that never returns keeps neither other bodies from running nor the process from
ending: threads are daemons, and there is always one more.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_Work = tuple[asyncio.AbstractEventLoop, asyncio.Future[object], Callable[[], object], contextvars.Context]

_idle: list[queue.SimpleQueue[_Work]] = []
_lock = threading.Lock()


async def run(function: Callable[[], _T]) -> _T:
    """The function's result, computed in a thread with the caller's context variables.

    When cancelled, the thread runs on, and its result is dropped. At most as many threads live as ever ran at once.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()
    with _lock:
        inbox = _idle.pop() if _idle else None
    if inbox is None:
        inbox = queue.SimpleQueue[_Work]()
        thread = threading.Thread(target=_serve, args=(inbox,), name="detent-body", daemon=True)
        contextvars.Context().run(thread.start)  # it serves many bodies, and belongs to none
    inbox.put((loop, future, function, contextvars.copy_context()))
    return await future  # type: ignore[return-value]  # the future carries what the function returned


def _serve(inbox: queue.SimpleQueue[_Work]) -> None:
    while True:
        loop, future, function, context = inbox.get()
        result: object = None
        error: BaseException | None = None
        try:
            result = context.run(function)
        except BaseException as raised:  # noqa: BLE001 - whatever a body raises belongs to whoever waits for it
            error = raised
        with _lock:
            _idle.append(inbox)  # before anybody knows the result: whoever waits for it may run the next body here
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(_settle, future, result, error)
        del loop, future, function, context, result, error


def _settle(future: asyncio.Future[object], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError(f"the body raised {error!r}"))
    else:
        future.set_exception(error)
