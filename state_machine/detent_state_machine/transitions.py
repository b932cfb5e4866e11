"""Every transition of a run and of a step run. Nothing about transitions lives elsewhere.

Two tables say which status may follow which. Below them, one function per transition returns the conditional
write that makes it: its target is read from the table, its condition is the fence (who may write), and a test holds
every condition to the table's sources.

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
    RunRecord,
    StepRecord,
    history_json,
    payload_attributes,
)
from detent_state_machine.status import Delivery, RunStatus, StepStatus
from detent_state_machine.writes import AllOf, AnyOf, Equals, Expect, Item, LessThan, Missing, OneOf, Update, Value


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
    Change.RELEASE: ((StepStatus.RUNNING,), StepStatus.RETRYING),
    Change.CANCEL: ((StepStatus.RUNNING,), StepStatus.CANCELLED),
    Change.CLOSE: ((MISSING, StepStatus.RUNNING, StepStatus.RETRYING), StepStatus.CANCELLED),
    Change.SKIP: ((MISSING,), StepStatus.SKIPPED),
}

RUN_TABLE: Mapping[str, tuple[tuple[RunStatus, ...], RunStatus]] = {
    "finish": ((RunStatus.RUNNING,), RunStatus.COMPLETED),
    "fail": ((RunStatus.RUNNING,), RunStatus.FAILED),
    "begin failing": ((RunStatus.RUNNING,), RunStatus.FAILING),
    "end failing": ((RunStatus.FAILING,), RunStatus.FAILED),
    "cancel": ((RunStatus.RUNNING, RunStatus.FAILING), RunStatus.CANCELLED),
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


def claim(me: Writer, *, now: int, lease: int) -> Update:
    """The first claim of a step run.

    The race it wins: two deliveries of one message, or a walk's message beside the original one.
        A: sees nothing                      B: sees nothing
        A: RUNNING/A where missing  → won    B: RUNNING/B where missing  → refused, with A's record
    """
    return _step(Change.CLAIM, me, Missing(), {"inline": me.inline, "started": now, "lease": lease})


def heartbeat(me: Writer, *, started: int, lease: int) -> Update:
    """Keeps the lease, and writes the record of an inline step that became long.

    The race it wins: a worker that was paused past its lease comes back.
        A: RUNNING/A, paused …        B: takes over, RUNNING/B
        A: wakes, renews where owner = A  → refused: A knows it has lost, and stops
    """
    new: dict[str, Value] = {} if me.held else {"inline": me.inline, "started": started}
    return _step(Change.HEARTBEAT, me, _fence(me), {**new, "lease": lease})


def complete(me: Writer, *, started: int, ended: int, output: Payload, expires: int) -> Update:
    """The commit of a result. For an inline step that stayed short, its only write.

    The race it wins: two workers finished the same body, after a lost lease or a duplicate delivery.
        A: COMPLETED/A where missing or mine  → won      B: the same with B  → refused: B drops its result
    """
    set_ = {**_ends(me, started, ended, expires), **payload_attributes("output", output)}
    return _step(Change.COMPLETE, me, _fence(me), set_, remove=("lease", "error"))


def retry(me: Writer, seen: StepRecord | None, *, started: int, ended: int, due: int, error: ErrorInfo) -> Update:
    """A failed attempt with another one to come, due at `due`. Same race as `complete`."""
    set_: dict[str, Value] = {
        "started": started,
        "due": due,
        "errors": (seen.errors if seen else 0) + 1,
        "error": error.to_json(),
        "history": _with_attempt(seen, started, ended, error),
    }
    if not me.held:
        set_["inline"] = me.inline
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


Refused: TypeAlias = Claim | Interrupt | Mine | Ended | Later


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
            return Interrupt(interrupt(me, seen, now=now, expires=expires, error=DEAD_LETTER))
        return Claim(_claim_again(Change.RECLAIM, me, seen, now=now, lease=lease))
    if seen.owner == me.token:
        return Mine(seen)
    if seen.lease > now:
        return Later(seen.lease)
    if dead:
        return Interrupt(interrupt(me, seen, now=now, expires=expires, error=DEAD_LETTER))
    if step.delivery is Delivery.AT_MOST_ONCE or seen.takeovers >= step.takeovers:
        return Interrupt(interrupt(me, seen, now=now, expires=expires, error=_interrupted(step, seen)))
    return Claim(_claim_again(Change.TAKE_OVER, me, seen, now=now, lease=lease))


DEAD_LETTER = ErrorInfo(
    "DeadLetter", "The step's message was received too often without an end; its worker may run out of memory or time."
)


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


def _with_attempt(seen: StepRecord | None, started: int, ended: int, error: ErrorInfo) -> str:
    past = seen.history if seen else ()
    return history_json((*past, PastAttempt(started, ended, f"{error.type}: {error.message}")))


def _interrupted(step: StepDefinition, seen: StepRecord) -> ErrorInfo:
    if step.delivery is Delivery.AT_MOST_ONCE:
        why = "its worker stopped without an end, and an at_most_once body is never run again"
    else:
        why = f"{seen.takeovers + 1} workers in a row stopped without an end (crash, out of memory or time)"
    return ErrorInfo("Interrupted", f"Step {step.name!r} was interrupted: {why}.")


# ---- a run ------------------------------------------------------------------------------------------------


def finish(run: RunRecord, *, now: int, expires: int) -> Update:
    """The last step has ended. The race it wins: cancel, or a failing step, at the same moment: first one stays."""
    return _run("finish", run, now, {"expires": expires})


def fail_run(run: RunRecord, path: str, error: ErrorInfo, *, now: int, expires: int) -> Update:
    """A step failed for good and nothing handles it. The race it wins: two failing steps; the first is the cause."""
    return _run("fail", run, now, {"failed_step": path, "error": error.to_json(), "expires": expires})


def begin_failing(run: RunRecord, path: str, error: ErrorInfo) -> Update:
    """A step failed for good: its handlers work now. A refusal that shows this very path is success."""
    return _run("begin failing", run, None, {"failed_step": path, "error": error.to_json()})


def end_failing(run: RunRecord, *, now: int, expires: int) -> Update:
    """The handlers have ended, or one of them failed."""
    return _run("end failing", run, now, {"expires": expires})


def cancel_run(run: RunRecord, *, now: int, expires: int) -> Update:
    """The race it wins: the run ends by itself; then there is nothing to cancel, and the refusal says so."""
    return _run("cancel", run, now, {"expires": expires})


def _run(name: str, run: RunRecord, ended: int | None, set_: Mapping[str, Value]) -> Update:
    sources, target = RUN_TABLE[name]
    more: dict[str, Value] = {"status": target.value}
    if ended is not None:
        more["ended"] = ended
        more["isk"] = keys.index_sort(live=False, created=run.created, run_id=run.run_id)
    expect = OneOf("status", tuple(source.value for source in sources))
    return Update(keys.run_key(run.run_id), expect, {**more, **set_})
