"""The tick of the timer table: each minute, sends what is due within the next minutes.

Any number of ticks may work at once, and die anywhere: what is written as sent was sent, and the rest is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial

from detent_state_machine import keys, timer_table
from detent_state_machine.writes import UpdateItem

from detent_infra.pages import pages
from detent_infra.ports import Backend, Conflict
from detent_infra.timers.later import needs_ticks

PAGE = 500
"""Timers that are sent before it is written how far a tick has come."""


@dataclass(frozen=True, slots=True)
class TimersSent:
    """How many messages were sent, and whether everything that was due is."""

    sent: int = 0
    complete: bool = True


async def send_due_timers(backend: Backend, *, until: int | None = None) -> TimersSent:
    """Sends what is in the timer table up to five minutes ahead, from where the tick before ended: so it catches up,
    whether that was a minute ago or a month.

    It ends at `until` (milliseconds since the epoch), and the next tick goes on from there. It reads one item more than
    the buckets that it sends, whatever is pending; nothing where the queue delays messages itself.
    """
    if not needs_ticks(backend.queue):
        return TimersSent()
    known = await backend.table.get(keys.TIMERS)
    if known is None:
        return TimersSent()  # Nobody has put a timer yet.
    place = timer_table.cursor_of(known)
    last = timer_table.bucket_of(backend.clock()) + timer_table.AHEAD
    if place.opened < last:
        # Before the first read of a bucket: who puts a timer from now on sees it, and sends the message.
        await _write(backend, timer_table.open_up_to(last))
    sent, at = 0, place.after
    for bucket in range(place.done + 1, last + 1):
        count, stopped = await _send_bucket(backend, bucket, at, until)
        sent += count
        if stopped is not None:
            await _write(backend, timer_table.sent_up_to(bucket, stopped))
            return TimersSent(sent, complete=False)
        at = timer_table.BEGINNING
        if count or bucket == last:
            await _write(backend, timer_table.all_sent(bucket))
    return TimersSent(sent)


async def _send_bucket(
    backend: Backend, bucket: int, after: tuple[int, str], until: int | None
) -> tuple[int, tuple[int, str] | None]:
    """Sends the bucket from there on: how many messages, and where it had to stop (None: that was all)."""
    sent = 0
    for shard in range(after[0], keys.SHARDS):
        query = partial(backend.table.query, keys.timer_partition(bucket, shard), limit=PAGE)
        place = after if shard == after[0] else (shard, "")
        async for found in pages(partial(query, start=place[1])):
            now = backend.clock()
            if until is not None and now >= until:
                return sent, place
            groups = timer_table.messages([item for _, item in found], now, backend.queue.max_delay)
            await asyncio.gather(*(backend.queue.send(bodies, delay=delay) for delay, bodies in groups))
            sent += len(found)
            if len(found) == PAGE:
                place = shard, found[-1][0].sk
                await _write(backend, timer_table.sent_up_to(bucket, place))
    return sent, None


async def _write(backend: Backend, write: UpdateItem) -> None:
    """If it is refused, another tick has come farther: what this one sends is sent again, which is harmless."""
    with contextlib.suppress(Conflict):
        await backend.table.write(write)
