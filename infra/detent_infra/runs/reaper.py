"""The reaper: finds live runs that made no progress for long, and sends what would drive them again.

Redelivery is the recovery; the reaper is for what redelivery cannot repair: a message lost or purged, a dead letter
deleted by hand, a run record written by a starter that died before its message. Each message it sends is refused by a
claim if somebody works on the step after all, so it costs, but never harms.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from detent_state_machine import keys
from detent_state_machine.errors import RecordError, UnknownWorkflow
from detent_state_machine.follow import rests_until, stalled
from detent_state_machine.graph import Graph
from detent_state_machine.messages import Message, encode
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.writes import Item, Key, LessThan, OneOf, PutItem, UpdateItem, Value

from detent_infra.definitions import Definitions
from detent_infra.pages import pages
from detent_infra.ports import Backend, Conflict, Table
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.live import WalkPosition, live_runs

log = logging.getLogger("detent")

PAGE = 50
DAY = 86_400.0
"""Seconds after which a run that sleeps is looked at, at the latest."""


@dataclass(frozen=True, slots=True)
class ReapReport:
    """How many live runs were checked, how many had stopped, and how many messages were sent for them."""

    looked: int = 0
    stalled: int = 0
    sent: int = 0


async def reap(backend: Backend, definitions: Definitions | None = None, *, limit: int = 500) -> ReapReport:
    """Reads up to `limit` live runs older than `timing.reap_after`, and looks at each that it has not in that time.

    The next one goes on where this one ends, so with any number of runs each has its turn. A run that cannot be read
    is logged and passed over. Any number of reapers may work at once.
    """
    lifecycle = Lifecycle(backend, definitions)
    before = backend.clock() - int(backend.timing.reap_after * 1000)
    since = _place(await backend.table.get(keys.REAPER))
    next: WalkPosition | None = None
    read = looked = stalled = sent = 0
    async for place in _old_live_runs(lifecycle, before, since):
        if read == limit:
            next = place
            break
        read += 1
        run_id = place.run_id
        try:
            messages = await _visit(lifecycle, run_id, before)
        except (RecordError, UnknownWorkflow) as error:
            log.warning("the reaper passes over run %s: %s", run_id, error)
            continue
        if messages is None:
            continue
        looked += 1
        if messages:
            stalled += 1
            sent += len(messages)
            await backend.queue.send([encode(message) for message in messages])
    if next != since:
        # No condition: of two reapers at once the later one says where to go on. That may repeat runs, and skips none
        # for longer than a round.
        await backend.table.write(PutItem(keys.REAPER, next._asdict() if next else {}, expect=None))
    return ReapReport(looked, stalled, sent)


def _place(item: Item | None) -> WalkPosition | None:
    """Where to go on; None: at the beginning."""
    match item:
        case {"workflow": str(workflow), "created": int(created), "run_id": str(run_id)}:
            return WalkPosition(workflow, created, run_id)
        case _:
            return None


async def _old_live_runs(lifecycle: Lifecycle, before: int, since: WalkPosition | None) -> AsyncIterator[WalkPosition]:
    async for workflow, runs in live_runs(
        lifecycle.backend, lifecycle.definitions, before=before, since=since, page=PAGE
    ):
        for key, item in runs:
            created = item.get("created")
            yield WalkPosition(workflow, created if isinstance(created, int) else 0, keys.run_id_of(key.pk))


async def _visit(lifecycle: Lifecycle, run_id: str, before: int) -> list[Message] | None:
    """What to send for the run; None if it was visited lately, or has ended."""
    table = lifecycle.backend.table
    item = await table.get(keys.run_key(run_id))
    run = RunRecord.from_item(run_id, item) if item is not None else None
    if item is None or run is None or not run.status.live:
        return None  # The index lags.
    now = lifecycle.backend.clock()
    visited, rests = item.get("reaped"), item.get("rests")
    if (isinstance(visited, int) and visited > before) or (isinstance(rests, int) and rests > now):
        return None
    try:
        messages, rests = await _look(lifecycle, run, before, now)
    except RecordError:
        await _stamp(table, run_id, {"reaped": now})
        raise
    stamped = await _stamp(table, run_id, {"reaped": now} if rests is None else {"reaped": now, "rests": rests})
    return messages if stamped else None


async def _stamp(table: Table, run_id: str, set_: dict[str, Value]) -> bool:
    """Writes when the run was visited; False if it has ended.

    The race it wins: the run ends in between, and a stamp brings back what retention dropped. Two reapers at once
    may both visit; that costs messages, and harms nothing.
    """
    live = OneOf("status", tuple(status.value for status in RunStatus if status.live))
    try:
        await table.write(UpdateItem(keys.run_key(run_id), live, set_))
    except Conflict:
        return False
    return True


async def _look(lifecycle: Lifecycle, run: RunRecord, before: int, now: int) -> tuple[list[Message], int | None]:
    """What to send for the run, and until when it rests: it sleeps, and nothing is missing."""
    graph = await lifecycle.graph(run)
    partition = partial(lifecycle.backend.table.query, keys.run_partition(run.run_id))
    items = [each async for page in pages(partition) for each in page]
    prefix = keys.STEP_PREFIX
    records = [
        StepRecord.from_item(graph.path(key.sk.removeprefix(prefix)), item)
        for key, item in items
        if key.sk.startswith(prefix)
    ]
    messages = stalled(run, graph, records, before, now)
    rests = None if messages else rests_until(run, records, now, int(DAY * 1000))
    wakes = max((record.due for record in records if record.status.waits), default=0)
    await _move_expiry(lifecycle.backend, graph, items, max(now, wakes))
    return messages, rests


async def _move_expiry(backend: Backend, graph: Graph, items: list[tuple[Key, Item]], until: int) -> None:
    """Moves the expiry of a long run's records on: retention counts from the run's end, not from the step's, and so
    from no earlier than `until` (milliseconds), when it still lives.
    """
    now = backend.clock()
    expires = until // 1000 + graph.retention
    least = expires if until > now else expires - graph.retention // 2
    for key, item in items:
        soon = item.get("expires")
        if isinstance(soon, int) and soon < least:
            # The race it wins: the record was dropped in between; an update would bring back an empty one.
            with contextlib.suppress(Conflict):
                await backend.table.write(UpdateItem(key, LessThan("expires", expires), {"expires": expires}))
