"""What a worker that is known to be dead has left: its lease is over, and it is in no step's first second."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from detent_state_machine.definition import StepDefinition
from detent_state_machine.records import NoRecord, Seen, StepRecord
from detent_state_machine.status import StepStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Item

from detent_infra.ports import Backend, Received


def read_record(backend: Backend, path: StepPath, item: Item) -> StepRecord:
    """What is stored, and whether its owner is known to be dead."""
    record = StepRecord.from_item(path, item)
    orphaned = record.status is StepStatus.RUNNING and backend.is_dead(record.owner)
    return replace(record, orphaned=True) if orphaned else record


def read_seen(backend: Backend, path: StepPath, item: Item | None) -> Seen:
    """The same of what may be missing."""
    return NoRecord(path) if item is None else read_record(backend, path, item)


def first_second(backend: Backend, received: Received, step: StepDefinition, parents: Collection[StepRecord]) -> float:
    """Seconds for which somebody may be at a step run that has no record yet.

    None if whoever had this message is known to be dead, and, of a join, whoever ended each of its parents.
    """
    gone = received.orphaned
    if gone and len(step.parents) > 1:
        gone = len(parents) == len(step.parents) and all(backend.is_dead(record.owner) for record in parents)
    return 0.0 if gone else 2 * backend.timing.first_heartbeat
