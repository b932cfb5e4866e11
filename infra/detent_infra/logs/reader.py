"""Reading the log of runs from outside: where in time their lines are, which runs belong together, when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from detent_state_machine import keys
from detent_state_machine.records import RunRecord

from detent_infra.ids import keyed_id
from detent_infra.ports import LogPage, LogQuery
from detent_infra.runs.lifecycle import Lifecycle

BEFORE, AFTERWARDS = 60_000, 900_000
"""Milliseconds before a run's start and after its end in which its lines are searched: clocks differ, and a step that
nobody waits for may write until its worker's time is up."""
MAX_FAMILY = 100
LOOK_EVERY = 3.0
"""Seconds between two looks at whether runs have ended that are followed."""
ENDS = frozenset({"run_completed", "run_failed", "run_cancelled"})
"""The engine's last line about a run."""


class LogReader:
    """Reads lines on one backend."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._logs = lifecycle.backend.logs

    async def family(self, run_id: str) -> list[RunRecord]:
        """The run and those that came of it, in that order: now its retries, at most 100. Raises `UnknownRun`."""
        found = [await self._lifecycle.get(run_id)]
        while len(found) < MAX_FAMILY:
            last = found[-1]
            retry_id = keyed_id("retry", last.workflow, last.run_id)
            item = await self._lifecycle.backend.table.get(keys.run_key(retry_id))
            if item is None:
                break
            found.append(RunRecord.from_item(retry_id, item))
        return found

    async def pages(
        self, query: LogQuery, runs: Sequence[RunRecord] = (), *, follow: bool = False
    ) -> AsyncGenerator[LogPage, None]:
        """What the query finds in the log of these runs, or, without any, of all; with `follow`, until they have ended.

        Following all runs ends never.
        """
        if runs:
            query = _narrowed(query, runs)
        live = [run for run in runs if not self._settled(run)]
        if not follow or (runs and not live):
            after: str | None = None
            while True:
                page = await self._logs.read(query, after=after)
                yield page
                if not page.more:
                    return
                after = page.next
        waiting, over = {run.run_id for run in live}, asyncio.Event()
        looked = time.monotonic()
        async with aclosing(self._logs.follow(query, over)) as pages:
            async for page in pages:
                yield page
                waiting -= {line.run_id for line in page.lines if line.engine in ENDS}
                if waiting and time.monotonic() - looked >= LOOK_EVERY:
                    # Its last line may not come: it is lost with its worker, or not of the query.
                    waiting = await self._unsettled(sorted(waiting))
                    looked = time.monotonic()
                if runs and not waiting:
                    over.set()

    async def _unsettled(self, run_ids: Sequence[str]) -> set[str]:
        """Those of the runs that are stored, and have not settled."""
        items = await self._lifecycle.backend.table.get_many([keys.run_key(run_id) for run_id in run_ids])
        stored = [RunRecord.from_item(id, item) for id, item in zip(run_ids, items, strict=True) if item is not None]
        return {run.run_id for run in stored if not self._settled(run)}

    def _settled(self, run: RunRecord) -> bool:
        """Whether the run ended so long ago that its last line can be read, if it has one."""
        settled = self._lifecycle.backend.clock() - int(self._logs.settles * 1000)
        return not run.status.live and (run.ended or 0) <= settled


def _narrowed(query: LogQuery, runs: Sequence[RunRecord]) -> LogQuery:
    """The query for these runs only, in the time that they took: a search need not go through the whole log."""
    since = max(query.since, min(run.created for run in runs) - BEFORE)
    ends = [run.ended + AFTERWARDS if run.ended is not None and not run.status.live else None for run in runs]
    until = query.until
    if (last := max((end for end in ends if end is not None), default=None)) is not None and None not in ends:
        until = last if until is None else min(until, last)
    return replace(query, runs=tuple(run.run_id for run in runs), since=since, until=until)
