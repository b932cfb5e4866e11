"""Following a run to its end: on a terminal a view that stays in place, else a line, or a JSON object, per change.

What is shown on the way goes to standard error, so that standard output has nothing but the result. JSON is the
exception: it is meant for a program, which reads one stream.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from detent_infra.runs.as_json import iso
from detent_infra.runs.read import in_order
from detent_state_machine.awaited import awaited
from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import RunError
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus

from detent.changes import Changes, StepChange, stopped
from detent.cli.output import console, duration, mark, name, one_line, symbol, write_json, write_line
from detent.cli.project import Options
from detent.client import Client
from detent.info import moment
from detent.run_handle import FOLLOW_EVERY

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

Rows: TypeAlias = Sequence[tuple[str, StepRecord | None]]

LOOKS = Backoff(first=0.02, longest=FOLLOW_EVERY, factor=1.5)
"""Pauses between two looks at a run."""
NO_WORKER_AFTER = 3.0
"""Seconds without any progress or lease after which we say that no worker seems to be there."""
NO_FUNCTION_AFTER = 15.0
"""The same on AWS, where a function may have to be started first."""


class View(Protocol):
    """Shows a run as it changes."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, run: RunRecord, rows: Rows) -> None: ...
    def no_worker(self, url: str) -> None: ...


def view_for(run_id: str, options: Options, *, as_json: bool) -> View:
    err = console(stderr=True)
    if as_json:
        return JsonLines(err, options, run_id)
    return Live(err, options) if err.is_terminal and not err.is_dumb_terminal else Lines(err, options)


async def follow(client: Client, run_id: str, view: View, *, here: bool = False) -> RunRecord:
    """Shows the run until it has ended.

    `here`: a worker is in this process, so none is said to be missing, however long a body blocks its loop.
    """
    lifecycle = client.lifecycle
    looks = 0
    seen: dict[str, tuple[StepStatus, int]] | None = None
    moved = time.monotonic()
    while True:
        run = await lifecycle.get(run_id)
        graph = await lifecycle.graph(run)
        rows = in_order(graph, await lifecycle.steps(run_id))
        view.update(run, on_the_way(run, rows, [path for path, _ in rows if graph.is_handler(path)]))
        if not run.status.live:
            return run
        state = {path: (record.status, record.attempt) for path, record in rows if record is not None}
        if state != seen or _worked_on(rows, lifecycle.backend.clock()):
            seen, moved = state, time.monotonic()
        elif not here and time.monotonic() - moved >= _patience(client.url):
            view.no_worker(client.url)
            moved = float("inf")
        looks += 1
        await asyncio.sleep(LOOKS.pause(looks))


async def follow_to_result(client: Client, run_id: str, view: View, *, as_json: bool, here: bool = False) -> None:
    with view:
        await follow(client, run_id, view, here=here)
    try:
        text = await client.lifecycle.result(run_id)
    except RunError as error:
        if as_json:
            run = await client.lifecycle.get(run_id)
            failed = {"step": run.failed_step, "type": run.error.type if run.error else None, "message": error.message}
            ended = {"event": "end", "time": iso(run.ended), "run_id": run_id, "status": run.status.value}
            write_json({**ended, "output": None, "error": failed}, lines=True)
        raise
    output: object = json.loads(text or "null")
    if as_json:
        run = await client.lifecycle.get(run_id)
        ended = {"event": "end", "time": iso(run.ended), "run_id": run_id, "status": run.status.value}
        write_json({**ended, "output": output, "error": None}, lines=True)
    else:
        write_json(output)


def print_run_id(run_id: str, options: Options, *, as_json: bool) -> None:
    if as_json:
        write_json({"run_id": run_id})
        return
    write_line(run_id)
    hint = console(stderr=True)
    if hint.is_terminal:
        hint.print(f"Look at it with `detent show {run_id}{options.repeated()}`.", style="bright_black", soft_wrap=True)


def on_the_way(run: RunRecord, rows: Rows, handlers: Collection[str]) -> Rows:
    """The steps without failure handlers that have nothing to do."""
    if run.status is RunStatus.FAILING:
        return rows
    return [(path, record) for path, record in rows if record is not None or path not in handlers]


def _worked_on(rows: Rows, now: int) -> bool:
    """Whether a worker holds a step, or a retry is not due yet. A step longer than a second holds a lease."""
    return any(record is not None and max(record.lease, record.due) > now for _, record in rows)


def _patience(url: str) -> float:
    return NO_FUNCTION_AFTER if url.startswith("aws://") else NO_WORKER_AFTER


def _no_worker(url: str, options: Options) -> str:
    said = f"Nothing has happened for {_patience(url):g} s: no worker seems to"
    if url.startswith("aws://"):
        return f"{said} take its messages. `detent doctor --stack {shlex.quote(url)}` looks for the reason."
    again = options.repeated()
    return (
        f"{said} be running. Start one with `detent worker{again}` or `detent dev{again}`, or use `detent run --here`."
    )


def started_text(run: RunRecord) -> str:
    again = "" if run.retry_of is None else f", a retry of {run.retry_of}"
    return f"run {run.run_id} of {run.workflow} started{again}"


def ended_text(status: RunStatus, took: int) -> str:
    return f"run {status.lower()} in {duration(took)}"


def attempt_text(attempt: int) -> str:
    return f", attempt {attempt}" if attempt > 1 else ""


def waiting_text(what: str, until: datetime | None) -> str:
    """What a step run does that waits for this, or, with "", for a time alone."""
    end = "" if until is None else f"until {until.astimezone():%Y-%m-%d %H:%M:%S}"
    return ", ".join(filter(None, (f"waiting for {what}", end))) if what else f"sleeping {end}"


def change_text(change: StepChange) -> str:
    """What is said behind the step's name."""
    attempt = attempt_text(change.attempt)
    match change.status:
        case StepStatus.COMPLETED:
            return "earlier" if change.took is None else f"{duration(change.took)}{attempt}"
        case StepStatus.RUNNING:
            return f"began{attempt}"
        case StepStatus.WAITING:
            return waiting_text(change.awaited, None if change.pause is None else change.time + change.pause)
        case StepStatus.RETRYING if not change.error:
            return f"attempt {change.attempt} stopped with its worker, and begins again"
        case StepStatus.RETRYING:
            again = "" if change.pause is None else f", again in {duration(change.pause)}"
            return f"attempt {change.attempt} failed{again}: {one_line(change.error)}"
        case StepStatus.FAILED:
            return f"failed{attempt}: {one_line(change.error)}"
        case StepStatus.SKIPPED | StepStatus.CANCELLED:
            return change.status.lower()


class Lines:
    """A line per change."""

    def __init__(self, err: Console, options: Options) -> None:
        self._err = err
        self._options = options
        self._changes = Changes()
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, run: RunRecord, rows: Rows) -> None:
        if not self._begun:
            self._say(moment(run.created), RunStatus.RUNNING, name(started_text(run)))
            self._begun = True
        for change in self._changes.of(run, rows):
            self._say(change.time, change.status, f"{name(change.path)} {change_text(change)}")
        if run.ended is not None:
            self._say(moment(run.ended), run.status, ended_text(run.status, run.ended - run.created))

    def _say(self, time: datetime, status: str, said: str) -> None:
        from rich.text import Text

        shown = mark(status)
        line = Text.assemble((f"{time.astimezone():%H:%M:%S} ", "bright_black"))
        line.append(f"{symbol(shown, self._err)} ", shown.style).append(said)
        self._err.print(line, soft_wrap=True)

    def no_worker(self, url: str) -> None:
        self._err.print(_no_worker(url, self._options), style="yellow", soft_wrap=True)


class JsonLines(Lines):
    """A JSON object per change, on standard output."""

    def __init__(self, err: Console, options: Options, run_id: str) -> None:
        super().__init__(err, options)
        self._run_id = run_id

    def __enter__(self) -> Self:
        return self

    def update(self, run: RunRecord, rows: Rows) -> None:
        if not self._begun:
            begun = {"event": "run", "time": iso(run.created), "run_id": self._run_id, "status": run.status.value}
            write_json(begun, lines=True)
            self._begun = True
        for change in self._changes.of(run, rows):
            changed = {
                "event": "step",
                "time": iso(change.time),
                "run_id": self._run_id,
                "step": change.path,
                "status": change.status.value,
                "attempt": change.attempt,
            }
            write_json(changed, lines=True)


class Live(Lines):
    """The same lines, and under them, while the run lives, the steps at work and the next to come."""

    def __init__(self, err: Console, options: Options) -> None:
        from rich.live import Live as RichLive

        super().__init__(err, options)
        self._hint = ""
        self._live = RichLive(console=err, auto_refresh=False, vertical_overflow="crop", transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, run: RunRecord, rows: Rows) -> None:
        if _moving(rows):
            self._hint = ""
        if not run.status.live:
            self._live.update(self._picture(run, rows))  # nothing is left to draw under the last lines
        super().update(run, rows)
        self._live.update(self._picture(run, rows), refresh=True)

    def no_worker(self, url: str) -> None:
        self._hint = _no_worker(url, self._options)

    def _picture(self, run: RunRecord, rows: Rows) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        if not run.status.live:
            return Group()
        err, now = self._err, int(time.time() * 1000)
        ahead = [(path, record) for path, record in rows if record is None or not record.status.terminal]
        shown = mark(run.status)
        head = Text.assemble(
            (f"{symbol(shown, err)} {run.status.lower()}", shown.style),
            f" {name(run.workflow)} {len(rows) - len(ahead)}/{len(rows)} {duration(now - run.created)}",
        )
        parts: list[RenderableType] = [head]
        room = max(3, err.height - 5 - (3 if self._hint else 0))
        for path, record in worth_showing(ahead, room):
            parts.append(self._row(path, record, now))
        if len(ahead) > room:
            parts.append(Text(f"  … {len(ahead) - room} more steps", "bright_black"))
        if self._hint:
            parts.append(Text(self._hint, "yellow"))
        return Group(*parts)

    def _row(self, path: str, record: StepRecord | None, now: int) -> Text:
        from rich.text import Text

        if record is None:
            shown = mark(None)
            return Text(f"  {symbol(shown, self._err)} {name(path)}", shown.style, no_wrap=True, overflow="ellipsis")
        line = Text("  ", no_wrap=True, overflow="ellipsis")
        return line.append(_step_text(record, self._err, now))


def _moving(rows: Rows) -> bool:
    return any(record is not None and not record.status.terminal for _, record in rows)


def worth_showing(rows: Rows, room: int) -> Rows:
    """As many as there is room for, in order: those at work first, then the next to come, then the newest ended."""
    if len(rows) <= room:
        return rows
    rank = {True: 1, False: 2}

    def urgency(index: int) -> tuple[int, int]:
        record = rows[index][1]
        if record is not None and (not record.status.terminal or record.status is StepStatus.FAILED):
            return (0, index)
        return (rank[record is None], index if record is None else -index)

    kept = sorted(sorted(range(len(rows)), key=urgency)[:room])
    return [rows[index] for index in kept]


def _step_text(record: StepRecord, on: Console, now: int) -> Text:
    """Mark, name, and what is to be said about a step that has begun and not ended."""
    from rich.text import Text

    shown = mark(record.status)
    text = Text.assemble((f"{symbol(shown, on)} ", shown.style), name(record.path))
    if record.status is StepStatus.RUNNING:
        text.append(f" {duration(now - record.started)}{attempt_text(record.attempt)}", shown.style)
    elif record.status is StepStatus.WAITING:
        text.append(f" {waiting_text(awaited(record), moment(record.due) if record.due else None)}", shown.style)
    elif stopped(record):
        text.append(" begins again", shown.style)
    else:
        wait = f"again in {duration(record.due - now)}" if record.due > now else "due"
        text.append(f" attempt {record.attempt} failed, {wait}", shown.style)
    return text
