"""Every transition of a run: the table, and the conditional write that makes each. As in `transitions`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from detent_state_machine import keys
from detent_state_machine.records import ErrorInfo, RunRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.turn import Moment
from detent_state_machine.writes import OneOf, UpdateItem, Value


class RunTransition(StrEnum):
    """The names of a run's transitions."""

    FINISH = "finish"
    FAIL = "fail"
    BEGIN_FAILING = "begin failing"
    END_FAILING = "end failing"
    CANCEL = "cancel"


RUN_TABLE: Mapping[RunTransition, tuple[tuple[RunStatus, ...], RunStatus]] = {
    RunTransition.FINISH: ((RunStatus.RUNNING,), RunStatus.COMPLETED),
    RunTransition.FAIL: ((RunStatus.RUNNING,), RunStatus.FAILED),
    RunTransition.BEGIN_FAILING: ((RunStatus.RUNNING,), RunStatus.FAILING),
    RunTransition.END_FAILING: ((RunStatus.FAILING,), RunStatus.FAILED),
    RunTransition.CANCEL: ((RunStatus.RUNNING, RunStatus.FAILING), RunStatus.CANCELLED),
}


def finish(run: RunRecord, at: Moment) -> UpdateItem:
    """The last step has ended. The race it wins: cancel, or a failing step, at the same moment: first one stays."""
    return _ended(RunTransition.FINISH, run, {}, at)


def fail_run(run: RunRecord, path: str, error: ErrorInfo, at: Moment) -> UpdateItem:
    """A step failed for good and nothing handles it. The race it wins: two failing steps; the first is the cause."""
    return _ended(RunTransition.FAIL, run, {"failed_step": str(path), "error": error.to_json()}, at)


def begin_failing(run: RunRecord, path: str, error: ErrorInfo) -> UpdateItem:
    """A step failed for good: its handlers work now. A refusal that shows this very path is success."""
    return _run(RunTransition.BEGIN_FAILING, run, {"failed_step": str(path), "error": error.to_json()})


def end_failing(run: RunRecord, at: Moment) -> UpdateItem:
    """The handlers have ended, or one of them failed."""
    return _ended(RunTransition.END_FAILING, run, {}, at)


def cancel_run(run: RunRecord, at: Moment) -> UpdateItem:
    """The race it wins: the run ends by itself; then there is nothing to cancel, and the refusal says so."""
    return _ended(RunTransition.CANCEL, run, {}, at)


def _ended(change: RunTransition, run: RunRecord, set_: Mapping[str, Value], at: Moment) -> UpdateItem:
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


def _run(change: RunTransition, run: RunRecord, set_: Mapping[str, Value]) -> UpdateItem:
    sources, target = RUN_TABLE[change]
    expect = OneOf("status", tuple(source.value for source in sources))
    return UpdateItem(keys.run_key(run.run_id), expect, {"status": target.value, **set_})
