"""The steps of a run on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.status import StepStatus

from detent.changes import carried_over
from detent.cli.output import ascii_only, duration, mark, symbol
from detent.cli.output import name as spelled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MIN_NAME, MAX_NAME = 6, 32
TAKEN = 12
"""Columns of a duration with what stands around it."""
TRIES = 5
"""Columns for a number of attempts."""
MIN_BAR = 8


class _Glyphs(NamedTuple):
    work: str
    failed: str
    wait: str


_UNICODE = _Glyphs("█", "▒", "·")
_ASCII = _Glyphs("=", "x", ".")
_TIMES = "\N{MULTIPLICATION SIGN}"


class _Axis(NamedTuple):
    """Milliseconds on columns."""

    start: int
    end: int
    width: int

    def cells(self, start: int, end: int) -> range:
        """The columns that the span touches: at least one."""
        span = max(1, self.end - self.start)
        first = min(self.width - 1, max(0, (start - self.start) * self.width // span))
        last = min(self.width, max(first + 1, -(-(end - self.start) * self.width // span)))
        return range(first, last)


def draw(run: RunRecord, steps: Sequence[tuple[str, StepRecord | None]], on: Console, now: int) -> list[Text]:
    """A line per step: mark, name, time taken, attempts, and a bar from its first attempt's start to its end."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    longest = max((cell_len(spelled(path)) for path, _ in steps), default=0)
    tried = any(record is not None and record.attempt > 1 for _, record in steps)
    fixed = 2 + 1 + TAKEN + (TRIES if tried else 0)
    name_width = max(MIN_NAME, min(MAX_NAME, longest, on.width - fixed - MIN_BAR))
    axis = _Axis(run.created, max(run.ended or now, run.created + 1), max(MIN_BAR, on.width - fixed - name_width))
    lines: list[Text] = []
    for path, record in steps:
        shown = mark(None if record is None else record.status)
        name = spelled(path)
        if cell_len(name) > name_width:
            name = set_cell_size(name, name_width - 1) + "…"
        line = Text.assemble(
            (symbol(shown, on), shown.style), " ", (set_cell_size(name, name_width), "" if record else shown.style)
        )
        line.append(f" {_taken(run, record, now):>{TAKEN - 2}} ", "" if record else shown.style)
        if tried:
            line.append(f"{_tries(record, on):<{TRIES}}", "bright_black")
        line.append(_bar(run, record, axis, on, now))
        lines.append(line)
    return lines


def _taken(run: RunRecord, record: StepRecord | None, now: int) -> str:
    if record is None:
        return "not yet" if run.status.live else "not run"
    if carried_over(run, record):
        return "earlier"
    match record.status:
        case StepStatus.SKIPPED:
            return "skipped"
        case StepStatus.RETRYING:
            return "waiting"
        case StepStatus.WAITING:
            return "sleeping"
        case _:
            return duration((record.ended or now) - record.started)


def _tries(record: StepRecord | None, on: Console) -> str:
    if record is None or record.attempt < 2:
        return ""
    return f" {'x' if ascii_only(on) else _TIMES}{record.attempt}"


def _bar(run: RunRecord, record: StepRecord | None, axis: _Axis, on: Console, now: int) -> Text:
    from rich.text import Text

    if record is None or record.status is StepStatus.SKIPPED or carried_over(run, record):
        return Text("")
    glyphs = _ASCII if ascii_only(on) else _UNICODE
    style = mark(record.status).style
    end = record.ended or now
    first = record.history[0].started if record.history else record.started
    cells: list[tuple[str, str]] = [(" ", "")] * axis.width
    for cell in axis.cells(first, end):
        cells[cell] = (glyphs.wait, "bright_black")
    for past in record.history:
        for cell in axis.cells(past.started, past.ended):
            cells[cell] = (glyphs.failed, "red")
    if record.status not in (StepStatus.RETRYING, StepStatus.FAILED):
        for cell in axis.cells(record.started, end):
            cells[cell] = (glyphs.work, style)
    elif not record.history:
        for cell in axis.cells(record.started, end):
            cells[cell] = (glyphs.failed, "red")
    return Text.assemble(*cells)
