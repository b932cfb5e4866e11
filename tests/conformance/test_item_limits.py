"""What no table takes: every adapter refuses the same writes, says why, and has written nothing."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from detent_infra.ports import Backend, Conflict
from detent_state_machine.errors import InputError, PayloadTooLarge
from detent_state_machine.item_limits import MAX_CHANGES, MAX_COMPARED, MAX_ITEM, size_of
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
    Value,
    Write,
)

KEY = Key("data#c", "x")
OTHER = Key("data#c", "y")


def refused(backend: Backend, write: Write, *, stored: Item | None = None) -> InputError:
    """The refusal of the write, alone and in a transaction, after which everything is as it was."""

    async def scenario() -> InputError:
        table = backend.table
        if stored is not None:
            await table.write(PutItem(write.key, stored, None))
        with pytest.raises(InputError) as alone:
            await table.write(write)
        with pytest.raises(InputError) as together:
            await table.transact([PutItem(OTHER, {}), write])
        assert str(together.value) == str(alone.value)
        assert await table.get(OTHER) is None
        if stored is not None:
            assert await table.get(write.key) == stored
        return alone.value

    return asyncio.run(scenario())


def taken(backend: Backend, *writes: Write) -> Item | None:
    async def scenario() -> Item | None:
        for write in writes:
            await backend.table.write(write)
        return await backend.table.get(writes[-1].key)

    return asyncio.run(scenario())


KINDS: dict[str, Value] = {
    "a text": "vip",
    "a number": 7,
    "a bool": True,
    "a set of texts": frozenset({"vip"}),
    "a set of numbers": frozenset({7}),
}


def test_nothing_is_added_to_an_attribute_of_another_kind(backend: Backend) -> None:
    for number, (stored, value) in enumerate(KINDS.items()):
        key = Key("data#c", f"x{number}")
        for kind in ("a number", "a set of texts", "a set of numbers"):
            more = KINDS[kind]
            assert isinstance(more, int | frozenset)
            if stored == kind:
                assert (
                    taken(backend, PutItem(key, {"tags": value}, None), UpdateItem(key, add={"tags": more})) is not None
                )
                continue
            error = refused(backend, UpdateItem(key, add={"tags": more}), stored={"tags": value})
            said = f"{kind} cannot be added to 'tags', which is {stored}."
            assert error.message == f"The item 'x{number}' of 'data#c': {said}"


def test_a_false_condition_is_told_before_a_sum_that_cannot_be(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.table.write(PutItem(KEY, {"tags": "vip"}))
        write = UpdateItem(KEY, Equals("tags", "other"), add={"tags": 1})
        for act in (backend.table.write(write), backend.table.transact([PutItem(OTHER, {}), write])):
            with pytest.raises(Conflict) as refusal:
                await act
            assert refusal.value.item == {"tags": "vip"}

    asyncio.run(scenario())


VALUES: list[object] = [
    *(frozenset(), frozenset({1, "a"}), frozenset({True})),
    *(10**38, -(10**38), frozenset({10**38})),
    *("a\ud800", frozenset({"\ud800"})),
    *(1.5, None, [1]),
]


def test_a_value_that_no_table_holds_is_refused(backend: Backend) -> None:
    for value in VALUES:
        for write in (PutItem(KEY, {"v": value}), UpdateItem(KEY, set={"v": value})):  # type: ignore[dict-item]
            assert "The item 'x' of 'data#c'" in refused(backend, write).message


def test_values_up_to_the_limits_come_back(backend: Backend) -> None:
    large = 10**38 - 1
    item: Item = {"a": large, "b": -large, "c": frozenset({large, -large}), "d": frozenset({""})}
    assert taken(backend, PutItem(KEY, item)) == item


def test_only_numbers_and_sets_with_members_are_added(backend: Backend) -> None:
    nothing: frozenset[int] = frozenset()
    for more in ("x", True, nothing):
        refused(backend, UpdateItem(KEY, add={"n": more}))  # type: ignore[dict-item]


def test_a_key_has_bytes_and_not_too_many(backend: Backend) -> None:
    long = (Key("p" * 2049, "x"), Key("p", "x" * 1025), Key("p", "é" * 513))
    for key in (Key("", "x"), Key("p", ""), Key("p", "\ud800"), *long):
        for write in (PutItem(key, {}), UpdateItem(key, set={"a": 1}), DeleteItem(key)):
            refused(backend, write)


def test_keys_up_to_the_limits_are_taken(backend: Backend) -> None:
    assert taken(backend, PutItem(Key("p" * 2048, "é" * 512), {"a": 1})) == {"a": 1}


def test_an_index_key_is_a_text_with_bytes_and_not_too_many(backend: Backend) -> None:
    values: list[Value] = ["", 1, True, "x" * 2049]
    for name in ("ipk", "isk"):
        for value in values:
            refused(backend, PutItem(KEY, {name: value}))
            refused(backend, UpdateItem(KEY, set={name: value}))


def test_an_attribute_has_a_name_and_not_too_long_a_one(backend: Backend) -> None:
    for name in ("", "x" * 65_536, "\ud800"):
        for write in (PutItem(KEY, {name: 1}), UpdateItem(KEY, set={name: 1}), UpdateItem(KEY, add={name: 1})):
            refused(backend, write)


def test_an_update_changes_an_attribute_once_and_not_too_many(backend: Backend) -> None:
    refused(backend, UpdateItem(KEY, set={"a": 1}, add={"a": 1}))
    refused(backend, UpdateItem(KEY, set={"a": 1}, remove=("a",)))
    refused(backend, UpdateItem(KEY, remove=("a", "a")))
    refused(backend, UpdateItem(KEY, set={f"a{n}": n for n in range(MAX_CHANGES + 1)}))


def test_an_update_and_a_condition_up_to_the_limits_are_taken(backend: Backend, adapter: str) -> None:
    changes, parts = (10, 10) if adapter == "aws" else (MAX_CHANGES, MAX_COMPARED - 1)  # moto's parser recurses
    many = {f"a{n}": n for n in range(changes)}
    condition = AnyOf(tuple(Missing() for _ in range(parts)))
    assert taken(backend, UpdateItem(KEY, condition, set=many)) == many


def nested(depth: int) -> Expect:
    condition: Expect = Equals("a", 1)
    for _ in range(depth):
        condition = AllOf((condition,))
    return condition


CONDITIONS = [
    *(OneOf("a", tuple(str(n) for n in range(MAX_COMPARED + 1))), AllOf(tuple(Equals("a", n) for n in range(100)))),
    *(nested(1_000), Equals("", 1), Equals("a", 10**38), Equals("a", "\ud800"), Equals("a", 1.5)),  # type: ignore[arg-type]
    *(LessThan("a", "x"), LessThan("a", True), OneOf("a", (1,)), "a = 1"),  # type: ignore[arg-type]
]


def test_a_condition_that_no_table_evaluates_is_refused(backend: Backend) -> None:
    for given in CONDITIONS:
        condition = cast("Expect", given)
        for write in (
            PutItem(KEY, {"b": 1}, condition),
            UpdateItem(KEY, condition, {"b": 1}),
            DeleteItem(KEY, condition),
        ):
            refused(backend, write)


# ---- sizes ---------------------------------------------------------------------------------------------------


def filled(key: Key, size: int, letter: str = "x") -> Item:
    """An item of exactly this size."""
    room = size - size_of(key, {"v": ""})
    width = len(letter.encode())
    return {"v": letter * (room // width) + "x" * (room % width)}


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_an_item_has_400_kb_with_names_and_key_and_not_a_byte_more(backend: Backend, adapter: str, letter: str) -> None:
    fits, over = filled(KEY, MAX_ITEM, letter), filled(KEY, MAX_ITEM + 1, letter)
    for write in (PutItem(KEY, over), UpdateItem(KEY, set=over)):
        error = refused(backend, write)
        assert isinstance(error, PayloadTooLarge)
        assert "409,601 bytes: more than the limit of 409,600" in error.message
    if adapter == "aws":
        pytest.skip("moto counts the types of values as well")
    assert taken(backend, PutItem(KEY, fits)) == fits


def test_an_item_does_not_grow_over_400_kb(backend: Backend, adapter: str) -> None:
    if adapter in ("aws", "service"):
        pytest.skip("the stand-ins measure what an update carries, not what it makes of the item")
    stored = filled(KEY, MAX_ITEM - 10)
    more = frozenset({"x" * 10})
    assert isinstance(refused(backend, UpdateItem(KEY, set={"w": "x" * 10}), stored=stored), PayloadTooLarge)

    async def grow() -> None:
        await backend.table.write(UpdateItem(KEY, add={"w": more}))

    with pytest.raises(PayloadTooLarge):
        asyncio.run(grow())


def test_a_transaction_has_4_mb_in_all(backend: Backend, adapter: str) -> None:
    each = 390 * 1024
    many = [PutItem(key, filled(key, each)) for n in range(11) for key in [Key("data#c", f"{n:02}")]]

    async def scenario() -> None:
        with pytest.raises(PayloadTooLarge, match="4,392,960 bytes"):
            await backend.table.transact(many)
        assert await backend.table.get(many[0].key) is None
        await backend.table.transact(many[:10])
        assert await backend.table.get(many[0].key) == many[0].item

    asyncio.run(scenario())
