"""What an author gets wrong is said before anything runs: which workflow, which step, what, and how to fix it."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import itertools
import re
import socket
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from detent import App, Context, DefinitionError
from detent_state_machine.compiler import DeclaredStep, compile_workflow
from detent_state_machine.definition import MAX_NAME, MAX_STEPS

from tests.unit.authoring import AnyWorkflow, Label, LabelData, Order, refusal, workflow

if TYPE_CHECKING:
    from decimal import Decimal  # noqa: F401 - named by a string below, as if forgotten at run time

# ---- the shape of a workflow -----------------------------------------------------------------------------------


def test_a_workflow_without_steps_is_refused() -> None:
    said = refusal(lambda flow: None)
    assert said == "Workflow 'orders' has no steps. Declare one with `@orders.step`."


def test_two_steps_of_one_name_are_refused() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order) -> str: ...

        @flow.step(name="ship")
        def send(order: Order) -> str: ...

    assert refusal(declare) == (
        "Workflow 'orders' has two steps named 'ship'. A step is stored under its name: rename one, or give it `name=`."
    )


def test_two_workflows_of_one_name_are_refused() -> None:
    app = App("shop", url="memory://")
    app.workflow("orders")
    with pytest.raises(DefinitionError, match=r"App 'shop' has two workflows named 'orders'[.] Rename one[.]"):
        app.workflow("orders")


def test_an_unknown_parent_is_refused_with_the_nearest_name() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def reserve(order: Order) -> str: ...

        @flow.step(after=["resrve"])
        def ship(order: Order) -> str: ...

    said = refusal(declare)
    assert "step 'ship' follows 'resrve', which is not a step of this workflow" in said
    assert "Did you mean 'reserve'?" in said


def test_an_unknown_parent_that_resembles_nothing_is_refused_with_every_name() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def reserve(order: Order) -> str: ...

        @flow.step(after=["quux"])
        def ship(order: Order) -> str: ...

    assert "It has: reserve, ship." in refusal(declare)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("held", "not 'held'. Write it as `after=['held']`."),
        (None, "not None. Write it as `after=['reserve']`."),
        (..., "not <step 'hold' of workflow 'orders'>. Write it as `after=[hold]`."),
    ],
)
def test_what_a_step_follows_is_a_list(after: Any, said: str) -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def hold(order: Order) -> str: ...

        wrong: Any = hold if after is ... else after

        @flow.step(after=wrong)
        def ship(order: Order) -> str: ...

    assert refusal(declare) == f"Workflow 'orders', step 'ship': `after=` is a list of steps, {said}"


def test_what_is_no_step_is_no_parent() -> None:
    def declare(flow: AnyWorkflow) -> None:
        other: Any = time.sleep

        @flow.step(after=[other])
        def ship(order: Order) -> str: ...

    said = refusal(declare)
    assert "step 'ship' follows <built-in function sleep>, which is not a step. Give the function that" in said


@pytest.mark.parametrize(
    ("decorator", "option", "said"),
    [
        ("step", "retries", "Did you mean 'retry'?"),
        ("on_success", "when_", "Did you mean 'when'?"),
        ("on_failure", "when", "It has: name, after, delivery, retry, timeout, takeovers."),
    ],
)
def test_an_option_that_does_not_exist_is_refused_with_those_that_do(decorator: str, option: str, said: str) -> None:
    def declare(flow: AnyWorkflow) -> None:
        getattr(flow, decorator)(**{option: 3})

    def called(flow: AnyWorkflow) -> None:
        getattr(flow, decorator)(time.sleep, **{option: 3})

    assert refusal(declare) == f"Workflow 'orders': `@{decorator}` has no option {option!r}. {said}"
    assert refusal(called) == refusal(declare)


def test_a_name_that_is_no_text_is_refused() -> None:
    def declare(flow: AnyWorkflow) -> None:
        three: Any = 3

        @flow.step(name=three)
        def ship(order: Order) -> None: ...

    assert refusal(declare) == "Workflow 'orders', step 3: a name is text, not 3. Write it in quotes."
    unnamed: Any = 3
    with pytest.raises(DefinitionError, match="Workflow 3: a name is text, not 3"):
        App("shop", url="memory://").workflow(unnamed).definition  # noqa: B018


def test_options_hold_beside_the_function_too() -> None:
    flow: AnyWorkflow = App("shop", url="memory://").workflow("orders")
    options: Any = {"timeout": 5}

    def ship() -> None: ...

    flow.step(ship, **options)
    assert [step.timeout for step in flow.definition.steps] == [5]


def test_a_step_of_another_workflow_is_no_parent() -> None:
    other = App(url="memory://").workflow("returns", input=Order)

    @other.step
    def receive(order: Order) -> str: ...

    def after(flow: AnyWorkflow) -> None:
        @flow.step(after=[receive])
        def ship(order: Order) -> str: ...

    def by_output(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order, got: str = receive.output) -> str: ...

    def by_condition(flow: AnyWorkflow) -> None:
        @flow.step(when=receive.output == "ok")
        def ship(order: Order) -> str: ...

    for declare in (after, by_output, by_condition):
        said = refusal(declare)
        assert "'returns'" in said
        assert "step 'ship'" in said


def test_a_cycle_is_refused_and_named() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step(after=["c"])
        def a(order: Order) -> str: ...

        @flow.step
        def b(got: str = a.output) -> str: ...

        @flow.step
        def c(got: str = b.output) -> str: ...

    said = refusal(declare)
    named = re.search(r"waits for itself: (.*?)\.", said)
    assert named is not None
    assert named[1] in ("a → b → c → a", "b → c → a → b", "c → a → b → c")
    assert "drop one of these edges" in said


def test_a_step_that_follows_itself_is_a_cycle() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step(after=["again"])
        def again(order: Order) -> str: ...

    assert "again → again" in refusal(declare)


def chain(length: int, *, closed: bool = False) -> list[DeclaredStep]:
    names = [f"s{n}" for n in range(length)]
    first = DeclaredStep(names[0], after=(names[-1],) if closed else ())
    return [first, *(DeclaredStep(name, after=(before,)) for before, name in itertools.pairwise(names))]


def test_a_chain_of_as_many_steps_as_are_allowed_compiles_at_once_and_a_cycle_of_them_is_found() -> None:
    started = time.perf_counter()
    definition = compile_workflow("long", chain(MAX_STEPS))
    assert len(definition.steps) == MAX_STEPS
    with pytest.raises(DefinitionError, match="waits for itself: s0 → s1 → "):
        compile_workflow("ring", chain(MAX_STEPS, closed=True))
    assert time.perf_counter() - started < 5


def test_more_steps_than_are_allowed_are_refused() -> None:
    with pytest.raises(DefinitionError, match=f"Workflow 'long' is not valid: steps: .*{MAX_STEPS}"):
        compile_workflow("long", chain(MAX_STEPS + 1))


@pytest.mark.parametrize("option", [{"timeout": 0.0}, {"timeout": 100_000.0}, {"takeovers": -1}])
def test_an_option_out_of_range_is_refused_with_its_place(option: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=r"Workflow 'orders'.*'ship'.*" + next(iter(option))):
        compile_workflow("orders", [DeclaredStep("ship", **option)])


def test_a_retention_out_of_range_is_refused() -> None:
    with pytest.raises(DefinitionError, match="retention_days"):
        compile_workflow("orders", [DeclaredStep("ship")], retention_days=0)


# ---- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "x" * (MAX_NAME + 1), "@start", "a\nb", "a\x00", "\x1b[31m", "\ud800", "a\u202eb"]
)
def test_a_name_that_could_not_be_stored_or_shown_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match=r"a name (has|does not)"):
        compile_workflow(name, [DeclaredStep("ship")])
    with pytest.raises(DefinitionError, match=r"Workflow 'orders', step .*a name (has|does not)"):
        compile_workflow("orders", [DeclaredStep(name)])


@pytest.mark.parametrize("name", ["a..b\\c", "step 1", "Größe", "🚀", "x" * MAX_NAME, "a~b", "run", "'; --", "%s{}"])
def test_any_other_name_is_allowed(name: str) -> None:
    definition = compile_workflow(name, [DeclaredStep(name), DeclaredStep("end", after=(name,))])
    assert (definition.name, definition.steps[0].name) == (name, name)


# ---- data between steps ----------------------------------------------------------------------------------------


def test_two_inputs_are_refused() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order, label: Label) -> str: ...

    assert refusal(declare) == (
        "Workflow 'orders', step 'ship' has two inputs: 'order' and 'label' have no default. "
        "One parameter takes the workflow's input; give the others `= step.output`."
    )


def test_a_parameter_of_another_type_than_the_input_is_refused() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Label) -> str: ...

    said = refusal(declare)
    assert "step 'ship': 'order' is the workflow's input, but Label cannot hold Order" in said
    assert "Annotate it as Order." in said


def test_an_output_without_annotation_is_refused_where_a_type_is_asked_for_and_only_there() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def reserve(order: Order): ...  # type: ignore[no-untyped-def]

        @flow.step
        def note(held=reserve.output) -> str: ...  # type: ignore[no-untyped-def]

    flow = workflow()
    declare(flow)
    assert [step.name for step in flow.definition.steps] == ["reserve", "note"]

    def typed(flow: AnyWorkflow) -> None:
        declare(flow)

        @flow.step
        def ship(held: Label = flow.steps["reserve"].output) -> str: ...

    said = refusal(typed)
    assert "step 'ship': 'held' is Label, but step 'reserve' does not say what it returns" in said
    assert "Annotate the return type of 'reserve'." in said


def test_a_parameter_that_cannot_hold_its_parents_output_is_refused_with_both_types() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def count(order: Order) -> dict[str, list[str]]: ...

        @flow.step
        def ship(counted: dict[str, list[int]] = count.output) -> str: ...  # type: ignore[assignment]

    assert refusal(declare) == (
        "Workflow 'orders', step 'ship': 'counted' is dict[str, list[int]], which cannot hold dict[str, list[str]], "
        "the output of 'count'. Change one of the two annotations."
    )


def test_a_dataclass_takes_what_a_model_of_the_same_fields_gives() -> None:
    flow = workflow()

    @flow.step
    def make(order: Order) -> Label: ...

    @flow.step
    def ship(label: LabelData = make.output) -> str: ...  # type: ignore[assignment]

    assert flow.definition.steps[1].reads == ("make",)


def test_a_step_returns_what_its_coroutine_returns() -> None:
    flow = workflow()

    @flow.step
    async def make(order: Order) -> Label: ...

    @flow.step
    def ship(label: Label = make.output) -> str: ...

    assert flow.definition.steps[0].output_schema["title"] == "Label"


@pytest.mark.parametrize("annotation", ["NoSuchType", "Decimal", "list[", "socket.missing", "dict[str"])
def test_an_annotation_that_cannot_be_read_is_refused(annotation: str) -> None:
    def declare(flow: AnyWorkflow) -> None:
        def ship(order: Order) -> str: ...

        ship.__annotations__["order"] = annotation
        flow.step(ship)

    said = refusal(declare)
    assert "Workflow 'orders', step 'ship': its annotations cannot be read" in said


def test_a_type_without_json_form_is_refused_where_it_is_declared() -> None:
    def parameter(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: socket.socket) -> str: ...

    def output(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order) -> socket.socket: ...

    for declare, what in ((parameter, "'order'"), (output, "its output")):
        said = refusal(declare)
        assert f"Workflow 'orders', step 'ship': {what}" in said
        assert "socket" in said
    with pytest.raises(DefinitionError, match=r"Workflow 'orders': its input.*socket"):
        App(url="memory://").workflow("orders", input=socket.socket)
    with pytest.raises(DefinitionError, match=r"Workflow 'orders': its output.*socket"):
        App(url="memory://").workflow("orders", output=socket.socket)


def test_parameters_that_cannot_be_passed_by_name_are_refused() -> None:
    def variadic(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order, *more: int) -> str: ...

    def keywords(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order, **more: int) -> str: ...

    def positional(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order, /) -> str: ...

    for declare in (variadic, keywords, positional):
        assert "cannot be passed by name" in refusal(declare)


def test_a_generator_is_refused_as_a_step() -> None:
    def plain(flow: AnyWorkflow) -> None:
        @flow.step
        def ship(order: Order) -> Iterator[str]:
            yield order.id

    def asynchronous(flow: AnyWorkflow) -> None:
        @flow.step
        async def ship(order: Order) -> AsyncIterator[str]:
            yield order.id

    def handler(flow: AnyWorkflow) -> None:
        @flow.on_failure(name="ship")
        def tell(order: Order) -> Generator[str]:
            yield order.id

    for declare in (plain, asynchronous, handler):
        assert refusal(declare) == (
            "Workflow 'orders', step 'ship': it is a generator: it has a `yield`. "
            "A step returns its result once: return a list of what it would yield."
        )


def test_a_parameter_with_an_ordinary_default_keeps_it() -> None:
    flow = workflow()

    @flow.step
    def ship(order: Order, carrier: str = "post", *, ctx: Context) -> str: ...

    assert [parameter.name for parameter in ship.declared.parameters] == ["order", "ctx"]
