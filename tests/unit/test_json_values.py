"""Values of an author's own types go to JSON and come back; what cannot says where."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import re
import socket
import sys
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from detent import DefinitionError, InputError, NotSerializable
from detent.json_values import Json
from detent_state_machine.compatibility import UNANNOTATED
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict


def shown(value: object) -> str:
    """The value as a test's name: without the addresses that differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


class Colour(enum.Enum):
    RED = "red"


class Line(BaseModel):
    sku: str
    price: Decimal = Decimal("1.10")


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Row(TypedDict):
    id: int


class Pair(NamedTuple):
    a: int
    b: str


class Order(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    order_id: int
    shipped_at: dt.datetime | None = Field(None, alias="shippedOn")


class Metrics(BaseModel):
    name: str
    loss: list[float | None]


class LooseMetrics(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    loss: float
    note: str | None = None


def there_and_back(annotation: Any, value: object) -> object:
    return Json[Any](annotation).read(Json[Any](annotation).write(value, "It"), "It")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 10**40),
        (str, "ä\u0000\u2028🚀"),
        (bytes, b"plain"),
        (None, None),
        (float, -0.0),
        (float, 1e-320),
        (Decimal, Decimal("0.10")),
        (UUID, UUID(int=7)),
        (dt.datetime, dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)),
        (dt.timedelta, dt.timedelta(days=400, microseconds=1)),
        (Colour, Colour.RED),
        (Line, Line(sku="a", price=Decimal("9.99"))),
        (Point, Point(1.5)),
        (Row, {"id": 1}),
        (Pair, Pair(1, "b")),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (frozenset[Colour], frozenset({Colour.RED})),
        (dict[int, Line], {3: Line(sku="x")}),
        (list[Point] | None, [Point(1, 2)]),
        (Order, Order(orderId=1, shippedOn=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))),
        (UNANNOTATED, {"a": [1, 2.5, None, True, "x"]}),
    ],
    ids=shown,
)
def test_a_value_survives(annotation: object, value: object) -> None:
    back = there_and_back(annotation, value)
    assert back == value
    assert type(back) is type(value)


json_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | json_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(json_texts, inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_every_plain_json_value_survives_without_an_annotation(value: object) -> None:
    assert there_and_back(UNANNOTATED, value) == value


def test_fields_are_written_under_the_names_they_are_read_by() -> None:
    text = Json[Any](Order).write(Order(orderId=7), "It")
    assert text == '{"orderId":7,"shippedOn":null}'


def test_not_a_number_survives_where_the_type_can_say_it() -> None:
    back = there_and_back(list[float], [math.nan, math.inf, -math.inf, 1.0])
    assert isinstance(back, list)
    assert math.isnan(back[0])
    assert back[1:] == [math.inf, -math.inf, 1.0]
    loose = there_and_back(LooseMetrics, LooseMetrics(loss=math.inf))
    assert loose == LooseMetrics(loss=math.inf)


def test_not_a_number_in_a_model_fails_where_it_is_written_not_where_it_is_read() -> None:
    with pytest.raises(NotSerializable, match=r"What step 'fit' returned has no JSON form at \$\.loss\[1\]") as error:
        Json[Any](Metrics).write(Metrics(name="a", loss=[None, math.nan]), "What step 'fit' returned")
    assert error.value.path == "$.loss[1]"
    assert there_and_back(Metrics, Metrics(name="a", loss=[None])) == Metrics(name="a", loss=[None])


@pytest.mark.parametrize("annotation", [UNANNOTATED, object, dict, dict[str, Any], dict[str, float | str]], ids=shown)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_not_a_number_fails_where_it_would_be_read_as_a_text(annotation: object, number: float) -> None:
    with pytest.raises(NotSerializable, match="a finite number") as error:
        Json[Any](annotation).write({"name": "NaN", "loss": number}, "It")
    assert error.value.path == "$.loss"


def test_a_text_that_looks_like_no_number_survives() -> None:
    texts = {"NaN": ["NaN", "Infinity", "-Infinity"]}
    assert there_and_back(UNANNOTATED, texts) == texts


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"items": [1, {"socket": object()}]}, "$.items[1].socket"),
        ([Point(1), {"deep": (1, 2, {"x": lambda: 1})}], "$[1].deep[2].x"),
        ({"name": "caf\udce9"}, "$.name"),
        (b"\xff\xfe", "$"),
        (object(), "$"),
        ({"a": {"b": b"\xff"}}, "$.a.b"),
        ([Metrics(name="\ud800", loss=[])], "$[0].name"),
    ],
    ids=shown,
)
def test_a_value_without_json_form_is_refused_with_the_path_to_it(value: object, path: str) -> None:
    with pytest.raises(NotSerializable, match="It has no JSON form at") as error:
        Json[Any](UNANNOTATED).write(value, "It")
    assert error.value.path == path
    assert path in str(error.value)
    assert "pydantic models, dataclasses, or plain JSON types" in str(error.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(NotSerializable):
        Json[Any](UNANNOTATED).write(loop, "It")


def test_a_value_nested_beyond_any_sense_is_refused_not_a_crash() -> None:
    deep: list[object] = []
    for _ in range(sys.getrecursionlimit() * 3):
        deep = [deep]
    with pytest.raises(NotSerializable):
        Json[Any](UNANNOTATED).write(deep, "It")


@pytest.mark.parametrize(
    ("annotation", "value", "place"),
    [
        (int, "many", r"\$: Input should be a valid integer"),
        (Line, {"sku": 5}, r"\$\.sku: "),
        (list[Point], [{"x": 1}, {"x": "one"}], r"\$\[1\]\.x: "),
        (dict[str, list[int]], {"a": [1, "b"]}, r"\$\.a\[1\]: "),
        (Order, {}, r"\$\.orderId: Field required"),
    ],
    ids=shown,
)
def test_a_value_that_does_not_fit_its_annotation_is_refused_with_the_place(
    annotation: object, value: object, place: str
) -> None:
    with pytest.raises(InputError, match=rf"It does not fit .*{place}.*Return what the annotation says") as error:
        Json[Any](annotation).write(value, "It")
    assert not isinstance(error.value, NotSerializable)


@pytest.mark.parametrize("text", ["", "{", "nul", '{"sku":"a"} trailing', '{"sku":"a",}', '"\\ud800"', "[" * 5000])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"The run's input does not fit Line: \$"):
        Json[Any](Line).read(text, "The run's input")


def test_json_of_another_type_is_refused_with_the_first_problems_and_their_number() -> None:
    text = '[{"x":"a"},{"x":"b"},{"y":1},{"x":"d"},{"x":"e"}]'
    with pytest.raises(InputError) as error:
        Json[Any](list[Point]).read(text, "The output of step 'plan'", older=lambda: True)
    said = str(error.value)
    assert said.startswith("The output of step 'plan' does not fit list[Point]: $[0].x: ") or "Point" in said
    assert "$[2].x: Field required" in said
    assert "; and 2 more" in said
    assert "The run was started with another version of the code" in said


def test_a_type_without_json_form_is_refused_when_it_is_declared() -> None:
    with pytest.raises(DefinitionError, match="Workflow 'w': its input is socket, which has no JSON form"):
        Json[Any](socket.socket, "Workflow 'w': its input")
