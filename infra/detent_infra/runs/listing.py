"""Runs of one backend, newest first, by pages; and a run by a part of its id."""

from __future__ import annotations

import asyncio
import heapq
import logging
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from detent_state_machine import keys
from detent_state_machine.errors import InputError, RecordError, UnknownRun
from detent_state_machine.records import RunRecord
from detent_state_machine.status import RunStatus

from detent_infra.ids import is_whole
from detent_infra.pages import pages
from detent_infra.ports import Backend
from detent_infra.runs.live import EVER
from detent_infra.runs.read import read_steps

log = logging.getLogger("detent")

SHORTEST_PART = 4
"""Characters of an id by which a run can be found."""
SEARCHED = 1_000
"""The newest runs, among which a part of an id is looked for."""
CANDIDATES = 10
"""Ids that the error for an ambiguous part names."""

_CURSOR = re.compile(r"(\d{1,15})\.(\S{1,1024})")


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of runs, newest first. `next` is the cursor of the page behind it; None: there is none."""

    runs: list[RunRecord]
    next: str | None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs: those created at or after `since` (milliseconds since the epoch), behind the cursor `after`."""

    workflows: Sequence[str]
    statuses: Collection[RunStatus] = ()
    since: int = 0
    metadata: Mapping[str, str] | None = None
    after: str | None = None
    waiting: bool = False
    """Only those of which a step waits for a time or an event. Each live run costs a read of its steps."""


async def list_runs(backend: Backend, wanted: RunFilter, limit: int) -> Listed:
    """Up to `limit` of them. Raises `InputError` for a limit below 1 or a cursor that is none.

    The index may lag behind a start by a moment. A run whose record cannot be read is logged and left out.
    """
    if limit < 1:
        raise InputError(f"A list of {limit} runs is none.", advice="Ask for one at least.")
    behind = None if wanted.after is None else _place_of(wanted.after)
    statuses = {status for status in wanted.statuses or RunStatus if status.live or not wanted.waiting}
    found: dict[str, RunRecord] = {}
    # All live ones first: a run that ends meanwhile is then seen twice. The other way round it is seen not at all.
    live = {keys.LIVE} if any(status.live for status in statuses) else set[str]()
    ended = {keys.index_part(status) for status in statuses if not status.live}
    for parts in (live, ended | {keys.ENDED} if ended else ended):
        streams = [
            _index(backend, keys.index_partition(name, shard), part, wanted.since, behind)
            for name in wanted.workflows
            for shard in range(keys.SHARDS)
            for part in sorted(parts)
        ]
        matching = 0
        async for run in _newest_first(streams):
            if run.status in statuses and _has(run.metadata, wanted.metadata):
                if wanted.waiting and not await _waits(backend, run):
                    continue
                found[run.run_id] = run
                matching += 1
                if matching > limit:  # one more tells whether there is a next page
                    break
    runs = sorted(found.values(), key=_age)
    last = runs[limit - 1] if len(runs) > limit else None
    return Listed(runs[:limit], None if last is None else f"{last.created}.{last.run_id}")


async def whole_id(backend: Backend, workflows: Sequence[str], text: str) -> str:
    """The run id that is meant: the text itself, or the one id among the newest 1,000 runs that it is a part of.

    A whole id is taken as it is, without a look. Raises `UnknownRun` if nothing is found, `InputError` if it is a part
    of several ids.
    """
    if is_whole(text) or await backend.table.get(keys.run_key(text)) is not None:
        return text
    if len(text) < SHORTEST_PART:
        raise UnknownRun(
            f"No run {text!r} is stored on {backend.url}.",
            advice=f"A part of an id is taken from {SHORTEST_PART} characters on.",
        )
    newest = await list_runs(backend, RunFilter(workflows), SEARCHED)
    ids = [run.run_id for run in newest.runs if text in run.run_id]
    if not ids:
        where = f"the newest {SEARCHED:,} runs have" if newest.next else "its runs have"
        raise UnknownRun(
            f"No run {text!r} is stored on {backend.url}, and {where} no id of which it is a part.",
            advice="Give the whole id: `detent runs` lists them; ended runs are dropped after their retention.",
        )
    if len(ids) > 1:
        more = ", …" if len(ids) > CANDIDATES else ""
        raise InputError(
            f"{text!r} is a part of {len(ids)} run ids: {', '.join(ids[:CANDIDATES])}{more}.", advice="Give more of it."
        )
    return ids[0]


def _place_of(cursor: str) -> tuple[int, str]:
    """Creation and id of the last run of the page before."""
    match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if match is None:
        raise InputError(
            f"{str(cursor)[:40]!r} is not the cursor of a list of runs.", advice="Take the `next` of a page."
        )
    return int(match[1]), match[2]


async def _index(
    backend: Backend, partition: str, part: str, since: int, behind: tuple[int, str] | None
) -> AsyncIterator[RunRecord]:
    start = keys.index_sort(part, created=since, run_id="")
    created, last = (EVER, "") if behind is None else behind
    end = keys.index_sort(part, created=created, run_id=last)
    query = partial(backend.table.query_index, partition, start=start, end=end, forward=False, limit=50)
    async for page in pages(query):
        for key, item in page:
            run_id = keys.run_id_of(key.pk)
            try:
                run = RunRecord.from_item(run_id, item)
            except RecordError as error:
                log.warning("the list leaves out run %s: %s", run_id, error)
                continue
            if run_id != last:
                yield run


def _has(metadata: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return all(metadata.get(name) == value for name, value in (wanted or {}).items())


async def _waits(backend: Backend, run: RunRecord) -> bool:
    return any(record.status.waits for record in await read_steps(backend, run.run_id))


async def _newest_first(streams: Sequence[AsyncIterator[RunRecord]]) -> AsyncIterator[RunRecord]:
    """Merges streams that are each newest first."""
    heads = await asyncio.gather(*(anext(stream, None) for stream in streams))
    heap = [(_age(run), index, run) for index, run in enumerate(heads) if run is not None]
    heapq.heapify(heap)
    while heap:
        _, index, run = heapq.heappop(heap)
        yield run
        following = await anext(streams[index], None)
        if following is not None:
            heapq.heappush(heap, (_age(following), index, following))


def _age(run: RunRecord) -> tuple[int, bytes]:
    """The newest first, as the index has them read backwards: of one millisecond the larger id."""
    return -run.created, run.run_id.encode().translate(_BACKWARDS) + b"\xff"


_BACKWARDS = bytes(range(255, -1, -1))
