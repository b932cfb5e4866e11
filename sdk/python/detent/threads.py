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
from typing import TypeVar, cast

_T = TypeVar("_T")
_Ended = tuple[object, BaseException | None]
_Work = tuple[asyncio.AbstractEventLoop, asyncio.Future[_Ended], Callable[[], object], contextvars.Context]

_idle: list[queue.SimpleQueue[_Work]] = []
_lock = threading.Lock()


async def run(function: Callable[[], _T]) -> _T:
    """The function's result, computed in a thread with the caller's context variables.

    When cancelled, the thread runs on, and its result is dropped. At most as many threads live as ever ran at once.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Ended] = loop.create_future()
    with _lock:
        inbox = _idle.pop() if _idle else None
    if inbox is None:
        inbox = queue.SimpleQueue[_Work]()
        thread = threading.Thread(target=_serve, args=(inbox,), name="detent-body", daemon=True)
        contextvars.Context().run(thread.start)  # it serves many bodies, and belongs to none
    inbox.put((loop, future, function, contextvars.copy_context()))
    result, error = await future
    if error is not None:
        raise error  # a StopIteration becomes a RuntimeError here, as Python has it of every coroutine
    return cast("_T", result)


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
            loop.call_soon_threadsafe(_settle, future, (result, error))
        del loop, future, function, context, result, error


def _settle(future: asyncio.Future[_Ended], ended: _Ended) -> None:
    # As a result, not as an exception: nothing is asked of an error here, whose own code may raise.
    if not future.done():
        future.set_result(ended)
