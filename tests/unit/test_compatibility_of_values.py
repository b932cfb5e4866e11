"""Where compatibility says yes, every value fits: types and values are drawn, written as one, read as the other."""

# ruff: noqa: UP007, UP045 - the older spellings are different objects, and have to work too

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NewType, Optional, Union, cast

from detent import NotSerializable
from detent.json_values import Json
from detent_state_machine.compatibility import admits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter, create_model
from typing_extensions import TypedDict

UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    YES = "yes"


class Size(enum.IntEnum):
    SMALL = 1


# A tree says what a value looks like. It is drawn once and rendered to two types, each with its own choice of class
# (model, dataclass, typed dictionary; list, set, tuple), the second one sometimes bent.

Tree_ = tuple[Any, ...]
LEAVES = ("int", "bool", "float", "str", "none", "date", "datetime", "literal", "word", "size", "colour")
trees: st.SearchStrategy[Tree_] = st.recursive(
    st.tuples(st.sampled_from(LEAVES)),
    lambda inner: st.one_of(
        st.tuples(st.just("array"), inner),
        st.tuples(st.just("fixed"), st.lists(inner, max_size=3).map(tuple)),
        st.tuples(st.just("object"), st.sampled_from([str, int, bool]), inner),
        st.tuples(st.just("either"), st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.tuples(
            st.just("record"), st.dictionaries(st.sampled_from("abcd"), inner, max_size=3).map(lambda d: (*d.items(),))
        ),
    ),
    max_leaves=5,
)
SCALARS: dict[str, tuple[tuple[object, ...], st.SearchStrategy[object]]] = {
    "int": ((int, UserId, Annotated[int, "n"], float, int | None), st.integers(-(2**60), 2**60)),
    "bool": ((bool, int, float), st.booleans()),
    "float": ((float, float | None, int), st.floats(allow_nan=False, allow_infinity=False)),
    "str": ((str, Annotated[str, "s"], str | int, Word), st.text(max_size=4)),
    "none": ((None, int | None, str), st.none()),
    "date": ((dt.date, dt.datetime), st.dates().map(str)),
    "datetime": ((dt.datetime, dt.date), st.datetimes().map(dt.datetime.isoformat)),
    "literal": ((Literal["x", 7], Literal["x", 7, 8], int | str, Literal["x"]), st.sampled_from(["x", 7])),
    "word": ((Word, str), st.just("yes")),
    "size": ((Size, int, float), st.just(1)),
    "colour": ((Colour, Literal[Colour.RED], str), st.just("red")),
}
LIST: Any = list
TUPLE: Any = tuple
ARRAYS: tuple[Any, ...] = (list, tuple, Sequence, Iterable, collections.deque)


def render(tree: Tree_, draw: st.DrawFn, *, bent: bool) -> Any:
    match tree:
        case ("array", inner):
            item, kind = render(inner, draw, bent=bent), draw(st.sampled_from(ARRAYS))
            return TUPLE[item, ...] if kind is tuple else kind[item]
        case ("fixed", inner):
            items = tuple(render(part, draw, bent=bent) for part in inner)
            shorter: bool = draw(st.booleans()) if bent and items else False
            if shorter:
                return draw(st.sampled_from([LIST[Union[items]], TUPLE[items[1:]]]))
            return TUPLE[items]
        case ("object", key, inner):
            kinds: list[Any] = [dict, Mapping]
            key = draw(st.sampled_from([key, str])) if bent else key
            return draw(st.sampled_from(kinds))[key, render(inner, draw, bent=bent)]
        case ("either", inner):
            return Union[tuple(render(part, draw, bent=bent) for part in inner)]
        case ("record", inner):
            return render_record(dict(inner), draw, bent=bent)
        case (leaf,):
            return draw(st.sampled_from(SCALARS[leaf][0])) if bent else SCALARS[leaf][0][0]
        case _:
            raise AssertionError(tree)


def render_record(inner: dict[str, Tree_], draw: st.DrawFn, *, bent: bool) -> Any:
    fields = {name: render(part, draw, bent=bent) for name, part in inner.items()}
    if bent:
        for name in [name for name in fields if draw(st.integers(0, 3)) == 0]:
            del fields[name]
    kind = draw(st.sampled_from(["model", "closed", "open", "dataclass", "typed dict", "partial", "tuple"]))
    match kind:
        case "dataclass":
            return dataclasses.make_dataclass("D", fields.items())
        case "typed dict" | "partial":
            return TypedDict("P", fields, total=kind != "partial")  # type: ignore[operator]  # made at run time
        case "tuple" if not bent:
            return dict[str, Union[tuple(fields.values())]] if fields else dict[str, int]  # type: ignore[misc]
        case _:
            extra = {"closed": "forbid", "open": "allow"}.get(kind, "ignore")
            config = ConfigDict(extra=extra)  # type: ignore[typeddict-item]
            given = cast("Any", {name: (part, ...) for name, part in fields.items()})
            return create_model("M", __config__=config, **given)


def values(tree: Tree_) -> st.SearchStrategy[Any]:
    match tree:
        case ("array", inner):
            return st.lists(values(inner), max_size=3)
        case ("fixed", inner):
            return st.tuples(*(values(part) for part in inner)).map(list)
        case ("object", key, inner):
            named = {str: st.text(max_size=2), int: st.integers(), bool: st.sampled_from(["true", "false"])}[key]
            return st.dictionaries(named.map(str), values(inner), max_size=2)
        case ("either", inner):
            return st.one_of(*(values(part) for part in inner))
        case ("record", inner):
            return st.fixed_dictionaries({name: values(part) for name, part in inner})
        case (leaf,):
            return SCALARS[leaf][1]
        case _:
            raise AssertionError(tree)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    tree = draw(trees)
    output = render(tree, draw, bent=False)
    parameter = render(tree if draw(st.integers(0, 5)) else draw(trees), draw, bent=True)
    return parameter, output, draw(values(tree))


said: collections.Counter[bool] = collections.Counter()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(pairs())
def _every_value_of_an_admitted_output_is_read_as_the_parameter(pair: tuple[Any, Any, Any]) -> None:
    parameter, output, value = pair
    try:
        written = Json[Any](output).write(TypeAdapter(output).validate_python(value), "output")
    except NotSerializable:  # it would not come back even as what it is
        return
    said[admits(parameter, output)] += 1
    if admits(parameter, output):
        Json[Any](parameter).read(written, "parameter")  # raises `InputError` if it does not fit


def test_every_value_of_an_admitted_output_is_read_as_the_parameter() -> None:
    said.clear()
    _every_value_of_an_admitted_output_is_read_as_the_parameter()
    assert min(said[True], said[False]) > 60, said  # both answers were really tried


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(pairs())
def test_every_type_admits_itself_and_optional_of_itself(pair: tuple[Any, Any, Any]) -> None:
    _, output, _ = pair
    assert admits(output, output)
    assert admits(Optional[output], output)
    assert admits(LIST[output], LIST[output])
