"""The meaning of conditions and writes, which every table adapter is held to."""

from __future__ import annotations

import pytest
from detent_state_machine.writes import (
    AllOf,
    AnyOf,
    DeleteItem,
    Equals,
    Expect,
    Item,
    Key,
    LessThan,
    Missing,
    OneOf,
    PutItem,
    UpdateItem,
    apply,
    holds,
)
from hypothesis import given
from hypothesis import strategies as st

KEY = Key("run#1", "step#a")
ITEM: Item = {"status": "RUNNING", "owner": "me", "lease": 5, "inline": True, "members": frozenset({1, 2}), "zero": 0}
YES, NO = Equals("owner", "me"), Equals("owner", "other")


@pytest.mark.parametrize(
    ("expect", "expected"),
    [
        (None, True),
        (Missing(), False),
        (Equals("owner", "me"), True),
        (Equals("owner", "other"), False),
        (Equals("nowhere", "me"), False),
        (Equals("lease", 5), True),
        (Equals("lease", "5"), False),
        (Equals("inline", True), True),
        (Equals("inline", False), False),
        (OneOf("status", ("RUNNING", "FAILING")), True),
        (OneOf("status", ("COMPLETED",)), False),
        (OneOf("status", ()), False),
        (OneOf("nowhere", ("RUNNING",)), False),
        (LessThan("lease", 6), True),
        (LessThan("lease", 5), False),
        (LessThan("nowhere", 6), False),
        (LessThan("owner", 6), False),
        (LessThan("inline", 6), False),
        (LessThan("members", 6), False),
        (AllOf((YES, LessThan("lease", 6))), True),
        (AllOf((YES, NO)), False),
        (AllOf(()), True),
        (AnyOf((NO, YES)), True),
        (AnyOf((NO, Missing())), False),
        (AnyOf(()), False),
        (AnyOf((Missing(), AllOf((YES, Equals("status", "RUNNING"))))), True),
    ],
    ids=str,
)
def test_conditions_on_an_item(expect: Expect | None, expected: bool) -> None:
    assert holds(expect, ITEM) is expected


@pytest.mark.parametrize(
    "expect",
    [Equals("owner", "me"), OneOf("status", ("RUNNING",)), LessThan("lease", 6), AllOf((Missing(), YES))],
    ids=str,
)
def test_a_condition_on_an_attribute_is_false_of_a_missing_item(expect: Expect) -> None:
    assert not holds(expect, None)


def test_a_missing_item_is_missing() -> None:
    assert holds(Missing(), None)
    assert holds(None, None)
    assert holds(AnyOf((YES, Missing())), None)


def test_a_number_and_a_boolean_are_different_things() -> None:
    assert not holds(Equals("inline", 1), ITEM)
    assert not holds(Equals("zero", False), ITEM)
    assert holds(Equals("zero", 0), ITEM)


# ---- writes -----------------------------------------------------------------------------------------------------


def test_a_put_replaces_the_item_whole() -> None:
    assert apply(PutItem(KEY, {"a": 1}), ITEM) == {"a": 1}
    assert PutItem(KEY, {"a": 1}).expect == Missing()


def test_a_delete_leaves_nothing() -> None:
    assert apply(DeleteItem(KEY), ITEM) is None
    assert apply(DeleteItem(KEY), None) is None


def test_an_update_changes_what_it_names_and_keeps_the_rest() -> None:
    after = apply(
        UpdateItem(KEY, set={"owner": "you", "new": "x"}, add={"lease": -2}, remove=("status", "nowhere")), ITEM
    )
    expected = {**ITEM, "owner": "you", "new": "x", "lease": 3}
    del expected["status"]
    assert after == expected


def test_an_update_of_a_missing_item_creates_it() -> None:
    after = apply(UpdateItem(KEY, set={"a": "x"}, add={"n": 3, "s": frozenset({1})}, remove=("b",)), None)
    assert after == {"a": "x", "n": 3, "s": frozenset({1})}


def test_a_write_changes_no_item_in_place() -> None:
    before = dict(ITEM)
    apply(UpdateItem(KEY, set={"owner": "you"}, add={"members": frozenset({9})}, remove=("lease",)), ITEM)
    stored = apply(put := PutItem(KEY, {"a": 1}), None)
    assert before == ITEM
    assert stored is not put.item


@given(st.frozensets(st.integers(), min_size=1), st.frozensets(st.integers(), min_size=1))
def test_adding_members_unites_and_adding_them_again_changes_nothing(
    first: frozenset[int], second: frozenset[int]
) -> None:
    write = UpdateItem(KEY, add={"members": second})
    once = apply(write, {"members": first})
    assert once == {"members": first | second}
    assert apply(write, once) == once


@given(st.integers(), st.integers())
def test_adding_to_a_number_adds_every_time(first: int, second: int) -> None:
    once = apply(UpdateItem(KEY, add={"n": second}), {"n": first})
    assert once == {"n": first + second}
