"""Threads that a body starts, and jobs that it gives to a pool, belong to its attempt, as its tasks do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from detent_infra.executor import running

_start = threading.Thread.start
_submit = ThreadPoolExecutor.submit
_open: list[None] = []


@contextmanager
def owned_by_bodies() -> Generator[None]:
    """While it is open, `running` is the same in a body, in its threads, and in what it submits to a thread pool.

    Python hands context variables to tasks only. A pool's thread serves whoever comes next, so the job is marked there,
    and not the thread.
    """
    _open.append(None)
    threading.Thread.start = _start_owned  # type: ignore[method-assign,assignment]
    ThreadPoolExecutor.submit = _submit_owned  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        _open.pop()
        if not _open:
            threading.Thread.start = _start  # type: ignore[method-assign]
            ThreadPoolExecutor.submit = _submit  # type: ignore[method-assign]


def _start_owned(thread: threading.Thread) -> None:
    attempt = running.get()
    if attempt is not None:
        run = thread.run

        def run_of_body() -> None:
            del thread.run  # the class's own shows through again
            running.set(attempt)
            run()

        thread.run = run_of_body  # type: ignore[method-assign]
    _start(thread)


def _submit_owned(pool: ThreadPoolExecutor, job: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
    attempt = running.get()
    if attempt is None:
        return _submit(pool, job, *given, **named)

    def job_of_body(*given: Any, **named: Any) -> Any:
        before = running.set(attempt)
        try:
            return job(*given, **named)
        finally:
            running.reset(before)

    before = running.set(None)  # a thread that the pool starts for it serves others later
    try:
        return _submit(pool, job_of_body, *given, **named)
    finally:
        running.reset(before)
