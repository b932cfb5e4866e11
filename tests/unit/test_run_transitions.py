"""Every conditional write to a run accepts the statuses that the table names, and no others."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from detent_state_machine import keys, run_transitions
from detent_state_machine.records import ErrorInfo, Payload, RunRecord
from detent_state_machine.run_transitions import RUN_TABLE, RunTransition
from detent_state_machine.status import RunStatus
from detent_state_machine.turn import Moment
from detent_state_machine.writes import UpdateItem, apply, holds

NOW = 1_000_000
EXPIRES = 2_000
AT = Moment(NOW, EXPIRES)
ERROR = ErrorInfo("Refused", "card refused")
RUN = RunRecord("run-1", "orders", "v1", RunStatus.RUNNING, 5, Payload("1"))
RUN_WRITES: Mapping[RunTransition, UpdateItem] = {
    RunTransition.FINISH: run_transitions.finish(RUN, AT),
    RunTransition.FAIL: run_transitions.fail_run(RUN, "charge", ERROR, AT),
    RunTransition.BEGIN_FAILING: run_transitions.begin_failing(RUN, "charge", ERROR),
    RunTransition.END_FAILING: run_transitions.end_failing(RUN, AT),
    RunTransition.CANCEL: run_transitions.cancel_run(RUN, AT),
}


@pytest.mark.parametrize("change", RUN_TABLE)
def test_a_write_to_a_run_is_accepted_in_the_statuses_of_the_table_only(change: RunTransition) -> None:
    sources, target = RUN_TABLE[change]
    write = RUN_WRITES[change]
    assert not holds(write.expect, None)
    for status in RunStatus:
        item = {**RUN.to_item(), "status": status.value}
        assert holds(write.expect, item) == (status in sources)
    after = RunRecord.from_item("run-1", apply(write, RUN.to_item()) or {})
    assert after.status is target


def test_a_run_can_be_cancelled_while_its_failure_handler_works_but_not_completed() -> None:
    failing = {**RUN.to_item(), "status": "FAILING"}
    assert holds(RUN_WRITES[RunTransition.CANCEL].expect, failing)
    assert not holds(RUN_WRITES[RunTransition.FINISH].expect, failing)
    assert not holds(RUN_WRITES[RunTransition.FAIL].expect, failing)


@pytest.mark.parametrize("change", RUN_TABLE)
def test_a_run_moves_to_the_index_of_ended_runs_with_the_write_that_ends_it(change: RunTransition) -> None:
    after = apply(RUN_WRITES[change], RUN.to_item())
    assert after is not None
    status = RUN_TABLE[change][1]
    live = status.live
    assert after["isk"] == keys.index_sort(keys.index_part(status), created=5, run_id="run-1")
    assert ("ended" in after) != live
    assert ("expires" in after) != live


def test_the_first_failing_step_is_the_cause_and_stays_it() -> None:
    failing = apply(RUN_WRITES[RunTransition.BEGIN_FAILING], RUN.to_item())
    assert failing is not None
    second = run_transitions.begin_failing(RUN, "ship", ERROR)
    assert not holds(second.expect, failing)
    ended = RunRecord.from_item("run-1", apply(RUN_WRITES[RunTransition.END_FAILING], failing) or {})
    assert (ended.failed_step, ended.status) == ("charge", RunStatus.FAILED)
    assert ended.error is not None
    assert ended.error.message == "card refused"
