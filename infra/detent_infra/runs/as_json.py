"""A run and its steps as JSON, the same for the HTTP API, for `--json`, and for whatever else shows them.

Times are ISO 8601 in UTC with milliseconds, durations are seconds, and what does not apply is null.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from detent_state_machine.awaited import awaited, met_by
from detent_state_machine.records import ErrorInfo, RunRecord, StepRecord
from pydantic import JsonValue


def iso(time: int | datetime | None) -> str | None:
    """A number is in milliseconds since the epoch."""
    if time is None:
        return None
    moment = datetime.fromtimestamp(time / 1000, UTC) if isinstance(time, int) else time
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def run_json(run: RunRecord) -> dict[str, JsonValue]:
    """What is known of a run wherever it is shown, in a list too."""
    return {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "version": run.version,
        "status": run.status.value,
        "created": iso(run.created),
        "ended": iso(run.ended),
        "duration": seconds(None if run.ended is None else run.ended - run.created),
        "key": run.key,
        "metadata": dict(run.metadata),
    }


def step_json(
    path: str, record: StepRecord | None, output: str | None, waits_for_code: int | None = None
) -> dict[str, JsonValue]:
    """`output` is JSON text, `waits_for_code` since when no worker that looked had the step (milliseconds). A step that
    has not started has null everywhere but there and in `step`.
    """
    return {
        "step": path,
        "status": None if record is None else record.status.value,
        "attempt": None if record is None else record.attempt,
        "started": None if record is None else iso(record.started),
        "ended": None if record is None else iso(record.ended),
        "duration": None if record is None or record.ended is None else seconds(record.ended - record.started),
        "due": None if record is None else iso(record.goes_on),
        "waits_for": None if record is None else awaited(record) or None,
        "met_by": None if record is None else met_by(record) or None,
        "waits_for_code": iso(waits_for_code),
        "output": None if output is None else json.loads(output),
        "error": None if record is None else error_json(record.error, trace=True),
        "past_attempts": [
            {"started": iso(past.started), "ended": iso(past.ended), "error": past.error}
            for past in (() if record is None else record.history)
        ],
    }


def error_json(error: ErrorInfo | None, *, trace: bool) -> JsonValue:
    """`trace`: whether whoever reads it may see the code that failed."""
    if error is None:
        return None
    return {"type": error.type, "message": error.message, **({"trace": error.trace} if trace else {})}
