"""What becomes of an ended run's step runs when it is retried: closed, carried over into the new run, or in the way."""

from __future__ import annotations

from collections.abc import Container

from detent_state_machine import transitions
from detent_state_machine.definition import StepDefinition
from detent_state_machine.errors import WrongState
from detent_state_machine.records import Seen, StepRecord
from detent_state_machine.status import Delivery, StepStatus
from detent_state_machine.turn import Moment, Writer
from detent_state_machine.writes import UpdateItem


def close(step: StepDefinition, me: Writer, seen: Seen, at: Moment, stored: Container[str]) -> UpdateItem | None:
    """The write that ends what a worker may still be at; None for what has ended. `stored`: steps with a record.

    Raises `WrongState` if records are past retention, or an at_most_once body would run beside itself.
    """
    if isinstance(seen, StepRecord):
        if any(parent.step not in stored for parent in step.parents):
            raise WrongState(
                f"Run {me.run_id} cannot be retried: records of its completed steps are past their retention.",
                advice="Start a new run with the same input instead.",
            )
        if seen.status.terminal:
            return None
        if step.delivery is Delivery.AT_MOST_ONCE and seen.lease > at.time:
            raise WrongState(
                f"Step {step.name!r} of run {me.run_id} is still at work, and its body may not run twice.",
                advice="Try again when it has ended.",
            )
    return transitions.close(me, seen, at)


def is_carried_over(record: StepRecord) -> bool:
    """Whether the new run starts with it."""
    return record.status in (StepStatus.COMPLETED, StepStatus.SKIPPED)
