"""Which parameter can hold which output: judged on types, by what their JSON looks like."""

# ruff: noqa: UP007, UP045, PYI061 - the older spellings are different objects, and have to work too

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypeVar, Union
from uuid import UUID

import pytest
from detent_state_machine.compatibility import UNANNOTATED, admits, missing_field, name_of, optional, schema_of
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, computed_field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypeAliasType, TypedDict

UserId = NewType("UserId", int)
MaybeName = NewType("MaybeName", Optional[str])  # type: ignore[valid-newtype]  # it works all the same
Cents = TypeAliasType("Cents", Annotated[int, Field(ge=0)])
T = TypeVar("T")


def shown(value: object) -> str:
    """The value as a test's name: without the addresses that differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    YES = "yes"


class Size(enum.IntEnum):
    SMALL = 1


class Line(BaseModel):
    sku: str
    count: int = 1


@dataclasses.dataclass
class LineData:
    sku: str
    count: int


class LineDict(TypedDict):
    sku: str
    count: NotRequired[int]


class LineTuple(NamedTuple):
    sku: str
    amount: int = 1


class Order(BaseModel):
    id: str
    lines: list[Line]


@dataclasses.dataclass
class OrderData:
    id: str
    lines: list[LineData]


class OrderOfNumbers(BaseModel):
    id: str
    lines: list[int]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sku: str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    sku: str


class Express(Order):
    hours: int


class Mislabelled(Line):
    sku: int  # type: ignore[assignment]  # what a type checker would refuse, detent refuses too


class Aliased(BaseModel):
    order_id: int = Field(alias="orderId")


class ByEither(BaseModel):
    order_id: int = Field(validation_alias=AliasChoices("orderId", "order_id"))


class Camel(BaseModel):
    orderId: int


class Area(BaseModel):
    side: int

    @computed_field
    def area(self) -> int:
        return self.side**2


class ClosedSide(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int


class Tags(RootModel[list[str]]):
    pass


class Tree(BaseModel):
    label: str
    children: list[Tree] = []


class Bush(BaseModel):
    label: str
    children: list[Bush] = []


class Thorn(BaseModel):
    label: int
    children: list[Thorn] = []


@pydantic_dataclass
class Checked:
    sku: str


@dataclasses.dataclass
class Box(Generic[T]):
    inside: T


FITS: list[tuple[object, object]] = [
    (int, int),
    (UNANNOTATED, int),
    (Any, Order),
    (object, Order),
    (int, Any),
    (float, int),
    (float, bool),
    (int, bool),
    (complex, int),
    (None, None),
    (Optional[int], int),
    (int | None, None),
    (int | str, str | int),
    (int | str | None, Union[int, None]),
    (Optional[float], int | None),
    (Annotated[int, "cents"], int),
    (int, Annotated[int, "cents"]),
    (Cents, int),
    (list[Cents], list[int]),
    (int, UserId),
    (UserId, int),
    (list[int], list[UserId]),
    (Literal["a", "b"], Literal["a"]),
    (str, Literal["a", "b"]),
    (int | str, Literal[1, "a"]),
    (Literal["a"] | int, Literal["a", 2]),
    (Colour, Literal[Colour.RED]),
    (str, Word),
    (int, Size),
    (Colour, Colour),
    (T, int),
    (int, T),
    (list, list[int]),
    (list[int], list),
    (list[float], list[int]),
    (list[int], set[int]),
    (set[int], list[int]),
    (frozenset[int], tuple[int, ...]),
    (collections.deque[int], list[int]),
    (Sequence[float], tuple[int, bool]),
    (Iterable[int], list[int]),
    (list[int | str], tuple[int, str]),
    (tuple[int, str], tuple[bool, str]),
    (tuple[int, ...], tuple[()]),
    (tuple[()], tuple[()]),
    (LineTuple, tuple[str, int]),
    (LineTuple, tuple[str]),
    (tuple[str, int], LineTuple),
    (dict, dict[str, int]),
    (dict[str, int], dict),
    (Mapping[str, float], dict[str, int]),
    (dict[str, int], collections.OrderedDict[str, int]),
    (dict[str, int], collections.defaultdict[str, int]),
    (dict[str, int], collections.Counter[str]),
    (dict[str, int], dict[bool, int]),
    (dict[str, list[float]], dict[str, list[int]]),
    (dict[int, Line], dict[int, LineData]),
    (dict[str, Any], Line),
    (dict[str, Any], Open),
    (dict[str, str | int], LineData),
    (Line, LineData),
    (LineData, Line),
    (Line, LineDict),
    (LineDict, Line),
    (Order, OrderData),
    (OrderData, Order),
    (list[Order], list[OrderData]),
    (Optional[Order], OrderData),
    (Order, Express),
    (Closed, Checked),
    (Checked, Closed),
    (Open, Line),
    (Camel, Aliased),
    (Aliased, Camel),
    (ByEither, Camel),
    (ByEither, Aliased),
    (ClosedSide, ClosedSide),
    (Tags, list[str]),
    (list[str], Tags),
    (Tree, Bush),
    (Box[int], Box[int]),
    (Box[float], Box[int]),
    (dt.date, dt.date),
    (Path, Path),
    (UUID, UUID),
]

DOES_NOT_FIT: list[tuple[object, object]] = [
    (int, str),
    (str, int),
    (int, float),
    (bool, int),
    (int, None),
    (int, int | None),
    (int, object),
    (int | str, int | str | float),
    (Literal["a"], str),
    (Literal["a"], Literal["a", "b"]),
    (Literal[1], Literal["1"]),
    (Word, str),
    (Colour, Word),
    (list[int], list[str]),
    (list[int], int),
    (list[int], dict[int, int]),
    (list[str], str),
    (Sequence[str], str),
    (Iterable[str], str),
    (list[int], tuple[int, str]),
    (tuple[int, str], tuple[str, int]),
    (tuple[int], tuple[int, int]),
    (tuple[int, int], tuple[int]),
    (tuple[int, str], list[int | str]),
    (tuple[()], tuple[int, ...]),
    (tuple[int, int], LineTuple),
    (LineTuple, tuple[str, int, int]),
    (dict[str, int], dict[str, str]),
    (dict[int, int], dict[str, int]),
    (dict[int, int], dict[bool, int]),
    (dict[str, int], list[int]),
    (dict[str, int], LineData),
    (dict[str, int], Open),
    (Line, dict[str, Any]),
    (LineDict, dict[str, Any]),
    (list[LineDict], list[dict[str, str]]),
    (Line, str),
    (str, Line),
    (Line, Order),
    (LineData, LineDict),  # the dictionary may lack `count`
    (Order, OrderOfNumbers),
    (OrderData, OrderOfNumbers),
    (Express, Order),
    (Line, Mislabelled),
    (Closed, Line),
    (Closed, Open),
    (ClosedSide, Area),  # what is computed is written too
    (Aliased, LineData),
    (Tags, list[int]),
    (Tree, Thorn),
    (Box[int], Box[str]),
    (dt.date, dt.datetime),
    (Decimal, float),
    (UUID, str),
]


@pytest.mark.parametrize(("parameter", "output"), FITS, ids=lambda kind: name_of(kind))
def test_a_parameter_holds_an_output_whose_json_is_valid_for_it(parameter: object, output: object) -> None:
    assert admits(parameter, output)


@pytest.mark.parametrize(("parameter", "output"), DOES_NOT_FIT, ids=lambda kind: name_of(kind))
def test_a_parameter_is_refused_an_output_whose_json_may_not_be_valid_for_it(parameter: object, output: object) -> None:
    assert not admits(parameter, output)


@pytest.mark.parametrize("annotation", [None, Any, object, int | None, Optional[int], Literal[None, 1], MaybeName])
def test_types_that_admit_none(annotation: object) -> None:
    assert optional(annotation)


@pytest.mark.parametrize("annotation", [int, list[None], Literal["None"], dict[str, int | None], UserId, Order])
def test_types_that_do_not_admit_none(annotation: object) -> None:
    assert not optional(annotation)


@pytest.mark.parametrize(
    ("annotation", "path", "lacking"),
    [
        (Order, ("id",), None),
        (Order, ("lines", 0, "sku"), None),
        (Order, ("lines", 0, "price"), "price"),
        (Order, ("total",), "total"),
        (OrderData, ("lines", -1, "count"), None),
        (LineDict, ("colour",), "colour"),
        (Order | None, ("total",), "total"),
        (Order | Express, ("hours",), None),
        (Open, ("anything", "at", "all"), None),
        (dict[str, Line], ("a", "sku"), None),
        (dict[str, Line], ("a", "price"), "price"),
        (Aliased, ("orderId",), None),
        (Aliased, ("order_id",), "order_id"),
        (Tags, (0,), None),
        (list[int], ("first",), "first"),
        (str, ("length",), "length"),
        (LineTuple, (0,), None),
        (Any, ("x",), None),
        (UNANNOTATED, ("x",), None),
        (dt.date, ("year",), None),
    ],
    ids=shown,
)
def test_a_field_that_values_of_a_type_never_have_is_found(
    annotation: object, path: tuple[str | int, ...], lacking: str | None
) -> None:
    found = missing_field(annotation, path)
    assert (found and found.name) == lacking


def test_types_are_named_as_their_author_writes_them() -> None:
    assert [name_of(kind) for kind in (Order, int, list[int], Optional[str], UNANNOTATED)] == [
        "Order",
        "int",
        "list[int]",
        "Optional[str]",
        "(not annotated)",
    ]


def test_a_type_without_a_json_schema_has_an_empty_one() -> None:
    assert schema_of(UNANNOTATED) == {}
    assert schema_of(type(lambda: None)) == {}
    assert schema_of("NoSuchType") == {}
    assert schema_of(int) == {"type": "integer"}
