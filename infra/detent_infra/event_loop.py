"""The event loop of a process that runs bodies: as `asyncio.run`, but no body ends it, or holds up its end.

A task that a body started and that calls `sys.exit` ends asyncio's loop, and with it every other body. And the end of
`asyncio.run`, like that of the process, waits for ever for tasks that swallow their cancellation and for threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Any, TypeVar

log = logging.getLogger("detent")

_T = TypeVar("_T")

MOMENT = 1.0
"""Seconds that an end waits for tasks that were cancelled, and for threads."""

_abandoned: list[asyncio.Task[Any]] = []
"""Tasks that did not end. Kept, for Python runs their code again when they are dropped."""


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """The coroutine's result. Ctrl-C cancels it, a second one ends it at once with `KeyboardInterrupt`."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        task = loop.create_task(work)
        with listening(loop, task.cancel) as interrupts:
            try:
                return drive(loop, task, lambda: len(interrupts) > 1)
            except asyncio.CancelledError:
                if interrupts:
                    raise KeyboardInterrupt from None
                raise
    finally:
        try:
            close(loop)
        finally:
            asyncio.set_event_loop(None)


def drive(loop: asyncio.AbstractEventLoop, task: asyncio.Task[_T], interrupted: Callable[[], bool] = bool) -> _T:
    """Runs the loop until the task has ended, whatever other tasks and callbacks raise; returns its result.

    asyncio lets SystemExit and KeyboardInterrupt of any task through, after it has noted them as that task's end.
    """
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done() or interrupted():
                raise
            log.warning("a task or callback beside a step raised %s; it ends nothing but itself", type(error).__name__)


def forever(loop: asyncio.AbstractEventLoop) -> None:
    """Runs the loop until it is stopped, whatever its tasks raise: each is the end of that task alone."""
    while True:
        try:
            return loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue


def close(loop: asyncio.AbstractEventLoop) -> None:
    """Ends what is left on the loop within a moment, and closes it. Says what did not end."""
    end_tasks(loop)
    with contextlib.suppress(TimeoutError):
        drive(loop, loop.create_task(asyncio.wait_for(loop.shutdown_asyncgens(), MOMENT)))
    loop.close()  # which waits for no thread


def end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancels the tasks of the loop, and waits a moment for them. Says which ones did not end."""
    tasks = asyncio.all_tasks(loop).difference(_abandoned)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    drive(loop, loop.create_task(_end(tasks)))
    for task in tasks:
        if not task.done():
            log.warning("left behind: %s, which swallows its cancellation", task.get_coro())
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is said here
            _abandoned.append(task)


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    ended, _ = await asyncio.wait(tasks, timeout=MOMENT)
    for task in ended:
        if not task.cancelled():
            task.exception()  # is nobody's any more


@contextlib.contextmanager
def listening(loop: asyncio.AbstractEventLoop, first: Callable[[], object]) -> Generator[list[int]]:
    """Lets the loop do `first` at the first Ctrl-C, where this thread hears of it, and raises KeyboardInterrupt at
    every other. Gives the list of those that came.
    """
    heard: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1 or loop.is_closed():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(first)

    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield heard
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield heard
    finally:
        if signal.getsignal(signal.SIGINT) in (interrupt, None):
            signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- the end of the process -------------------------------------------------------------------------------------

exit_code = 0
"""Of a process that leaves threads behind: nothing can tell what its main thread ended with."""


@contextlib.contextmanager
def leaving_threads() -> Generator[None]:
    """Lets the process end a moment after its main thread and the threads that there are now.

    Python joins every thread that is not a daemon, those of `asyncio.to_thread` and of thread pools too. Of those that
    began meanwhile, in bodies and in libraries, none holds up the end.
    """
    before = set(threading.enumerate())
    try:
        yield
    finally:
        left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
        if left:
            _end_without(left)


def _end_without(left: list[threading.Thread]) -> None:
    ending = threading.Event()
    importlib.import_module("concurrent.futures.thread")  # registers what joins the threads of pools
    # Python says that it ends in no public way. What is registered last runs first.
    register: Callable[[Callable[[], object]], None] | None = getattr(threading, "_register_atexit", None)
    if register is None:
        return
    threading.Thread(target=_end_process, args=(ending, left), name="detent-end", daemon=True).start()
    with contextlib.suppress(RuntimeError):  # The process is ending already.
        register(ending.set)


def _end_process(ending: threading.Event, left: list[threading.Thread]) -> None:
    ending.wait()
    for thread in threading.enumerate():
        if thread not in left and not thread.daemon and thread is not threading.main_thread():
            thread.join()
    until = time.monotonic() + MOMENT
    for thread in left:
        thread.join(max(0.0, until - time.monotonic()))
    names = [thread.name for thread in left if thread.is_alive()]
    if not names:
        return
    told = [name for name in names if not name.startswith("detent-")]
    with contextlib.suppress(OSError, ValueError):
        if told:
            print(f"detent: left behind: {len(told)} threads of steps: {', '.join(told[:5])}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)


async def first_of(
    body: asyncio.Future[Any], pulse: asyncio.Future[Any] | None, when: float, loop: asyncio.AbstractEventLoop
) -> None:
    """Waits until one of them has ended, at most until this time of the loop.

    `asyncio.wait` without its bookkeeping: every step run comes through here.
    """
    woken = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    timers: list[asyncio.TimerHandle] = []
    # Behind the body's first turn of the loop: most bodies need no more than that, and so no timer.
    loop.call_soon(lambda: None if body.done() or woken.done() else timers.append(loop.call_at(when, wake)))
    futures = (body,) if pulse is None else (body, pulse)
    for future in futures:
        future.add_done_callback(wake)
    try:
        await woken
    finally:
        for timer in timers:
            timer.cancel()
        for future in futures:
            future.remove_done_callback(wake)
