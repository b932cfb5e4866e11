"""A step that calls a function: it is claimed, its body runs, and its outcome is committed. DESIGN 6 and 7."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

from pydantic import BaseModel, ConfigDict

from detent_state_machine import retry, transitions
from detent_state_machine.decisions import (
    Beginning,
    Go,
    HandOver,
    Here,
    IfRefused,
    Leave,
    MissingBody,
    Outcome,
    Raised,
    Reject,
    Released,
    Returned,
    Run,
    RunOver,
    Send,
    Settled,
    TakenOver,
    Then,
    Transition,
    Unfit,
    later,
)
from detent_state_machine.lines import Line, duration_text, error_line, missing_code_line
from detent_state_machine.records import ErrorInfo, NoRecord, Seen, StepRecord
from detent_state_machine.status import Delivery, StepStatus
from detent_state_machine.turn import Moment, Turn, Writer

if TYPE_CHECKING:
    from detent_state_machine.definition import StepDefinition

SUSPICIOUS = 2
"""Workers that died at a step run, from which on it may be the culprit."""
TIME_MARGIN = 2_000
"""Milliseconds kept free before an invocation's end, for the commit and what follows it."""


class Call(BaseModel):
    """Calls the function that the code has under the step's name."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: Literal["call"] = "call"


def begin(step: StepDefinition, me: Writer, seen: Seen, ready: Go | Unfit, here: Here, at: Moment) -> Beginning:
    """A body runs once its step run is claimed. At-least-once, and made ready just now, it runs without a claim:
    nobody else has begun it, but for a duplicate within its first second. From then on a claim refuses the second and
    counts who died. DESIGN 6.5 and 7.
    """
    if isinstance(seen, StepRecord) and seen.status is StepStatus.RUNNING and seen.owner == me.token:
        # Claimed, by me: just now, or by an earlier try whose reply was lost.
        return Reject(seen, ready.error) if isinstance(ready, Unfit) else Run(seen)
    if isinstance(ready, Go) and me.turn is not Turn.DEAD:
        if not here.knows:
            # A copy, not this message again: an older worker during a deploy must not make it a dead letter.
            why = f"this code has no step {me.path!r}: left for a worker that has it"
            begun, attempt = (seen.started, seen.attempt) if isinstance(seen, StepRecord) else (0, 0)
            missing = MissingBody(me.path, begun, at.expires, missing_code_line(me.path, attempt))
            return HandOver((missing, later(me.path, at.lease, at.time)), why)
        if me.turn is not Turn.INLINE and not _has_time(step, here, at.time):
            return Leave(f"no time is left here for step {me.path!r}: left for another delivery")
        first = me.turn is Turn.INLINE or me.turn is Turn.FIRST
        if isinstance(seen, NoRecord) and first and step.delivery is Delivery.AT_LEAST_ONCE:
            return Run(seen)
    # One whose condition cannot be evaluated is claimed as well, and then fails: when an earlier worker claimed it, and
    # died, it could be.
    return _claim(step, me, seen, at)


def _claim(step: StepDefinition, me: Writer, seen: Seen, at: Moment) -> Beginning:
    """The write that claims what was seen, or why it cannot be claimed now."""
    if isinstance(seen, NoRecord):
        if me.turn is Turn.DEAD:
            return _dead_letter(step, me, seen, at)
        return Transition(transitions.claim(me, seen, at), Then.BEGIN, IfRefused.BEGIN)
    if seen.owned_until > at.time:
        # Perhaps this is the owner's own message, delivered twice: deleting it without a copy would delete the owner's
        # recovery. DESIGN 6.2.
        return HandOver((later(me.path, seen.owned_until, at.time),))
    if me.turn is Turn.DEAD:
        return _dead_letter(step, me, seen, at)
    if seen.status is StepStatus.RETRYING:
        write = transitions.reclaim(me, seen, at)
        return Transition(write, Then.BEGIN, IfRefused.BEGIN, suspect=_suspect(step, seen.takeovers))
    if step.delivery is Delivery.AT_MOST_ONCE or seen.takeovers >= step.takeovers:
        return _interrupt(me, seen, at, _interrupted(step, seen))
    said = f"taken over: the worker at it {'died' if seen.orphaned else 'fell silent'}"
    line = Line("WARN", "step_taken_over", said, me.path, seen.attempt + 1)
    write = transitions.take_over(me, seen, at)
    return Transition(write, Then.BEGIN, IfRefused.BEGIN, line, suspect=_suspect(step, seen.takeovers + 1))


def _suspect(step: StepDefinition, deaths: int) -> int:
    """The deaths, if they make it a suspect.

    What a worker has at hand dies with it, whoever is to blame. One death says nothing: workers are killed. What two
    workers have died at, or what has no further take-over left, is driven alone, so that the culprit dies alone.
    """
    return deaths if deaths >= max(1, min(SUSPICIOUS, step.takeovers)) else 0


def _dead_letter(step: StepDefinition, me: Writer, seen: Seen, at: Moment) -> Transition:
    """What becomes of a step run that nobody works on, and whose message was received too often.

    DESIGN 6, dead letters. That says nothing of the step: a neighbour in the batch that kills the worker, or an outage
    of the table, uses up deliveries too. So it begins again with a new message, which is counted as a take-over:
    whoever is to blame, what no worker can handle ends at the same cap as a body that kills its workers. An
    `at_most_once` step that was claimed is lost: its body may have begun.
    """
    claimed = isinstance(seen, StepRecord) and seen.status is StepStatus.RUNNING
    lost = step.delivery is Delivery.AT_MOST_ONCE and claimed
    if lost or seen.takeovers >= step.takeovers:
        return _interrupt(me, seen, at, _never_handled(step, lost=lost))
    said = "its message was received too often: begins again"
    line = Line("WARN", "step_taken_over", said, me.path, seen.errors + seen.takeovers + 1)
    sends = (Send(me.path),)
    return Transition(transitions.revive(me, seen, at), Then.ACKNOWLEDGE, IfRefused.BEGIN, line, sends)


def _interrupt(me: Writer, seen: Seen, at: Moment, error: ErrorInfo) -> Transition:
    under_way = isinstance(seen, StepRecord) and seen.status is StepStatus.RUNNING
    attempt = seen.errors + seen.takeovers + under_way
    line = error_line("ERROR", "step_failed", "failed", me.path, attempt, error)
    return Transition(transitions.interrupt(me, seen, at, error), Then.FOLLOW, IfRefused.BEGIN, line)


def _has_time(step: StepDefinition, here: Here, now: int) -> bool:
    """Whether the step's timeout fits into the rest of this invocation, or at least half of it is still to come.

    A body that began with less would time out through no fault of its own. What never finds the time is received
    again and again, and ends as a dead letter does. (Of an inline step, `fits` has asked.)
    """
    if here.deadline is None:
        return True
    ends = here.deadline - TIME_MARGIN
    left = ends - now
    return left > 0 and left >= min(step.timeout * 1000, (ends - here.arrived) / 2)


def fits(step: StepDefinition, deadline: int | None, now: int) -> bool:
    """Whether the step's whole timeout fits into the rest of this invocation, so that it can follow inline."""
    return deadline is None or step.timeout <= (deadline - now - TIME_MARGIN) / 1000


def ends_at(step: StepDefinition, started: int, deadline: int | None) -> int:
    """When an attempt that starts now times out: before its invocation does, so that its end is written."""
    own = started + int(step.timeout * 1000)
    return own if deadline is None else max(started, min(own, deadline - TIME_MARGIN))


# ---- what an attempt becomes --------------------------------------------------------------------------------------


def settle(
    step: StepDefinition, me: Writer, seen: Seen, outcome: Outcome, at: Moment, *, started: int, jitter: float
) -> Settled:
    """DESIGN 6.3 and 6.4: a result or an error is committed under the fence; who lost the lease deletes nothing."""
    attempt = seen.attempt
    match outcome:
        case Returned(output, effects):
            write = transitions.complete(me, seen, at, started=started, output=output, commits=len(effects))
            took = at.time - started
            said = f"completed in {duration_text(took)}"
            line = Line("INFO", "step_completed", said, me.path, attempt, {"duration_ms": took})
            return Transition(write, Then.FOLLOW, IfRefused.LOST, line, effects=effects)
        case Raised(error):
            return _raised(step, me, seen, error, at, started=started, jitter=jitter)
        case RunOver():
            # Its record may belong to somebody else by now: the run has ended, and nothing follows from this step.
            line = Line("INFO", "step_cancelled", "stopped: its run has ended", me.path, attempt)
            write = transitions.cancel(me, seen, at, started=started)
            return Transition(write, Then.ACKNOWLEDGE, IfRefused.NOTHING, line)
        case TakenOver():
            said = "stopped: another worker has taken it over"
            return Leave(line=Line("WARN", "step_lost", said, me.path, attempt))
        case Released():
            if step.delivery is Delivery.AT_MOST_ONCE:
                return Leave()  # It never runs again: to say so is left to who finds its lease run out.
            return Transition(transitions.release(me, seen, at), Then.ACKNOWLEDGE, IfRefused.LOST)
        case _:
            assert_never(outcome)


def _raised(
    step: StepDefinition, me: Writer, seen: Seen, error: ErrorInfo, at: Moment, *, started: int, jitter: float
) -> Transition:
    verdict = retry.decide(
        step.retry,
        errors=seen.errors + 1,
        kinds=error.kinds,
        retryable=error.retryable and step.delivery is not Delivery.AT_MOST_ONCE,
        retry_after=error.retry_after,
        jitter=jitter,
    )
    attempt, took = seen.attempt, at.time - started
    match verdict:
        case retry.Again(delay):
            pause = int(delay * 1000)
            write = transitions.retry(me, seen, at, started=started, due=at.time + pause, error=error)
            said = f"attempt {attempt} failed, again in {duration_text(pause)}"
            line = error_line("WARN", "step_retrying", said, me.path, attempt, error, duration_ms=took)
            return Transition(write, Then.ACKNOWLEDGE, IfRefused.LOST, line, (Send(me.path, delay),))
        case retry.GiveUp(reason):
            write = transitions.fail(me, seen, at, started=started, error=error)
            line = error_line("ERROR", "step_failed", f"failed ({reason})", me.path, attempt, error, duration_ms=took)
            return Transition(write, Then.FOLLOW, IfRefused.LOST, line)
        case _:
            assert_never(verdict)


# ---- errors -------------------------------------------------------------------------------------------------------


def _never_handled(step: StepDefinition, *, lost: bool) -> ErrorInfo:
    if lost:
        end = "its at_most_once body may have begun, and is never run again"
    else:
        end = f"it has begun again as often as its takeovers={step.takeovers} allow"
    return ErrorInfo(
        "DeadLetter",
        f"The message of step {step.name!r} was received too often without an end (workers that crash or run out of "
        f"memory or time, an outage), and {end}.",
    )


def _interrupted(step: StepDefinition, seen: StepRecord) -> ErrorInfo:
    if step.delivery is Delivery.AT_MOST_ONCE:
        why = "its worker stopped without an end, and an at_most_once body is never run again"
    else:
        why = f"{seen.takeovers + 1} workers in a row stopped without an end (crash, out of memory or time)"
    return ErrorInfo("Interrupted", f"Step {step.name!r} was interrupted: {why}.")
