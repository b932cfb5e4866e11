"""Long work in phases: each is told with its time when it ends, and on a terminal while it lasts."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from detent.cli.output import ascii_only, clean, console, duration


@dataclass
class Phase:
    """What is being done. `told` is what its line will say."""

    name: str
    told: str = ""
    milliseconds: int = 0


class Progress:
    """Speaks on standard error, so that standard output holds results only."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self.phases: list[Phase] = []

    @contextmanager
    def phase(self, name: str, doing: str) -> Generator[Phase]:
        phase = Phase(name)
        began = time.monotonic()
        shown = self._console.status(f"{clean(doing)} …") if self._console.is_terminal else nullcontext()
        with shown:
            yield phase
        phase.milliseconds = int((time.monotonic() - began) * 1000)
        self.phases.append(phase)
        mark = "+" if ascii_only(self._console) else "✓"
        self.line(f"{mark} {name:<9} {duration(phase.milliseconds):>8}  {phase.told}".rstrip(), "green", len(mark))

    def line(self, text: str, style: str = "", styled: int | None = None) -> None:
        """A line now. `styled`: how many characters of it have the style; all, unless given."""
        from rich.text import Text

        shown = Text(clean(text))
        shown.stylize(style, 0, styled)
        self._console.print(shown, soft_wrap=True)
