"""Every transition of a step run; those of a run are in `run_transitions`. Nothing about transitions lives elsewhere.

The table is the machine. Its rows say which statuses a transition leads from, to which one, and who may make it; every
condition and every target below is read from it. Below the table, one function per transition returns its conditional
write, and tells the race that this write wins.

The fence is the owner token, unique per delivery of a message. It stays on the record, so a writer whose reply was
lost recognises its own write (`wrote`), and everybody else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from detent_state_machine import keys
from detent_state_machine.records import (
    FORMAT,
    ErrorInfo,
    NoRecord,
    PastAttempt,
    Payload,
    Seen,
    StepRecord,
    history_json,
    payload_attributes,
)
from detent_state_machine.status import StepStatus
from detent_state_machine.turn import Moment, Writer
from detent_state_machine.writes import AllOf, AnyOf, Equals, Expect, Item, LessThan, Missing, UpdateItem, Value


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
    GIVE_UP = "give up"
    SKIP = "skip"
    WAIT = "wait"
    MEET = "meet"
    REFUSE = "refuse"


class Fence(StrEnum):
    """Who may make a transition."""

    MINE = "mine"
    """Its owner: the record is missing, if the table has that, or RUNNING under the writer's token."""
    SEEN = "seen"
    """Whoever saw the record as it is: status and owner are the same."""
    EXPIRED = "expired"
    """As SEEN, and the lease of a step run that is at work has run out, or is that of an owner known to be dead."""


class Row(NamedTuple):
    """A transition: from these statuses to that one."""

    sources: tuple[StepStatus | None, ...]
    target: StepStatus
    fence: Fence


MISSING: Final = None
"""The status of a step run that has no record yet."""
_RUNNING, _RETRYING, _WAITING = StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.WAITING

STEP_TABLE: Mapping[Change, Row] = {
    Change.CLAIM: Row((MISSING,), _RUNNING, Fence.SEEN),
    Change.RECLAIM: Row((_RETRYING,), _RUNNING, Fence.SEEN),
    Change.TAKE_OVER: Row((_RUNNING,), _RUNNING, Fence.EXPIRED),
    Change.HEARTBEAT: Row((MISSING, _RUNNING), _RUNNING, Fence.MINE),
    Change.COMPLETE: Row((MISSING, _RUNNING), StepStatus.COMPLETED, Fence.MINE),
    Change.RETRY: Row((MISSING, _RUNNING), _RETRYING, Fence.MINE),
    Change.FAIL: Row((MISSING, _RUNNING), StepStatus.FAILED, Fence.MINE),
    Change.INTERRUPT: Row((MISSING, _RUNNING, _RETRYING), StepStatus.FAILED, Fence.EXPIRED),
    Change.REVIVE: Row((MISSING, _RUNNING, _RETRYING), _RETRYING, Fence.EXPIRED),
    Change.RELEASE: Row((_RUNNING,), _RETRYING, Fence.MINE),
    Change.CANCEL: Row((_RUNNING,), StepStatus.CANCELLED, Fence.MINE),
    Change.CLOSE: Row((MISSING, _RUNNING, _RETRYING, _WAITING), StepStatus.CANCELLED, Fence.SEEN),
    Change.GIVE_UP: Row((MISSING, _RUNNING, _RETRYING), StepStatus.CANCELLED, Fence.EXPIRED),
    Change.SKIP: Row((MISSING,), StepStatus.SKIPPED, Fence.SEEN),
    Change.WAIT: Row((MISSING,), _WAITING, Fence.SEEN),
    Change.MEET: Row((MISSING, _WAITING), StepStatus.COMPLETED, Fence.SEEN),
    Change.REFUSE: Row((_WAITING,), StepStatus.FAILED, Fence.SEEN),
}


# ---- what its owner writes ----------------------------------------------------------------------------------------


def claim(me: Writer, seen: NoRecord, at: Moment) -> UpdateItem:
    """The first claim of a step run.

    From its first write on a record `expires`: the run may end without anybody coming back to this step. The reaper
    moves the date on while the run lives.

    The race it wins: two deliveries of one message, or a walk's message beside the original one.
        A: sees nothing                      B: sees nothing
        A: RUNNING/A where missing  → won    B: RUNNING/B where missing  → refused, with A's record
    """
    return _step(Change.CLAIM, me, seen, at, {**_first(me, at), "started": at.time, "lease": at.lease})


def heartbeat(me: Writer, seen: Seen, at: Moment, *, started: int) -> UpdateItem:
    """Keeps the lease, and writes the record of an inline step that became long.

    The race it wins: a worker that was paused past its lease comes back.
        A: RUNNING/A, paused …        B: takes over, RUNNING/B
        A: wakes, renews where owner = A  → refused: A knows it has lost, and stops
    """
    new = {} if _held(me, seen) else {**_first(me, at), "started": started}
    return _step(Change.HEARTBEAT, me, seen, at, {**new, "lease": at.lease})


def complete(me: Writer, seen: Seen, at: Moment, *, started: int, output: Payload, commits: int = 0) -> UpdateItem:
    """The commit of a result. For an inline step that stayed short, its only write. `commits`: how many writes of the
    user's are in its transaction.

    The race it wins: two workers finished the same body, after a lost lease or a duplicate delivery.
        A: COMPLETED/A where missing or mine  → won      B: the same with B  → refused: B drops its result
    """
    set_ = {**_ends(me, seen, at, started), **payload_attributes("output", output)}
    if commits:
        set_["commits"] = commits
    return _step(Change.COMPLETE, me, seen, at, set_, remove=("lease", "error"))


def retry(me: Writer, seen: Seen, at: Moment, *, started: int, due: int, error: ErrorInfo) -> UpdateItem:
    """A failed attempt with another one to come, due at `due`. Same race as `complete`."""
    set_: dict[str, Value] = {
        "started": started,
        "due": due,
        "errors": seen.errors + 1,
        "error": error.to_json(),
        "history": _with_attempt(seen, started, at.time, error),
    }
    if not _held(me, seen):
        set_ |= _first(me, at)
    return _step(Change.RETRY, me, seen, at, set_, remove=("lease",))


def fail(me: Writer, seen: Seen, at: Moment, *, started: int, error: ErrorInfo) -> UpdateItem:
    """The last attempt failed. Same race as `complete`."""
    set_ = {
        **_ends(me, seen, at, started),
        "errors": seen.errors + 1,
        "error": error.to_json(),
        "history": _with_attempt(seen, started, at.time, error),
    }
    return _step(Change.FAIL, me, seen, at, set_, remove=("lease",))


def release(me: Writer, seen: Seen, at: Moment) -> UpdateItem:
    """The owner is told to stop (a deploy): the attempt may begin again at once, and counts neither as an error nor
    as a take-over. Refused if the step run was never written, or belongs to somebody else by now.
    """
    return _step(Change.RELEASE, me, seen, at, {"due": at.time}, remove=("lease",))


def cancel(me: Writer, seen: Seen, at: Moment, *, started: int) -> UpdateItem:
    """The owner stopped because its run has ended.

    Only a record that exists is marked: a step that never wrote one leaves none.
    """
    return _step(
        Change.CANCEL, me, seen, at, {"started": started, "ended": at.time, "expires": at.expires}, remove=("lease",)
    )


# ---- what anybody writes who saw the record -------------------------------------------------------------------------


def close(me: Writer, seen: Seen, at: Moment) -> UpdateItem:
    """Ends a step run of a run that has ended: before the run is retried, and a wait that is open.

    The race it wins: its worker has not heard of the end and still commits. Either the commit is first, and the retry
    takes it over; or this is, and refuses the commit. So no effect happens in the old run and again in the new one.
    """
    return _step(Change.CLOSE, me, seen, at, _closed(me, seen, at), remove=("lease", "due"))


def give_up(me: Writer, seen: Seen, at: Moment) -> UpdateItem:
    """Ends a step run that nobody is at, and that its run, which has ended or fails, starts no more.

    The race it wins: its owner is alive after all. The condition names the record that was seen, its owner and an
    expired lease, so the owner's commit or renewed lease refuses this write; the owner hears of the end by itself.
    Where missing: a worker that loaded the run before its end, and was paused since, would begin the step run without
    a message that could ever end it.
        W: loads the run, paused …        G: the run has ended, CANCELLED/G where missing; deletes the message
        W: wakes, RUNNING/W where missing  → refused: W drops it
    """
    return _step(Change.GIVE_UP, me, seen, at, _closed(me, seen, at), remove=("lease", "due"))


def skip(me: Writer, seen: NoRecord, at: Moment) -> UpdateItem:
    """The step's condition is false, or a parent it needs was skipped. Every writer would decide the same."""
    return _step(Change.SKIP, me, seen, at, _ends(me, seen, at, at.time))


def wait(me: Writer, seen: NoRecord, at: Moment, *, due: int, awaits: str = "", since: int = 0) -> UpdateItem:
    """Begins a wait until `due` (0: for ever), for a fact stored in the partition `awaits`. The record is kept as long
    after that as any other.

    The race it wins: two deliveries of one message would give a sleep two ends. The first to write sets its time; the
    second is refused, and sends a message for the time that is stored.
    """
    expires = at.expires + max(0, due - at.time) // 1000
    begun: dict[str, Value] = {**_first(me, at), "expires": expires, "started": at.time}
    if due:
        begun["due"] = due
    if awaits:
        begun |= {"awaits": awaits, "since": since}
    return _step(Change.WAIT, me, seen, at, begun)


def meet(me: Writer, seen: Seen, at: Moment, *, output: Payload, fact: str = "") -> UpdateItem:
    """Ends a wait that is due, or was when it was reached, or by a fact.

    The race it wins: two workers do, with two facts, or with one and the time-out; or the run's retry closes the wait.
    The condition names the status that was seen, and so the first one stays: who is refused goes on from there.
    """
    begun: dict[str, Value] = {"started": at.time} if isinstance(seen, NoRecord) else {}
    ended = {**begun, "inline": me.inline, "ended": at.time, "expires": at.expires}
    ended |= payload_attributes("output", output)
    if fact:
        ended["fact"] = fact
    return _step(Change.MEET, me, seen, at, ended, remove=("due",))


def refuse(me: Writer, seen: StepRecord, at: Moment, *, fact: str, error: ErrorInfo) -> UpdateItem:
    """Ends a wait whose fact does not fit its type. Same race as `meet`."""
    set_: dict[str, Value] = {
        "ended": at.time,
        "expires": at.expires,
        "errors": seen.errors + 1,
        "error": error.to_json(),
        "history": _with_attempt(seen, seen.started, at.time, error),
        "fact": fact,
    }
    return _step(Change.REFUSE, me, seen, at, set_, remove=("due",))


def reclaim(me: Writer, seen: StepRecord, at: Moment) -> UpdateItem:
    """Claims a retry that is due. The race it wins: two workers do; the condition names the owner that both saw."""
    return _step(Change.RECLAIM, me, seen, at, _claimed(me, at), remove=("due",))


def take_over(me: Writer, seen: StepRecord, at: Moment) -> UpdateItem:
    """Claims what a dead owner left.

    The race it wins: two workers see the same expired lease; the condition names the owner both saw, so the
    second is refused. A heartbeat in between moves the lease, which refuses both.
    """
    lost = ErrorInfo("LostLease", "its worker stopped without an end")
    set_ = {
        **_claimed(me, at),
        "takeovers": seen.takeovers + 1,
        "history": _with_attempt(seen, seen.started, max(min(seen.lease, at.time), seen.started), lost),
    }
    return _step(Change.TAKE_OVER, me, seen, at, set_, remove=("due",))


def revive(me: Writer, seen: Seen, at: Moment) -> UpdateItem:
    """Its message was received too often: it is due at once, for the message that is sent next.

    The race it wins: its owner is alive after all, or another dead letter of it is handled at the same moment.
        D: sees RUNNING/A, expired              A: COMPLETED/A where mine  → won
        D: RETRYING/D where RUNNING/A, expired  → refused, with what A committed: D walks from there
    The other way round A's commit is refused, as after any take-over. If D dies before it sends, the dead letter
    comes back, and is counted once more.
    """
    lost = ErrorInfo("DeadLetter", "its message was received too often without an end")
    began = at.time if isinstance(seen, NoRecord) else seen.due or seen.started
    set_: dict[str, Value] = {
        "inline": me.inline,
        "due": at.time,
        "takeovers": seen.takeovers + 1,
        "history": _with_attempt(seen, began, at.time, lost),
    }
    if isinstance(seen, NoRecord):
        set_ |= {**_first(me, at), "started": at.time}
    return _step(Change.REVIVE, me, seen, at, set_, remove=("lease",))


def interrupt(me: Writer, seen: Seen, at: Moment, error: ErrorInfo) -> UpdateItem:
    """Ends a step run that no worker will finish.

    The race it wins: its owner is alive after all and commits. The condition names the record that was seen, its
    owner and an expired lease, so the owner's commit or renewed lease refuses this write.
    """
    began = at.time if isinstance(seen, NoRecord) else seen.started
    set_: dict[str, Value] = {
        "ended": at.time,
        "expires": at.expires,
        "error": error.to_json(),
        "history": _with_attempt(seen, began, at.time, error),
    }
    if isinstance(seen, NoRecord):
        set_ |= {"inline": me.inline, "started": at.time}
    elif seen.status is StepStatus.RUNNING:
        set_["errors"] = seen.errors + 1  # the attempt that was under way is the last one, and has failed
    return _step(Change.INTERRUPT, me, seen, at, set_, remove=("lease", "due"))


# ---- conditions -----------------------------------------------------------------------------------------------------


def wrote(me: Writer, write: UpdateItem, item: Item | None) -> bool:
    """Whether a refused write of mine is in fact stored: the reply of an earlier try was lost."""
    return item is not None and item.get("owner") == me.token and item.get("status") == write.set["status"]


def _step(
    change: Change, me: Writer, seen: Seen, at: Moment, set_: Mapping[str, Value], remove: tuple[str, ...] = ()
) -> UpdateItem:
    target = STEP_TABLE[change].target
    key = keys.step_key(me.run_id, me.path)
    expect = _expect(change, me, seen, at)
    return UpdateItem(key, expect, {"v": FORMAT, "status": str(target), "owner": me.token, **set_}, remove=remove)


def _expect(change: Change, me: Writer, seen: Seen, at: Moment) -> Expect:
    """The condition that the table sets."""
    sources, _, fence = STEP_TABLE[change]
    if fence is Fence.MINE:
        mine = AllOf((Equals("status", str(StepStatus.RUNNING)), Equals("owner", me.token)))
        return AnyOf((Missing(), mine)) if MISSING in sources and not _held(me, seen) else mine
    status = MISSING if isinstance(seen, NoRecord) else seen.status
    if status not in sources:
        raise ValueError(f"{me.path!r} is {status or 'missing'}: there is no {change} from there.")
    if isinstance(seen, NoRecord):
        return Missing()
    same = AllOf((Equals("status", str(seen.status)), Equals("owner", seen.owner)))
    if fence is Fence.EXPIRED and seen.status is StepStatus.RUNNING:
        # An owner that is dead renews no lease: the one that was seen stands until another worker takes over.
        over = Equals("lease", seen.lease) if seen.orphaned else LessThan("lease", at.time + 1)
        return AllOf((same, over))
    return same


def _held(me: Writer, seen: Seen) -> bool:
    """Whether this writer knows that it wrote the record: by a claim, or a heartbeat."""
    return isinstance(seen, StepRecord) and seen.owner == me.token


def _ends(me: Writer, seen: Seen, at: Moment, started: int) -> dict[str, Value]:
    new: dict[str, Value] = {} if _held(me, seen) else {"inline": me.inline}
    return {**new, "started": started, "ended": at.time, "expires": at.expires}


def _closed(me: Writer, seen: Seen, at: Moment) -> dict[str, Value]:
    begun: dict[str, Value] = {"inline": me.inline, "started": at.time} if isinstance(seen, NoRecord) else {}
    return {**begun, "ended": at.time, "expires": at.expires}


def _first(me: Writer, at: Moment) -> dict[str, Value]:
    return {"inline": me.inline, "expires": at.expires}


def _claimed(me: Writer, at: Moment) -> dict[str, Value]:
    return {"inline": me.inline, "started": at.time, "lease": at.lease}


def _with_attempt(seen: Seen, started: int, ended: int, error: ErrorInfo) -> str:
    return history_json((*seen.history, PastAttempt(started, ended, f"{error.type}: {error.message}")))
