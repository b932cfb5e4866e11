"""A stored run, and what its items say about its past: its attempts, and when they began and ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property

from detent_state_machine import keys
from detent_state_machine.graph import Graph
from detent_state_machine.kinds import has_body
from detent_state_machine.records import PastAttempt, RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Item

ERROR_BYTES = 700
"""Assumed of an error with its trace on a record, where a later attempt has overwritten it. At most 5 KB."""
_UNSEEN = ("DeadLetter", "Interrupted")
"""Errors that the engine gives an attempt which nobody saw at work: it was found when its time had long passed."""
_AT_THE_END = ("ended", "expires", "error", "failed_step")


class How(Enum):
    """How an attempt ended."""

    ENDED = auto()
    """With its step run."""
    RETRIED = auto()
    LOST = auto()
    """Its worker stopped without an end."""
    UNDER_WAY = auto()


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """Times in milliseconds since the epoch; of one that is under way, the end is its start."""

    started: int
    ended: int
    how: How
    error: str = ""
    """The type of what it ended with."""
    message: str = ""

    @property
    def timed(self) -> bool:
        """False if its times say when it was found rather than how long a body ran, as of a dead letter."""
        return self.error not in _UNSEEN


@dataclass(frozen=True)
class Facts:
    """A run as its partition holds it: the items by sort key, and the bytes of its log."""

    run: RunRecord
    graph: Graph
    items: Mapping[str, Item]
    log_bytes: int = 0
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of the blobs that conditions look at, by reference."""
    in_lambda: bool = False
    """Whether it ran there, so that the writes between its bodies took Lambda's time, too."""
    _past: dict[str, list[AttemptFacts]] = field(
        default_factory=dict[str, list[AttemptFacts]], init=False, compare=False
    )

    @cached_property
    def records(self) -> Mapping[str, StepRecord]:
        """By path, those of steps that the definition has."""
        found = {key.removeprefix(keys.STEP_PREFIX): key for key in self.items if key.startswith(keys.STEP_PREFIX)}
        paths = [StepPath(path) for path in found if self._has(path)]
        return {path: StepRecord.from_item(path, self.items[found[path]]) for path in paths}

    def _has(self, path: str) -> bool:
        return path in self.graph.steps

    @cached_property
    def carried(self) -> frozenset[str]:
        """Steps that a retry of another run took over from it."""
        if self.run.retry_of is None:
            return frozenset()
        return frozenset(
            path for path, record in self.records.items() if record.ended and record.ended < self.run.created
        )

    # ---- times ------------------------------------------------------------------------------------------------

    @cached_property
    def latest(self) -> int:
        """The latest time that the records know."""
        times = [time for each in self.records.values() for time in (each.started, each.ended or 0, each.due)]
        return max([self.run.created, self.run.ended or 0, *times])

    @cached_property
    def first_begun(self) -> int:
        """When the first step began that this run did not carry over."""
        own = [record.started for path, record in self.records.items() if path not in self.carried]
        return max(self.run.created, min(own, default=self.run.created))

    @property
    def was_delivered(self) -> bool:
        """Whether the run's first message was."""
        return bool(self.records.keys() - self.carried) or not self.run.status.live

    def arrived(self, record: StepRecord) -> float:
        """When the step ended, or, if its delivery went on with a join behind it, after all others had: times before
        the commits do not tell who was last.
        """
        ended = record.ended or record.started
        for successor in self.graph.successors[record.path]:
            joined = self.records.get(successor.target)
            if joined is not None and joined.inline and joined.owner == record.owner:
                parents = [self.records.get(parent.step) for parent in self.graph.step(successor.target).parents]
                return max(ended, *(each.ended or 0 for each in parents if each is not None)) + 0.5
        return ended

    # ---- attempts ---------------------------------------------------------------------------------------------

    def attempts(self, record: StepRecord) -> list[AttemptFacts]:
        """In order. Those that fell out of the record's history are taken to have lasted no time."""
        if record.path not in self._past:
            self._past[record.path] = self._attempts(record)
        return self._past[record.path]

    def _attempts(self, record: StepRecord) -> list[AttemptFacts]:
        no_body = not has_body(self.graph.step(record.path))
        if record.path in self.carried or record.status is StepStatus.SKIPPED or no_body:
            return []
        past = [_past_attempt(each) for each in record.history]
        dropped = max(0, record.errors + record.takeovers - len(past))
        past[:0] = [AttemptFacts(record.started, record.started, How.RETRIED)] * dropped
        match record.status:
            case StepStatus.RETRYING:
                return past
            case StepStatus.RUNNING:
                return [*past, AttemptFacts(record.started, record.started, How.UNDER_WAY)]
            case StepStatus.FAILED:
                past = past[:-1]  # its last attempt is in the history as well
            case _:
                pass
        error = record.error.type if record.error is not None else ""
        return [*past, AttemptFacts(record.started, record.ended or record.started, How.ENDED, error)]

    # ---- the run's own item -----------------------------------------------------------------------------------

    @property
    def at_start(self) -> Item:
        """As it was put."""
        item = {name: value for name, value in self.items[keys.RUN].items() if name not in _AT_THE_END}
        isk = keys.index_sort(keys.LIVE, created=self.run.created, run_id=self.run.run_id)
        return {**item, "status": RunStatus.RUNNING.value, "isk": isk}


def _past_attempt(past: PastAttempt) -> AttemptFacts:
    error, _, message = past.error.partition(": ")
    how = How.LOST if error == "LostLease" else How.RETRIED
    return AttemptFacts(past.started, past.ended, how, error, message)
