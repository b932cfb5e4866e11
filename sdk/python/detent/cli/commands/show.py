"""Shows one run in full."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detent_infra.runs.as_json import error_json, run_json, step_json
from detent_infra.runs.missing_code import missing_code
from detent_infra.runs.read import in_order
from detent_state_machine.awaited import awaited, met_by
from detent_state_machine.records import ErrorInfo, RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus

from detent.cli import waterfall
from detent.cli.follow import on_the_way, waiting_text
from detent.cli.options import AppName, AsJson, Run, Url
from detent.cli.output import (
    age,
    clean,
    clock_time,
    console,
    duration,
    indented,
    local_time,
    mark,
    name,
    one_line,
    shortened,
    symbol,
    write_json,
)
from detent.cli.project import Options, opened, run_id_of
from detent.info import moment

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_ATTEMPTS = 5
"""Past attempts of a step that are listed; `--json` has all that are kept."""
PAST_INDENT = 5
"""Columns before what is said of a past attempt."""
MAX_WIDTH = 120


def show(run: Run, app: AppName = None, url: Url = None, json: AsJson = False) -> None:
    """Show a run: its steps in time, its output or its error."""

    show_run(Options(app, url), run, as_json=json)


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run with all that belongs to it; payloads as JSON texts."""

    run: RunRecord
    steps: Sequence[tuple[str, StepRecord | None]]
    handlers: Collection[str]
    """Names of the steps that only run after a failure."""
    input: str
    output: str | None
    outputs: dict[str, str]
    missing: Mapping[str, int]
    """Steps that wait for code, each with since when."""


def show_run(options: Options, given: str, *, as_json: bool) -> None:
    report = asyncio.run(_read(options, given, outputs=as_json))
    if as_json:
        write_json(_json(report))
    else:
        _print(report, options)


async def _read(options: Options, given: str, *, outputs: bool) -> RunDetails:
    async with opened(options) as client:
        lifecycle = client.lifecycle
        run = await lifecycle.get(await run_id_of(client, given))
        graph = await lifecycle.graph(run)
        steps = in_order(graph, await lifecycle.steps(run.run_id))
        handlers = [path for path, _ in steps if graph.is_handler(path)]
        texts: dict[str, str] = {}
        for path, record in steps if outputs else ():
            if record is not None and (text := await lifecycle.output(record.output)) is not None:
                texts[path] = text
        output = await lifecycle.result(run.run_id) if run.status is RunStatus.COMPLETED else None
        missing = (await missing_code(lifecycle.backend, [run])).get(run.run_id, {})
        return RunDetails(run, steps, handlers, await lifecycle.output(run.input) or "null", output, texts, missing)


# ---- JSON -----------------------------------------------------------------------------------------------------


def _json(report: RunDetails) -> dict[str, object]:
    run = report.run
    return {
        **run_json(run),
        "retry_of": run.retry_of,
        "input": json.loads(report.input),
        "output": None if report.output is None else json.loads(report.output),
        "failed_step": run.failed_step,
        "error": error_json(run.error, trace=True),
        "steps": [
            step_json(path, record, report.outputs.get(path), report.missing.get(path)) for path, record in report.steps
        ],
    }


# ---- for people -----------------------------------------------------------------------------------------------


def _print(report: RunDetails, options: Options) -> None:
    out = console()
    out.width = min(out.width, MAX_WIDTH)
    now = int(time.time() * 1000)
    _print_head(out, report, now)
    out.print()
    for line in waterfall.draw(report.run, on_the_way(report.run, report.steps, report.handlers), out, now):
        out.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    for path, since in report.missing.items():
        _print_missing(out, report.run, path, now - since)
    for path, record in report.steps:
        if record is not None:
            _print_wait(out, path, record, now)
            _print_trouble(out, report.run, path, record, now)
    _print_next(out, report.run, options)


def _print_missing(out: Console, run: RunRecord, path: str, waited: int) -> None:
    """That the step waits for a worker whose code has it."""
    from rich.text import Text

    waits = mark(StepStatus.WAITING)
    title = Text.assemble("\n", (f"{symbol(waits, out)} {name(path)}", f"bold {waits.style}"))
    out.print(title.append(f"  waits for code, for {age(waited)} so far"))
    out.print(Text(f"  No worker that looked has this step of {name(run.workflow)!r}, version {run.version}."))


def _print_head(out: Console, report: RunDetails, now: int) -> None:
    from rich.text import Text

    run = report.run
    shown = mark(run.status)
    head = Text(f"{symbol(shown, out)} {run.status}", f"bold {shown.style}")
    out.print(head.append(f"  {name(run.workflow)}", "bold").append(f"  {name(run.run_id)}", "bright_black"))
    took = duration((run.ended or now) - run.created)
    facts = [("started", f"{local_time(run.created)}, {age(now - run.created)} ago")]
    facts += [("took" if run.ended else "so far", took), ("version", run.version)]
    if run.key is not None:
        facts.append(("key", run.key))
    if run.metadata:
        facts.append(("metadata", ", ".join(f"{key}={value}" for key, value in run.metadata.items())))
    if run.retry_of is not None:
        facts.append(("retry of", run.retry_of))
    facts.append(("input", report.input))
    if report.output is not None:
        facts.append(("output", report.output))
    for label, value in facts:
        limit = (out.width - 12) * (3 if label in ("input", "output") else 1)
        out.print(_labelled(label, shortened(value, limit)))


def _labelled(label: str, value: str) -> object:
    """The value beside its name, going on under itself."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=8, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(label, "bright_black"), Text(value))
    return grid


def _print_wait(out: Console, path: str, record: StepRecord, now: int) -> None:
    """What the step waits for, since when and until when; or what ended its wait."""
    from rich.text import Text

    what = name(awaited(record))
    if record.status is StepStatus.WAITING:
        said = waiting_text(what, None if record.goes_on is None else moment(record.goes_on))
        left = f", {duration(max(0, record.goes_on - now))} from now" if record.goes_on else ""
        said += f"{left}; for {age(now - record.started)} so far"
    elif record.status is StepStatus.COMPLETED and what:
        said = f"{what} came: {name(met_by(record))}" if record.fact else f"{what} did not come in time"
    else:
        return
    shown = mark(record.status)
    out.print(Text.assemble("\n", (f"{symbol(shown, out)} {name(path)}", f"bold {shown.style}"), f"  {said}"))


def _print_trouble(out: Console, run: RunRecord, path: str, record: StepRecord, now: int) -> None:
    """What went wrong in the step: the newest error with its trace, and the attempts before."""
    from rich.text import Text

    if record.error is None and not record.history:
        return
    shown = mark(record.status)
    failed = record.status in (StepStatus.FAILED, StepStatus.RETRYING)
    title = Text.assemble("\n", (f"{symbol(shown, out)} {name(path)}", f"bold {shown.style}"))
    if record.status is StepStatus.RETRYING:
        title.append(f"  next attempt {'in ' + duration(record.due - now) if record.due > now else 'is due'}")
    elif failed and path == run.failed_step:
        title.append("  failed the run")
    elif record.status is StepStatus.COMPLETED:
        title.append(f"  completed at attempt {record.attempt}")
    out.print(title)
    if record.error is not None and failed:
        out.print(Text(f"  {name(record.error.type)}: {indented(record.error.message)}", shown.style))
        for line in _trace(record.error):
            out.print(Text(f"  {line}", "bright_black"), overflow="fold")
    history = record.history
    if len(history) > 1 or (history and not failed):
        attempts = list(record.failed_attempts())[-SHOWN_ATTEMPTS:]
        if earlier := attempts[0][0] - 1:
            said = f"  … {earlier} earlier attempt{'' if earlier == 1 else 's'}; --json has the newest ten"
            out.print(Text(said, "bright_black"))
        for number, past in attempts:
            when = (f"{clock_time(past.started)}, {duration(past.ended - past.started)}: ", "bright_black")
            lines = Text.assemble(when, one_line(past.error)).wrap(out, out.width - PAST_INDENT)
            head = f"  {number}."
            for each in lines:
                each.rstrip()
                out.print(Text(f"{head:<{PAST_INDENT}}", "bright_black").append_text(each))
                head = ""


def _trace(error: ErrorInfo) -> list[str]:
    """The trace without the error itself, which is said already, and without carets, which do not survive folding."""
    lines = clean(error.trace).rstrip().splitlines()
    named = [at for at, line in enumerate(lines) if line.partition(":")[0].rpartition(".")[2] == error.type]
    if named:
        del lines[named[-1] : named[-1] + max(1, len(error.message.splitlines()))]
    return [line for line in lines if line.strip(" ~^")]


def _print_next(out: Console, run: RunRecord, options: Options) -> None:
    from rich.text import Text

    more, run_id = options.repeated(), name(run.run_id)
    match run.status:
        case RunStatus.RUNNING | RunStatus.FAILING:
            todo = [
                f"detent why {run_id}{more}",
                f"detent logs {run_id}{more} --follow",
                f"detent cancel {run_id}{more}",
            ]
        case RunStatus.FAILED | RunStatus.CANCELLED:
            todo = [f"detent logs {run_id}{more}", f"detent retry {run_id}{more}"]
        case RunStatus.COMPLETED:
            todo = [f"detent logs {run_id}{more}"]
    out.print()
    for index, command in enumerate(todo):
        out.print(Text.assemble(("next  " if index == 0 else "      ", "bright_black"), command), soft_wrap=True)
