"""A finding of a check, and how findings are told: as lines while they are made, or as one JSON document."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from detent.cli.output import clean, console, one_line, write_json

Verdict = Literal["ok", "warn", "fail", "skip"]
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@dataclass(frozen=True, slots=True)
class Check:
    """A finding. `skip`: it could not be looked at, for the reason given.

    Unless all is well, `fix` says what to do, and `command` is what does it, or shows more.
    """

    name: str
    verdict: Verdict
    message: str
    fix: str = ""
    command: str = ""


class Report:
    """Collects findings, and tells each at once unless they are wanted as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._found: list[Check] = []

    def add(self, check: Check) -> None:
        self._found.append(check)
        if not self._as_json:
            _print(check)

    def close(self) -> int:
        """The exit code: 2 if a check failed."""
        failed = any(check.verdict == "fail" for check in self._found)
        if self._as_json:
            write_json({"ok": not failed, "checks": [asdict(check) for check in self._found]})
        return 2 if failed else 0


def _print(check: Check) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    said = Text(one_line(check.message))
    if check.fix:
        said.append(f"\n{clean(check.fix)}", _STYLES[check.verdict])
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=4, no_wrap=True)
    grid.add_column(width=12, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(check.verdict, _STYLES[check.verdict]), check.name, said)
    out.print(grid)
    if check.command:  # on one line, however long, so that it can be copied
        out.print(Text(" " * 20 + check.command, _STYLES[check.verdict]), soft_wrap=True)
