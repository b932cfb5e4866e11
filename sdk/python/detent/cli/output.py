"""How the command line speaks: consoles, JSON, marks of statuses, times."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from detent_infra import durations
from detent_state_machine.status import RunStatus, StepStatus

if TYPE_CHECKING:
    from rich.console import Console

_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that JSON does not escape, and that a terminal obeys or no encoding takes. They only occur in texts."""

PLAIN_WIDTH = 160
"""Columns of output that goes to a file or a pipe: nothing is cut there that a program may want to read."""


class Mark(NamedTuple):
    """How a status is shown: a symbol, one for terminals without Unicode, and a colour."""

    symbol: str
    ascii: str
    style: str


NOT_STARTED = Mark("·", ".", "bright_black")
MARKS: dict[str, Mark] = {
    RunStatus.RUNNING: Mark("▶", ">", "cyan"),
    RunStatus.FAILING: Mark("▶", ">", "yellow"),
    RunStatus.COMPLETED: Mark("✓", "+", "green"),
    RunStatus.FAILED: Mark("✗", "x", "red"),
    RunStatus.CANCELLED: Mark("⊘", "/", "magenta"),
    StepStatus.RETRYING: Mark("↻", "~", "yellow"),
    StepStatus.WAITING: Mark("◷", "%", "cyan"),
    StepStatus.SKIPPED: Mark("○", "o", "bright_black"),
}
"""By run status and step status: where both have a word, they share its mark."""


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or standard error. No escape codes unless it is a terminal that wants colour."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # the error that rich is handling; it would end the process by itself

    stream = sys.stderr if stderr else sys.stdout
    plain = not stream.isatty() and "FORCE_COLOR" not in os.environ
    width = PLAIN_WIDTH if plain and "COLUMNS" not in os.environ else None
    colourless = plain or bool(os.environ.get("NO_COLOR"))
    return _Console(
        stderr=stderr,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        no_color=colourless or None,
        color_system=None if colourless else "auto",  # `no_color` alone leaves bold and dim
    )


def write_line(text: str) -> None:
    """A line of plain text on standard output, there at once."""
    print(text, flush=True)


def write_json(value: object, *, lines: bool = False) -> None:
    """One JSON document; with `lines`, on one line."""
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=plain, indent=None if lines else 2)
    write_line(_UNSEEN.sub(lambda found: f"\\u{ord(found.group()):04x}", text))


def say_cut(shown: int, most: int) -> None:
    """That a list ends at its limit, on standard error. `most`: the largest limit there is."""
    more = f"There are more than these {shown}" + (f": --limit {min(most, shown * 5)}" if shown < most else ".")
    console(stderr=True).print(more, style="bright_black", soft_wrap=True)


def say_may_be_cut(limit: int) -> None:
    """The same of what was taken out of a queue, where nobody knows what is left before asking for it."""
    more = f"That were {limit}, the --limit: there may be more. The same command goes on."
    console(stderr=True).print(more, style="bright_black", soft_wrap=True)


def mark(status: str | None) -> Mark:
    """None: the step has not started."""
    return NOT_STARTED if status is None else MARKS.get(status, NOT_STARTED)


def symbol(shown: Mark, on: Console) -> str:
    return shown.ascii if ascii_only(on) else shown.symbol


def ascii_only(on: Console) -> bool:
    """Whether the terminal's encoding is too poor for symbols."""
    return not on.encoding.lower().startswith("utf")


def say_left_out(columns: Sequence[str]) -> None:
    """Says on standard error which columns a narrow terminal has no room for: none is left out without a word."""
    if columns:
        said = f"Too narrow for {', '.join(columns)}: use a wider terminal, or --json."
        console(stderr=True).print(said, style="bright_black", soft_wrap=True)


# ---- text -----------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """The text without characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def name(text: str) -> str:
    """A name as it is, with line breaks and tabs spelled out too: it stays on its line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def indented(text: str) -> str:
    """Text of several lines, which all but the first stand apart, so that none passes for a line of ours."""
    return clean(text).replace("\n", "\n    ")


def one_line(text: str) -> str:
    return clean(" ".join(text.split()))


def shortened(text: str, limit: int) -> str:
    """The text on one line, of at most `limit` characters."""
    line = one_line(text)
    return line if len(line) <= limit else line[: max(0, limit - 1)] + "…"


# ---- times ----------------------------------------------------------------------------------------------------


def duration(took: int | timedelta) -> str:
    """As people say it: `12 ms`, `3.40 s`, `2 min 05 s`, `3 h 20 min`, `4 d 2 h`. A number is in milliseconds."""
    return durations.duration(took if isinstance(took, int) else took // timedelta(milliseconds=1))


def age(milliseconds: int) -> str:
    """In one unit: `12 s`, `5 min`, `3 h`, `2 d`."""
    seconds = max(0, milliseconds) // 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def local_time(milliseconds: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().strftime(form)


def clock_time(milliseconds: int) -> str:
    """Time of day with milliseconds."""
    return f"{local_time(milliseconds, '%H:%M:%S')}.{milliseconds % 1000:03}"
