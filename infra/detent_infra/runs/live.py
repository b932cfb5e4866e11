"""All live runs of the index, as the reaper and a deploy read them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

from detent_state_machine import keys
from detent_state_machine.writes import Item, Key

from detent_infra.definitions import Definitions
from detent_infra.pages import pages
from detent_infra.ports import Backend

EVER = 10**15 - 1
"""Milliseconds since the epoch: later than any run."""


class WalkPosition(NamedTuple):
    """A run's place in the walk: by workflow, shard, creation (milliseconds since the epoch) and id."""

    workflow: str
    created: int
    run_id: str


async def live_runs(
    backend: Backend, definitions: Definitions, *, before: int = EVER, since: WalkPosition | None = None, page: int
) -> AsyncIterator[tuple[str, tuple[tuple[Key, Item], ...]]]:
    """Workflows' names, each with up to `page` of its live runs as the index has them, until there are no more.

    `before`: only runs created until then (milliseconds since the epoch). `since`: only those from there on, whether
    the run that was there is live or not. The index lags behind starts and ends.
    """
    first = (since.workflow, keys.shard_of(since.run_id)) if since else ("", 0)
    end = keys.index_sort(keys.LIVE, created=max(0, before), run_id="")
    for workflow in sorted(await definitions.names()):
        for shard in range(keys.SHARDS):
            if (workflow, shard) < first:
                continue
            _, created, run_id = since if since and (workflow, shard) == first else WalkPosition("", 0, "")
            start = keys.index_sort(keys.LIVE, created=created, run_id=run_id)
            partition = keys.index_partition(workflow, shard)
            query = partial(backend.table.query_index, partition, start=start, end=end, limit=page)
            async for found in pages(query):
                yield workflow, found
