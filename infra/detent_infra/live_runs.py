"""The index's live runs, for who looks at all of them: the reaper, and a deploy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from detent_state_machine import keys
from detent_state_machine.writes import Item, Key

from detent_infra.engine.definitions import Definitions
from detent_infra.pages import pages
from detent_infra.ports import Backend

EVER = 10**15 - 1
"""Milliseconds since the epoch: later than any run."""


async def live_runs(
    backend: Backend, definitions: Definitions, *, before: int = EVER, page: int
) -> AsyncIterator[tuple[str, tuple[tuple[Key, Item], ...]]]:
    """Workflows' names, each with up to `page` of its live runs as the index has them, until there are no more.

    `before`: only runs created until then (milliseconds since the epoch). The index lags behind starts and ends.
    """
    start = keys.index_sort(live=True, created=0, run_id="")
    end = keys.index_sort(live=True, created=max(0, before), run_id="")
    for workflow in await definitions.names():
        for shard in range(keys.SHARDS):
            partition = keys.index_partition(workflow, shard)
            query = partial(backend.table.query_index, partition, start=start, end=end, limit=page)
            async for found in pages(query):
                yield workflow, found
