"""`reserve.output` and `orders.input` stand for values that do not exist yet, and say so when taken for more."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
from detent import App, DefinitionError, Step, Workflow, not_
from detent.markers import Check, condition_of
from detent_state_machine.when import All, Compare, Condition, Either, Not, Ref, Truthy, describe
from pydantic import TypeAdapter

app = App("shop", url="memory://")
orders: Workflow[Any, Any] = app.workflow("orders")
returns: Workflow[Any, Any] = app.workflow("returns")


@orders.step
def check(order: Any) -> Any: ...


step: Step[..., Any, Any] = check


def condition(value: object) -> Condition:
    return condition_of(value, "orders")


def refused(attempt: Callable[[], object]) -> str:
    with pytest.raises(DefinitionError) as error:
        attempt()
    assert error.value.advice
    return str(error.value)


INPUT = Ref(step=None, path=("total",))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (orders.input.total == 5, Compare(op="==", left=INPUT, right=5)),
        (orders.input.total != None, Compare(op="!=", left=INPUT, right=None)),  # noqa: E711
        (orders.input.total < 5.5, Compare(op="<", left=INPUT, right=5.5)),
        (orders.input.total <= "9.99", Compare(op="<=", left=INPUT, right="9.99")),
        (orders.input.total > step.output.limit, Compare(op=">", left=INPUT, right=Ref(step="check", path=("limit",)))),
        (5 < orders.input.total, Compare(op=">", left=INPUT, right=5)),  # noqa: SIM300
        (orders.input.total >= True, Compare(op=">=", left=INPUT, right=True)),
        (step.output, Truthy(ref=Ref(step="check"))),
        (step.output["a b"][0].c, Truthy(ref=Ref(step="check", path=("a b", 0, "c")))),
        (step.output[-1], Truthy(ref=Ref(step="check", path=(-1,)))),
        (not_(step.output), Not(part=Truthy(ref=Ref(step="check")))),
    ],
    ids=lambda value: describe(value) if isinstance(value, Compare | Truthy | Not) else "written",
)
def test_what_is_written_becomes_a_condition(written: object, meant: Condition) -> None:
    assert condition(written) == meant


def test_conditions_combine_with_and_or_and_not() -> None:
    total, flag = orders.input.total > 0, step.output
    assert condition(total & flag) == All(parts=(condition(total), condition(flag)))
    assert condition(flag & total) == All(parts=(condition(flag), condition(total)))
    assert condition(total | flag) == Either(parts=(condition(total), condition(flag)))
    assert condition(flag | total) == Either(parts=(condition(flag), condition(total)))
    assert describe(condition(not_((total & flag) | flag))) == "not (((input.total > 0) and (check)) or (check))"


def test_a_condition_survives_json_as_it_is() -> None:
    written = condition(not_((orders.input.total > 10**30) & (step.output["ä"] == None)))  # noqa: E711
    adapter: TypeAdapter[Condition] = TypeAdapter(Condition)
    assert adapter.validate_json(adapter.dump_json(written)) == written


def test_an_enumerated_value_is_compared_as_its_json() -> None:
    class Kind(enum.Enum):
        GIFT = "gift"

    class Word(enum.StrEnum):
        GIFT = "gift"

    for value in (Kind.GIFT, Word.GIFT):
        assert condition(orders.input.total == value) == Compare(op="==", left=INPUT, right="gift")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: orders.input.total > 0 and step.output,
        lambda: step.output or orders.input.total > 0,
        lambda: not step.output,
        lambda: not orders.input.total > 0,
        lambda: 0 < orders.input.total < 5,
        lambda: bool(orders.input.total == 5),
        lambda: orders.input.total in (1, 2),
        lambda: 1 if step.output else 2,
    ],
)
def test_a_condition_has_no_truth_while_the_workflow_is_declared(attempt: Callable[[], object]) -> None:
    said = refused(attempt)
    assert "no value while the workflow is declared" in said
    assert "with & and | (in parentheses)" in said


@pytest.mark.parametrize(
    "attempt",
    [lambda: list(step.output), lambda: [*orders.input.lines], lambda: 3 in step.output, lambda: max(step.output)],
)
def test_a_value_that_is_not_there_yet_cannot_be_gone_through(attempt: Callable[[], object]) -> None:
    assert "loop in its body" in refused(attempt)


@pytest.mark.parametrize("value", [object(), [1], {"a": 1}, b"x", float("nan"), float("inf")])
def test_a_condition_compares_only_with_what_json_can_say(value: object) -> None:
    said = refused(lambda: orders.input.total == value)
    assert "finite numbers" in said
    assert repr(value) in said


@pytest.mark.parametrize("value", [True, "yes", 1, lambda: True])
def test_when_takes_a_condition_and_nothing_else(value: Any) -> None:
    def declare() -> None:
        @orders.step(when=value)
        def never(order: Any) -> Any: ...

    said = refused(declare)
    assert "Workflow 'orders', step 'never': `when=` needs a condition" in said
    assert "orders.input.total > 0" in said


@pytest.mark.parametrize("default", [step.output.part, step.output[0], orders.input, orders.input.total])
def test_only_a_whole_output_can_be_handed_over(default: Any) -> None:
    def declare() -> None:
        @orders.step
        def never(part: Any = default) -> Any: ...

    said = refused(declare)
    assert "Workflow 'orders', step 'never'" in said
    assert "Take the whole output, and pick the part in the body." in said


def test_values_of_two_workflows_do_not_mix() -> None:
    assert "'returns'" in refused(lambda: orders.input.total > returns.input.total)
    assert "'returns'" in refused(lambda: (orders.input.total > 0) & returns.input.ok)
    assert "'returns'" in refused(lambda: condition(returns.input.ok))


def test_a_marker_says_what_it_stands_for() -> None:
    assert repr(step.output.lines[0]) == "<check.lines[0] of workflow 'orders'>"
    assert repr(orders.input) == "<input of workflow 'orders'>"


def test_a_marker_answers_no_protocol_by_accident() -> None:
    for name in ("__await__", "__enter__", "__array__", "__length_hint__"):
        assert not hasattr(step.output, name)
    assert hash(step.output) != hash(step.output.part)
    assert isinstance(step.output == 1, Check)
