"""What stands below a step's decorator and is not an ordinary function is refused, each kind with its own advice."""

# mypy: disable-error-code="empty-body, arg-type"

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from detent import App, Context, Failure
from detent.testing import Harness
from pydantic import BaseModel

from tests.unit.authoring import AnyWorkflow, Order, refusal, workflow


class Service:
    def charge(self, order: Order) -> str:
        return order.id

    def __call__(self, order: Order) -> str:
        return order.id

    @staticmethod
    def fixed(order: Order) -> str:
        return order.id


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that forgot `functools.wraps`."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def charge(order: Order) -> str:
    return order.id


def given(function: Any, **options: Any) -> str:
    """What the author of this step reads."""

    def declare(flow: AnyWorkflow) -> None:
        if options:
            flow.step(**options)(function)
        else:
            flow.step(function)

    return refusal(declare)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            Service,
            "before the class 'Service'. A step is a function of a module that every worker imports: write `def`",
        ),
        (Service(), "an object of the class 'Service' with `__call__`. A step is a function"),
        (Service().charge, "'charge', a method bound to an object. A step is a function"),
        (
            staticmethod(charge),
            "before a staticmethod. A step is a function of a module",
        ),
        (classmethod(charge), "before a classmethod. A step is a function of a module"),
        (functools.partial(charge), "a partial of 'charge'. A step is a function of a module"),
        (lambda order: order, "a lambda, which has no name. A step is stored under its name: write `def`, or"),
        ("charge", "`@step('charge')`: options have names. Write it as `@step(name='charge')`."),
        (5, "stands before '5', which is not a function."),
    ],
)
def test_what_is_no_function_is_refused_with_advice_for_its_kind(function: Any, said: str) -> None:
    assert said in given(function)


def test_a_name_does_not_make_a_function_of_a_partial_but_of_a_lambda() -> None:
    assert "a partial of 'charge'" in given(functools.partial(charge), name="charge")
    flow = App("t").workflow("w", input=int)
    flow.step(name="same")(lambda n: n)
    with Harness(flow.app) as h:
        assert h.run(flow, 3) == 3


def test_a_method_is_refused_by_its_self() -> None:
    assert "it takes 'self', so it is a method. A step is a function of a module" in given(Service.charge)

    def make(cls, order: Order) -> str:  # type: ignore[no-untyped-def]
        return order.id

    assert "it takes 'cls', so it is a method" in given(make)


def test_a_parameter_that_is_called_self_and_says_what_it_is_is_one() -> None:
    flow = App("t").workflow("w", input=int)

    @flow.step
    def same(self: int) -> int:
        return self

    with Harness(flow.app) as h:
        assert h.run(flow, 3) == 3


def test_a_wrapper_without_functools_wraps_is_refused_with_that_and_one_with_it_is_a_step() -> None:
    assert "Give the wrapper `@functools.wraps(function)`." in given(unwrapped(charge))
    flow = App("t").workflow("w", input=int)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @flow.step
    @counted
    async def same(n: int) -> int:
        return n

    with Harness(flow.app) as h:
        assert h.run(flow, 3) == 3


def test_parameters_that_have_no_name_to_be_passed_by_are_each_refused_in_their_own_way() -> None:
    def rest(order: Order, *more: int) -> None: ...
    def options(order: Order, **more: int) -> None: ...
    def slash(order: Order, /) -> None: ...

    assert "'*more' cannot be passed by name. A step takes ordinary parameters: write out each one." in given(rest)
    assert "'**more' cannot be passed by name, for it has none." in given(options)
    assert "'order' cannot be passed by name: it stands before a slash." in given(slash)
    assert "cannot be passed by name" in given(len)


def test_generators_are_refused() -> None:
    def plain(order: Order) -> Any:
        yield order

    async def asynchronous(order: Order) -> AsyncIterator[Order]:
        yield order

    assert "return a list of what it would yield" in given(plain)
    assert "return a list of what it would yield" in given(asynchronous)


def test_a_default_that_was_meant_as_something_else_is_refused_with_what_to_write() -> None:
    flow = workflow()

    @flow.step
    def reserve(order: Order) -> str: ...

    def default(value: Any, annotation: Any = Any) -> str:
        def ship(order: Order, held: Any = value) -> None: ...

        ship.__annotations__["held"] = annotation
        return given(ship)

    assert "the step 'reserve' itself. Its output is `held = reserve.output`." in default(reserve)
    assert "the workflow 'orders'. A parameter without a default takes the workflow's input." in default(flow)
    assert "the class Context. Write it as the annotation: `held: Context`." in default(Context)
    assert "the class Failure. Write it as the annotation: `held: Failure`." in default(Failure)
    assert "is a condition. A condition is an option of the step: `when=…`." in default(flow.input.total > 0)
    assert "None, which Order does not admit" in default(None, Order)


def test_an_ordinary_default_stays() -> None:
    flow = App("t").workflow("w", input=int)

    @flow.step
    def same(n: int, unit: str = "cents", note: str | None = None) -> list[Any]:
        return [n, unit, note]

    with Harness(flow.app) as h:
        assert h.run(flow, 3) == [3, "cents", None]


def test_a_context_without_its_annotation_is_told_how_to_write_it() -> None:
    def ship(order: Order, ctx) -> None: ...  # type: ignore[no-untyped-def]

    assert "parameter 'ctx' has no annotation, so it would be another input. Write `ctx: Context`." in given(ship)


# ---- types that cannot be built ---------------------------------------------------------------------------------


class Half(BaseModel):
    lines: list[Nowhere]  # type: ignore[name-defined]  # noqa: F821


class Later(BaseModel):
    lines: list[Defined]


class Defined(BaseModel):
    n: int


class Refuses:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        raise OSError("no schema today")


@pytest.mark.parametrize("part", [Half, list[Half], dict[str, Half], Half | None])
def test_a_type_that_names_what_is_not_defined_is_refused_when_the_workflow_compiles(part: Any) -> None:
    def returned(flow: Any) -> None:
        def load(order: Any) -> Any: ...

        load.__annotations__["return"] = part
        flow.step(load)

    def taken(flow: Any) -> None:
        def load(order: Any) -> None: ...

        load.__annotations__["order"] = part
        flow.step(load)

    assert "step 'load': its output is" in (said := refusal(returned, input=dict))
    assert "which names 'Nowhere', and that is not defined. Define 'Nowhere'" in said
    assert "step 'load': 'order' is" in refusal(taken, input=dict)

    def nothing(flow: AnyWorkflow) -> None:
        @flow.step
        def load(order: Any) -> Any: ...

    assert "Workflow 'orders': its input is" in refusal(nothing, input=part)
    assert "Workflow 'orders': its output is" in refusal(nothing, input=dict, output=part)


def test_a_run_of_a_workflow_that_cannot_be_built_is_refused_before_its_input_is_looked_at() -> None:
    flow = App("t", url="memory://").workflow("w", input=Half)
    said = refusal(lambda _: flow.start({"lines": []}))
    assert "'Nowhere'" in said


def test_a_type_that_names_one_that_its_module_defines_later_compiles() -> None:
    flow = App("t").workflow("w", input=Later)

    @flow.step
    def count(value: Later) -> int:
        return len(value.lines)

    with Harness(flow.app) as h:
        assert h.run(flow, Later(lines=[Defined(n=1)])) == 1


def test_whatever_a_types_own_hook_raises_is_a_refusal() -> None:
    def declare(flow: AnyWorkflow) -> None:
        @flow.step
        def load(order: Any) -> Refuses: ...

    assert "its output is Refuses, which has no JSON form: no schema today." in refusal(declare)
