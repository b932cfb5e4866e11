"""What the engine knows while it works on one delivery of one message."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from detent_state_machine.errors import DetentError
from detent_state_machine.graph import Graph
from detent_state_machine.keys import step_key
from detent_state_machine.messages import Message
from detent_state_machine.records import ErrorInfo, RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.transitions import Writer

from detent_infra import payloads
from detent_infra.ports import Backend, LogLine, Received

log = logging.getLogger("detent")


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
    deadline: int | None
    looked: int
    """When the run's status was last read, in milliseconds: the age of what this worker knows about a cancel."""
    hops: int = 0
    ended: dict[str, StepRecord] = field(default_factory=dict[str, StepRecord])
    """Terminal records seen so far. They never change, so none is read twice."""
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """Outputs by path, so that an inline chain does not read back what it wrote."""
    lines: list[LogLine] = field(default_factory=list[LogLine])
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

    def log(self, level: str, message: str, path: str = "", attempt: int = 0) -> None:
        self.lines.append(LogLine(self.backend.clock(), level, message, self.run_id, path, attempt))

    def log_error(self, level: str, what: str, path: str, attempt: int, error: ErrorInfo) -> None:
        self.log(level, f"{what}: {error.type}: {error.message}", path, attempt)

    async def flush(self) -> None:
        """Hands over the log lines so far. Best effort: a log that does not answer holds up no run."""
        lines = self.lines[:]
        if not lines:
            return
        # The list stays the same one: a body that runs on, perhaps in a thread, goes on appending to it.
        del self.lines[: len(lines)]
        try:
            await self.backend.logs.append(lines)
        except DetentError as error:
            log.warning("%d log lines of run %s are lost: %s", len(lines), self.run_id, error)
