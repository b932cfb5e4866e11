"""Reads what tells why a run does not move."""

from __future__ import annotations

from detent_state_machine.records import RunRecord
from detent_state_machine.why import Reason, reasons

from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.missing_code import missing_code
from detent_infra.runs.read import read_steps


async def why(lifecycle: Lifecycle, run: RunRecord, now: int) -> list[Reason]:
    """The reason of each step run that holds the run; none of a run that has ended. Costs three reads, for a small run.

    Raises `UnknownWorkflow` if the definition that drives the run is not stored.
    """
    if not run.live:
        return []
    backend = lifecycle.backend
    graph, steps = await lifecycle.graph(run), await read_steps(backend, run.run_id)
    no_code = (await missing_code(backend, [run])).get(run.run_id, {})
    return reasons(run, graph, steps, no_code, now)
