"""Skip conditions mean the same on every worker: numbers as numbers, missing as null, nothing guessed."""

from __future__ import annotations

import json

import pytest
from detent_state_machine.errors import InputError
from detent_state_machine.when import (
    All,
    Compare,
    Condition,
    Either,
    Not,
    Ref,
    Scalar,
    Truthy,
    describe,
    evaluate,
    references,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, TypeAdapter, ValidationError

ADAPTER: TypeAdapter[Condition] = TypeAdapter(Condition)
INPUT: JsonValue = {
    "total": "12.50",
    "count": 3,
    "rate": 0.1,
    "name": "Ada",
    "empty": "",
    "none": None,
    "yes": True,
    "no": False,
    "zero": 0,
    "items": [{"sku": "A", "n": 1}, {"sku": "B", "n": 2}],
    "by_number": {"0": "zeroth"},
    "odd": "1_000",
}
OUTPUTS: dict[str | None, JsonValue] = {None: INPUT, "charge": {"paid": True, "total": 12.5}, "skipped": None}


def ref(*path: str | int, step: str | None = None) -> Ref:
    return Ref(step=step, path=path)


def holds(condition: Condition) -> bool:
    return evaluate(condition, OUTPUTS.__getitem__)


def compare(left: Ref, op: str, right: Ref | Scalar) -> Compare:
    return Compare.model_validate({"op": op, "left": left, "right": right})


@pytest.mark.parametrize(
    ("left", "op", "right", "expected"),
    [
        (ref("count"), "==", 3, True),
        (ref("count"), "==", 3.0, True),
        (ref("count"), "!=", 3, False),
        (ref("count"), "<", 4, True),
        (ref("count"), "<=", 3, True),
        (ref("count"), ">", 3, False),
        (ref("count"), ">=", 3, True),
        (ref("rate"), "==", 0.1, True),
        (ref("rate"), ">", 0.1, False),
        (ref("name"), "==", "Ada", True),
        (ref("name"), "!=", "ada", True),
        (ref("name"), "<", "Bob", True),
        (ref("yes"), "==", True, True),
        (ref("no"), "==", False, True),
    ],
)
def test_comparisons(left: Ref, op: str, right: Scalar, expected: bool) -> None:
    assert holds(compare(left, op, right)) is expected


@pytest.mark.parametrize(
    ("left", "op", "right", "expected"),
    [
        (ref("total"), "==", 12.5, True),
        (ref("total"), ">", 12, True),
        (ref("total"), ">", 12.5, False),
        (ref("total"), "<", 100, True),
        (ref("total"), "==", ref("total", step="charge"), True),
        (ref("total", step="charge"), "==", "12.500", True),
        (ref("total"), "==", "12.5", False),
    ],
)
def test_a_decimal_in_a_string_compares_with_a_number_as_a_number(
    left: Ref, op: str, right: Ref | Scalar, expected: bool
) -> None:
    assert holds(compare(left, op, right)) is expected


@pytest.mark.parametrize("spelling", ["odd", "name", "empty"])
def test_a_string_that_is_no_plain_number_is_never_taken_for_one(spelling: str) -> None:
    assert not holds(compare(ref(spelling), "==", 1000))
    with pytest.raises(InputError, match="cannot order"):
        holds(compare(ref(spelling), "<", 1000))


def test_a_boolean_is_no_number() -> None:
    assert not holds(compare(ref("yes"), "==", 1))
    assert not holds(compare(ref("zero"), "==", False))
    with pytest.raises(InputError, match=r"input\.yes cannot order True and 1"):
        holds(compare(ref("yes"), ">", 1))


@pytest.mark.parametrize(
    "missing",
    [
        ref("none"),
        ref("nowhere"),
        ref("name", "inside"),
        ref("items", 2),
        ref("items", -3),
        ref("items", "sku"),
        ref("name", 0),
        ref("output", step="skipped"),
    ],
    ids=str,
)
def test_what_is_not_there_is_null(missing: Ref) -> None:
    assert holds(compare(missing, "==", None))
    assert holds(compare(missing, "!=", "x"))
    assert not holds(compare(missing, "==", 0))
    assert not holds(Truthy(ref=missing))
    for op in ("<", "<=", ">", ">="):
        assert not holds(compare(missing, op, 1))
        assert not holds(compare(missing, op, None))
        assert not holds(compare(ref("count"), op, missing))


def test_a_path_leads_through_objects_and_arrays() -> None:
    assert holds(compare(ref("items", 1, "sku"), "==", "B"))
    assert holds(compare(ref("items", -1, "sku"), "==", "B"))
    assert holds(compare(ref("by_number", 0), "==", "zeroth"))
    assert holds(compare(ref("paid", step="charge"), "==", True))
    assert holds(Truthy(ref=Ref(step=None)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("yes", True), ("count", True), ("name", True), ("items", True), ("no", False), ("zero", False), ("empty", False)],
)
def test_truthy(path: str, expected: bool) -> None:
    assert holds(Truthy(ref=ref(path))) is expected
    assert holds(Not(part=Truthy(ref=ref(path)))) is not expected


YES, NO = Truthy(ref=ref("yes")), Truthy(ref=ref("no"))


def test_all_and_either_and_none_of_them() -> None:
    assert holds(All(parts=(YES, YES)))
    assert not holds(All(parts=(YES, NO)))
    assert holds(Either(parts=(NO, YES)))
    assert not holds(Either(parts=(NO, NO)))
    assert holds(All(parts=()))
    assert not holds(Either(parts=()))


def test_a_part_that_does_not_matter_is_not_evaluated() -> None:
    unordered = compare(ref("name"), "<", 1)
    assert not holds(All(parts=(NO, unordered)))
    assert holds(Either(parts=(YES, unordered)))


def test_references_names_every_value_that_is_looked_at() -> None:
    condition = Either(parts=(Not(part=YES), All(parts=(compare(ref("a"), "<", ref("b", step="charge")), NO))))
    assert list(references(condition)) == [ref("yes"), ref("a"), ref("b", step="charge"), ref("no")]


def test_a_condition_is_described_in_one_line() -> None:
    big = compare(ref("items", 0, "n"), ">=", 2)
    same = compare(ref("total"), "==", ref("total", step="charge"))
    assert describe(All(parts=(big, Not(part=Either(parts=(same, YES)))))) == (
        "(input.items[0].n >= 2) and (not ((input.total == charge.total) or (input.yes)))"
    )
    assert describe(compare(ref("name"), "!=", "it's")) == 'input.name != "it\'s"'


refs = st.builds(
    Ref,
    step=st.none() | st.text(max_size=5),
    path=st.lists(st.text(max_size=5) | st.integers(-9, 9), max_size=3).map(tuple),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
conditions: st.SearchStrategy[Condition] = st.recursive(
    st.builds(compare, refs, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), refs | scalars)
    | st.builds(Truthy, ref=refs),
    lambda part: (
        st.builds(Not, part=part)
        | st.builds(All, parts=st.lists(part, max_size=3).map(tuple))
        | st.builds(Either, parts=st.lists(part, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@given(conditions)
def test_a_condition_survives_json_with_the_types_of_its_values(condition: Condition) -> None:
    text = json.dumps(condition.model_dump(mode="json"))
    back = ADAPTER.validate_json(text)
    assert back == condition
    assert repr(back) == repr(condition)  # 1, 1.0 and True are equal in Python and differ here


@pytest.mark.parametrize(
    "wrong",
    [
        '{"kind": "eval", "text": "1"}',
        '{"kind": "compare", "op": "in", "left": {"step": null}, "right": 1}',
        '{"kind": "compare", "op": "==", "left": 1, "right": 1}',
        '{"kind": "truthy", "ref": {"step": null, "attribute": "x"}}',
        '{"kind": "compare", "op": "==", "left": {"step": null}, "right": [1]}',
        "1",
    ],
)
def test_what_is_no_condition_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(wrong)
