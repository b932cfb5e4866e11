"""Threads for synchronous bodies.

Unlike `concurrent.futures`, a body that never returns keeps neither other bodies from running nor the process from
ending: threads are daemons, and there is always one more.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import queue
import threading
from collections.abc import Callable
from typing import TypeVar, cast

from detent_infra import forks

log = logging.getLogger("detent")

_T = TypeVar("_T")
_Ended = tuple[object, BaseException | None]
_Work = tuple[asyncio.AbstractEventLoop, asyncio.Future[_Ended], Callable[[], object], contextvars.Context]


class _Idle(forks.Forkable):
    """Threads that wait for the next body, by their inboxes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inboxes: list[queue.SimpleQueue[_Work]] = []

    def take(self) -> queue.SimpleQueue[_Work] | None:
        with self._lock:
            return self.inboxes.pop() if self.inboxes else None

    def give(self, inbox: queue.SimpleQueue[_Work]) -> None:
        with self._lock:
            self.inboxes.append(inbox)

    def in_child(self) -> None:
        forks.abandon(self.inboxes)  # their threads stayed with the parent
        self._lock, self.inboxes = threading.Lock(), []


_idle = _Idle()
forks.follow_forks(_idle)


async def run(function: Callable[[], _T]) -> _T:
    """The function's result, computed in a thread with the caller's context variables.

    When cancelled, the thread runs on, and its result is dropped. At most as many threads live as ever ran at once.
    """
    forks.notice()
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Ended] = loop.create_future()
    inbox = _idle.take()
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
    born = forks.generation()
    while True:
        loop, future, function, context = inbox.get()
        result: object = None
        error: BaseException | None = None
        try:
            result = context.run(function)
        except BaseException as raised:  # noqa: BLE001 - whatever a body raises belongs to whoever waits for it
            error = raised
        if forks.generation() != born:
            log.error("a body forked, and its child returned or raised (%r): the child ends here", error)
            return  # what the body returns is its parent's to say
        _idle.give(inbox)  # before anybody knows the result: whoever waits for it may run the next body here
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(_settle, future, (result, error))
        del loop, future, function, context, result, error


def _settle(future: asyncio.Future[_Ended], ended: _Ended) -> None:
    # As a result, not as an exception: nothing is asked of an error here, whose own code may raise.
    if not future.done():
        future.set_result(ended)
