"""Every transition of a step run; those of a run are in `run_transitions`. Nothing about transitions lives elsewhere.

A table says which status may follow which. Below it, one function per transition returns the conditional write that
makes it: its target is read from the table, its condition is the fence (who may write), and a test holds every
condition to the table's sources.

The fence is the owner token, unique per delivery of a message. It stays on the record, so a writer whose reply was
lost recognises its own write (`wrote`), and everybody else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from detent_state_machine import keys
from detent_state_machine.definition import StepDefinition
from detent_state_machine.records import (
    FORMAT,
    ErrorInfo,
    PastAttempt,
    Payload,
    StepRecord,
    history_json,
    payload_attributes,
)
from detent_state_machine.status import Delivery, StepStatus
from detent_state_machine.writes import AllOf, AnyOf, Equals, Expect, Item, LessThan, Missing, Update, Value


class Change(StrEnum):
    """The names of a step run's transitions."""

    CLAIM = "claim"
    RECLAIM = "claim again"
    TAKE_OVER = "take over"
    HEARTBEAT = "heartbeat"
    COMPLETE = "complete"
    RETRY = "retry"
    FAIL = "fail"
    INTERRUPT = "interrupt"
    REVIVE = "revive"
    RELEASE = "release"
    CANCEL = "cancel"
    CLOSE = "close"
    SKIP = "skip"


MISSING = None
"""The status of a step run that has no record yet."""

STEP_TABLE: Mapping[Change, tuple[tuple[StepStatus | None, ...], StepStatus]] = {
    Change.CLAIM: ((MISSING,), StepStatus.RUNNING),
    Change.RECLAIM: ((StepStatus.RETRYING,), StepStatus.RUNNING),
    Change.TAKE_OVER: ((StepStatus.RUNNING,), StepStatus.RUNNING),
    Change.HEARTBEAT: ((MISSING, StepStatus.RUNNING), StepStatus.RUNNING),
    Change.COMPLETE: ((MISSING, StepStatus.RUNNING), StepStatus.COMPLETED),
    Change.RETRY: ((MISSING, StepStatus.RUNNING), StepStatus.RETRYING),
    Change.FAIL: ((MISSING, StepStatus.RUNNING), StepStatus.FAILED),
    Change.INTERRUPT: ((MISSING, StepStatus.RUNNING, StepStatus.RETRYING), StepStatus.FAILED),
    Change.REVIVE: ((MISSING, StepStatus.RUNNING, StepStatus.RETRYING), StepStatus.RETRYING),
    Change.RELEASE: ((StepStatus.RUNNING,), StepStatus.RETRYING),
    Change.CANCEL: ((StepStatus.RUNNING,), StepStatus.CANCELLED),
    Change.CLOSE: ((MISSING, StepStatus.RUNNING, StepStatus.RETRYING), StepStatus.CANCELLED),
    Change.SKIP: ((MISSING,), StepStatus.SKIPPED),
}


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: one delivery of one message, working on one step run.

    `inline` is true when the step run follows another in the same delivery, false when the message names it.
    `held` is true once this writer knows that it wrote the record (a claim or a heartbeat).
    """

    run_id: str
    path: str
    token: str
    inline: bool
    held: bool = False


# ---- a step run: what its owner writes ----------------------------------------------------------------------


def claim(me: Writer, *, now: int, lease: int, expires: int) -> Update:
    """The first claim of a step run.

    From its first write on a record `expires`: the run may end without anybody coming back to this step. The reaper
    moves the date on while the run lives.

    The race it wins: two deliveries of one message, or a walk's message beside the original one.
        A: sees nothing                      B: sees nothing
        A: RUNNING/A where missing  → won    B: RUNNING/B where missing  → refused, with A's record
    """
    return _step(Change.CLAIM, me, Missing(), {**_first(me, expires), "started": now, "lease": lease})


def heartbeat(me: Writer, *, started: int, lease: int, expires: int) -> Update:
    """Keeps the lease, and writes the record of an inline step that became long.

    The race it wins: a worker that was paused past its lease comes back.
        A: RUNNING/A, paused …        B: takes over, RUNNING/B
        A: wakes, renews where owner = A  → refused: A knows it has lost, and stops
    """
    new = {} if me.held else {**_first(me, expires), "started": started}
    return _step(Change.HEARTBEAT, me, _fence(me), {**new, "lease": lease})


def complete(me: Writer, *, started: int, ended: int, output: Payload, expires: int, commits: int = 0) -> Update:
    """The commit of a result. For an inline step that stayed short, its only write. `commits`: how many writes of the
    user's are in its transaction.

    The race it wins: two workers finished the same body, after a lost lease or a duplicate delivery.
        A: COMPLETED/A where missing or mine  → won      B: the same with B  → refused: B drops its result
    """
    set_ = {**_ends(me, started, ended, expires), **payload_attributes("output", output)}
    if commits:
        set_["commits"] = commits
    return _step(Change.COMPLETE, me, _fence(me), set_, remove=("lease", "error"))


def retry(
    me: Writer, seen: StepRecord | None, *, started: int, ended: int, due: int, expires: int, error: ErrorInfo
) -> Update:
    """A failed attempt with another one to come, due at `due`. Same race as `complete`."""
    set_: dict[str, Value] = {
        "started": started,
        "due": due,
        "errors": (seen.errors if seen else 0) + 1,
        "error": error.to_json(),
        "history": _with_attempt(seen, started, ended, error),
    }
    if not me.held:
        set_ |= _first(me, expires)
    return _step(Change.RETRY, me, _fence(me), set_, remove=("lease",))


def fail(me: Writer, seen: StepRecord | None, *, started: int, ended: int, expires: int, error: ErrorInfo) -> Update:
    """The last attempt failed. Same race as `complete`."""
    set_ = {
        **_ends(me, started, ended, expires),
        "errors": (seen.errors if seen else 0) + 1,
        "error": error.to_json(),
        "history": _with_attempt(seen, started, ended, error),
    }
    return _step(Change.FAIL, me, _fence(me), set_, remove=("lease",))


def release(me: Writer, *, now: int) -> Update:
    """The owner is told to stop (a deploy): the attempt may begin again at once, and counts neither as an error nor
    as a take-over. Refused if the step run was never written, or belongs to somebody else by now.
    """
    return _step(Change.RELEASE, me, _mine(me), {"due": now}, remove=("lease",))


def close(me: Writer, seen: StepRecord | None, *, now: int, expires: int) -> Update:
    """Ends a step run of a run that has ended, before the run is retried.

    The race it wins: its worker has not heard of the end and still commits. Either the commit is first, and the retry
    takes it over; or this is, and refuses the commit. So no effect happens in the old run and again in the new one.
    """
    begun: dict[str, Value] = {"inline": me.inline, "started": now} if seen is None else {}
    expect = _same(seen) if seen else Missing()
    return _step(Change.CLOSE, me, expect, {**begun, "ended": now, "expires": expires}, remove=("lease", "due"))


def cancel(me: Writer, *, started: int, ended: int, expires: int) -> Update:
    """The owner stopped because its run has ended.

    Only a record that exists is marked: a step that never wrote one leaves none.
    """
    return _step(
        Change.CANCEL, me, _mine(me), {"started": started, "ended": ended, "expires": expires}, remove=("lease",)
    )


def skip(me: Writer, *, now: int, expires: int) -> Update:
    """The step's condition is false, or a parent it needs was skipped. Every writer would decide the same."""
    return _step(Change.SKIP, me, Missing(), _ends(me, now, now, expires))


# ---- a step run: what a refused claim leads to ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim it with this write."""

    write: Update


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Its owner died and it may not run again: end it with this write."""

    write: Update


@dataclass(frozen=True, slots=True)
class Mine:
    """The record is my own write, whose reply was lost: go on."""

    record: StepRecord


@dataclass(frozen=True, slots=True)
class Ended:
    """It has ended: see that its successors are driven."""

    record: StepRecord


@dataclass(frozen=True, slots=True)
class Later:
    """Somebody works on it, or it is not due: come back at this time."""

    at: int


@dataclass(frozen=True, slots=True)
class Revive:
    """Its message was received too often, and it may begin again: write this, then send it a new message."""

    write: Update


Refused: TypeAlias = Claim | Interrupt | Revive | Mine | Ended | Later


def with_record(
    me: Writer, step: StepDefinition, seen: StepRecord, *, now: int, lease: int, expires: int, dead: bool = False
) -> Refused:
    """What to do about a step run that already has a record. `dead`: the message is a dead letter."""
    if seen.status.terminal:
        return Ended(seen)
    if seen.status is StepStatus.RETRYING:
        if seen.due > now:
            return Later(seen.due)
        if dead:
            return of_dead_letter(me, step, seen, now=now, expires=expires)
        return Claim(_claim_again(Change.RECLAIM, me, seen, now=now, lease=lease))
    if seen.owner == me.token:
        return Mine(seen)
    if seen.lease > now:
        return Later(seen.lease)
    if dead:
        return of_dead_letter(me, step, seen, now=now, expires=expires)
    if step.delivery is Delivery.AT_MOST_ONCE or seen.takeovers >= step.takeovers:
        return Interrupt(interrupt(me, seen, now=now, expires=expires, error=_interrupted(step, seen)))
    return Claim(_claim_again(Change.TAKE_OVER, me, seen, now=now, lease=lease))


def of_dead_letter(
    me: Writer, step: StepDefinition, seen: StepRecord | None, *, now: int, expires: int
) -> Interrupt | Revive:
    """What to do about a step run that nobody works on, and whose message was received too often.

    That says nothing of the step: a neighbour in the batch that kills the worker, or an outage of the table, uses up
    deliveries too. So it begins again with a new message, which is counted as a take-over: whoever is to blame, what
    no worker can handle ends at the same cap as a body that kills its workers. An `at_most_once` step that was
    claimed is lost: its body may have begun.
    """
    lost = step.delivery is Delivery.AT_MOST_ONCE and seen is not None and seen.status is StepStatus.RUNNING
    if lost or (seen.takeovers if seen else 0) >= step.takeovers:
        return Interrupt(interrupt(me, seen, now=now, expires=expires, error=_dead_letter(step, lost=lost)))
    return Revive(_revive(me, seen, now=now, expires=expires))


def _revive(me: Writer, seen: StepRecord | None, *, now: int, expires: int) -> Update:
    """Due at once, for the message that is sent next.

    The race it wins: its owner is alive after all, or another dead letter of it is handled at the same moment.
        D: sees RUNNING/A, expired              A: COMPLETED/A where mine  → won
        D: RETRYING/D where RUNNING/A, expired  → refused, with what A committed: D walks from there
    The other way round A's commit is refused, as after any take-over. If D dies before it sends, the dead letter
    comes back, and is counted once more.
    """
    lost = ErrorInfo("DeadLetter", "its message was received too often without an end")
    set_: dict[str, Value] = {
        "inline": me.inline,
        "due": now,
        "takeovers": (seen.takeovers if seen else 0) + 1,
        "history": _with_attempt(seen, (seen.due or seen.started) if seen else now, now, lost),
    }
    if seen is None:
        set_ |= {**_first(me, expires), "started": now}
    return _step(Change.REVIVE, me, Missing() if seen is None else _seen(seen, now), set_, remove=("lease",))


def interrupt(me: Writer, seen: StepRecord | None, *, now: int, expires: int, error: ErrorInfo) -> Update:
    """Ends a step run that no worker will finish.

    The race it wins: its owner is alive after all and commits. The condition names the record that was seen, its
    owner and an expired lease, so the owner's commit or renewed lease refuses this write.
    """
    set_: dict[str, Value] = {
        "ended": now,
        "expires": expires,
        "error": error.to_json(),
        "history": _with_attempt(seen, seen.started if seen else now, now, error),
    }
    if seen is None:
        set_ |= {"inline": me.inline, "started": now}
    elif seen.status is StepStatus.RUNNING:
        set_["errors"] = seen.errors + 1  # the attempt that was under way is the last one, and has failed
    return _step(Change.INTERRUPT, me, Missing() if seen is None else _seen(seen, now), set_, remove=("lease", "due"))


def wrote(me: Writer, status: StepStatus, item: Item | None) -> bool:
    """Whether a refused write of mine is in fact stored: the reply of an earlier try was lost."""
    return item is not None and item.get("owner") == me.token and item.get("status") == status


def _claim_again(change: Change, me: Writer, seen: StepRecord, *, now: int, lease: int) -> Update:
    """Claims a due retry, or takes over from a dead owner.

    The race it wins: two workers see the same expired lease; the condition names the owner both saw, so the
    second is refused. A heartbeat in between moves the lease, which refuses both.
    """
    set_: dict[str, Value] = {"inline": me.inline, "started": now, "lease": lease}
    if change is Change.TAKE_OVER:
        set_["takeovers"] = seen.takeovers + 1
        lost = ErrorInfo("LostLease", "its worker stopped without an end")
        set_["history"] = _with_attempt(seen, seen.started, max(seen.lease, seen.started), lost)
    return _step(change, me, _seen(seen, now), set_, remove=("due",))


def _step(
    change: Change, me: Writer, expect: Expect, set_: Mapping[str, Value], remove: tuple[str, ...] = ()
) -> Update:
    target = STEP_TABLE[change][1]
    key = keys.step_key(me.run_id, me.path)
    return Update(key, expect, {"v": FORMAT, "status": target.value, "owner": me.token, **set_}, remove=remove)


def _mine(me: Writer) -> Expect:
    return AllOf((Equals("status", StepStatus.RUNNING.value), Equals("owner", me.token)))


def _fence(me: Writer) -> Expect:
    return _mine(me) if me.held else AnyOf((Missing(), _mine(me)))


def _seen(seen: StepRecord, now: int) -> Expect:
    same = _same(seen)
    return AllOf((same, LessThan("lease", now + 1))) if seen.status is StepStatus.RUNNING else same


def _same(seen: StepRecord) -> Expect:
    if seen.status.terminal:
        raise ValueError(f"{seen.path!r} is {seen.status}; a terminal status never changes")
    return AllOf((Equals("status", seen.status.value), Equals("owner", seen.owner)))


def _ends(me: Writer, started: int, ended: int, expires: int) -> dict[str, Value]:
    new: dict[str, Value] = {} if me.held else {"inline": me.inline}
    return {**new, "started": started, "ended": ended, "expires": expires}


def _first(me: Writer, expires: int) -> dict[str, Value]:
    return {"inline": me.inline, "expires": expires}


def _with_attempt(seen: StepRecord | None, started: int, ended: int, error: ErrorInfo) -> str:
    past = seen.history if seen else ()
    return history_json((*past, PastAttempt(started, ended, f"{error.type}: {error.message}")))


def _dead_letter(step: StepDefinition, *, lost: bool) -> ErrorInfo:
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
