"""What `detent dev` shows: steps as they run, what they log, and runs as they start and end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, assert_never

from detent_infra.executor import Attempt, Completed, Executor, Failed, Outcome
from detent_infra.ports import LogLine
from detent_state_machine.definition import Definition
from detent_state_machine.errors import Unavailable
from detent_state_machine.records import RunRecord
from detent_state_machine.status import RunStatus, StepStatus

from detent.cli.commands.logs import STYLES, fields_of
from detent.cli.output import duration, local_time, mark, name, one_line, symbol
from detent.client import Client

if TYPE_CHECKING:
    from rich.console import Console

LONG_STEP = 1.0
"""Seconds after which a step is shown as running; a shorter one is only shown when it ends."""
LINES_PER_SECOND = 50
"""More than anybody reads. What is beyond is counted."""
WATCHED_RUNS = 100


class Feed:
    """Prints events one below the other, at most `LINES_PER_SECOND`."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._second = 0
        self._printed = 0
        self._dropped = 0

    def event(self, status: str, run_id: str, what: str, more: str = "", style: str | None = None) -> None:
        """A line with the mark of the status, what it happened to, and more about it."""
        from rich.text import Text

        now = int(time.time() * 1000)
        if not self._admit(now // 1000):
            return
        shown = mark(status)
        id = name(run_id if self.out.width >= 90 else run_id[-6:])
        text = Text.assemble((f"{local_time(now, '%H:%M:%S')} {id} ", "bright_black"))
        text.append(f"{symbol(shown, self.out)} ", shown.style).append(name(what))
        text.append(f" {one_line(more)}" if more else "", "bright_black" if style is None else style)
        self.out.print(text, no_wrap=True, overflow="ellipsis", crop=True)

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


class FeedExecutor:
    """An executor that tells the feed what it does."""

    def __init__(self, inner: Executor, feed: Feed) -> None:
        self._inner = inner
        self._feed = feed

    def definitions(self) -> Mapping[str, Definition]:
        return self._inner.definitions()

    def knows(self, workflow: str, step: str) -> bool:
        return self._inner.knows(workflow, step)

    async def execute(self, attempt: Attempt) -> Outcome:
        what = f"{attempt.workflow}/{attempt.path}"
        nth = f"attempt {attempt.number}" if attempt.number > 1 else ""
        attempt.control.log = self._listen(attempt.control.log, what)
        started = time.monotonic()
        long = asyncio.get_running_loop().call_later(
            LONG_STEP, self._feed.event, StepStatus.RUNNING, attempt.run_id, what, f"running {nth}".rstrip()
        )
        try:
            outcome = await self._inner.execute(attempt)
        except asyncio.CancelledError:
            self._feed.event(StepStatus.CANCELLED, attempt.run_id, what, "stopped")
            raise
        finally:
            long.cancel()
        took = duration(int((time.monotonic() - started) * 1000))
        match outcome:
            case Completed():
                self._feed.event(StepStatus.COMPLETED, attempt.run_id, what, f"{took} {nth}".rstrip())
            case Failed(error):
                of = f"attempt {attempt.number} of {attempt.step.retry.attempts}"
                self._feed.event(
                    StepStatus.FAILED, attempt.run_id, what, f"{took} {of}: {error.type}: {error.message}", "red"
                )
            case _:
                assert_never(outcome)
        return outcome

    def _listen(self, log: Callable[[LogLine], None], what: str) -> Callable[[LogLine], None]:
        loop = asyncio.get_running_loop()

        def listen(line: LogLine) -> None:
            log(line)
            fields = "".join(f" {field}={value}" for field, value in fields_of(line).items())
            style = STYLES.get(line.level.upper(), "")
            # Synchronous bodies log from threads of their own.
            loop.call_soon_threadsafe(self._feed.event, "", line.run_id, what, f"{line.message}{fields}", style)

        return listen


async def watch_runs(client: Client, feed: Feed, every: float) -> None:
    """Tells the feed of runs that start and end, looking each `every` seconds. Runs until it is cancelled."""
    known: dict[str, RunStatus] | None = None
    while True:
        try:
            runs = await client.lifecycle.list(limit=WATCHED_RUNS)
        except Unavailable as error:
            feed.event(StepStatus.RETRYING, "", "the backend does not answer", str(error))
        else:
            for run in reversed(runs) if known is not None else ():
                before = (known or {}).get(run.run_id)
                if before is not run.status:
                    _tell(feed, run, new=before is None)
            known = {run.run_id: run.status for run in runs}
        await asyncio.sleep(every)


def _tell(feed: Feed, run: RunRecord, *, new: bool) -> None:
    what = f"{run.workflow} run"
    if run.ended is not None:
        took = duration(run.ended - run.created)
        feed.event(run.status, run.run_id, what, f"{run.status.lower()} in {took}", mark(run.status).style)
    elif new:
        feed.event(run.status, run.run_id, what, "started", "")
    else:
        feed.event(run.status, run.run_id, what, run.status.lower(), mark(run.status).style)
