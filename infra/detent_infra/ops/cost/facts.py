"""A stored run, and what its items say about its past: attempts, sizes, who arrived last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property

from detent_state_machine import keys
from detent_state_machine.graph import Arrival, Graph
from detent_state_machine.item_limits import item_size, size_of
from detent_state_machine.records import PastAttempt, RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.writes import Item, Key, Value

from detent_infra.ops.cost.metering import with_key

ERROR_BYTES = 700
"""Assumed of an error with its trace on a record, where a later attempt has overwritten it. At most 5 KB."""
_UNSEEN = ("DeadLetter", "Interrupted")
"""Errors that the engine gives an attempt which nobody saw at work: it was found when its time had long passed."""
_AT_THE_END = ("ended", "expires", "error", "failed_step")
_OF_RESULTS = ("output", "output_ref", "error", "history", "ended", "expires", "commits")


class How(Enum):
    """How an attempt ended."""

    ENDED = auto()
    """With its step run."""
    RETRIED = auto()
    LOST = auto()
    """Its worker stopped without an end."""
    UNDER_WAY = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """Times in milliseconds since the epoch; of one that is under way, the end is its start."""

    started: int
    ended: int
    how: How
    timed: bool = True
    """False if its times say when it was found rather than how long a body ran, as of a dead letter."""


@dataclass(frozen=True)
class Facts:
    """A run as its partition holds it: the items by sort key, and the bytes of its log."""

    run: RunRecord
    graph: Graph
    items: Mapping[str, Item]
    log_bytes: int = 0
    in_lambda: bool = False
    """Whether it ran there, so that the writes between its bodies took Lambda's time, too."""
    _past: dict[str, list[Attempt]] = field(default_factory=dict[str, list[Attempt]], init=False, compare=False)

    @cached_property
    def records(self) -> Mapping[str, StepRecord]:
        """By path, those of steps that the definition has."""
        found = {key.removeprefix(keys.STEP_PREFIX): key for key in self.items if key.startswith(keys.STEP_PREFIX)}
        return {path: StepRecord.from_item(path, self.items[key]) for path, key in found.items() if self._has(path)}

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

    # ---- attempts ---------------------------------------------------------------------------------------------

    def attempts(self, record: StepRecord) -> list[Attempt]:
        """In order. Those that fell out of the record's history are taken to have lasted no time."""
        if record.path not in self._past:
            self._past[record.path] = self._attempts(record)
        return self._past[record.path]

    def was_retried(self, record: StepRecord) -> bool:
        return (record.path not in self.carried and record.attempt > 1) or record.status is StepStatus.RETRYING

    def _attempts(self, record: StepRecord) -> list[Attempt]:
        if record.path in self.carried or record.status is StepStatus.SKIPPED:
            return []
        past = [_past_attempt(each) for each in record.history]
        dropped = max(0, record.errors + record.takeovers - len(past))
        past[:0] = [Attempt(record.started, record.started, How.RETRIED)] * dropped
        match record.status:
            case StepStatus.RETRYING:
                return past
            case StepStatus.RUNNING:
                return [*past, Attempt(record.started, record.started, How.UNDER_WAY)]
            case StepStatus.FAILED:
                past = past[:-1]  # its last attempt is in the history as well
            case _:
                pass
        timed = record.error is None or record.error.type not in _UNSEEN
        return [*past, Attempt(record.started, record.ended or record.started, How.ENDED, timed)]

    # ---- sizes ------------------------------------------------------------------------------------------------

    def size(self, path: str) -> int:
        """Bytes of the step's record as it is."""
        return size_of(keys.step_key(self.run.run_id, path), self.items[keys.STEP_PREFIX + path])

    def size_before(self, path: str, tried: int) -> int:
        """Bytes of the step's record while the attempt works that follows `tried` others."""
        item = self.items[keys.STEP_PREFIX + path]
        begun = {name: value for name, value in item.items() if name not in _OF_RESULTS}
        bare = size_of(keys.step_key(self.run.run_id, path), begun)
        return bare if not tried else self.size_of_retry(path, tried)

    def size_of_retry(self, path: str, failed: int) -> int:
        """Bytes of the step's record with its error, after so many failed attempts."""
        item = self.items.get(keys.STEP_PREFIX + path, {})
        error = item_size({"error": item["error"]}) if "error" in item else ERROR_BYTES
        rows: list[object] = json.loads(str(item.get("history", "[]")))
        history = len(json.dumps(rows[:failed], ensure_ascii=False, separators=(",", ":")).encode())
        return self.size_before(path, 0) + error + history

    def size_of_join(self, arrival: Arrival) -> int:
        key = keys.join_key(self.run.run_id, arrival.join, arrival.group)
        return size_of(key, self.items.get(key.sk, {}))

    def is_blob(self, path: str) -> bool:
        record = self.records.get(path)
        return record is not None and record.output is not None and record.output.ref is not None

    # ---- the run's own item -----------------------------------------------------------------------------------

    @cached_property
    def item(self) -> Item:
        """The run's item as it is, with its key."""
        return with_key(self._key, self.items[keys.RUN])

    @cached_property
    def at_start(self) -> Item:
        """As it was put."""
        return self._live(RunStatus.RUNNING, {n: v for n, v in self.item.items() if n not in _AT_THE_END})

    @cached_property
    def failing(self) -> Item:
        """As it was while handlers worked."""
        return self._live(RunStatus.FAILING, {n: v for n, v in self.item.items() if n not in ("ended", "expires")})

    @property
    def size_at_start(self) -> int:
        return item_size(self.at_start)

    @property
    def _key(self) -> Key:
        return keys.run_key(self.run.run_id)

    def _live(self, status: RunStatus, item: Mapping[str, Value]) -> Item:
        isk = keys.index_sort(live=True, created=self.run.created, run_id=self.run.run_id)
        return {**item, "status": status.value, "isk": isk}

    # ---- joins ------------------------------------------------------------------------------------------------

    def last_arrival(self, target: str, group: int | None) -> str | None:
        """Who completed the join's set: the parent that the joined step ran after in one delivery, else the parent
        that ended last. None while the set is not complete.
        """
        return self._last.get((target, group))

    @cached_property
    def _last(self) -> Mapping[tuple[str, int | None], str]:
        members: dict[tuple[str, int | None], list[str]] = {}
        for path, successors in self.graph.successors.items():
            for successor in successors:
                for arrival in successor.arrivals:
                    members.setdefault((successor.target, arrival.group), []).append(path)
        found: dict[tuple[str, int | None], str] = {}
        for (target, group), paths in members.items():
            if all(path in self.records and self.records[path].status in _ARRIVES for path in paths):
                found[target, group] = self._last_of(paths, self.records.get(target))
        return found

    def _last_of(self, paths: Sequence[str], joined: StepRecord | None) -> str:
        def order(path: str) -> tuple[bool, int]:
            record = self.records[path]
            together = joined is not None and joined.inline and joined.owner == record.owner
            return together, record.ended or 0

        return max(paths, key=order)


def _past_attempt(past: PastAttempt) -> Attempt:
    error = past.error.partition(":")[0]
    how = How.LOST if error == "LostLease" else How.RETRIED
    return Attempt(past.started, past.ended, how, timed=error not in _UNSEEN)


_ARRIVES = (StepStatus.COMPLETED, StepStatus.SKIPPED)
