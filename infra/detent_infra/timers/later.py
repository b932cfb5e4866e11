"""Sends messages for a time to come, through the queue, or through the timer table if that time is too far away."""

from __future__ import annotations

from collections.abc import Sequence

from detent_state_machine import keys, timer_table
from detent_state_machine.decisions import Send
from detent_state_machine.messages import Drive, encode

from detent_infra.ports import EMBEDDED_DELAY, Backend, Conflict, MessageQueue


def needs_ticks(queue: MessageQueue) -> bool:
    """Whether the queue's longest delay is so short that the timer table, and so a tick, must hold the messages.

    One that delays for a year holds them itself. What is due later than that comes early, and is sent on.
    """
    return queue.max_delay < EMBEDDED_DELAY


async def send(backend: Backend, run_id: str, sends: Sequence[Send]) -> None:
    """Sends messages that have one delay; returns when each message, or its timer, is stored.

    One that arrives before its time is sent on: a claim refuses what is not due.
    """
    if not sends:
        return
    queue = backend.queue
    delay = sends[0].delay
    if delay > queue.max_delay and needs_ticks(queue):
        sends = await _put_timers(backend, run_id, sends)
    if sends:
        bodies = [encode(Drive(run_id, each.path, each.fresh, each.fact)) for each in sends]
        await queue.send(bodies, delay=min(delay, queue.max_delay))


async def _put_timers(backend: Backend, run_id: str, sends: Sequence[Send]) -> list[Send]:
    """Puts the timers, and returns what must be sent all the same: what ticks may have passed already."""
    now = backend.clock()
    dues = [now + int(each.delay * 1000) if each.at is None else each.at for each in sends]
    for each, due in zip(sends, dues, strict=True):
        await backend.table.write(timer_table.put(Drive(run_id, each.path, fact=each.fact), due))
    opened = await _opened(backend)  # read after the timers were put: see `timer_table`
    return [each for each, due in zip(sends, dues, strict=True) if timer_table.bucket_of(due) <= opened]


async def _opened(backend: Backend) -> int:
    """The last bucket that ticks have opened. Ticks begin now, if nobody has put a timer before."""
    item = await backend.table.get(keys.TIMERS)
    if item is None:
        first = timer_table.begin(backend.clock())
        try:
            item = await backend.table.write(first)
        except Conflict as conflict:
            item = conflict.item
        item = item or first.set
    return timer_table.cursor_of(item).opened
