"""What `detent dev` shows: the lines of `run --follow` for every run, and between them what steps log."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from detent_infra.ports import LogLine
from detent_state_machine.errors import Unavailable
from detent_state_machine.records import RunRecord
from detent_state_machine.status import RunStatus, StepStatus

from detent.cli.commands.logs import AFTER_THE_END, STYLES, fields_of
from detent.cli.follow import attempt_text, ended_text, started_text
from detent.cli.output import duration, local_time, mark, name, one_line, symbol
from detent.client import Client

if TYPE_CHECKING:
    from rich.console import Console

LONG_STEP = 1.0
"""Seconds after which a step is said to have begun; a shorter one is only shown when it ends."""
LINES_PER_SECOND = 50
"""More than anybody reads. What is beyond is counted."""
WATCHED_RUNS = 100
SHORT_ID = 6
"""Characters of a run's id in front of its lines, from its end. The line that it started has all of it."""


class Feed:
    """Prints events one below the other, at most `LINES_PER_SECOND`. A line is never cut."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._second = 0
        self._printed = 0
        self._dropped = 0

    def event(self, status: str, run_id: str, what: str, more: str = "", style: str = "", at: int = 0) -> None:
        """A line with the mark of the status, what it happened to, and more about it. `at` is when; 0: now."""
        from rich.text import Text

        now = int(time.time() * 1000)
        if not self._admit(now // 1000):
            return
        shown = mark(status)
        head = f"{local_time(at or now, '%H:%M:%S')} {name(run_id[-SHORT_ID:])}".rstrip()
        text = Text.assemble((f"{head} ", "bright_black"))
        text.append(f"{symbol(shown, self.out)} ", shown.style).append(name(what))
        text.append(f" {one_line(more)}" if more else "", style)
        self.out.print(text, soft_wrap=True)

    def _admit(self, second: int) -> bool:
        if second != self._second:
            if self._dropped:
                self.out.print(f"         … {self._dropped:,} more events", style="bright_black")
            self._second, self._printed, self._dropped = second, 0, 0
        if self._printed >= LINES_PER_SECOND:
            self._dropped += 1
            return False
        self._printed += 1
        return True


class RunWatch:
    """Tells the feed of every line of the log as it is written, and of runs that others work on."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._begun: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._told: dict[tuple[str, RunStatus], None] = {}

    def line(self, line: LogLine) -> None:
        """From any thread: synchronous bodies log from threads of their own."""
        self._loop.call_soon_threadsafe(self._take, line)

    async def runs(self, client: Client, every: float) -> None:
        """Looks for runs that start and end, each `every` seconds, until it is cancelled."""
        known: dict[str, RunStatus] | None = None
        while True:
            try:
                found = await client.lifecycle.list(limit=WATCHED_RUNS)
            except Unavailable as error:
                self._feed.event(StepStatus.RETRYING, "", "the backend does not answer", str(error))
            else:
                for run in reversed(found) if known is not None else ():
                    if (known or {}).get(run.run_id) is not run.status:
                        self._tell_run(run)
                known = {run.run_id: run.status for run in found}
            await asyncio.sleep(every)

    def _tell_run(self, run: RunRecord) -> None:
        if run.ended is not None:
            said = ended_text(run.status, run.ended - run.created)
        else:
            said = "run fails: its handlers run" if run.status is RunStatus.FAILING else started_text(run)
        self._run_event(run.run_id, run.status, said, run.ended or 0)

    def _run_event(self, run_id: str, status: RunStatus, said: str, at: int) -> None:
        """Once, whether the log says so first or the list of runs."""
        if (run_id, status) in self._told:
            return
        self._told[run_id, status] = None
        if len(self._told) > 10 * WATCHED_RUNS:
            del self._told[next(iter(self._told))]
        self._feed.event(status, run_id, said, at=at)

    def _take(self, line: LogLine) -> None:
        if not line.engine:
            fields = "".join(f" {field}={value}" for field, value in fields_of(line).items())
            style = STYLES.get(line.level.upper(), "")
            late = AFTER_THE_END if line.attempt_over else ""
            self._feed.event("", line.run_id, line.path, f"{line.message}{fields}{late}", style, line.time)
        elif line.path:
            self._step(line)
        else:
            self._run(line)

    def _run(self, line: LogLine) -> None:
        match line.engine:
            case "run_started":
                said = f"run {line.run_id} of {line.workflow} started{line.message.removeprefix('run started')}"
                self._run_event(line.run_id, RunStatus.RUNNING, said, line.time)
            case "run_failing":
                self._run_event(line.run_id, RunStatus.FAILING, line.message, line.time)
            case "run_completed":
                self._run_event(line.run_id, RunStatus.COMPLETED, line.message, line.time)
            case "run_failed":
                self._run_event(line.run_id, RunStatus.FAILED, line.message, line.time)
            case _:
                self._feed.event("", line.run_id, line.message, at=line.time)

    def _step(self, line: LogLine) -> None:
        step, nth = (line.run_id, line.path), attempt_text(line.attempt)
        if (begun := self._begun.pop(step, None)) is not None:
            begun.cancel()
        match line.engine:
            case "step_started":
                self._begun[step] = self._loop.call_later(
                    LONG_STEP, self._feed.event, StepStatus.RUNNING, line.run_id, line.path, f"began{nth}"
                )
                return
            case "step_completed":
                took: Any = json.loads(line.fields).get("duration_ms", 0)
                status, said = StepStatus.COMPLETED, f"{duration(int(took))}{nth}"
            case "step_waiting":
                status, said = StepStatus.WAITING, line.message
            case "step_skipped":
                status, said = StepStatus.SKIPPED, line.message
            case "step_cancelled":
                status, said = StepStatus.CANCELLED, line.message
            case "step_failed":
                status, said = StepStatus.FAILED, f"failed{nth}: {line.message.partition(': ')[2]}"
            case _:
                status, said = StepStatus.RETRYING, line.message
        self._feed.event(status, line.run_id, line.path, said, at=line.time)
