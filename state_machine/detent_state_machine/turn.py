"""How a step run was reached, by whom, and when: what every decision about it is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from detent_state_machine.step_path import StepPath


class Turn(StrEnum):
    """How a worker came to a step run. It says who else may be at it."""

    FIRST = "first"
    """By the first delivery of the message that was sent when the step run became ready."""
    INLINE = "inline"
    """In the delivery that made it ready."""
    AGAIN = "again"
    """By any other message: a copy, a retry, a second delivery."""
    DEAD = "dead"
    """By a message that was received too often."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a decision is made, and what follows from it for records."""

    time: int
    """Milliseconds since the epoch."""
    expires: int
    """When a record that is written now may be dropped; seconds."""
    lease: int = 0
    """Until when a step run that is claimed now belongs to its owner; milliseconds."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: one delivery of one message, at work on one step run. `token` is the delivery's own."""

    run_id: str
    path: StepPath
    token: str
    turn: Turn

    @property
    def inline(self) -> bool:
        """Whether the step run follows another in the same delivery, so that no message names it."""
        return self.turn is Turn.INLINE
