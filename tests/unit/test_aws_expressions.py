"""Conditions and writes as DynamoDB expressions: the same meaning as `writes.holds`, in words DynamoDB accepts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from detent_infra.aws.expressions import (
    Aliases,
    condition,
    put_request,
    to_attribute,
    to_item,
    update_request,
)
from detent_infra.ports import Conflict
from detent_state_machine.errors import CorruptRecord, InputError
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
    holds,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.aws_stack import moto_backend

KEY = Key("p", "s")


def spelled(expect: Expect) -> str:
    """The expression with the names and values put back in."""
    aliases = Aliases()
    text = condition(expect, aliases)
    for alias, value in reversed(aliases.values.items()):
        text = text.replace(alias, str(next(iter(value.values()))))
    for alias, name in reversed(aliases.names.items()):
        text = text.replace(alias, name)
    return text


@pytest.mark.parametrize(
    ("expect", "text"),
    [
        (Missing(), "attribute_not_exists(pk)"),
        (Equals("status", "RUNNING"), "status = RUNNING"),
        (OneOf("status", ("A", "B")), "status IN (A, B)"),
        (LessThan("lease", 7), "lease < 7"),
        (AllOf((Equals("a", 1), LessThan("b", 2))), "a = 1 AND b < 2"),
        (AnyOf((Missing(), AllOf((Equals("a", 1), Equals("b", 2))))), "attribute_not_exists(pk) OR (a = 1 AND b = 2)"),
        (AllOf((AnyOf((Missing(), Equals("a", True))), Equals("b", "x"))),
         "(attribute_not_exists(pk) OR a = True) AND b = x"),
    ],
)  # fmt: skip
def test_condition_reads_as_it_was_meant(expect: Expect, text: str) -> None:
    assert spelled(expect) == text


def test_no_superfluous_parentheses_which_dynamodb_refuses() -> None:
    nested = AllOf((AnyOf((AllOf((Equals("a", 1),)),)), Equals("b", 2)))
    assert spelled(nested) == "a = 1 AND b = 2"


def test_every_name_is_an_alias_because_many_are_reserved_words() -> None:
    request = update_request("t", UpdateItem(KEY, Equals("status", "x"), set={"key": "v"}, remove=("error",)))
    assert request["UpdateExpression"] == "SET #n0 = :v0 REMOVE #n1"
    assert request.get("ConditionExpression") == "#n2 = :v1"
    assert request.get("ExpressionAttributeNames") == {"#n0": "key", "#n1": "error", "#n2": "status"}


def test_a_write_without_a_condition_asks_for_no_item_back() -> None:
    assert put_request("t", PutItem(KEY, {"a": 1}, expect=None)) == {
        "TableName": "t",
        "Item": {"a": {"N": "1"}, "pk": {"S": "p"}, "sk": {"S": "s"}},
    }


def test_a_refused_write_brings_the_item_along() -> None:
    assert put_request("t", PutItem(KEY, {})).get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"


def test_a_boolean_is_no_number() -> None:
    assert to_attribute(True) == {"BOOL": True}
    assert to_attribute(1) == {"N": "1"}


def test_an_empty_set_is_refused_before_dynamodb_does() -> None:
    with pytest.raises(InputError, match="empty set"):
        put_request("t", PutItem(KEY, {"members": frozenset()}))


@pytest.mark.parametrize("name", ["pk", "sk", "_pk", "__sk", "pk_", "_"])
def test_a_user_may_give_an_attribute_any_name_even_that_of_the_key(name: str) -> None:
    with moto_backend() as backend:
        asyncio.run(backend.table.write(PutItem(KEY, {name: 1})))
        assert asyncio.run(backend.table.get(KEY)) == {name: 1}
        asyncio.run(backend.table.write(UpdateItem(KEY, Equals(name, 1), add={name: 2})))
        assert asyncio.run(backend.table.get(KEY)) == {name: 3}
        asyncio.run(backend.table.write(UpdateItem(KEY, LessThan(name, 4), remove=(name,))))
        assert asyncio.run(backend.table.get(KEY)) == {}


@pytest.mark.parametrize("stored", [{"M": {}}, {"L": []}, {"NULL": True}, {"N": "1.5"}, {"B": b"x"}])
def test_a_value_detent_never_writes_is_a_corrupt_record(stored: Any) -> None:
    with pytest.raises(CorruptRecord, match="'odd'"):
        to_item({"odd": stored})


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
whole = st.integers(-(2**63), 2**63 - 1)
values = texts | whole | st.booleans() | st.frozensets(whole, min_size=1) | st.frozensets(texts, min_size=1)


@given(st.dictionaries(texts | st.sampled_from(["pk", "_pk", "sk", "__sk"]), values))
def test_an_item_survives_the_way_there_and_back(item: Item) -> None:
    request = put_request("t", PutItem(KEY, item))
    assert to_item(request["Item"]) == item  # type: ignore[arg-type]


NAMES = st.sampled_from(["status", "n", "flag", "absent"])
SCALARS = st.sampled_from(["a", "b", 0, 1, 2, True, False])
LEAVES = (
    st.just(Missing())
    | st.builds(Equals, NAMES, SCALARS)
    | st.builds(OneOf, st.just("status"), st.lists(st.sampled_from("abc"), max_size=3).map(tuple))
    | st.builds(LessThan, NAMES, st.integers(0, 3))
)
ITEMS = st.fixed_dictionaries({"status": st.sampled_from("ab"), "n": st.sampled_from([0, 1, 2]), "flag": st.booleans()})


def trees(parts: st.SearchStrategy[Expect]) -> st.SearchStrategy[Expect]:
    several = st.lists(parts, max_size=3).map(tuple)
    return st.builds(AllOf, several) | st.builds(AnyOf, several)


def test_dynamodb_and_holds_agree_on_every_condition() -> None:
    with moto_backend() as backend:

        async def compare(item: Item | None, expect: Expect) -> None:
            await backend.table.write(DeleteItem(KEY) if item is None else PutItem(KEY, item, expect=None))
            if holds(expect, item):
                await backend.table.write(DeleteItem(KEY, expect))
                assert await backend.table.get(KEY) is None
            else:
                with pytest.raises(Conflict) as refused:
                    await backend.table.write(DeleteItem(KEY, expect))
                assert refused.value.item == item

        @settings(max_examples=100, deadline=None)
        @given(st.none() | ITEMS, st.recursive(LEAVES, trees, max_leaves=6))
        def every_condition(item: Item | None, expect: Expect) -> None:
            asyncio.run(compare(item, expect))

        every_condition()
