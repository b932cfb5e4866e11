"""The kinds of step, each in a file of its own: what it refers to, how it begins, what its outcomes become.

The engine does not know kinds. What is decided about a step run goes through here, and the checkers hold every
`match` to the whole union: a new kind is a file, a member of `Kind`, and the cases that are then missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias, assert_never

from pydantic import Field

from detent_state_machine.decisions import Beginning, FactQuery, Go, Here, Outcome, Settled, Unfit
from detent_state_machine.kinds import call, event, timer
from detent_state_machine.kinds.call import Call
from detent_state_machine.kinds.event import EventWait
from detent_state_machine.kinds.timer import Timer
from detent_state_machine.records import Seen
from detent_state_machine.turn import Moment, Writer
from detent_state_machine.when import Ref
from detent_state_machine.when import references as looked_at
from detent_state_machine.writes import Key

if TYPE_CHECKING:
    from detent_state_machine.definition import StepDefinition


__all__ = [
    "Call",
    "EventWait",
    "Kind",
    "Timer",
    "asks",
    "begin",
    "describe",
    "fits",
    "has_body",
    "own_references",
    "references",
    "settle",
]

Kind: TypeAlias = Annotated[Call | Timer | EventWait, Field(discriminator="kind")]


def own_references(kind: Kind) -> tuple[Ref, ...]:
    """The values of the run that the kind itself needs. The step follows those that it has them from."""
    match kind:
        case Call():
            return ()
        case Timer():
            return timer.references(kind)
        case EventWait():
            return event.references(kind)
        case _:
            assert_never(kind)


def describe(kind: Kind) -> str:
    """What it waits for, in a few words; "" for a step with a body."""
    match kind:
        case Call():
            return ""
        case Timer():
            return timer.describe(kind)
        case EventWait():
            return f"waits for {event.describe(kind)}"
        case _:
            assert_never(kind)


def has_body(step: StepDefinition) -> bool:
    """Whether code runs in it, which a worker must have."""
    match step.kind:
        case Call():
            return True
        case Timer() | EventWait():
            return False
        case _:
            assert_never(step.kind)


def fits(step: StepDefinition, deadline: int | None, now: int) -> bool:
    """Whether the step can follow inline in the rest of this invocation."""
    match step.kind:
        case Call():
            return call.fits(step, deadline, now)
        case Timer() | EventWait():
            return True
        case _:
            assert_never(step.kind)


def references(step: StepDefinition) -> tuple[Ref, ...]:
    """The values of the run that decide about the step."""
    return (*(looked_at(step.when) if step.when else ()), *own_references(step.kind))


def asks(step: StepDefinition, seen: Seen, brought: Key | None, now: int) -> FactQuery | None:
    """What must be looked up among stored facts before it is decided; `brought` is the one that the message names."""
    match step.kind:
        case Call() | Timer():
            return None
        case EventWait():
            return event.asks(step.kind, seen, brought, now)
        case _:
            assert_never(step.kind)


def begin(step: StepDefinition, me: Writer, seen: Seen, ready: Go | Unfit, here: Here, at: Moment) -> Beginning:
    """What to do with a step run whose parents have ended, given what is stored of it."""
    match step.kind:
        case Call():
            return call.begin(step, me, seen, ready, here, at)
        case Timer():
            return timer.begin(step.kind, step, me, seen, ready, at)
        case EventWait():
            return event.begin(step.kind, step, me, seen, ready, here, at)
        case _:
            assert_never(step.kind)


def settle(
    step: StepDefinition, me: Writer, seen: Seen, outcome: Outcome, at: Moment, *, started: int, jitter: float
) -> Settled:
    """What an outcome of its body becomes."""
    match step.kind:
        case Call():
            return call.settle(step, me, seen, outcome, at, started=started, jitter=jitter)
        case Timer() | EventWait():
            raise ValueError(f"{me.path!r} has no body.")
        case _:
            assert_never(step.kind)
