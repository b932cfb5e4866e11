"""Reads a run: its record, its step runs, and its output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial

from detent_state_machine import keys
from detent_state_machine.errors import RunCancelled, RunFailed, UnknownRun
from detent_state_machine.graph import Graph, topological
from detent_state_machine.records import NULL, RunRecord, StepRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Item

from detent_infra import payloads
from detent_infra.definitions import Definitions
from detent_infra.pages import pages
from detent_infra.ports import Backend


async def read_run(backend: Backend, run_id: str) -> RunRecord:
    """Raises `UnknownRun`."""
    item = await backend.table.get(keys.run_key(run_id))
    if item is None:
        raise unknown_run(run_id, backend.url)
    return RunRecord.from_item(run_id, item)


async def read_steps(backend: Backend, run_id: str) -> list[StepRecord]:
    """The step runs that have a record, in no particular order."""
    prefix = keys.STEP_PREFIX
    query = partial(backend.table.query, keys.run_partition(run_id), start=prefix, end=prefix[:-1] + "$")
    found = [(StepPath(key.sk.removeprefix(prefix)), item) async for page in pages(query) for key, item in page]
    return [StepRecord.from_item(path, item) for path, item in found]


async def result_of(backend: Backend, definitions: Definitions, run: RunRecord) -> str | None:
    """The run's output as JSON text; None while it is live. Raises `RunFailed` or `RunCancelled`.

    The output of its last step; with several last steps, an object of their outputs by name. A skipped step's
    output is null.
    """
    if run.status.live:
        return None
    if run.status is RunStatus.CANCELLED:
        raise RunCancelled(f"Run {run.run_id} was cancelled.", run_id=run.run_id)
    if run.status is RunStatus.FAILED:
        error = run.error
        raise RunFailed(
            f"Run {run.run_id} failed at step {run.failed_step!r}"
            + (f" with {error.type}: {error.message.rstrip('.')}." if error else "."),
            run_id=run.run_id,
            step=run.failed_step or "",
            error_type=error.type if error else "",
            advice=f"See `detent show {run.run_id}`.",
        )
    sinks = (await definitions.graph(run.workflow, run.version)).sinks
    items = await backend.table.get_many([keys.step_key(run.run_id, sink) for sink in sinks])
    texts = [await _output_of(backend, sink, item) for sink, item in zip(sinks, items, strict=True)]
    if len(texts) == 1:
        return texts[0]
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in zip(sinks, texts, strict=True)) + "}"


async def _output_of(backend: Backend, path: StepPath, item: Item | None) -> str:
    if item is None:
        raise UnknownRun(
            f"The output of step {path!r} is no longer stored: the run is past its retention.",
            advice="Keep runs longer with `retention_days=`, or read results sooner.",
        )
    record = StepRecord.from_item(path, item)
    return await payloads.load(backend.blobs, record.output or NULL)


def unknown_run(run_id: str, url: str) -> UnknownRun:
    return UnknownRun(
        f"No run {run_id!r} is stored on {url}.",
        advice="List the runs with `detent runs`; ended ones are dropped after their retention.",
    )


def in_order(graph: Graph, records: Iterable[StepRecord]) -> list[tuple[str, StepRecord | None]]:
    """Every step of the definition in the order of the graph, handlers last, with its record if it has one."""
    found: dict[str, StepRecord] = {record.path: record for record in records}
    ordered = sorted(topological(graph.definition.steps), key=lambda step: step.scope == "on_failure")
    return [(step.name, found.get(step.name)) for step in ordered]
