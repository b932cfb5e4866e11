"""Runs that wait for code: noted by the worker that hands a step on, and read for whoever looks at runs.

Nobody takes a note back: it says nothing any more once a worker has begun the step, or the run has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from detent_state_machine import keys
from detent_state_machine.decisions import MissingBody
from detent_state_machine.lines import Line
from detent_state_machine.missing_code import MissingCode
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.step_path import StepPath

from detent_infra.pages import pages
from detent_infra.ports import Backend, Conflict

RACES = 3
"""How often a note that lost a race is tried again. The step's next hand-over would note it too."""


async def note(backend: Backend, run_id: str, missing: MissingBody) -> Line | None:
    """Notes that this worker has no code for the step; the line that tells it, if that is news.

    Costs a read, and a write the first time. As long as the step waits, hand-overs put off when the note is dropped.
    """
    for _ in range(RACES):
        known = MissingCode.from_item(run_id, await backend.table.get(keys.missing_code_key(run_id)))
        write = known.noted(missing.path, missing.begun, backend.clock(), missing.expires)
        if write is None:
            return None
        try:
            await backend.table.write(write)
        except Conflict:
            continue
        return missing.line if known.since.get(missing.path, 0) <= missing.begun else None
    return None


async def missing_code(backend: Backend, runs: Sequence[RunRecord]) -> dict[str, dict[str, int]]:
    """Of those runs that wait for code: the steps, each with since when (milliseconds since the epoch)."""
    live = [run.run_id for run in runs if run.live]
    if not live:
        return {}
    items = await backend.table.get_many([keys.missing_code_key(run_id) for run_id in live])
    notes = [MissingCode.from_item(run_id, item) for run_id, item in zip(live, items, strict=True) if item is not None]
    return await _still(backend, notes)


async def all_missing_code(backend: Backend, limit: int) -> dict[str, dict[str, int]]:
    """The same of all live runs of the backend, as far as `limit` notes tell."""
    notes: list[MissingCode] = []
    for shard in range(keys.SHARDS):
        query = partial(backend.table.query, keys.missing_code_partition(shard), limit=limit)
        async for page in pages(query):
            notes += [MissingCode.from_item(key.sk, item) for key, item in page]
            if len(notes) >= limit:
                break
    del notes[limit:]
    items = await backend.table.get_many([keys.run_key(each.run_id) for each in notes])
    pairs = zip(notes, items, strict=True)
    return await _still(
        backend, [each for each, item in pairs if item is not None and RunRecord.from_item(each.run_id, item).live]
    )


async def _still(backend: Backend, notes: Sequence[MissingCode]) -> dict[str, dict[str, int]]:
    wanted = [(each, StepPath(path)) for each in notes for path in each.since]
    if not wanted:
        return {}
    items = await backend.table.get_many([keys.step_key(each.run_id, path) for each, path in wanted])
    found: dict[str, dict[str, int]] = {}
    for (each, path), item in zip(wanted, items, strict=True):
        if each.waits(path, None if item is None else StepRecord.from_item(path, item)):
            found.setdefault(each.run_id, {})[path] = each.since[path]
    return found
