"""Cancels a run: one write ends it, and a line in its log says so."""

from __future__ import annotations

import json
import logging

from detent_state_machine import run_transitions
from detent_state_machine.errors import DetentError, WrongState
from detent_state_machine.records import RunRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.turn import Moment

from detent_infra.definitions import Definitions
from detent_infra.durations import duration
from detent_infra.ports import Backend, Conflict, LogLine

log = logging.getLogger("detent")


async def cancel(backend: Backend, definitions: Definitions, run: RunRecord) -> RunRecord:
    """The cancelled run, which may have been cancelled before. Raises `WrongState`, as `Lifecycle.cancel` says."""
    now = backend.clock()
    expires = now // 1000 + (await definitions.graph(run.workflow, run.version)).retention
    try:
        item = await backend.table.write(run_transitions.cancel_run(run, Moment(now, expires)))
    except Conflict as conflict:
        ended = RunRecord.from_item(run.run_id, conflict.item or {})
        if ended.status is not RunStatus.CANCELLED:
            raise WrongState(f"Run {run.run_id} is {ended.status}: there is nothing to cancel.") from None
        return ended
    await _tell(backend, run, now)
    return RunRecord.from_item(run.run_id, item or {})


async def _tell(backend: Backend, run: RunRecord, now: int) -> None:
    """No worker logs the end of a cancelled run, so this does. Best effort: the caller may only read logs."""
    took = now - run.created
    line = LogLine(
        now,
        "INFO",
        f"run cancelled after {duration(took)}",
        run.run_id,
        fields=json.dumps({"duration_ms": took}),
        workflow=run.workflow,
        engine="run_cancelled",
    )
    try:
        await backend.logs.append([line])
    except DetentError as error:
        log.info("the log of run %s does not say that it was cancelled: %s", run.run_id, error)
