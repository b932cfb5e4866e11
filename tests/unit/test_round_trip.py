"""What is written is what is read: every value comes back equal and of its type, or is refused where it is written."""

from __future__ import annotations

import dataclasses
import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from detent import App, DefinitionError, InputError, NotSerializable
from detent.json_values import Json
from detent.testing import Harness
from detent_state_machine.compatibility import UNANNOTATED
from detent_state_machine.nesting import MAX_NESTING
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretStr

from tests.unit.values import (
    CHANGED,
    COME_BACK,
    REFUSED,
    Access,
    Basket,
    Box,
    Card,
    Cat,
    Colour,
    Dog,
    Doubled,
    Excluded,
    Hidden,
    Pair,
    Payment,
    Point,
    Private,
    Size,
    Slotted,
    Temperature,
    Tree,
    Word,
    nested,
)


def named(value: object) -> str:
    """A test's name, of what is the same in each process."""
    try:
        return repr(value).partition(" at 0x")[0][:50]
    except ValueError:  # a number with too many digits
        return type(value).__name__


def same(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or (repr(one) == repr(other)) or vars(one) == vars(other))


@pytest.mark.parametrize(("annotation", "value"), COME_BACK, ids=named)
def test_what_comes_back_is_equal_and_of_its_type(annotation: Any, value: Any) -> None:
    kept = Json[Any](annotation, written=True)
    assert same(kept.read(kept.write(value, "It"), "It"), value)


@pytest.mark.parametrize(("annotation", "value", "path"), CHANGED, ids=named)
def test_what_would_come_back_otherwise_is_refused_with_the_path_to_it(annotation: Any, value: Any, path: str) -> None:
    with pytest.raises(NotSerializable) as refused:
        Json[Any](annotation, written=True).write(value, "What step 'f' returned")
    assert refused.value.path == path
    assert refused.value.advice
    assert str(refused.value).startswith("What step 'f' returned")
    assert "another version" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("annotation", "said"), REFUSED, ids=named)
def test_what_a_type_shows_is_refused_when_it_is_declared(annotation: Any, said: str) -> None:
    app = App("t", url="memory://")
    with pytest.raises(DefinitionError) as refused:
        app.workflow("w", input=annotation)
    assert said in str(refused.value)
    assert "Workflow 'w': its input is" in str(refused.value)
    assert refused.value.advice

    wf = app.workflow("v")

    def f() -> Any: ...

    f.__annotations__["return"] = annotation
    with pytest.raises(DefinitionError, match="Workflow 'v', step 'f': its output is"):
        wf.step(f)


def test_a_type_is_only_read_where_nothing_is_written() -> None:
    """A step may take a text as a secret: it is the writer that would lose it."""
    app = App("t", url="memory://")
    wf = app.workflow("w", output=str)

    @wf.step
    def login(given: Hidden) -> str:
        return given.password.get_secret_value()

    with Harness(app) as h:
        assert h.run(wf, {"password": "hunter2"}) == "hunter2"


def test_every_refusal_of_a_type_is_told_at_once() -> None:
    class Both(BaseModel):
        first: SecretStr
        second: SecretStr

    with pytest.raises(DefinitionError) as refused:
        App("t", url="memory://").workflow("w", input=Both)
    assert "$.first is SecretStr" in str(refused.value)
    assert "$.second is SecretStr" in str(refused.value)


class Order(BaseModel):
    qty: int = 1


def test_the_step_that_returned_what_does_not_fit_is_the_one_that_fails() -> None:
    app = App("t", url="memory://")
    wf = app.workflow("w", input=Order)

    @wf.step
    def price(order: Order) -> Order:
        order.qty = None  # type: ignore[assignment]  # pydantic does not check assignments
        return order

    @wf.step
    def ship(order: Order = price.output) -> int:
        return order.qty

    with Harness(app) as h:
        run = h.start(wf, Order())
        assert h.settle(run) == "FAILED"
        steps = h.steps(run)
    error = steps["price"].error
    assert error is not None
    assert error.message.startswith("What step 'price' returned would not be read back as Order: $.qty: ")
    assert error.type == "NotSerializable"
    assert "input_value" not in error.message, "pydantic's own text shows the value, which may be a secret"
    assert steps["price"].attempt == 1, "it would not fit the next time either"
    assert "ship" not in steps


def test_an_input_that_would_change_starts_nothing() -> None:
    app = App("t", url="memory://")
    wf = app.workflow("w", input=Basket)

    @wf.step
    def f(basket: Basket) -> None: ...

    with Harness(app) as h:
        with pytest.raises(NotSerializable, match=r"\$\.payments\[0\]"):
            h.start(wf, Basket(payments=[Card(cents=1, last4="4242")]))
        assert h.client.runs() == []


def test_a_value_and_its_reader_that_do_not_agree_are_not_blamed_on_a_deploy() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        qty: int

        def model_post_init(self, context: object) -> None:
            assert self.qty > 0, "nothing to ship"

    app = App("t", url="memory://")
    wf = app.workflow("w", input=Order)

    @wf.step
    def price(order: Order) -> Order:
        return Order(qty=-1)

    priced: Any = price.output

    @wf.step
    def ship(order: Strict = priced) -> int:
        return order.qty

    with Harness(app) as h:
        run = h.start(wf, Order())
        assert h.settle(run) == "FAILED"
        error = h.steps(run)["ship"].error
    assert error is not None
    assert "The output of step 'price' does not fit Strict: $: Assertion failed, nothing to ship" in error.message
    assert "version" not in error.message


def test_without_an_input_type_a_value_is_of_the_one_type_that_the_steps_take() -> None:
    app = App("t", url="memory://")
    wf = app.workflow("w")

    @wf.step
    def f(payment: Payment) -> int:
        return payment.cents

    with Harness(app) as h:
        assert h.run(wf, Payment(cents=3)) == 3
        with pytest.raises(NotSerializable):
            h.start(wf, Card(cents=1, last4="4242"))


class Later(BaseModel):
    lines: list[Line]


class Never(BaseModel):
    lines: list[Nowhere]  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("place", ["input", "output", "parameter"])
def test_a_type_that_is_never_defined_is_refused_before_a_body_runs(place: str) -> None:
    app, ran = App("t", url="memory://"), []
    wf = app.workflow("w", input=Never if place == "input" else Any)

    def f(x: Any) -> Any:
        ran.append(x)

    f.__annotations__.update(
        {"x": Never if place == "parameter" else Any, "return": Never if place == "output" else Any}
    )
    wf.step(f)
    for attempt in (lambda: wf.definition, lambda: wf.start({"lines": []})):
        with pytest.raises(DefinitionError, match="names 'Nowhere', and that is not defined"):
            attempt()
    assert not ran


def test_a_type_may_be_defined_after_the_step_that_names_it() -> None:
    app = App("t", url="memory://")
    wf = app.workflow("w", input=Later)

    @wf.step
    def f(x: Later) -> Later:
        return x

    with Harness(app) as h:
        assert h.run(wf, Later(lines=[Line(n=1)])) == {"lines": [{"n": 1}]}


class Line(BaseModel):
    n: int


def test_what_can_be_written_can_be_read_by_whoever_reads_it() -> None:
    """The result of two last steps is an object around their outputs: one level more."""
    app = App("t", url="memory://")
    wf = app.workflow("w", input=int)

    @wf.step
    def one(levels: int) -> Any:
        return nested(levels)

    @wf.step
    def two(levels: int) -> None: ...

    with Harness(app) as h:
        assert h.run(wf, MAX_NESTING) == {"one": nested(MAX_NESTING), "two": None}
        run = h.start(wf, MAX_NESTING + 1)
        assert h.settle(run) == "FAILED"
        error = h.steps(run)["one"].error
        assert error is not None
        assert "nested more than 199 levels deep" in error.message
        with pytest.raises(InputError, match="nested more than 199 levels deep"):
            h.client.start("w", nested(MAX_NESTING + 1))


@pytest.mark.parametrize(
    ("annotation", "types"),
    [
        (int, {int}),
        (int | None, {int, type(None)}),
        (str, {str}),
        (float, {float}),
        (UNANNOTATED, {int, str, bool, type(None)}),
        (int | float, set()),
        (Payment, set()),
        (list[int], set()),
    ],
    ids=named,
)
def test_what_a_type_proves_needs_no_look(annotation: Any, types: set[type]) -> None:
    assert Json[Any](annotation).proven == types


def test_what_is_proven_is_not_read_back() -> None:
    counted = Counted()
    for value in (1, "a", True, None):
        counted.json.write(value, "It")
    assert counted.reads == 0
    counted.json.write(10**40, "It")
    counted.json.write([1], "It")
    assert counted.reads == 2


class Counted:
    """A type that counts how often a value of it is read."""

    def __init__(self) -> None:
        self.reads = 0
        self.json = Json[Any](UNANNOTATED)
        adapter = self.json._adapter
        read = adapter.validate_json

        def count(text: str, **options: Any) -> Any:
            self.reads += 1
            return read(text, **options)

        adapter.validate_json = count  # type: ignore[method-assign, assignment]


cents = st.integers(-5, 5)
texts = st.sampled_from(["", "a", "1", "red", "yes", "NaN", "null", "2026-01-01", str(UUID(int=7)), " a ", "1.10"])
moments = st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.timezones())
leaves: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.binary(max_size=3),
    st.decimals(),
    moments,
    moments.map(dt.datetime.date),
    st.times(),
    st.timedeltas(),
    st.complex_numbers(),
    st.builds(UUID, int=st.just(7)),
    st.sampled_from([Colour.RED, Size.SMALL, Word.YES, Access.READ]),
    st.builds(SecretStr, texts),
    st.builds(Payment, cents=cents),
    st.builds(Card, cents=cents, last4=texts),
    st.builds(Point, st.floats()),
    st.builds(Slotted, cents),
    st.builds(Pair, cents, texts),
    st.builds(Excluded, hidden=st.integers(0, 1)),
    st.builds(Private),
    st.builds(Doubled, n=st.integers(0, 1)),
    st.builds(Cat, name=texts),
    st.builds(Dog, name=texts),
    st.builds(Temperature, st.floats(), st.sampled_from(["", "cold"])),
    st.builds(Box[int], value=cents),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(texts, st.integers(0, 3), st.booleans(), st.none()), inner, max_size=3),
        st.builds(Basket, anything=inner),
    ),
    max_leaves=6,
)
scalars: list[Any] = [
    *(int, str, bool, float, bytes, None, Decimal, dt.datetime, dt.date, dt.time, dt.timedelta, complex, UUID),
    *(Colour, Size, Word, Access, Payment, Card, Point, Slotted, Pair, Excluded, Private, Doubled, Cat, Dog, Any),
    *(Temperature, Basket, Box[int], Tree),
]


@st.composite
def types(draw: st.DrawFn, depth: int = 2) -> Any:
    shape = draw(st.sampled_from(["scalar", "list", "tuple", "dict", "union"])) if depth else "scalar"
    match shape:
        case "list":
            return list[draw(types(depth - 1))]  # type: ignore[misc]
        case "tuple":
            return tuple[draw(types(depth - 1)), ...]  # type: ignore[misc]
        case "dict":
            return dict[draw(st.sampled_from([str, int, bool, int | str, Any])), draw(types(depth - 1))]  # type: ignore[misc]
        case "union":
            return draw(types(depth - 1)) | draw(types(depth - 1)) if depth > 1 else draw(st.sampled_from(scalars))
        case _:
            return draw(st.sampled_from(scalars))


def unequal(one: object, other: object) -> str:
    """Written apart from the code under test, and simpler: what Python shows of two values."""
    if type(one) is not type(other) and not (type(one) is int and type(other) is float):
        return f"{type(one)} {type(other)}"
    if isinstance(one, dt.datetime):
        return "" if one.isoformat() == other.isoformat() else f"{one!r} {other!r}"  # type: ignore[attr-defined]
    if isinstance(one, Temperature):
        return unequal(vars(one), vars(other))
    if isinstance(one, BaseModel) or (dataclasses.is_dataclass(one) and not isinstance(one, type)):
        names = type(one).model_fields if isinstance(one, BaseModel) else [f.name for f in dataclasses.fields(one)]
        return next(filter(None, (unequal(getattr(one, name), getattr(other, name)) for name in names)), "")
    if isinstance(one, dict):
        keys = "" if {repr(k) for k in one} == {repr(k) for k in other} else "keys"  # type: ignore[attr-defined]
        return keys or next(filter(None, (unequal(one[k], other[k]) for k in one)), "")  # type: ignore[index]
    if isinstance(one, list | tuple):
        long = "" if len(one) == len(other) else "length"  # type: ignore[arg-type]
        return long or next(filter(None, map(unequal, one, other)), "")  # type: ignore[call-overload]
    return "" if one == other or repr(one) == repr(other) else f"{one!r} {other!r}"


PLAIN = (dict, list, str, int, float)


def may_stand_for_another(value: object) -> bool:
    """Whether it, or a part of it, may be the plain form of a richer value: a list of a tuple, a text of a date."""
    return type(value) in PLAIN or (isinstance(value, tuple) and any(map(may_stand_for_another, value)))


@given(types(), values)
def test_any_value_under_any_type_comes_back_or_is_refused(annotation: Any, value: Any) -> None:
    try:
        kept = Json[Any](annotation, written=True)
    except DefinitionError:
        return
    try:
        text = kept.write(value, "It")
    except InputError as refused:
        said = str(refused)
    else:
        back = kept.read(text, "It")
        if annotation is Any or not may_stand_for_another(value):
            assert unequal(value, back) == ""
        return
    assert "$" in said
