"""Types and values of every kind that an author may hand over, for the tests of what is written and read."""

# ruff: noqa: DTZ001 - times without a zone are values too

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
from decimal import Decimal
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    Json,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
)
from pydantic_core import core_schema
from typing_extensions import TypedDict

T = TypeVar("T")
BERLIN = ZoneInfo("Europe/Berlin")
HALF_PAST_TWO = dt.datetime(2026, 10, 25, 2, 30, fold=1)


class Payment(BaseModel):
    cents: int


class Card(Payment):
    last4: str


class Basket(BaseModel):
    payments: list[Payment] = []
    by_name: dict[str, Payment] = {}
    anything: Any = None


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Dot(Point):
    colour: str = "red"


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: int


@dataclasses.dataclass
class Late:
    x: int
    seen: bool = dataclasses.field(init=False, default=False)


@dataclasses.dataclass
class Scaled:
    x: int
    factor: dataclasses.InitVar[int] = 1

    def __post_init__(self, factor: int) -> None:
        self.x *= factor


@dataclasses.dataclass
class NotCompared:
    x: int
    note: str = dataclasses.field(default="", compare=False)


class Row(TypedDict, total=False):
    id: int
    note: str


class Pair(NamedTuple):
    a: int
    b: str


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1


class Word(enum.StrEnum):
    YES = "yes"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Shout(str):
    __slots__ = ()


class Excluded(BaseModel):
    shown: int = 1
    hidden: int = Field(0, exclude=True)


class Private(BaseModel):
    _own: int = PrivateAttr(0)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 0


class Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    name: str = ""


class Doubled(BaseModel):
    n: int = 0

    @field_validator("n")
    @classmethod
    def double(cls, n: int) -> int:
        return n * 2


class Rounded(BaseModel):
    price: float

    @field_serializer("price")
    def to_cents(self, price: float) -> float:
        return round(price, 2)


class Encoded(BaseModel):
    at: dt.datetime

    @field_serializer("at")
    def to_day(self, at: dt.datetime) -> str:
        return at.date().isoformat()


class Summed(BaseModel):
    items: list[int]

    @model_serializer
    def to_sum(self) -> dict[str, Any]:
        return {"items": [sum(self.items)]}


class Revealed(BaseModel):
    password: SecretStr

    @field_serializer("password", when_used="json")
    def reveal(self, password: SecretStr) -> str:
        return password.get_secret_value()


class Measured(BaseModel):
    width: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2

    @cached_property
    def slow(self) -> int:
        return self.width * 3


class Box(BaseModel, Generic[T]):
    value: T


class Ids(RootModel[list[UUID]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    name: str = ""


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


class Tree(BaseModel):
    name: str
    below: list[Tree] = []


class Temperature:
    """A class of the author's own, with a schema of its own; the JSON drops what `kept` does not hold."""

    def __init__(self, degrees: float, note: str = "") -> None:
        self.degrees, self.note = degrees, note

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda given: given if isinstance(given, cls) else cls(given),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda it: it.degrees),
        )


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def with_private(own: int) -> Private:
    model = Private()
    model._own = own
    return model


def assigned(model: Any, **values: object) -> Any:
    for name, value in values.items():
        setattr(model, name, value)
    return model


def seen(late: Late) -> Late:
    late.seen = True
    return late


def looked_at(model: Measured) -> Measured:
    assert model.slow
    return model


Negated = Annotated[int, PlainSerializer(lambda n: -n)]
Unsteady = Annotated[int, AfterValidator(lambda n: n + 1)]

COME_BACK: list[tuple[Any, Any]] = [
    (int, 10**4200),
    (int | str | None, None),
    (bool | int, True),
    (bool | int, 1),
    (int | bool, True),
    (int | float, 1.0),
    (float | int, 1),
    (int | str, "5"),
    (float, -0.0),
    (float, float("nan")),
    (complex, complex(1, -2)),
    (InstanceOf[Payment], Payment(cents=1)),
    (Colour | str, "red"),
    (str | dt.date, "2026-01-01"),
    (Decimal, Decimal("1E+2")),
    (Decimal, Decimal("-0.00")),
    (Decimal | float, Decimal("1.10")),
    (Decimal | float, 1.1),
    (dt.date | dt.datetime, dt.datetime(2026, 1, 2)),
    (dt.date | dt.datetime, dt.date(2026, 1, 2)),
    (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
    (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=ZoneInfo("UTC"))),
    (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30)))),
    (dt.time, dt.time(1, 2, 3, 4)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=1)),
    (PurePosixPath, PurePosixPath("/a/b")),
    (Access, Access.READ | Access.WRITE),
    (Literal[1, "1", True], "1"),
    (Literal[1, "1"], 1),
    (dict[int, str], {17: "a"}),
    (dict[bool, int], {True: 1, False: 0}),
    (dict[dt.date, int], {dt.date(2026, 1, 1): 1}),
    (dict[Colour, int], {Colour.RED: 1}),
    (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2)),
    (collections.Counter[str], collections.Counter("aab")),
    (collections.deque[int], collections.deque([1, 2])),
    (set[Decimal], {Decimal("1.10"), Decimal(2)}),
    (frozenset[Slotted], frozenset({Slotted(1), Slotted(2)})),
    (tuple[int, ...], (1, 2)),
    (Payment | None, Payment(cents=1)),
    (Cat | Dog, Dog(name="Rex")),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog()),
    (list[Cat | Dog], [Dog(), Cat()]),
    (Payment | Card, Card(cents=1, last4="4242")),
    (Box[int], Box[int](value=1)),
    (Box[Payment], Box[Payment](value=Payment(cents=1))),
    (Ids, Ids([UUID(int=7)])),
    (Tree, Tree(name="a", below=[Tree(name="b")])),
    (Excluded, Excluded(shown=2)),
    (Private, Private()),
    (Open, Open(a=1, b=[1, "x"])),
    (Revealed, Revealed(password=SecretStr("hunter2"))),
    (Measured, looked_at(Measured(width=2))),
    (Late, Late(1)),
    (Scaled, Scaled(2)),
    (NotCompared, NotCompared(1, "kept")),
    (Row, {"note": "x"}),
    (Pair, Pair(1, "b")),
    (Temperature, Temperature(21.5)),
    (Annotated[int, Field(gt=0)], 7),
    (Doubled, Doubled()),
    (Any, {"a": [1, 2.5, None, True, "x"]}),
    (object, nested(199)),
]
"""What comes back as it was, of the same type."""

CHANGED: list[tuple[Any, Any, str]] = [
    (Any, SecretStr("hunter2"), "$"),
    (dict[str, Any], {"a": {"password": SecretBytes(b"hunter2")}}, "$.a.password"),
    (Payment, Card(cents=1, last4="4242"), "$"),
    (list[Payment], [Payment(cents=1), Card(cents=1, last4="4242")], "$[1]"),
    (Basket, Basket(payments=[Card(cents=1, last4="4242")]), "$.payments[0]"),
    (Basket, Basket(by_name={"a b": Card(cents=1, last4="4242")}), "$.by_name.a b"),
    (Basket, Basket(anything=Payment(cents=1)), "$.anything"),
    (Basket, Basket(anything=dt.date(2026, 1, 1)), "$.anything"),
    (SerializeAsAny[Payment], Card(cents=1, last4="4242"), "$"),
    (complex, complex(-0.0, 2), "$"),
    (Point, Dot(1, 2, "blue"), "$"),
    (dict[str, Point], {"a": Dot(1)}, "$.a"),
    (Point, assigned(Point(1), later=3), "$.later"),
    (Point, assigned(Point(1), x=Decimal("1.5")), "$.x"),
    (Late, seen(Late(1)), "$.seen"),
    (Scaled, assigned(Scaled(2), y=1), "$.y"),
    (Excluded, Excluded(hidden=7), "$.hidden"),
    (list[Excluded], [Excluded(), Excluded(hidden=7)], "$[1].hidden"),
    (Private, with_private(9), "$._own"),
    (Open, Open(at=dt.date(2026, 1, 1)), "$.at"),
    (Stripped, assigned(Stripped(), name=" Ada "), "$.name"),
    (Doubled, Doubled(n=1), "$.n"),
    (Doubled, {"n": 1}, "$.n"),
    (list[Doubled], [{"n": 0}, {"n": 1}], "$[1].n"),
    (Unsteady, 1, "$"),
    (Negated, 1, "$"),
    (Rounded, Rounded(price=1.005), "$.price"),
    (Encoded, Encoded(at=dt.datetime(2026, 1, 1, 12)), "$.at"),
    (Summed, Summed(items=[1, 2]), "$.items[0]"),
    (Json[list[int]], "[1]", "$"),
    (Temperature, Temperature(21.5, "cold"), "$.note"),
    (Payment, assigned(Payment(cents=1), cents=None), "$.cents"),
    (Payment, assigned(Payment(cents=1), cents="1"), "$.cents"),
    (Payment, assigned(Payment(cents=1), cents=Size.SMALL), "$.cents"),
    (Payment, assigned(Payment(cents=1), cents=True), "$.cents"),
    (Any, {17: "a"}, "$[key 17]"),
    (dict, {"a": {None: 1}}, "$.a[key None]"),
    (dict[Any, int], {None: 1, "None": 2}, "$[key None]"),
    (dict[int | str, str], {17: "a", "17": "b"}, "$[key 17]"),
    (dict[tuple[int, int], int], {(1, 2): 3}, "$.1,2.[key]"),
    (dict[str, int], collections.defaultdict(int, a=1), "$"),
    (dict[str, int], collections.OrderedDict(a=1), "$"),
    (collections.deque[int], collections.deque([1], maxlen=5), "$.maxlen"),
    (Row, {"id": 1, "other": 2}, "$.other"),
    (str, Word.YES, "$"),
    (str, Shout("x"), "$"),
    (list[str], ["x", Word.YES], "$[1]"),
    (int, Size.SMALL, "$"),
    (int, True, "$"),
    (int, 5.0, "$"),
    (int, "5", "$"),
    (int, 10**5000, "$"),
    (Any, 10**5000, "$"),
    (float, 2**53 + 1, "$"),
    (float, True, "$"),
    (Any, Word.YES, "$"),
    (Any, Colour.RED, "$"),
    (Any, (1, 2), "$"),
    (Any, {"a": [(1, 2)]}, "$.a[0]"),
    (Any, {1, 2}, "$"),
    (Any, b"text", "$"),
    (Any, UUID(int=7), "$"),
    (Any, Decimal("1.5"), "$"),
    (Any, Payment(cents=1), "$"),
    (Any, Point(1), "$"),
    (list[int], (1, 2), "$"),
    (list[int], {1, 2}, "$"),
    (list[int], dict.fromkeys([1]).keys(), "$"),
    (collections.abc.Sequence[int], (1, 2), "$"),
    (str | UUID, str(UUID(int=7)), "$"),
    (Decimal | str, "1.10", "$"),
    (Colour | str, Colour.RED, "$"),
    (dict[str, int] | Payment, Payment(cents=1), "$"),
    (list[int] | set[int], {1}, "$"),
    (Decimal, 0.1, "$"),
    (dt.timedelta, False, "$"),
    (dt.timedelta, 5, "$"),
    (dt.datetime, dt.datetime(2026, 7, 1, tzinfo=BERLIN), "$"),
    (dt.datetime, HALF_PAST_TWO.replace(tzinfo=BERLIN), "$"),
    (dt.datetime, HALF_PAST_TWO, "$"),
    (dt.time, dt.time(2, 30, fold=1), "$"),
    (dt.date, dt.datetime(2026, 1, 1), "$"),
    (Any, nested(200), "$"),
    (Any, nested(201), "$"),
    (Any, nested(254), "$"),
    (list[Any], nested(300), "$"),
]
"""What would come back as something else, with the path to it."""


class Hidden(BaseModel):
    password: SecretStr


class HiddenDeep(BaseModel):
    logins: dict[str, list[Hidden | None]] = {}


class Outward(BaseModel):
    moved: int = Field(5, serialization_alias="out")


class Inward(BaseModel):
    moved: int = Field(5, validation_alias=AliasChoices("in", "into"))


class Needed(BaseModel):
    gone: int = Field(exclude=True)


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2


@dataclasses.dataclass
class Given:
    x: int
    factor: dataclasses.InitVar[int]


class Approved(BaseModel):
    order: str


class Declined(BaseModel):
    order: str


@dataclasses.dataclass
class Pending:
    order: str


class Answer(BaseModel):
    outcome: Approved | Declined | None = None


REFUSED: list[tuple[Any, str]] = [
    (SecretStr, "$ is SecretStr"),
    (SecretBytes | None, "$ is SecretBytes"),
    (Hidden, "$.password is SecretStr"),
    (list[HiddenDeep], "$[].logins[][].password is SecretStr"),
    (Outward, "$.moved is written as 'out' and read as 'moved'"),
    (dict[str, Outward], "$[].moved is written as 'out'"),
    (Inward, "$.moved is written as 'moved' and read as 'in' or 'into'"),
    (Needed, "$.gone is required and excluded"),
    (Closed, "$ has the computed field 'area' and extra='forbid'"),
    (Given, "$.factor is an InitVar"),
    (Approved | Declined, "$ is Approved or Declined, and nothing in their JSON tells the two apart"),
    (list[Approved | Pending], "$[] is Approved or Pending"),
    (Answer, "$.outcome is Approved or Declined"),
    (collections.abc.Iterable[int], "an iterator that can be gone through once"),
    (dict[str, collections.abc.Iterable[int]], "$[] is "),
]
"""Types of which no value comes back, in some place: the declaration shows it."""
