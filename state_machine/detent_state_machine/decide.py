"""What a step waits to see of its parents, and whether they let it run. (Its own condition: `when.evaluate`.)"""

from __future__ import annotations

from collections.abc import Mapping

from detent_state_machine.definition import StepDefinition
from detent_state_machine.records import StepRecord
from detent_state_machine.status import StepStatus
from detent_state_machine.when import references


def parents_to_read(step: StepDefinition) -> list[str]:
    """Steps whose records decide about this one or are handed to it, each once. `done` parents need no look."""
    needed = [parent.step for parent in step.parents if parent.need == "completed"]
    shown = [ref.step for ref in references(step.when) if ref.step is not None] if step.when else []
    return list(dict.fromkeys([*needed, *step.reads, *shown]))


def blocked(step: StepDefinition, parents: Mapping[str, StepRecord]) -> bool:
    """Whether a parent that this step needs was skipped: then it is skipped too."""
    return any(
        parent.need == "completed" and parents[parent.step].status is not StepStatus.COMPLETED
        for parent in step.parents
    )
