"""A commit that can never succeed: its step FAILED at the first attempt, with the true reason, on every backend."""

from __future__ import annotations

import pytest
from detent import App, Context, Equals, OneOf, Put, RunFailed, StepStatus, Update
from detent.commit import DataWrite
from detent.testing import Harness
from detent_state_machine.writes import Expect

from tests.scenarios.conftest import OpenHarness

TEXT = "x" * 299_000


def committing(*changes: DataWrite) -> App:
    app = App(url="memory://")
    flow = app.workflow("flow", input=int)

    @flow.step(delivery="exactly_once")
    def first(n: int, *, ctx: Context) -> int:
        ctx.commit(Put("c", "x", {"tags": "vip", "count": 1}, expect=None))
        return n

    @flow.step(delivery="exactly_once", after=[first])
    def second(n: int, *, ctx: Context) -> int:
        ctx.commit(Put("c", f"{ctx.run_id}", {}), *changes)
        return n

    return app


def reason(h: Harness) -> str:
    """Why the second step failed, at once and with nothing written."""
    run = h.start(h.app.workflows["flow"], 1)
    with pytest.raises(RunFailed):
        h.result(run, within=30)
    step = h.steps(run)["second"]
    assert (step.status, step.attempt, step.takeovers) == (StepStatus.FAILED, 1, 0)
    assert h.wait_for(h.client.aread("c", run.id)) is None
    assert h.wait_for(h.client.aread("c", "x")) == {"tags": "vip", "count": 1}
    assert step.error is not None
    return f"{step.error.type}: {step.error.message}"


def test_adding_to_a_value_of_another_kind_fails_the_step_with_entry_value_and_both_kinds(harness: OpenHarness) -> None:
    said = reason(harness(committing(Update("c", "x", add={"tags": frozenset(["new"])}))))
    assert "The item 'x' of 'data#c': a set of texts cannot be added to 'tags', which is a text." in said
    assert said.startswith("InputError")


def test_an_entry_over_400_kb_fails_the_step_with_its_size(harness: OpenHarness) -> None:
    said = reason(harness(committing(Update("c", "y", set={"a": TEXT, "b": TEXT}))))
    assert said.startswith(
        "PayloadTooLarge: The item 'y' of 'data#c' has 598,013 bytes: more than the limit of 409,600."
    )


def test_entries_over_4_mb_in_all_fail_the_step_with_their_size(harness: OpenHarness) -> None:
    said = reason(harness(committing(*(Put("c", f"y{n}", {"a": TEXT}) for n in range(15)))))
    assert said.startswith("PayloadTooLarge: A transaction of 4,485,")


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (OneOf("tags", tuple(f"{n}" for n in range(101))), "more than 100 parts or values"),
        (Equals("tags", None), "compares 'tags' with None"),  # type: ignore[arg-type]
    ],
    ids=["too long", "of no kind"],
)
def test_a_condition_that_no_table_evaluates_fails_the_step(harness: OpenHarness, condition: Expect, said: str) -> None:
    assert said in reason(harness(committing(Update("c", "x", {"a": 1}, expect=condition))))
