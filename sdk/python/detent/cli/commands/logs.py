"""Prints the log of a run, or of all of them."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, cast

import typer
from detent_infra.logs.lines import known_level, level_name
from detent_infra.logs.reader import MAX_FAMILY, LogReader
from detent_infra.ports import LogLine, LogPage, LogQuery
from detent_infra.runs.as_json import iso
from detent_state_machine import filter_pattern
from detent_state_machine.errors import InputError, Unavailable, UnknownStep
from detent_state_machine.records import RunRecord
from detent_state_machine.suggest import did_you_mean

from detent.cli import arguments
from detent.cli.options import AppName, AsJson, Url
from detent.cli.output import clock_time, console, indented, local_time, name, write_json
from detent.cli.project import Options, opened, run_id_of
from detent.client import Client

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES: Mapping[str, str] = {
    "TRACE": "bright_black",
    "DEBUG": "bright_black",
    "WARN": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold red",
}
MAX_SHOWN = 10_000
"""Lines, the first, that are printed without --limit or --follow."""
RECENT = 600_000
"""Milliseconds that are looked back over without a run and --since."""
PATIENCE = 60
"""Seconds that a search takes at most without --timeout or --follow."""
NARROW, WIDE = 60, 90


def logs(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run id, or `last`. Without it: all runs, the last 10 minutes."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Lines since: 10m, 2h, 3d, or an ISO time.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Lines until then.")] = None,
    step: Annotated[str | None, typer.Option(metavar="PATH", help="Only this step, all its attempts.")] = None,
    level: Annotated[str | None, typer.Option(metavar="LEVEL", help="Only this level and above, as in warn.")] = None,
    filter: Annotated[str, typer.Option("--filter", metavar="PATTERN", help="A CloudWatch Logs filter pattern.")] = "",
    children: Annotated[bool, typer.Option("--children", help="The runs that came of it too: its retries.")] = False,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="NAME", help="Only runs of this workflow; without RUN.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help="The first so many; 10,000, unless it follows."),
    ] = None,
    timeout: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", min=1, help="Search at most so long; 60, unless it follows."),
    ] = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Print the log of a run, or of all.

    With --json, one JSON object per line.
    """

    wanted = LogOptions(run, workflow, step, level, filter, since, until, children, limit, timeout)
    show_logs(Options(app, url), wanted, follow=follow, as_json=json)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which lines, as written on the command line."""

    run: str | None
    workflow: str | None
    step: str | None
    level: str | None
    pattern: str
    since: str | None
    until: str | None
    children: bool
    limit: int | None
    timeout: int | None


def show_logs(options: Options, wanted: LogOptions, *, follow: bool, as_json: bool) -> None:
    if wanted.run is not None and wanted.workflow is not None:
        raise InputError("A run has one workflow: --workflow does not go with RUN.", advice="Leave one of them out.")
    if wanted.run is None and wanted.children:
        raise InputError("--children is about a run.", advice="Name one: `detent logs RUN --children`.")
    if follow and wanted.until is not None:
        raise InputError("--follow has no end, and --until is one.", advice="Leave one of them out.")
    if follow and wanted.timeout is not None:
        raise InputError("--follow has no end, and --timeout is one.", advice="Leave one of them out.")
    query = LogQuery(
        workflow=wanted.workflow or "",
        path=wanted.step or "",
        level=known_level(wanted.level) if wanted.level else "",
        pattern=wanted.pattern,
        since=arguments.milliseconds(wanted.since, "--since") or 0,
        until=arguments.milliseconds(wanted.until, "--until"),
    )
    filter_pattern.parse(query.pattern)  # before anything is opened
    asyncio.run(_show(options, wanted, query, follow=follow, as_json=as_json))


AFTER_THE_END = " (after its attempt had ended)"
"""Behind a line that a body wrote when nobody waited for it any more."""


def line_json(line: LogLine) -> dict[str, object]:
    """A line as `--json` prints it."""
    return {
        "time": iso(line.time),
        "level": line.level,
        "message": line.message,
        "run_id": line.run_id or None,
        "workflow": line.workflow or None,
        "step": line.path or None,
        "attempt": line.attempt or None,
        "worker": line.worker or None,
        "request_id": line.request_id or None,
        "trace_id": line.trace_id or None,
        "engine": line.engine or None,
        "attempt_over": line.attempt_over,
        "fields": fields_of(line),
    }


def fields_of(line: LogLine) -> dict[str, object]:
    parsed: object = json.loads(line.fields)
    return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else {}


def line_text(line: LogLine, out: Console, *, with_run: bool = False) -> Text:
    """A line as people read it. The engine's own stand back."""
    from rich.text import Text

    day = local_time(line.time, "%m-%d ") if local_time(line.time, "%F") != local_time(_now(), "%F") else ""
    at = local_time(line.time, "%H:%M:%S") if out.width < NARROW else clock_time(line.time)
    style = STYLES.get(level_name(line.level), "")
    text = Text.assemble((f"{day}{at}", "bright_black"), " ", (f"{name(level_name(line.level)):5}", style), " ")
    if with_run and line.run_id:
        text.append(name(line.run_id if out.width >= WIDE else line.run_id[-6:]), "magenta").append(" ")
    if line.path:
        text.append(name(line.path) + (f" ({line.attempt})" if line.attempt > 1 else ""), "cyan").append(" ")
    if line.engine:
        return text.append(indented(line.message), style or "bright_black")
    text.append(indented(line.message), style if style != "bright_black" else "")
    for field, value in fields_of(line).items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text.append(f" {name(field)}=", "bright_black").append(name(shown))
    return text.append(AFTER_THE_END, "yellow") if line.attempt_over else text


def _now() -> int:
    return int(time.time() * 1000)


async def _show(options: Options, wanted: LogOptions, query: LogQuery, *, follow: bool, as_json: bool) -> None:
    out, err = console(), console(stderr=True)
    async with opened(options) as client:
        runs = [] if wanted.run is None else await _runs(client, await run_id_of(client, wanted.run), wanted.children)
        if wanted.children and len(runs) == MAX_FAMILY:
            err.print(f"Only the first {MAX_FAMILY} of its retries are read.", style="yellow", soft_wrap=True)
        await _check_names(client, wanted, runs)
        if not runs and wanted.since is None:
            query = replace(query, since=_now() - RECENT)
        limit = wanted.limit if wanted.limit is not None or follow else MAX_SHOWN
        shown = 0
        timeout = math.inf if follow else wanted.timeout or PATIENCE
        found = LogReader(client.lifecycle).pages(query, runs, follow=follow)
        async with aclosing(found), aclosing(_watched(found, timeout, err)) as pages:
            async for page in pages:
                if page.note:
                    err.print(page.note, style="yellow", soft_wrap=True)
                fitting = page.lines if limit is None else page.lines[: limit - shown]
                for line in fitting:
                    if as_json:
                        write_json(line_json(line), lines=True)
                    else:
                        out.print(line_text(line, out, with_run=len(runs) != 1), soft_wrap=True)
                shown += len(fitting)
                if shown == limit and (page.more or follow or len(fitting) < len(page.lines)):
                    _say_cut(err, shown, fitting[-1].time if fitting else None)
                    return
    if not shown and not as_json:
        _say_none(err, wanted, runs, follow=follow)


async def _watched(pages: AsyncGenerator[LogPage, None], timeout: float, err: Console) -> AsyncGenerator[LogPage, None]:
    """The pages. While there are none with lines, a terminal shows how far the search is.

    Raises `Unavailable` if there is more after so many seconds of waiting for pages; what is done with them is free.
    """
    spent = 0.0
    shown = err.status("") if err.is_terminal else None
    try:
        while True:
            began = time.monotonic()
            page = await anext(pages, None)
            spent += time.monotonic() - began
            if shown is not None:
                shown.stop()
            if page is None:
                return
            yield page
            if page.more and spent >= timeout:
                raise _too_long(timeout, page.reached)
            if page.more and not page.lines and shown is not None:
                so_far = f", done up to {local_time(page.reached)}" if page.reached else ""
                shown.update(f"Searching a large log{so_far} …")
                shown.start()
    finally:
        if shown is not None:
            shown.stop()


def _too_long(timeout: float, reached: int) -> Unavailable:
    longer = "or search longer with --timeout."
    if reached:
        return Unavailable(
            f"Stopped after {timeout:g} s of searching. All before {iso(reached)} is searched.",
            advice=f"Go on with --since {iso(reached)}, {longer}",
        )
    return Unavailable(
        f"Stopped after {timeout:g} s of searching, with more to search.",
        advice=f"Search less at once, by RUN, --since and --until, {longer}",
    )


async def _runs(client: Client, run_id: str, children: bool) -> list[RunRecord]:
    return await LogReader(client.lifecycle).family(run_id) if children else [await client.lifecycle.get(run_id)]


async def _check_names(client: Client, wanted: LogOptions, runs: Sequence[RunRecord]) -> None:
    """A wrong name is told, not shown as an empty log."""
    if wanted.workflow is not None:
        await client.lifecycle.definitions.newest(wanted.workflow)
    if wanted.step is not None and runs:
        steps = (await client.lifecycle.graph(runs[0])).steps
        if wanted.step not in steps:
            advice = did_you_mean(wanted.step, steps, f"It has {', '.join(sorted(steps)[:10])}.")
            raise UnknownStep(f"Run {runs[0].run_id} has no step {wanted.step!r}.", advice=advice)


def _say_cut(err: Console, shown: int, last: int | None) -> None:
    later = f" For later ones, --since {iso(last)}." if last is not None else ""
    err.print(
        f"Stopped after the first {shown:,} lines.{later} Choose with --step, --level or --filter; --limit shows more.",
        style="yellow",
        soft_wrap=True,
    )


def _say_none(err: Console, wanted: LogOptions, runs: Sequence[RunRecord], *, follow: bool) -> None:
    narrowed = (wanted.pattern, wanted.since, wanted.until, wanted.step, wanted.level, wanted.workflow)
    why = "matches" if any(narrowed) else "was written"
    when = "" if runs or wanted.since else " in the last 10 minutes; look further back with --since"
    live = any(run.status.live for run in runs)
    yet = " yet; wait for more with --follow" if live and not follow else ""
    err.print(f"No line {why}{when}{yet}.", soft_wrap=True)
