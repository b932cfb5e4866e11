"""What the engine knows while it works on one delivery of one message."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from detent_state_machine.errors import DetentError
from detent_state_machine.graph import Graph
from detent_state_machine.keys import step_key
from detent_state_machine.messages import Message
from detent_state_machine.records import ErrorInfo, RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.transitions import Writer

from detent_infra import payloads
from detent_infra.logs.lines import rank
from detent_infra.ports import Backend, LogLine, Received

log = logging.getLogger("detent")

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
class Telling:
    """How an engine writes lines."""

    origin: Origin = Origin()
    level: str = "INFO"
    """Of its own lines; those below are not written. What steps write always is."""
    at_once: Callable[[LogLine], None] | None = None
    """Takes each line when it is written, from any thread, where that costs nothing. None: `Logs.append` takes them
    together, with each heartbeat and when the delivery is done."""
    watch: Callable[[LogLine], None] | None = None
    """Is shown every line as it is written, from any thread, those below `level` too."""


@dataclass
class Session:
    """One delivery. `token` is the owner token of every record it writes: unique per delivery."""

    backend: Backend
    run: RunRecord
    graph: Graph
    message: Message
    received: Received
    token: str
    dead: bool
    telling: Telling
    deadline: int | None
    looked: int
    """When the run's status was last read, in milliseconds: the age of what this worker knows about a cancel."""
    hops: int = 0
    ended: dict[str, StepRecord] = field(default_factory=dict[str, StepRecord])
    """Terminal records seen so far. They never change, so none is read twice."""
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """Outputs by path, so that an inline chain does not read back what it wrote."""
    lines: list[LogLine] = field(default_factory=list[LogLine])
    dropped: int = 0
    input: str | None = None

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def failing(self) -> bool:
        return self.run.status is RunStatus.FAILING

    @property
    def expires(self) -> int:
        """When a record written now may be dropped, in seconds since the epoch."""
        return self.backend.clock() // 1000 + self.graph.retention

    def writer(self, path: str, *, inline: bool) -> Writer:
        return Writer(self.run_id, path, self.token, inline)

    def may_start(self, path: str) -> bool:
        """In a failing run only handlers start."""
        return not self.failing or self.graph.is_handler(path)

    async def input_text(self) -> str:
        if self.input is None:
            self.input = await payloads.load(self.backend.blobs, self.run.input)
        return self.input

    async def records(self, paths: Iterable[str]) -> dict[str, StepRecord]:
        """The records of the paths that have one: terminal ones from memory, the others read (consistently)."""
        wanted = list(paths)
        unread = [path for path in wanted if path not in self.ended]
        found = {path: self.ended[path] for path in wanted if path in self.ended}
        if unread:
            items = await self.backend.table.get_many([step_key(self.run_id, path) for path in unread])
            for path, item in zip(unread, items, strict=True):
                if item is not None:
                    found[path] = self.remember(StepRecord.from_item(path, item))
        return found

    def remember(self, record: StepRecord) -> StepRecord:
        if record.status.terminal:
            self.ended[record.path] = record
        return record

    async def output_text(self, record: StepRecord | None) -> str | None:
        """A step's output as JSON; None unless it completed."""
        if record is None or record.status is not StepStatus.COMPLETED or record.output is None:
            return None
        if record.path not in self.texts:
            self.texts[record.path] = await payloads.load(self.backend.blobs, record.output)
        return self.texts[record.path]

    def add(self, line: LogLine) -> None:
        """Takes a line, from any thread, and says where it comes from."""
        from_here = self.telling.origin
        complete = replace(
            line,
            workflow=self.run.workflow,
            worker=from_here.worker,
            request_id=from_here.request_id,
            trace_id=from_here.trace_id,
        )
        if self.telling.watch is not None:
            self.telling.watch(complete)
        self._take(complete)

    def _take(self, line: LogLine) -> None:
        take = self.telling.at_once
        if take is not None:
            take(line)
        elif len(self.lines) < MAX_HELD:
            self.lines.append(line)
        else:
            self.dropped += 1

    def tell(
        self, level: str, what: str, message: str, path: str = "", attempt: int = 0, **fields: str | int | float
    ) -> None:
        """A line of the engine's own. `what` is its name in queries, `fields` what can be counted or averaged."""
        watch, wanted = self.telling.watch, rank(level) >= rank(self.telling.level)
        if watch is None and not wanted:
            return
        run, origin, now = self.run, self.telling.origin, self.backend.clock()
        more = json.dumps(fields) if fields else "{}"
        here = (run.workflow, origin.worker, origin.request_id, origin.trace_id)
        line = LogLine(now, level, message, run.run_id, path, attempt, more, *here, what)
        if watch is not None:
            watch(line)
        if wanted:
            self._take(line)

    def tell_error(
        self, level: str, what: str, message: str, path: str, attempt: int, error: ErrorInfo, **fields: int
    ) -> None:
        self.tell(level, what, f"{message}: {error.type}: {error.message}", path, attempt, error=error.type, **fields)

    async def flush(self) -> None:
        """Hands over the log lines so far. Best effort: a log that does not answer holds up no run."""
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            message = f"{dropped:,} lines were dropped here: more than {MAX_HELD:,} between two heartbeats"
            self.lines.append(LogLine(self.backend.clock(), "WARN", message, self.run_id, engine="lines_dropped"))
        lines = self.lines[:]
        if not lines:
            return
        # The list stays the same one: a body that runs on, perhaps in a thread, goes on appending to it.
        del self.lines[: len(lines)]
        try:
            await self.backend.logs.append(lines)
        except DetentError as error:
            log.warning("%d log lines of run %s are lost: %s", len(lines), self.run_id, error)
