"""Lists runs."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from detent_infra.runs.as_json import run_json
from detent_infra.runs.listing import Listed
from detent_infra.runs.missing_code import missing_code
from detent_state_machine.records import RunRecord

from detent.cli import arguments
from detent.cli.options import AppName, AsJson, Metadata, Url
from detent.cli.output import age, console, duration, mark, name, say_left_out, symbol, write_json
from detent.cli.project import Options, must_be_whole, opened

LIMIT = 20
NARROWEST = 14
"""Columns that a run takes beside its id: its mark, four characters of its workflow, its age."""


def runs(
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", metavar="STATUS", help="Only these; repeat it, or join with commas."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Started since: 10m, 2h, 3d, or an ISO time.")
    ] = None,
    metadata: Metadata = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only runs of which a step waits for a time or an event.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many.")] = LIMIT,
    after: Annotated[
        str | None, typer.Option("--after", metavar="CURSOR", help="Go on behind a list that was cut, as it says.")
    ] = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """List runs, newest first."""

    show_runs(
        Options(app, url), Filter(workflow, status or [], since, metadata or [], limit, after, waiting), as_json=json
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs to list, as written on the command line."""

    workflow: str | None
    statuses: Sequence[str]
    since: str | None
    metadata: Sequence[str]
    limit: int
    after: str | None
    waiting: bool = False


def show_runs(options: Options, wanted: Filter, *, as_json: bool) -> None:
    page, missing = asyncio.run(_find(options, wanted))
    if as_json:
        listed = [{**run_json(run), "waits_for_code": sorted(missing.get(run.run_id, ()))} for run in page.runs]
        write_json({"runs": listed, "next": page.next})
    elif page.runs:
        _print_table(page.runs, missing)
        _say_missing(missing)
        if page.next is not None:
            more = f"{len(page.runs)} of more: {_going_on(options, wanted, page.next)}"
            console(stderr=True).print(more, style="bright_black", soft_wrap=True)
    else:
        _print_none(options, wanted)


def _going_on(options: Options, wanted: Filter, cursor: str) -> str:
    """The command that lists the runs behind these."""
    given = [("--workflow", wanted.workflow), *(("--status", each) for each in wanted.statuses)]
    given += [("--since", wanted.since), *(("--metadata", each) for each in wanted.metadata)]
    filters = "".join(f" {option} {shlex.quote(value)}" for option, value in given if value)
    filters += " --waiting" if wanted.waiting else ""
    limit = f" --limit {wanted.limit}" if wanted.limit != LIMIT else ""
    return f"detent runs{filters}{limit}{options.repeated()} --after {cursor}"


async def _find(options: Options, wanted: Filter) -> tuple[Listed, Mapping[str, Mapping[str, int]]]:
    """The runs, and the steps of those that wait for code."""
    statuses, since = arguments.statuses(wanted.statuses), arguments.since(wanted.since)
    metadata = arguments.metadata(wanted.metadata)
    async with opened(options) as client:
        found = await client.lifecycle.page(
            None if wanted.workflow is None else [wanted.workflow],
            statuses=statuses,
            since=0 if since is None else int(since.timestamp() * 1000),
            metadata=metadata,
            limit=wanted.limit,
            after=wanted.after,
            waiting=wanted.waiting,
        )
        if not found.runs:
            must_be_whole(client)
        if not found.runs and wanted.workflow is not None:
            await client.lifecycle.definitions.newest(wanted.workflow)  # a wrong name is told, not shown as no runs
        return found, await missing_code(client.lifecycle.backend, found.runs)


def _say_missing(missing: Mapping[str, Mapping[str, int]]) -> None:
    if missing:
        said = f"! waits for code that no worker has: `detent show {name(next(iter(missing)))}` names the step."
        console(stderr=True).print(said, style="yellow", soft_wrap=True)


def _print_table(runs: Sequence[RunRecord], missing: Collection[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    now = int(time.time() * 1000)
    longest = max(len(name(run.run_id)) for run in runs)
    out.width = max(out.width, longest + NARROWEST)  # a run id is never cut: rather the terminal breaks the line
    words, took, notes = out.width >= 66, out.width >= 76, out.width >= 100
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("RUN", no_wrap=True, min_width=longest)
    table.add_column("STATUS" if words else "", no_wrap=True)
    table.add_column("WORKFLOW", no_wrap=True, overflow="ellipsis", min_width=8 if out.width >= longest + 20 else 4)
    table.add_column("AGE", no_wrap=True, justify="right")
    if took:
        table.add_column("TOOK", no_wrap=True, justify="right")
    if notes:
        table.add_column("KEY, METADATA", no_wrap=True, overflow="ellipsis", ratio=1)
    for run in runs:
        shown = mark(run.status)
        status = symbol(shown, out) + (f" {run.status.lower()}" if words else "")
        status += "!" if run.run_id in missing else ""
        cells = [
            Text(name(run.run_id)),
            Text(status, shown.style),
            Text(name(run.workflow)),
            Text(age(now - run.created)),
        ]
        if took:
            cells.append(Text(duration((run.ended or now) - run.created), "" if run.ended else "bright_black"))
        if notes:
            cells.append(Text(_notes(run), "bright_black"))
        table.add_row(*cells)
    out.print(table)
    noted = not notes and any(_notes(run) for run in runs)
    say_left_out([*(() if took else ("TOOK",)), *(("KEY, METADATA",) if noted else ())])


def _notes(run: RunRecord) -> str:
    key = [run.key] if run.key is not None else []
    return name("  ".join([*key, *(f"{field}={value}" for field, value in run.metadata.items())]))


def _print_none(options: Options, wanted: Filter) -> None:
    err = console(stderr=True)
    if wanted.statuses or wanted.since or wanted.metadata or wanted.workflow:
        err.print("No run matches.", soft_wrap=True)
    else:
        err.print(f"No runs yet. Start one with `detent run WORKFLOW JSON{options.repeated()}`.", soft_wrap=True)
