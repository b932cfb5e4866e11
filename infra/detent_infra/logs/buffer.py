"""Lines of one delivery, on their way to the log: the engine's own, and those that its steps write."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from detent_state_machine.errors import DetentError, Unavailable
from detent_state_machine.lines import Line

from detent_infra.logs.lines import LEVELS, rank
from detent_infra.ports import Clock, LogLine, Logs
from detent_infra.unanswered import Outage

log = logging.getLogger("detent")

_encode = json.JSONEncoder().encode

MAX_HELD = 10_000
"""Lines of one delivery that wait to be handed over, which happens with each heartbeat. Further ones are dropped, and
counted: a body that writes without end must not take its worker's memory."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where lines come from, as `LogLine` has it."""

    worker: str = ""
    request_id: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How an engine writes lines."""

    origin: Origin = Origin()
    level: str = "INFO"
    """Of its own lines; those below are not written. What steps write always is."""
    at_once: Callable[[LogLine], None] | None = None
    """Takes each line when it is written, from any thread, where that costs nothing. None: `Logs.append` takes them
    together, with each heartbeat and when the delivery is done."""
    watch: Callable[[LogLine], None] | None = None
    """Is shown every line as it is written, from any thread, those below `level` too."""


class LineBuffer:
    """Takes lines about one run, and hands them over together."""

    def __init__(
        self, logs: Logs, clock: Clock, outage: Outage, settings: LogSettings, run_id: str, workflow: str
    ) -> None:
        self._logs = logs
        self._clock = clock
        self._outage = outage
        self._settings = settings
        self._lowest = rank(settings.level)
        self._run_id = run_id
        self._workflow = workflow
        self._lines: list[LogLine] = []
        self._dropped = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._late: asyncio.Task[None] | None = None

    def add(self, line: LogLine) -> None:
        """Takes a step's line, from any thread, and says where it comes from."""
        origin = self._settings.origin
        complete = replace(
            line,
            workflow=self._workflow,
            worker=origin.worker,
            request_id=origin.request_id,
            trace_id=origin.trace_id,
        )
        if self._settings.watch is not None:
            self._settings.watch(complete)
        self._take(complete)

    def log_event(self, line: Line | None) -> None:
        """Takes a line of the engine's own, if there is one and it is not below the level."""
        watch = self._settings.watch
        if line is None or (LEVELS[line.level] < self._lowest and watch is None):
            return
        origin = self._settings.origin
        fields = _encode(dict(line.fields)) if line.fields else "{}"
        here = (self._workflow, origin.worker, origin.request_id, origin.trace_id)
        about = (self._clock(), line.level, line.message, self._run_id, line.path, line.attempt)
        told = LogLine(*about, fields, *here, line.event)
        if watch is not None:
            watch(told)
        if LEVELS[line.level] >= self._lowest:
            self._take(told)

    def _take(self, line: LogLine) -> None:
        take = self._settings.at_once
        if take is not None:
            take(line)
        elif len(self._lines) < MAX_HELD:
            self._lines.append(line)
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and its worker with it
                    self._loop.call_soon_threadsafe(self._flush_late)
        else:
            self._dropped += 1

    async def close(self) -> None:
        """The delivery is done. What its bodies left behind may write on: those lines are handed over as they come."""
        await self.flush()
        if self._settings.at_once is None:
            self._loop = asyncio.get_running_loop()
            self._flush_late()  # what came while the others were handed over

    def _flush_late(self) -> None:
        if self._lines and (self._late is None or self._late.done()):
            self._late = asyncio.ensure_future(self._flush_all())

    async def _flush_all(self) -> None:
        while self._lines:
            await self.flush()

    @property
    def has_lines_of_steps(self) -> bool:
        return any(not line.engine for line in self._lines)

    async def flush(self) -> None:
        """Hands over the log lines so far. Best effort: a log that does not answer holds up no run."""
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            message = f"{dropped:,} lines were dropped here: more than {MAX_HELD:,} between two heartbeats"
            self._lines.append(LogLine(self._clock(), "WARN", message, self._run_id, engine="lines_dropped"))
        lines = self._lines[:]
        if not lines:
            return
        # The list stays the same one: a body that runs on, perhaps in a thread, goes on appending to it.
        del self._lines[: len(lines)]
        try:
            await self._logs.append(lines)
        except Unavailable as error:
            self._outage.met(error, lost_lines=len(lines))
        except DetentError as error:
            log.warning("%d log lines of run %s are lost: %s", len(lines), self._run_id, error)
