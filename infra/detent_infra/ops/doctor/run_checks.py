"""Checks of the runs of a backend: do any wait for code, and which steps held the event loop of a worker lately."""

from __future__ import annotations

import json
from typing import cast

from detent_state_machine.errors import DetentError
from detent_state_machine.lines import duration_text

from detent_infra.ops.doctor.findings import Finding, failed
from detent_infra.ports import Backend, LogLine, LogQuery
from detent_infra.runs.missing_code import all_missing_code

MAX_RUNS = 1_000
"""Runs with a note that a step waits for code, which are looked at."""
MAX_LINES = 1_000
LATELY = 86_400_000
"""Milliseconds back in which the log is searched."""


async def check_code(backend: Backend) -> Finding:
    """Whether live runs wait for a step that no worker has begun since one had no code for it."""
    try:
        waiting = await all_missing_code(backend, MAX_RUNS)
    except DetentError as error:
        return failed("code", error)
    if not waiting:
        return Finding("code", "ok", "no run waits for code that the workers do not have")
    run_id, steps = next(iter(sorted(waiting.items())))
    runs = f"{len(waiting)} runs wait" if len(waiting) > 1 else "1 run waits"
    named = ", ".join(repr(step) for step in sorted(steps))
    return Finding(
        "code",
        "warn",
        f"{runs} for code that no worker that looked has: step {named} of {run_id}"
        + (", among others" if len(waiting) > 1 else ""),
        "Start a worker whose code has the step under this name, or cancel the run.",
        f"detent show {run_id}",
    )


async def check_loops(backend: Backend) -> Finding:
    """Which steps kept the event loop of their worker to themselves in the last day."""
    query = LogQuery(pattern='{ $.engine = "loop_held" }', since=backend.clock() - LATELY)
    try:
        page = await backend.logs.read(query, limit=MAX_LINES)
    except DetentError as error:
        return failed("event loop", error)
    if not page.lines:
        return Finding("event loop", "ok", "no step held the event loop of its worker in the last day")
    worst = max(page.lines, key=_held)
    times = f"{len(page.lines)} times" if len(page.lines) > 1 else "once"
    return Finding(
        "event loop",
        "warn",
        f"held {times} in the last day, for {duration_text(_held(worst))} by step {worst.path!r} of {worst.run_id}",
        "While a body blocks it, its worker does nothing else: write the step as `def`, or await what it waits for.",
        f"detent logs {worst.run_id}",
    )


def _held(line: LogLine) -> int:
    held = cast("dict[str, object]", json.loads(line.fields)).get("held_ms")
    return held if isinstance(held, int) else 0
