"""A condition means what Python means by it, for every type, or it is refused where it is written."""

# ruff: noqa: DTZ001, SIM300 - times without a zone are values too, and both sides of a comparison are tried

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import operator
import typing
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from detent import App, DefinitionError, InputError, Workflow, not_
from detent.json_values import Json
from detent.markers import condition_of
from detent.testing import Harness
from detent_state_machine.definition import Definition, StepDefinition, without_defaults
from detent_state_machine.when import Compare, Condition, Ref, Truthy, evaluate
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, PlainSerializer, RootModel, TypeAdapter, field_serializer


class Kind(enum.Enum):
    GIFT = "gift"
    NONE = ""


class Size(enum.IntEnum):
    NONE = 0
    LARGE = 2


class Word(enum.StrEnum):
    YES = "yes"


class Empty(BaseModel):
    pass


class Ids(RootModel[list[int]]):
    pass


class Lazy(BaseModel):
    n: int = 0

    def __bool__(self) -> bool:
        return bool(self.n)


class Bill(BaseModel):
    paid: Decimal = Decimal("10.00")
    price: Decimal | None = Decimal("9.99")
    due: dt.date = dt.date(2026, 1, 31)
    at: dt.datetime = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    naive: dt.datetime = dt.datetime(2026, 1, 31, 12)
    opens: dt.time = dt.time(9, 5)
    took: dt.timedelta = dt.timedelta(hours=10)
    none: dt.timedelta = dt.timedelta(0)
    nothing: Decimal = Decimal("0.00")
    id: UUID = UUID(int=255)
    kind: Kind = Kind.GIFT
    blank: Kind = Kind.NONE
    size: Size = Size.LARGE
    small: Size = Size.NONE
    word: Word = Word.YES
    yes: bool = True
    no: bool = False
    count: int = 1
    rate: float = 0.1
    endless: float | None = None
    name: str = "Ada"
    code: str | int = "5"
    flavour: Literal["a", "b"] = "a"
    tags: list[str] = []
    pairs: tuple[int, int] = (1, 2)
    lines: list[dict[str, Decimal]] = [{"net": Decimal("2.50")}]
    empty: Empty = Empty()
    ids: Ids = Ids([])
    lazy: Lazy = Lazy()
    anything: Any = None
    turn: complex = 0j


app = App("t", url="memory://")
bills: Workflow[Any, Any] = app.workflow("bills", input=Bill)
b: Any = bills.input


@bills.step
def price(bill: Bill) -> Decimal | None: ...


total: Any = price.output


def holds(written: object, bill: Bill | None = None, output: Any = None) -> bool:
    """As a worker sees it: the condition from its JSON, values as theirs."""
    condition = condition_of(written, "bills")
    stored: Condition = TypeAdapter(Condition).validate_json(json.dumps(without_defaults(condition)))
    values = {
        None: json.loads(Json[Any](Bill).write(bill or Bill(), "It")),
        "price": json.loads(Json[Any](Decimal | None).write(output, "It")),
    }
    return evaluate(stored, values.__getitem__)


MEANT: list[tuple[Callable[[], Any], bool]] = [
    (lambda: b.paid >= b.price, True),
    (lambda: b.paid > "9.99", True),
    (lambda: b.paid > Decimal("9.99"), True),
    (lambda: b.paid == Decimal(10), True),
    (lambda: b.paid == "10", True),
    (lambda: b.paid > 9, True),
    (lambda: 9 < b.paid, True),
    (lambda: b.paid != 10.0, False),
    (lambda: b.price < 9.99, True),  # Decimal("9.99") < 9.99
    (lambda: b.price == 9.99, False),
    (lambda: b.paid > b.count, True),
    (lambda: b.paid > b.size, True),
    (lambda: b.lines[0].net > Decimal("2.4999"), True),
    (lambda: b.lines[0]["net"] == b.lines[0]["net"], True),
    (lambda: b.due == dt.date(2026, 1, 31), True),
    (lambda: b.due < "2026-02-01", True),
    (lambda: b.at == dt.datetime(2026, 1, 31, 13, tzinfo=dt.timezone(dt.timedelta(hours=1))), True),
    (lambda: b.at < dt.datetime(2026, 1, 31, 13, 30, tzinfo=dt.timezone(dt.timedelta(hours=1))), True),
    (lambda: b.at > "2026-01-31T12:30:00+01:00", True),
    (lambda: b.at == b.naive, False),
    (lambda: b.naive >= dt.datetime(2026, 1, 31, 12), True),
    (lambda: b.opens > dt.time(9), True),
    (lambda: b.opens < "10:00", True),
    (lambda: b.took > dt.timedelta(hours=9), True),
    (lambda: b.took > dt.timedelta(minutes=100), True),
    (lambda: b.took == dt.timedelta(minutes=600), True),
    (lambda: b.id == UUID(int=255), True),
    (lambda: b.id == str(UUID(int=255)).upper(), True),
    (lambda: b.id > UUID(int=16), True),
    (lambda: b.kind == Kind.GIFT, True),
    (lambda: b.kind != Kind.NONE, True),
    (lambda: b.kind == b.blank, False),
    (lambda: b.size > 1, True),
    (lambda: b.size >= Size.LARGE, True),
    (lambda: b.word == "yes", True),
    (lambda: b.word == Word.YES, True),
    (lambda: b.name > Word.YES, False),
    (lambda: b.yes == 1, True),
    (lambda: b.yes > 0, True),
    (lambda: b.yes > b.no, True),
    (lambda: b.count == True, True),  # noqa: E712
    (lambda: b.no == 0, True),
    (lambda: b.yes == b.count, True),
    (lambda: b.yes != b.no, True),
    (lambda: b.count < 1.5, True),
    (lambda: b.rate == 0.1, True),
    (lambda: b.code == 5, False),
    (lambda: b.code == "5", True),
    (lambda: b.flavour == "a", True),
    (lambda: b.pairs == b.pairs, True),
    (lambda: b.endless == None, True),  # noqa: E711
    (lambda: b.endless > 5, False),
    (lambda: b.anything == None, True),  # noqa: E711
    (lambda: b.anything > Decimal(1), False),
    (lambda: total == None, True),  # noqa: E711
    (lambda: total > 5, False),
    (lambda: b.nothing, False),
    (lambda: not_(b.nothing), True),
    (lambda: b.paid, True),
    (lambda: b.none, False),
    (lambda: b.took, True),
    (lambda: b.due, True),
    (lambda: b.opens, True),
    (lambda: b.kind, True),
    (lambda: b.blank, True),  # a plain enum's member is true, whatever its value
    (lambda: b.small, False),
    (lambda: b.size, True),
    (lambda: b.no, False),
    (lambda: b.tags, False),
    (lambda: b.lines, True),
    (lambda: b.pairs, True),
    (lambda: b.empty, True),  # an object without fields is true
    (lambda: b.ids, True),
    (lambda: b.endless, False),
    (lambda: b.name, True),
    (lambda: total, False),
    (lambda: (b.paid > b.price) & not_(b.nothing) & (b.due > "2026-01-01"), True),
    (lambda: (b.paid < b.price) | (b.took > dt.timedelta(1)), False),
]


@pytest.mark.parametrize(("written", "meant"), MEANT, ids=[str(n) for n in range(len(MEANT))])
def test_a_condition_means_what_python_means(written: Callable[[], Any], meant: bool) -> None:
    assert holds(written()) is meant


def test_a_decimal_output_of_a_step_is_a_number() -> None:
    assert holds(total > Decimal("9.99"), output=Decimal("10.00"))
    assert holds(total, output=Decimal("0.01"))
    assert not holds(total, output=Decimal("0.00"))


def test_floats_that_json_has_no_numbers_for() -> None:
    class Loose(BaseModel):
        x: float

    condition = condition_of(app.workflow("loose", input=float).input > 5, "loose")
    assert evaluate(condition, lambda _: "Infinity")
    assert not evaluate(condition, lambda _: "-Infinity")
    assert not evaluate(condition, lambda _: "NaN")


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: b.paid > "much", "Compare with a Decimal, or with its text"),
    (lambda: b.paid == "ten", "Python never finds Decimal equal to str"),
    (lambda: b.due > dt.datetime(2026, 1, 31), "does not order date and datetime"),
    (lambda: b.at == dt.date(2026, 1, 31), "never finds datetime equal to date"),
    (lambda: b.due == b.at, "never finds date equal to datetime"),
    (lambda: b.due > 20260131, "does not order date and int"),
    (lambda: b.took > 60, "does not order timedelta and int"),
    (lambda: b.count > "1", "does not order int and str"),
    (lambda: b.count == "1", "never finds int equal to str"),
    (lambda: b.name == 5, "never finds str equal to int"),
    (lambda: b.name > b.count, "does not order str and int"),
    (lambda: b.name == Decimal(1), "never finds str equal to Decimal"),
    (lambda: b.yes == "true", "never finds bool equal to str"),
    (lambda: b.kind == "gift", "`Kind.GIFT`"),
    (lambda: b.name == Kind.GIFT, "`Kind.GIFT`"),
    (lambda: b.kind > Kind.GIFT, "does not order Kind and Kind"),
    (lambda: b.kind == b.size, "never finds Kind equal to int"),
    (lambda: b.count > None, "None has no order"),
    (lambda: b.tags == "a", "never finds list[str] equal to str"),
    (lambda: b.tags > b.tags, "does not order"),
    (lambda: b.lines == b.lines, "never finds"),
    (lambda: b.empty == b.empty, "never finds"),
    (lambda: b.count == float("nan"), "finite numbers"),
    (lambda: b.paid > Decimal("NaN"), "finite numbers"),
    (lambda: b.tags == ["a"], "finite numbers"),
    (lambda: b.turn == 1j, "finite numbers"),
    (lambda: condition_of(b.turn, "bills"), "asks for the truth of complex"),
    (lambda: condition_of(b.lazy, "bills"), "asks for the truth of Lazy"),
    (lambda: ~b.no, "Write `not_(…)`"),
    (lambda: ~(b.count > 0), "Write `not_(…)`"),
    (lambda: len(b.tags) > 0, "An empty list, text or dictionary is false"),
    (lambda: b.count + 1 > 2, "Work it out in a step"),
    (lambda: 1 + b.count > 2, "Work it out in a step"),
    (lambda: b.count * 2, "Work it out in a step"),
    (lambda: -b.count, "Work it out in a step"),
    (lambda: abs(b.count), "Work it out in a step"),
    (lambda: b.count % 2 == 0, "Work it out in a step"),
    (lambda: b.paid / b.count, "Work it out in a step"),
    (lambda: round(b.rate), "Work it out in a step"),
    (lambda: b.name.startswith("A"), "a method cannot be used on it"),
    (lambda: b.name.lower() == "ada", "a method cannot be used on it"),
    (lambda: f"{b.name}-1", "an f-string cannot be used on it"),
    (lambda: "%s" % b.name, "str() cannot be used on it"),  # noqa: UP031
    (lambda: str(b.kind) == "gift", "str() cannot be used on it"),
    (lambda: int(b.count) > 1, "int() cannot be used on it"),
    (lambda: float(b.paid) > 1, "float() cannot be used on it"),
    (lambda: bool(b.count), "& and | (in parentheses)"),
    (lambda: b.yes and b.no, "& and | (in parentheses)"),
    (lambda: b.yes or b.no, "& and | (in parentheses)"),
    (lambda: not b.yes, "& and | (in parentheses)"),
    (lambda: 0 < b.count < 5, "& and | (in parentheses)"),
    (lambda: b.name in ("a", "b"), "& and | (in parentheses)"),
    (lambda: "a" in b.tags, "loop in its body"),
    (lambda: b.count == 1 & b.yes, "Put each comparison in parentheses"),
    (lambda: b.yes & b.count > 0, "Put each comparison in parentheses"),
    (lambda: (b.count > 0) == True, "Put each comparison in parentheses"),  # noqa: E712
    (lambda: b.yes ^ b.no, "Put each comparison in parentheses"),
    (lambda: b.tags[0:1], "has no part"),
    (lambda: b.tags[True], "has no part"),
    (lambda: b.count == (b.yes == b.no), "& and | (in parentheses)"),
]


@pytest.mark.parametrize(("written", "said"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_python_refuses_or_a_condition_cannot_say_is_refused_with_the_fix(
    written: Callable[[], Any], said: str
) -> None:
    with pytest.raises(DefinitionError) as refused:
        written()
    assert said in str(refused.value)
    assert refused.value.advice


@pytest.mark.parametrize("value", [False, True])
def test_a_condition_that_python_worked_out_at_once_is_refused(value: bool) -> None:
    """`is`, `isinstance` and `in` with a set do not ask the marker: they give a plain bool."""
    with pytest.raises(DefinitionError, match="`== None`"):

        @bills.step(when=value)
        def never(bill: Bill) -> None: ...


def test_times_that_cannot_be_ordered_fail_the_step_that_looks() -> None:
    """A datetime's type does not say whether it has an offset."""
    with pytest.raises(InputError, match="Give both times an offset, or neither"):
        holds(b.at > b.naive)


def test_what_an_author_writes_in_a_way_of_their_own_is_compared_as_its_json() -> None:
    class Own(BaseModel):
        cents: Decimal
        day: typing.Annotated[dt.date, PlainSerializer(lambda day: day.year)]

        @field_serializer("cents")
        def write(self, cents: Decimal) -> int:
            return int(cents * 100)

    own: Any = app.workflow("own", input=Own).input
    assert condition_of(own.cents > 5, "own") == Compare(op=">", left=Ref(step=None, path=("cents",)), right=5)
    assert condition_of(own.day == 2026, "own") == Compare(op="==", left=Ref(step=None, path=("day",)), right=2026)


def test_only_a_condition_that_needs_it_says_how_a_value_is_read() -> None:
    """What older workers can do keeps its text, its version and its format."""

    def format_of(written: object) -> int:
        step = StepDefinition(name="ship", when=condition_of(written, "bills"))
        definition = Definition(name="bills", steps=(step,))
        assert Definition.from_json(definition.to_json()) == definition
        return definition.format

    plain = [b.count > 1, b.rate < 2, b.name == "Ada", b.yes == True, b.kind == Kind.GIFT, b.tags, b.yes, total == None]  # noqa: E711, E712
    assert [format_of(written) for written in plain] == [1] * len(plain)
    typed = [b.paid > 1, b.due > "2026-01-01", b.nothing, b.yes == 1, b.blank, total > b.count]
    assert [format_of(written) for written in typed] == [2] * len(typed)
    assert condition_of(b.tags, "bills") == Truthy(ref=Ref(step=None, path=("tags",)))


def test_a_run_goes_where_its_conditions_say() -> None:
    shop = App("shop", url="memory://")
    wf = shop.workflow("w", input=Bill)

    @wf.step
    def rebate(bill: Bill) -> Decimal:
        return bill.paid - bill.paid

    @wf.step(when=wf.input.paid >= Decimal("9.99"))
    def ship(bill: Bill) -> str:
        return "shipped"

    rebated: Any = rebate.output

    @wf.step(when=rebated)
    def refund(bill: Bill, back: Decimal = rebate.output) -> str:
        return "refunded"

    with Harness(shop) as h:
        assert h.run(wf, Bill()) == {"ship": "shipped", "refund": None}


SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-5, 5),
    bool: st.booleans(),
    float: st.floats(-5, 5),
    str: st.text("ab1-", max_size=2),
    Decimal: st.decimals(-5, 5, places=2),
    dt.date: st.dates(dt.date(2026, 1, 1), dt.date(2026, 1, 4)),
    dt.time: st.times().map(lambda time: time.replace(fold=0)),
    dt.datetime: st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 4), timezones=st.just(dt.UTC)).map(
        lambda moment: moment.replace(fold=0)
    ),
    dt.timedelta: st.timedeltas(-dt.timedelta(1), dt.timedelta(1)),
    UUID: st.integers(0, 3).map(lambda n: UUID(int=n)),
    Kind: st.sampled_from(Kind),
    Size: st.sampled_from(Size),
    Word: st.sampled_from(Word),
}
OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclasses.dataclass
class Two:
    left: Any
    right: Any


@given(st.sampled_from(list(SCALARS)), st.sampled_from(list(SCALARS)), st.sampled_from(list(OPERATORS)), st.data())
def test_any_comparison_of_any_two_types_is_pythons_or_refused(
    left: Any, right: Any, op: str, data: st.DataObject
) -> None:
    one, other = data.draw(SCALARS[left]), data.draw(SCALARS[right])
    both = dataclasses.make_dataclass("Both", [("left", left), ("right", right)])
    marker: Any = App("t", url="memory://").workflow("w", input=both).input
    text = json.loads(Json[Any](both).write(both(one, other), "It"))
    for against in (marker.right, other):
        try:
            condition = condition_of(OPERATORS[op](marker.left, against), "w")
        except DefinitionError:
            try:
                refused = op in ("==", "!=") and one == other
                OPERATORS[op](one, other)
            except TypeError:
                continue
            assert op in ("==", "!=")
            assert not refused, "Python finds them equal"
            continue
        if isinstance(other, str) and against is other and left not in (str, Word):
            continue  # a text that stands for a value of the left one's type
        assert evaluate(condition, lambda _: text) is OPERATORS[op](one, other)


@given(st.sampled_from(list(SCALARS)), st.data())
def test_the_truth_of_any_value_is_pythons(kind: Any, data: st.DataObject) -> None:
    value = data.draw(SCALARS[kind])
    marker: Any = App("t", url="memory://").workflow("w", input=kind).input
    text = json.loads(Json[Any](kind).write(value, "It"))
    assume(text is not None)
    assert evaluate(condition_of(marker, "w"), lambda _: text) is bool(value)
