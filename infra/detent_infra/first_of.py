"""Waits for the first of two futures, or for a time of the event loop."""

from __future__ import annotations

import asyncio
from typing import Any


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
