"""Prints findings of checks: as lines while they are made, or as one JSON document."""

from __future__ import annotations

from dataclasses import asdict

from detent_infra.ops.doctor.findings import Finding

from detent.cli.output import clean, console, one_line, write_json

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}

_MARGIN, _LEAST = 20, 20
"""Columns before what is said, and that it has however narrow the terminal is."""


class FindingsReport:
    """Collects findings, and tells each at once unless they are wanted as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._found: list[Finding] = []

    def add(self, check: Finding) -> None:
        self._found.append(check)
        if not self._as_json:
            _print(check)

    def close(self) -> int:
        """The exit code: 2 if a check failed."""
        failed = any(check.verdict == "fail" for check in self._found)
        if self._as_json:
            write_json({"ok": not failed, "checks": [asdict(check) for check in self._found]})
        return 2 if failed else 0


def _print(check: Finding) -> None:
    from rich.text import Text

    out, style = console(), _STYLES[check.verdict]
    said = Text(one_line(check.message))
    if check.fix:
        said.append(f"\n{clean(check.fix)}", style)
    lines = said.wrap(out, max(_LEAST, out.width - _MARGIN))
    for line in lines:
        line.rstrip()
    first, *more = lines
    out.print(Text.assemble((f"{check.verdict:<6}", style), f"{check.name:<{_MARGIN - 6}}", first))
    for line in more:
        out.print(Text(" " * _MARGIN).append_text(line))
    if check.command:  # on one line, however long, so that it can be copied
        out.print(Text(" " * _MARGIN + check.command, style), soft_wrap=True)
