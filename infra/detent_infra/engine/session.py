"""What the engine knows while it works on one delivery of one message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from detent_state_machine.graph import Graph
from detent_state_machine.keys import step_key
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.step_path import StepPath
from detent_state_machine.turn import Moment, Turn
from detent_state_machine.writes import Key

from detent_infra import orphans, payloads
from detent_infra.logs.buffer import LineBuffer
from detent_infra.ports import Backend, Received


@dataclass
class Session:
    """One delivery. `token` is the owner token of every record it writes: unique per delivery."""

    backend: Backend
    run: RunRecord
    graph: Graph
    path: StepPath
    """The step run that the message names."""
    fact: Key | None
    """Where the fact is stored that the message brings."""
    turn: Turn
    token: str
    received: Received
    lines: LineBuffer
    deadline: int | None
    renewed: int
    """When the run's status was last read, in milliseconds: the age of what this worker knows about a cancel."""
    hops: int = 0
    ended: dict[str, StepRecord] = field(default_factory=dict[str, StepRecord])
    """Terminal records seen so far. They never change, so none is read twice."""
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """Outputs by path, so that an inline chain does not read back what it wrote."""
    input: str | None = None

    def moment(self) -> Moment:
        """Now, and what follows from it for records."""
        now = self.backend.clock()
        return Moment(now, now // 1000 + self.graph.retention, now + int(self.backend.timing.lease * 1000))

    async def records(self, paths: Iterable[StepPath]) -> dict[str, StepRecord]:
        """The records of the paths that have one: terminal ones from memory, the others read (consistently)."""
        wanted = list(paths)
        unread = [path for path in wanted if path not in self.ended]
        found: dict[str, StepRecord] = {path: self.ended[path] for path in wanted if path in self.ended}
        if unread:
            items = await self.backend.table.get_many([step_key(self.run.run_id, path) for path in unread])
            for path, item in zip(unread, items, strict=True):
                if item is not None:
                    found[path] = self.remember(orphans.read_record(self.backend, path, item))
        return found

    def remember(self, record: StepRecord) -> StepRecord:
        if record.terminal:
            self.ended[record.path] = record
        return record

    async def input_text(self) -> str:
        if self.input is None:
            self.input = await payloads.load(self.backend.blobs, self.run.input)
        return self.input

    async def output_text(self, record: StepRecord | None) -> str | None:
        """A step's output as JSON; None unless it completed."""
        if record is None or (result := record.result) is None:
            return None
        if record.path not in self.texts:
            self.texts[record.path] = await payloads.load(self.backend.blobs, result)
        return self.texts[record.path]

    async def values(self, parents: Mapping[str, StepRecord]) -> dict[str | None, str | None]:
        """The run's input, under None, and the outputs of these steps, as JSON."""
        found: dict[str | None, str | None] = {None: await self.input_text()}
        for name, record in parents.items():
            found[name] = await self.output_text(record)
        return found
