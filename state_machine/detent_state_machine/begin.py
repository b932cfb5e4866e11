"""What to do with a step run that a message, or an inline turn, reaches. DESIGN 6.2.

`reads_itself` and `looks_at_values` say what must be read first, `readiness` judges the parents, and `begin` decides.
When a write that it asked for is refused, it is asked again, with what is stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import assert_never

from pydantic import JsonValue

from detent_state_machine import kinds, transitions
from detent_state_machine.decisions import (
    Beginning,
    Ended,
    Go,
    HandOver,
    Here,
    IfRefused,
    Leave,
    Readiness,
    Skip,
    Then,
    TooSoon,
    Transition,
    Unfit,
    Unwanted,
    final,
    later,
)
from detent_state_machine.definition import StepDefinition
from detent_state_machine.errors import CorruptRecord, InputError
from detent_state_machine.kinds import asks, fits, has_body
from detent_state_machine.kinds.call import ends_at
from detent_state_machine.lines import Line
from detent_state_machine.messages import Cancel, Drive, RunMessage, Start
from detent_state_machine.records import NoRecord, RunRecord, Seen, StepRecord
from detent_state_machine.status import Delivery, StepStatus
from detent_state_machine.turn import Moment, Turn, Writer
from detent_state_machine.when import evaluate

__all__ = [
    "asks",
    "attempt_line",
    "begin",
    "ends_at",
    "fits",
    "has_body",
    "looks_at_values",
    "readiness",
    "reads_itself",
    "started_line",
    "turn_of",
    "unwanted",
]

LONG_AGO = 86_400_000
"""Milliseconds after which a worker that was paused over its run's end is taken for dead."""

# ---- how it was reached -------------------------------------------------------------------------------------------


def turn_of(message: RunMessage, deliveries: int, *, dead: bool) -> Turn:
    """The turn of the step run that a message names. Only the first delivery of a fresh message is the first turn: a
    later one may find another worker at it. DESIGN 6.2.
    """
    if dead:
        return Turn.DEAD
    fresh = not isinstance(message, Cancel) and message.fresh
    return Turn.FIRST if fresh and deliveries == 1 else Turn.AGAIN


def started_line(run: RunRecord, message: Start | Drive, deliveries: int, *, dead: bool) -> Line | None:
    """Tells a run's start, once."""
    begins = run.live and isinstance(message, Start) and (message.fresh or run.retry_of is not None)
    if not begins or deliveries > 1 or dead:
        return None
    return Line("INFO", "run_started", f"run started, a retry of {run.retry_of}" if run.retry_of else "run started")


# ---- what must be read --------------------------------------------------------------------------------------------


def reads_itself(step: StepDefinition, turn: Turn) -> bool:
    """Whether its own record is read before anything is written.

    That costs a fifth of the write that it may save: a duplicate that comes late finds the record, and a claim of what
    is there says at once what it saw. Inline it is taken as missing: it was made ready just now (DESIGN 6.5).
    """
    return turn is Turn.AGAIN or (turn is Turn.FIRST and step.delivery is Delivery.AT_LEAST_ONCE)


def looks_at_values(step: StepDefinition, seen: Seen, parents: Mapping[str, StepRecord]) -> bool:
    """Whether values of the run decide about the step, so that they must be loaded."""
    if not kinds.references(step) or _waits(seen) or (isinstance(seen, StepRecord) and seen.terminal):
        return False
    return not _unended(step, parents) and not _blocked(step, parents)


# ---- judge its parents --------------------------------------------------------------------------------------------


def readiness(
    step: StepDefinition, seen: Seen, parents: Mapping[str, StepRecord], texts: Mapping[str | None, str | None]
) -> Readiness:
    """What its parents and its condition make of the step. `texts`: the run's input (None) and outputs, as JSON.

    One that waits was ready when it began: neither is looked at again.
    """
    if _waits(seen):
        return Go(lambda _: None)
    missing = _unended(step, parents)
    if missing:
        return TooSoon(missing)
    if _blocked(step, parents):
        return Skip()

    def lookup(name: str | None) -> JsonValue:
        return _parsed(texts.get(name) or "null")

    try:
        if step.when is not None and not evaluate(step.when, lookup):
            return Skip()
    except (InputError, CorruptRecord) as error:
        return Unfit(final(error))
    return Go(lookup)


def unwanted(step: StepDefinition, parents: Mapping[str, StepRecord], run: RunRecord, now: int) -> Unwanted:
    """The same of a step that its run starts no more.

    Of a run that ended long ago no worker is about to begin one: what has no record was dropped by retention.
    """
    recently = run.ended is None or now - run.ended < LONG_AGO
    return Unwanted(reached=recently and not _unended(step, parents))


def _waits(seen: Seen) -> bool:
    return isinstance(seen, StepRecord) and seen.status is StepStatus.WAITING


def _unended(step: StepDefinition, parents: Mapping[str, StepRecord]) -> tuple[str, ...]:
    return tuple([each.step for each in step.parents if each.need == "completed" and each.step not in parents])


def _blocked(step: StepDefinition, parents: Mapping[str, StepRecord]) -> bool:
    """Whether a parent that this step needs was skipped: then it is skipped too."""
    needed = [parents[parent.step] for parent in step.parents if parent.need == "completed"]
    return any(record.status is not StepStatus.COMPLETED for record in needed)


def _parsed(text: str) -> JsonValue:
    try:
        parsed: JsonValue = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptRecord(f"A value that the condition looks at cannot be read: {error}.") from error
    return parsed


# ---- decide -------------------------------------------------------------------------------------------------------


def begin(step: StepDefinition, me: Writer, seen: Seen, ready: Readiness, here: Here, at: Moment) -> Beginning:
    """What to do with the step run, given what is stored of it."""
    if isinstance(seen, StepRecord) and seen.status.terminal:
        return Ended(seen)
    match ready:
        case TooSoon(parents):
            why = f"step {me.path!r} was driven before {', '.join(parents)} ended"
            return HandOver(why=why) if me.turn is Turn.DEAD else Leave(why)
        case Skip():
            return _skip(me, seen, at)
        case Unwanted(reached):
            return _give_up(me, seen, at, reached=reached)
        case Go() | Unfit():
            return kinds.begin(step, me, seen, ready, here, at)
        case _:
            assert_never(ready)


def attempt_line(me: Writer, seen: Seen) -> Line:
    """Tells that a body begins. Of a first attempt its end says enough: a line per step is what a log costs."""
    level = "INFO" if seen.attempt > 1 else "DEBUG"
    return Line(level, "step_started", f"attempt {seen.attempt} began", me.path, seen.attempt)


def _skip(me: Writer, seen: Seen, at: Moment) -> Beginning:
    """Every delivery decides the same, so who is late goes on from there."""
    if not isinstance(seen, NoRecord):
        return Leave()
    line = Line("INFO", "step_skipped", "skipped", me.path)
    return Transition(transitions.skip(me, seen, at), Then.FOLLOW, IfRefused.BEGIN, line)


def _give_up(me: Writer, seen: Seen, at: Moment, *, reached: bool) -> Beginning:
    """It ends, once nobody is at it: an owner that lives hears of the run's end at its heartbeat, and ends it."""
    if isinstance(seen, NoRecord):
        if not reached or me.turn is Turn.FIRST or me.turn is Turn.INLINE:
            return HandOver()  # Nobody has begun it, and nobody else has this message, or had it.
        return Transition(transitions.give_up(me, seen, at), Then.ACKNOWLEDGE, IfRefused.BEGIN)
    if seen.status is StepStatus.WAITING:
        return HandOver()  # The run's end closes it. WAITS.md 13.
    if seen.status is StepStatus.RUNNING and seen.owned_until > at.time:
        return HandOver((later(me.path, seen.owned_until, at.time),))
    line = Line("INFO", "step_cancelled", "stopped: its run has ended", me.path, seen.attempt)
    return Transition(transitions.give_up(me, seen, at), Then.ACKNOWLEDGE, IfRefused.BEGIN, line)
