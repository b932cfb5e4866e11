"""Reads the facts of a run: its partition, and the size of its log."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial

from detent_state_machine import keys
from detent_state_machine.errors import CorruptRecord
from detent_state_machine.graph import Graph
from detent_state_machine.records import Payload, RunRecord
from detent_state_machine.when import references
from detent_state_machine.writes import Item

from detent_infra import payloads
from detent_infra.logs.lines import to_json
from detent_infra.logs.reader import BEFORE
from detent_infra.ops.cost.facts import Facts
from detent_infra.pages import pages
from detent_infra.ports import Blobs, LogQuery, Logs
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.read import unknown_run

LOG_PAGES = 10
"""Pages of a log that are looked at. A longer log is counted as if it ended there."""


async def read_facts(lifecycle: Lifecycle, run_id: str) -> Facts:
    """The run as it is stored. Raises `UnknownRun`."""
    backend = lifecycle.backend
    partition = partial(backend.table.query, keys.run_partition(run_id))
    items = {key.sk: item async for page in pages(partition) for key, item in page}
    if keys.RUN not in items:
        raise unknown_run(run_id, backend.url)
    run = RunRecord.from_item(run_id, items[keys.RUN])
    graph = await lifecycle.graph(run)
    return Facts(
        run,
        graph,
        items,
        await _log_bytes(backend.logs, LogQuery(runs=(run_id,), since=run.created - BEFORE)),
        await _texts_of_conditions(backend.blobs, graph, items),
        in_lambda=backend.url.startswith("aws://"),
    )


async def _texts_of_conditions(blobs: Blobs, graph: Graph, items: Mapping[str, Item]) -> dict[str, str]:
    """The blobs that conditions look at, by reference. One that is gone is left out."""
    found: dict[str, str] = {}
    for step in graph.definition.steps:
        for ref in references(step.when) if step.when is not None else ():
            attribute = "input_ref" if ref.step is None else "output_ref"
            blob = items.get(keys.RUN if ref.step is None else keys.STEP_PREFIX + ref.step, {}).get(attribute)
            if isinstance(blob, str) and blob not in found:
                with contextlib.suppress(CorruptRecord):
                    found[blob] = await payloads.load(blobs, Payload(ref=blob))
    return found


async def _log_bytes(logs: Logs, query: LogQuery) -> int:
    """Bytes of the run's lines as a Lambda worker prints them."""
    total, after = 0, None
    for _ in range(LOG_PAGES):
        page = await logs.read(query, after=after)
        total += sum(len(to_json(line).encode()) + 1 for line in page.lines)
        after = page.next
        if not page.more:
            break
    return total
