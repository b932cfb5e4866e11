"""Every primitive call of every canonical workflow is cut in every way, once; and a sample of all pairs of cuts."""

from __future__ import annotations

import pytest
from detent import RunStatus
from detent.testing.simulation.faults import Fault, FixedPlan, possible
from detent_state_machine.status import Delivery

from tests.simulation.canonical import CANONICAL, Canonical
from tests.simulation.enumerate import READS, TWINS, pairs, perform, singles, try_all, workload_of

PAIRS = 0.002
"""The part of all pairs that is tried here. `python -m tests.simulation.enumerate --pairs` tries every one."""
SMALL = [one for one in CANONICAL if one.pairs]


@pytest.mark.parametrize("canonical", CANONICAL, ids=lambda one: one.name)
def test_a_fault_at_any_call_changes_nothing_of_the_outcome(canonical: Canonical) -> None:
    report = try_all(canonical, singles(canonical))
    if report.failures:
        pytest.fail(f"{len(report.failures)} of {report.points}; the first:\n{report.failures[0]}", pytrace=False)
    assert report.missed == 0
    assert report.points >= 8 * report.calls, "every call can crash before and after, be lost, refused, late, repeated"
    interruptible = any(step.delivery is Delivery.AT_MOST_ONCE for step in canonical.steps)
    loses = any(Fault.MISSING in faults.values() for faults in singles(canonical))
    assert report.excused == 0 or interruptible or loses


@pytest.mark.parametrize("canonical", SMALL, ids=lambda one: one.name)
def test_two_faults_change_nothing_either(canonical: Canonical) -> None:
    report = try_all(canonical, pairs(canonical, PAIRS))
    if report.failures:
        pytest.fail(f"{len(report.failures)} of {report.points}; the first:\n{report.failures[0]}", pytrace=False)
    assert report.points > 0


@pytest.mark.parametrize("canonical", SMALL, ids=lambda one: one.name)
def test_a_fault_that_pairs_leave_out_does_what_its_twin_does(canonical: Canonical) -> None:
    for call in perform(canonical, {}).calls:
        if call.operation not in READS:
            continue
        for fault, twin in TWINS.items():
            left_out = perform(canonical, {call.number: fault})
            tried = perform(canonical, {call.number: twin} if twin else {})
            assert [line.replace(f"  [{fault}]", "") for line in left_out.trace] == [
                line.replace(f"  [{twin}]", "") for line in tried.trace
            ]


def test_the_canonical_workflows_end_in_every_way_a_run_can() -> None:
    ends: set[RunStatus] = set()
    for canonical in CANONICAL:
        done = workload_of(canonical).expected(7)
        ends.add(done.status)
    assert ends == {RunStatus.COMPLETED, RunStatus.FAILED}
    assert any(canonical.script.__name__ == "cancelled" for canonical in CANONICAL)


def test_a_fault_happens_at_the_call_it_was_planned_for_and_all_before_is_as_without() -> None:
    canonical = CANONICAL[1]
    smooth = perform(canonical, {})
    for number in range(0, len(smooth.calls), 5):
        faulty = perform(canonical, {number: Fault.CRASH_BEFORE})
        assert faulty.calls[: number + 1] == smooth.calls[: number + 1]
        assert faulty.trace[:number] == smooth.trace[:number]


def test_a_fixed_plan_plays_no_fault_on_a_call_it_cannot_happen_to() -> None:
    call = perform(CANONICAL[0], {}).calls[0]
    assert Fault.STALE_DELETE not in possible(call.operation)
    assert FixedPlan({call.number: Fault.STALE_DELETE})(call) is None
    assert FixedPlan({call.number: Fault.REFUSED})(call) is Fault.REFUSED
