"""Handlers, deliveries, conditions and outputs of a workflow: what compiles, and what is refused with the fix."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from detent import DefinitionError, Failure, Retry
from detent_state_machine.compiler import DeclaredStep, FromInput, FromOutput, Parameter, compile_workflow
from detent_state_machine.definition import Parent
from detent_state_machine.when import Ref, Truthy

from tests.unit.authoring import AnyWorkflow, Coded, Label, LabelData, Order, refusal, workflow

if TYPE_CHECKING:
    from decimal import Decimal  # noqa: F401 - named by a string below, as if forgotten at run time

# ---- handlers --------------------------------------------------------------------------------------------------


def test_nothing_follows_a_failure_handler() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.on_failure
        def undo(order: Order) -> str: ...

        @flow.step(after=[undo])
        def ship(order: Order) -> str: ...

    said = refusal(declare)
    assert "step 'ship' follows 'undo', a failure handler" in said
    assert "Handlers run only after the workflow has failed" in said


def test_a_failure_handler_waits_for_no_ordinary_step() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order) -> str: ...

        @flow.on_failure(after=[ship])
        def undo(order: Order) -> str: ...

    said = refusal(declare)
    assert "step 'undo' is a failure handler and waits for 'ship'" in said
    assert "optional parameter" in said


def test_a_failure_handler_takes_outputs_as_optional_only() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order) -> Label: ...

        @flow.on_failure
        def undo(label: Label = ship.output) -> str: ...

    said = refusal(declare)
    assert "'label' takes the output of 'ship', which may not have run when the handler starts" in said
    assert "Annotate it as Label | None." in said


def test_a_step_follows_no_on_success_step() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.on_success
        def celebrate(order: Order) -> str: ...

        @flow.step(after=[celebrate])
        def ship(order: Order) -> str: ...

    assert "step 'ship' follows 'celebrate', which runs after every other step" in refusal(declare)


def test_handlers_alone_are_no_workflow() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.on_failure
        def undo(order: Order) -> str: ...

    assert "has only handlers" in refusal(declare)


def test_why_it_failed_is_told_to_handlers_only() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order, why: Failure) -> str: ...

    said = refusal(declare)
    assert "step 'ship' takes a Failure, but it is not a failure handler" in said
    assert "Declare it with `on_failure`." in said


def test_an_on_success_step_follows_every_last_step_once() -> None:
    flow = workflow()

    @flow.step
    def one(order: Order) -> str: ...

    @flow.step
    def two(order: Order) -> str: ...

    @flow.on_success
    def celebrate(first: str = one.output) -> str: ...

    [_, _, last] = flow.definition.steps
    assert last.scope == "main"
    assert last.parents == (Parent(step="one", need="completed"), Parent(step="two", need="done"))


# ---- delivery, conditions, outputs -----------------------------------------------------------------------------


def test_at_most_once_with_attempts_is_refused() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step(delivery="at_most_once", retry=Retry(attempts=3))
        def mail(order: Order) -> str: ...

    assert refusal(declare) == (
        "Workflow 'orders', step 'mail' is at_most_once and has 3 attempts. "
        "An at_most_once body never runs twice: drop `retry`, or choose another delivery."
    )


def test_at_most_once_has_one_attempt_by_default() -> None:
    flow = workflow()

    @flow.step(delivery="at_most_once")
    def mail(order: Order) -> str: ...

    assert flow.definition.steps[0].retry.attempts == 1


def test_a_delivery_that_does_not_exist_is_refused_with_those_that_do() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step(delivery="exactly_twice")  # type: ignore[call-overload, untyped-decorator]
        def mail(order: Order) -> str: ...

    said = refusal(declare)
    assert "step 'mail'" in said
    assert "at_least_once, at_most_once or exactly_once" in said


def test_a_condition_makes_its_steps_parents_and_waits_for_skipped_ones_too() -> None:
    flow = workflow()

    @flow.step
    def check(order: Order) -> bool: ...

    @flow.step(when=check.output)
    def ship(order: Order) -> str: ...

    assert flow.definition.steps[1].parents == (Parent(step="check", need="done"),)


def test_a_parameter_that_admits_none_goes_on_without_a_skipped_parent() -> None:
    flow = workflow()

    @flow.step(when=flow.input.total > 0)
    def charge(order: Order) -> Label: ...

    @flow.step
    def strict(paid: Label = charge.output) -> str: ...

    @flow.step
    def relaxed(paid: Label | None = charge.output) -> str: ...

    assert [step.parents[0].need for step in flow.definition.steps[1:]] == ["completed", "done"]


def test_a_condition_on_a_field_that_its_type_does_not_have_is_refused() -> None:
    def of_input(flow: AnyWorkflow) -> None:
        @flow.step(when=flow.input.totl > 0)
        def ship(order: Order) -> str: ...

    said = refusal(of_input)
    assert "step 'ship': its condition looks at input.totl, but Order has no 'totl'" in said
    assert "Did you mean 'total'?" in said

    def of_output(flow: AnyWorkflow) -> None:
        @flow.step
        def make(order: Order) -> LabelData | None: ...

        @flow.step(when=make.output.size == 1)  # type: ignore[union-attr]
        def ship(order: Order) -> str: ...

    assert "its condition looks at make.size, but LabelData has no 'size'" in refusal(of_output)


def test_a_condition_names_fields_as_their_json_does() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step(when=flow.input.code == "A")
        def ship(order: Coded) -> str: ...

    assert "Coded has no 'code'" in refusal(declare, input=Coded)
    flow = workflow(input=Coded)

    @flow.step(when=flow.input["orderCode"] == "A")
    def ship(order: Coded) -> str: ...

    assert flow.definition.steps[0].when is not None


def test_a_condition_may_look_into_what_has_no_known_fields() -> None:
    flow = workflow()

    @flow.step
    def look(order: Order) -> dict[str, Any]: ...

    @flow.step(when=look.output["a"]["b"][0] == 1)
    def ship(order: Order) -> str: ...

    assert flow.definition.steps[1].when is not None


def test_a_declared_output_with_several_last_steps_is_refused() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def one(order: Order) -> str: ...

        @flow.step
        def two(order: Order) -> str: ...

    said = refusal(declare, output=str)
    assert "declares an output, but has 2 last steps: one, two" in said
    assert "Let one step follow all of them, or leave out `output`" in said


def test_a_declared_output_of_another_type_than_the_last_steps_is_refused() -> None:
    def wrong(flow: AnyWorkflow) -> None:
        @flow.step
        def one(order: Order) -> Label: ...

    def untold(flow: AnyWorkflow) -> None:
        @flow.step
        def one(order: Order): ...  # type: ignore[no-untyped-def]

    assert "declares the output str, but 'one', its last step, returns Label" in refusal(wrong, output=str)
    assert "returns (not annotated)" in refusal(untold, output=str)


def test_a_last_step_that_may_be_skipped_gives_an_optional_output() -> None:
    def skipped(flow: AnyWorkflow) -> None:
        @flow.step(when=flow.input.total > 0)
        def one(order: Order) -> str: ...

    def after_skipped(flow: AnyWorkflow) -> None:
        skipped(flow)

        @flow.step
        def two(got: str = flow.steps["one"].output) -> str: ...

    for declare, last in ((skipped, "one"), (after_skipped, "two")):
        said = refusal(declare, output=str)
        assert f"declares the output str, but {last!r}, its last step, may be skipped" in said
        assert "Declare the output as str | None" in said
        flow = workflow(output=str | None)
        declare(flow)
        assert flow.definition.steps[0].when is not None


# ---- the same through the compiler's own door, as other SDKs use it -----------------------------------------------


def test_what_an_sdk_declares_is_checked_the_same_way() -> None:
    make = DeclaredStep("make", (Parameter("order", Order, FromInput()),), Label)
    ship = DeclaredStep("ship", (Parameter("label", LabelData, FromOutput("make")),), str)
    definition = compile_workflow("orders", [make, ship], input_type=Order, output_type=str)
    assert [parent.step for parent in definition.steps[1].parents] == ["make"]
    with pytest.raises(DefinitionError, match="follows 'nowhere'"):
        compile_workflow("orders", [DeclaredStep("ship", when=Truthy(ref=Ref(step="nowhere")))])


def test_a_wrong_declaration_is_told_again_until_it_is_fixed() -> None:
    flow = workflow()
    for _ in range(2):
        with pytest.raises(DefinitionError, match="no steps"):
            flow.definition  # noqa: B018 - compiles

    @flow.step
    def ship(order: Order) -> str: ...

    assert flow.definition.steps[0].name == "ship"
