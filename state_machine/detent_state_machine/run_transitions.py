"""Every transition of a run: the table, and the conditional write that makes each. As in `transitions`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from detent_state_machine import keys
from detent_state_machine.records import ErrorInfo, RunRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.turn import Moment
from detent_state_machine.writes import OneOf, Update, Value


class RunChange(StrEnum):
    """The names of a run's transitions."""

    FINISH = "finish"
    FAIL = "fail"
    BEGIN_FAILING = "begin failing"
    END_FAILING = "end failing"
    CANCEL = "cancel"


RUN_TABLE: Mapping[RunChange, tuple[tuple[RunStatus, ...], RunStatus]] = {
    RunChange.FINISH: ((RunStatus.RUNNING,), RunStatus.COMPLETED),
    RunChange.FAIL: ((RunStatus.RUNNING,), RunStatus.FAILED),
    RunChange.BEGIN_FAILING: ((RunStatus.RUNNING,), RunStatus.FAILING),
    RunChange.END_FAILING: ((RunStatus.FAILING,), RunStatus.FAILED),
    RunChange.CANCEL: ((RunStatus.RUNNING, RunStatus.FAILING), RunStatus.CANCELLED),
}


def finish(run: RunRecord, at: Moment) -> Update:
    """The last step has ended. The race it wins: cancel, or a failing step, at the same moment: first one stays."""
    return _ended(RunChange.FINISH, run, {}, at)


def fail_run(run: RunRecord, path: str, error: ErrorInfo, at: Moment) -> Update:
    """A step failed for good and nothing handles it. The race it wins: two failing steps; the first is the cause."""
    return _ended(RunChange.FAIL, run, {"failed_step": str(path), "error": error.to_json()}, at)


def begin_failing(run: RunRecord, path: str, error: ErrorInfo) -> Update:
    """A step failed for good: its handlers work now. A refusal that shows this very path is success."""
    return _run(RunChange.BEGIN_FAILING, run, {"failed_step": str(path), "error": error.to_json()})


def end_failing(run: RunRecord, at: Moment) -> Update:
    """The handlers have ended, or one of them failed."""
    return _ended(RunChange.END_FAILING, run, {}, at)


def cancel_run(run: RunRecord, at: Moment) -> Update:
    """The race it wins: the run ends by itself; then there is nothing to cancel, and the refusal says so."""
    return _ended(RunChange.CANCEL, run, {}, at)


def _ended(change: RunChange, run: RunRecord, set_: Mapping[str, Value], at: Moment) -> Update:
    return _run(
        change,
        run,
        {
            "ended": at.time,
            "expires": max(at.expires, run.keep_until),
            "isk": keys.index_sort(keys.index_part(RUN_TABLE[change][1]), created=run.created, run_id=run.run_id),
            **set_,
        },
    )


def _run(change: RunChange, run: RunRecord, set_: Mapping[str, Value]) -> Update:
    sources, target = RUN_TABLE[change]
    expect = OneOf("status", tuple(source.value for source in sources))
    return Update(keys.run_key(run.run_id), expect, {"status": target.value, **set_})
