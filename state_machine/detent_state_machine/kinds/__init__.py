"""The kinds of step, each in a file of its own: what it refers to, how it begins, what its outcomes become.

The engine does not know kinds. What is decided about a step run goes through here, and the checkers hold every
`match` to the whole union: a new kind is a file, a member of `Kind`, and the cases that are then missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detent_state_machine.decisions import Beginning, Go, Here, Outcome, Settled, Unfit
from detent_state_machine.kinds import call
from detent_state_machine.records import Seen
from detent_state_machine.turn import Moment, Writer
from detent_state_machine.when import Ref
from detent_state_machine.when import references as looked_at

if TYPE_CHECKING:
    from detent_state_machine.definition import StepDefinition


def references(step: StepDefinition) -> tuple[Ref, ...]:
    """The values of the run that decide about the step."""
    return tuple(looked_at(step.when)) if step.when else ()


def begin(step: StepDefinition, me: Writer, seen: Seen, ready: Go | Unfit, here: Here, at: Moment) -> Beginning:
    """What to do with a step run whose parents have ended, given what is stored of it."""
    return call.begin(step, me, seen, ready, here, at)


def settle(
    step: StepDefinition, me: Writer, seen: Seen, outcome: Outcome, at: Moment, *, started: int, jitter: float
) -> Settled:
    """What an outcome of its body becomes."""
    return call.settle(step, me, seen, outcome, at, started=started, jitter=jitter)
