"""A run's log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from detent_infra.ports import LogLine

from detent.cli import arguments
from detent.cli.output import clock_time, console, indented, iso, name, write_json
from detent.cli.project import Options, opened, run_id_of

if TYPE_CHECKING:
    from rich.text import Text

STYLES: Mapping[str, str] = {
    "DEBUG": "bright_black",
    "WARN": "yellow",
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold red",
}


def show_logs(options: Options, given: str, *, pattern: str, since: str | None, follow: bool, as_json: bool) -> None:
    asyncio.run(_show(options, given, pattern, arguments.since_milliseconds(since), follow=follow, as_json=as_json))


def line_json(line: LogLine) -> dict[str, object]:
    """A line as `--json` prints it."""
    return {
        "time": iso(line.time),
        "level": line.level,
        "message": line.message,
        "run_id": line.run_id,
        "step": line.path or None,
        "attempt": line.attempt or None,
        "fields": fields_of(line),
    }


def fields_of(line: LogLine) -> dict[str, object]:
    parsed: object = json.loads(line.fields)
    return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else {}


def line_text(line: LogLine) -> Text:
    """A line as people read it."""
    from rich.text import Text

    style = STYLES.get(line.level.upper(), "")
    text = Text.assemble((clock_time(line.time), "bright_black"), " ", (f"{name(line.level):5}", style), " ")
    if line.path:
        text.append(name(line.path) + (f"#{line.attempt}" if line.attempt > 1 else ""), "cyan").append(" ")
    text.append(indented(line.message), style if style != "bright_black" else "")
    for field, value in fields_of(line).items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text.append(f" {name(field)}=", "bright_black").append(name(shown))
    return text


async def _show(options: Options, given: str, pattern: str, since: int, *, follow: bool, as_json: bool) -> None:
    out = console()
    shown = 0
    async with opened(options) as client:
        run_id = await run_id_of(client, given)
        run = await client.aget(run_id)  # an unknown run is told, not shown as an empty log
        async for line in client.alogs(run_id, pattern=pattern, since=since, follow=follow):
            shown += 1
            if as_json:
                write_json(line_json(line), lines=True)
            else:
                out.print(line_text(line), soft_wrap=True)
    if not shown and not as_json:
        why = "matches" if pattern or since else "was written"
        yet = " yet; wait for more with --follow" if run.status.live and not follow else ""
        console(stderr=True).print(f"No line {why}{yet}.", soft_wrap=True)
