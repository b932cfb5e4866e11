"""What the engine tells of a run: lines of its log, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from detent_state_machine.records import ErrorInfo


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the engine's own. `event` is its name in queries, `fields` what can be counted or averaged."""

    level: str
    event: str
    message: str
    path: str = ""
    attempt: int = 0
    fields: Mapping[str, str | int | float] = field(default_factory=dict[str, "str | int | float"])


def error_line(level: str, event: str, message: str, path: str, attempt: int, error: ErrorInfo, **fields: int) -> Line:
    """A line about an attempt that failed."""
    told: dict[str, str | int | float] = {"error": error.type, **fields}
    return Line(level, event, f"{message}: {error.type}: {error.message}", path, attempt, told)


def loop_held_line(path: str, attempt: int, milliseconds: int) -> Line:
    """A body kept the event loop of its worker to itself for so long."""
    said = f"step {path!r} held the event loop of its worker for {duration_text(milliseconds)}: write it as `def`"
    return Line("WARN", "loop_held", said, path, attempt, {"held_ms": milliseconds})


def missing_code_line(path: str, attempt: int) -> Line:
    """A worker had no code for the step, which waits for one that has it."""
    said = f"step {path!r} waits for code: the worker that looked has no such step in this run's workflow"
    return Line("WARN", "code_missing", said, path, attempt)


def duration_text(milliseconds: int) -> str:
    """As people say it: `12 ms`, `3.40 s`, `2 min 05 s`, `3 h 20 min`, `4 d 2 h`."""
    if milliseconds < 1000:
        return f"{max(0, milliseconds)} ms"
    if milliseconds < 60_000:  # cut, not rounded: 59.99 s are not 60.0 s
        return f"{milliseconds // 10 / 100:.2f} s" if milliseconds < 10_000 else f"{milliseconds // 100 / 10:.1f} s"
    whole = milliseconds // 1000
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
