"""Retries a run: a new run goes on from where an ended one stopped.

A terminal status never changes, so the old run stays as it is. Steps that workers may still run are closed first, so
that it cannot commit beside the new one; then its completed and skipped steps are copied, and the new run is put.
"""

from __future__ import annotations

import contextlib

from detent_state_machine import keys
from detent_state_machine.carry_over import close, is_carried_over
from detent_state_machine.errors import WrongState
from detent_state_machine.graph import Graph, topological
from detent_state_machine.records import RunRecord, StepRecord, seen_of
from detent_state_machine.status import RunStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.turn import Moment, Turn, Writer
from detent_state_machine.writes import Item, PutItem

from detent_infra.definitions import Definitions
from detent_infra.ids import keyed_id
from detent_infra.ports import Backend, Conflict


async def retry(backend: Backend, definitions: Definitions, old: RunRecord) -> str:
    """Stores the run that goes on from the old one, which stands there already if it was retried before.

    Returns its id: its start message is the caller's to send. Raises `WrongState`, as `Lifecycle.retry` says.
    """
    if old.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
        raise WrongState(
            f"Run {old.run_id} is {old.status}: only a failed or cancelled run can be retried.",
            advice="Start a new run with the same input instead.",
        )
    graph = await definitions.graph(old.workflow, old.version)
    new_id = keyed_id("retry", old.workflow, old.run_id)
    carried = await _close(backend, old.run_id, graph)
    now = backend.clock()
    for path, item in carried.items():
        # Inline, so that the start message walks through what was carried over to the first step without a record.
        copy = {**item, "inline": True, "expires": now // 1000 + graph.retention}
        with contextlib.suppress(Conflict):  # An earlier try of this retry wrote it.
            await backend.table.write(PutItem(keys.step_key(new_id, path), copy))
    record = RunRecord(
        run_id=new_id,
        workflow=old.workflow,
        version=old.version,
        status=RunStatus.RUNNING,
        created=now,
        input=old.input,
        metadata=old.metadata,
        retry_of=old.run_id,
        origin=old.origin or old.run_id,
        retry_since=old.since if graph.waits else 0,
    )
    try:
        # The race it wins: the run is retried twice at once. The steps come first, so whoever sees the run sees them,
        # and the second retry finds the first one's run.
        await backend.table.write(PutItem(keys.run_key(new_id), record.to_item()))
    except Conflict as conflict:
        stored = RunRecord.from_item(new_id, conflict.item or {})
        if stored.status in (RunStatus.FAILED, RunStatus.CANCELLED):
            raise WrongState(
                f"Run {old.run_id} was retried as {new_id}, which is {stored.status}.", advice=f"Retry {new_id}."
            ) from None
    return new_id


async def _close(backend: Backend, run_id: str, graph: Graph) -> dict[StepPath, Item]:
    """Ends whatever of an ended run a worker may still be at, and returns what is carried over into its retry."""
    steps = [step for step in topological(graph.definition.steps) if step.scope == "main"]
    paths = [StepPath(step.name) for step in steps]
    items = await backend.table.get_many([keys.step_key(run_id, path) for path in paths])
    found = {path: item for path, item in zip(paths, items, strict=True) if item is not None}
    token = f"retry-{backend.ids()}"
    for step, path in zip(steps, paths, strict=True):
        closer = Writer(run_id, path, token, Turn.INLINE)
        now = backend.clock()
        at = Moment(now, now // 1000 + graph.retention)
        write = close(step, closer, seen_of(path, found.get(path)), at, found)
        if write is None:
            continue
        try:
            await backend.table.write(write)
        except Conflict as conflict:
            # Its worker was first. If it is not at an end now, it is at work this moment.
            if conflict.item is None or not StepRecord.from_item(path, conflict.item).terminal:
                raise WrongState(
                    f"Step {step.name!r} of run {run_id} is still at work.", advice="Try again in a moment."
                ) from None
            found[path] = conflict.item
    return {path: item for path, item in found.items() if is_carried_over(StepRecord.from_item(path, item))}
