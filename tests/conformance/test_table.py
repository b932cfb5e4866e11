"""What the table port promises of writes: conditions, single items, transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from detent_infra.ports import Backend, Conflict, Page, Table
from detent_state_machine.errors import InputError
from detent_state_machine.item_limits import MAX_TRANSACTION
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

KEY = Key("run#1", "step#charge")
RUNNING: Item = {"status": "RUNNING", "owner": "A", "lease": 100, "inline": True}


async def stored(table: Table, *items: tuple[Key, Item]) -> None:
    for key, item in items:
        await table.write(PutItem(key, item))


def after(backend: Backend, *writes: Write) -> Item | None:
    """What is stored under KEY after the writes."""

    async def scenario() -> Item | None:
        for write in writes:
            await backend.table.write(write)
        return await backend.table.get(KEY)

    return asyncio.run(scenario())


# ---- conditions ---------------------------------------------------------------------------------------------

HOLD: Sequence[tuple[Expect | None, Item | None]] = [
    (None, None),
    (None, RUNNING),
    (Missing(), None),
    (Equals("status", "RUNNING"), RUNNING),
    (Equals("lease", 100), RUNNING),
    (Equals("inline", True), RUNNING),
    (Equals("note", ""), {"note": ""}),
    (OneOf("status", ("RUNNING", "FAILING")), RUNNING),
    (LessThan("lease", 101), RUNNING),
    (LessThan("lease", -1), {"lease": -2}),
    (AllOf((Equals("status", "RUNNING"), Equals("owner", "A"), LessThan("lease", 101))), RUNNING),
    (AnyOf((Missing(), Equals("owner", "A"))), RUNNING),
    (AnyOf((Missing(), Equals("owner", "A"))), None),
    (AnyOf((Missing(), AllOf((Equals("status", "RUNNING"), Equals("owner", "A"))))), RUNNING),
]
OTHER_TYPE: Sequence[tuple[Expect, Item | None]] = [
    (Equals("inline", 1), RUNNING),
    (Equals("count", True), {"count": 1}),
    (Equals("count", False), {"count": 0}),
    (LessThan("lease", 100), {"lease": "1"}),
    (LessThan("lease", 100), {"lease": True}),
]
FAIL: Sequence[tuple[Expect, Item | None]] = [
    *OTHER_TYPE,
    (Missing(), RUNNING),
    (Missing(), {}),
    (Equals("status", "RUNNING"), None),
    (Equals("status", "RUNNING"), {"owner": "A"}),
    (Equals("status", "running"), RUNNING),
    (Equals("lease", "100"), RUNNING),
    (OneOf("status", ("COMPLETED", "FAILED")), RUNNING),
    (OneOf("status", ("RUNNING",)), None),
    (OneOf("status", ("RUNNING",)), {"owner": "A"}),
    (LessThan("lease", 100), RUNNING),
    (LessThan("lease", 100), None),
    (LessThan("lease", 100), {"owner": "A"}),
    (AllOf((Equals("status", "RUNNING"), Equals("owner", "B"))), RUNNING),
    (AllOf((Equals("status", "RUNNING"), Equals("owner", "A"))), None),
    (AnyOf((Missing(), Equals("owner", "B"))), RUNNING),
    (AnyOf((Equals("owner", "A"), Equals("owner", "B"))), None),
]


@pytest.mark.parametrize(("expect", "item"), HOLD, ids=str)
def test_a_write_whose_condition_holds_is_applied(backend: Backend, expect: Expect | None, item: Item | None) -> None:
    before = [] if item is None else [PutItem(KEY, item)]
    assert after(backend, *before, UpdateItem(KEY, expect, {"mark": "new"})) == {**(item or {}), "mark": "new"}


@pytest.mark.parametrize(("expect", "item"), FAIL, ids=str)
def test_a_write_whose_condition_fails_changes_nothing_and_says_what_is_stored(
    backend: Backend, adapter: str, expect: Expect, item: Item | None
) -> None:
    if adapter == "aws" and (expect, item) in OTHER_TYPE:
        pytest.skip("moto compares values as Python does; DynamoDB compares their types first")

    async def scenario() -> None:
        if item is not None:
            await backend.table.write(PutItem(KEY, item))
        for write in (
            UpdateItem(KEY, expect, {"mark": "new"}),
            DeleteItem(KEY, expect),
            PutItem(KEY, {"mark": "new"}, expect),
        ):
            with pytest.raises(Conflict) as refusal:
                await backend.table.write(write)
            assert refusal.value.item == item
            assert await backend.table.get(KEY) == item

    asyncio.run(scenario())


# ---- single writes ------------------------------------------------------------------------------------------


def test_put_stores_an_item_only_where_none_is_unless_told_otherwise(backend: Backend) -> None:
    async def scenario() -> None:
        assert await backend.table.write(PutItem(KEY, {"n": 1})) == {"n": 1}
        with pytest.raises(Conflict) as refusal:
            await backend.table.write(PutItem(KEY, {"n": 2}))
        assert refusal.value.item == {"n": 1}
        assert await backend.table.write(PutItem(KEY, {"m": 3}, expect=None)) == {"m": 3}
        assert await backend.table.get(KEY) == {"m": 3}

    asyncio.run(scenario())


def test_an_update_returns_the_item_as_it_is_afterwards(backend: Backend) -> None:
    update = UpdateItem(KEY, None, {"status": "DONE"}, add={"count": 2, "members": frozenset({1})}, remove=("lease",))
    expected = {"status": "DONE", "owner": "A", "inline": True, "count": 2, "members": frozenset({1})}

    async def scenario() -> None:
        await backend.table.write(PutItem(KEY, RUNNING))
        assert await backend.table.write(update) == expected
        assert await backend.table.get(KEY) == expected

    asyncio.run(scenario())


def test_an_update_creates_a_missing_item(backend: Backend) -> None:
    assert after(backend, UpdateItem(KEY, set={"a": "x"}, add={"n": -3}, remove=("b",))) == {"a": "x", "n": -3}


def test_an_update_of_nothing_creates_an_empty_item_which_is_not_missing(backend: Backend) -> None:
    assert after(backend, UpdateItem(KEY)) == {}
    with pytest.raises(Conflict):
        after(backend, PutItem(KEY, {}))


def test_numbers_add_up(backend: Backend) -> None:
    assert after(backend, *[UpdateItem(KEY, add={"n": more}) for more in (5, -7, 0, 40)]) == {"n": 38}


def test_adding_the_same_members_again_changes_nothing(backend: Backend) -> None:
    async def scenario() -> None:
        seen = [
            await backend.table.write(UpdateItem(KEY, add={"joined": frozenset(members)}))
            for members in ({1}, {2, 3}, {1}, {2, 3})
        ]
        assert seen == [{"joined": frozenset(each)} for each in ({1}, {1, 2, 3}, {1, 2, 3}, {1, 2, 3})]

    asyncio.run(scenario())


def test_sets_of_texts_unite_as_sets_of_numbers_do(backend: Backend) -> None:
    first, more = frozenset({"ship", "é/#"}), frozenset({"charge", "ship", "1"})
    assert after(backend, UpdateItem(KEY, add={"s": first}), UpdateItem(KEY, add={"s": more})) == {"s": first | more}


def test_removing_a_missing_attribute_is_fine(backend: Backend) -> None:
    assert after(backend, PutItem(KEY, {"a": 1}), UpdateItem(KEY, remove=("a", "b"))) == {}


def test_delete_removes_the_item_and_does_not_mind_a_missing_one(backend: Backend) -> None:
    async def scenario() -> None:
        await backend.table.write(PutItem(KEY, RUNNING))
        assert await backend.table.write(DeleteItem(KEY, Equals("owner", "A"))) is None
        assert await backend.table.get(KEY) is None
        assert await backend.table.write(DeleteItem(KEY)) is None
        assert await backend.table.write(PutItem(KEY, {"a": 1})) == {"a": 1}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "null",
        '{"json": [1, "é"]}',
        "été 😀 \u200b \x01 \\ \" '",
        "[1,2]",
        "x" * 100_000,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        True,
        False,
        frozenset({0}),
        frozenset({2**63 - 1, -(2**63)}),
        frozenset(range(100)),
        frozenset({"1"}),
        frozenset({"a", "été 😀", "[", "true"}),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_every_value_comes_back_as_it_was_stored(backend: Backend, value: Value) -> None:
    item = after(backend, PutItem(KEY, {"value": value}))
    assert item == {"value": value}
    assert type(item["value"]) is type(value)
    if isinstance(value, frozenset):
        assert {type(member) for member in item["value"]} == {type(member) for member in value}  # type: ignore[union-attr]


def test_what_a_caller_does_to_its_item_afterwards_is_not_stored(backend: Backend) -> None:
    async def scenario() -> None:
        item: dict[str, Value] = {"a": 1}
        await backend.table.write(PutItem(KEY, item))
        item["a"] = 2
        assert await backend.table.get(KEY) == {"a": 1}

    asyncio.run(scenario())


# ---- several items ------------------------------------------------------------------------------------------


def test_get_many_answers_in_the_order_of_the_keys_with_none_for_the_missing(backend: Backend) -> None:
    wanted = [Key(f"p{n % 3}", f"s{n}") for n in reversed(range(230))]

    async def scenario() -> list[Item | None]:
        await asyncio.gather(*(backend.table.write(PutItem(key, {"name": key.sk})) for key in wanted[::2]))
        return await backend.table.get_many(wanted)

    assert asyncio.run(scenario()) == [{"name": key.sk} if n % 2 == 0 else None for n, key in enumerate(wanted)]


def test_get_many_of_nothing_is_nothing(backend: Backend) -> None:
    assert asyncio.run(backend.table.get_many([])) == []


def test_a_transaction_applies_all_its_writes(backend: Backend) -> None:
    other, third = Key("data#stock", "sku-1"), Key("data#stock", "sku-2")

    async def scenario() -> None:
        await stored(backend.table, (KEY, RUNNING), (third, {"n": 1}))
        await backend.table.transact(
            [
                UpdateItem(KEY, Equals("owner", "A"), {"status": "COMPLETED"}, remove=("lease",)),
                PutItem(other, {"left": 4}),
                DeleteItem(third, Equals("n", 1)),
            ]
        )
        assert await backend.table.get_many([KEY, other, third]) == [
            {"status": "COMPLETED", "owner": "A", "inline": True},
            {"left": 4},
            None,
        ]

    asyncio.run(scenario())


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_transaction_with_one_refused_write_changes_nothing_and_says_which(backend: Backend, refused: int) -> None:
    keys = [Key("run#1", f"step#{n}") for n in range(3)]
    items: list[Item] = [{"owner": "A", "n": n} for n in range(3)]

    async def scenario() -> None:
        await stored(backend.table, *zip(keys, items, strict=True))
        writes = [
            UpdateItem(key, Equals("owner", "B" if n == refused else "A"), {"owner": "C"}) for n, key in enumerate(keys)
        ]
        with pytest.raises(Conflict) as refusal:
            await backend.table.transact(writes)
        assert (refusal.value.index, refusal.value.item) == (refused, items[refused])
        assert await backend.table.get_many(keys) == items

    asyncio.run(scenario())


def test_the_first_of_several_refused_writes_of_a_transaction_is_named(backend: Backend) -> None:
    async def scenario() -> None:
        await stored(backend.table, (Key("p", "1"), {"n": 1}), (Key("p", "2"), {"n": 2}))
        with pytest.raises(Conflict) as refusal:
            await backend.table.transact(
                [PutItem(Key("p", "0"), {}), PutItem(Key("p", "1"), {}), PutItem(Key("p", "2"), {})]
            )
        assert (refusal.value.index, refusal.value.item) == (1, {"n": 1})
        assert await backend.table.get(Key("p", "0")) is None

    asyncio.run(scenario())


def test_a_transaction_refused_for_a_missing_item_shows_none(backend: Backend) -> None:
    with pytest.raises(Conflict) as refusal:
        asyncio.run(
            backend.table.transact([PutItem(Key("p", "0"), {}), UpdateItem(KEY, Equals("owner", "A"), {"a": 1})])
        )
    assert (refusal.value.index, refusal.value.item) == (1, None)


def test_a_transaction_takes_a_hundred_writes_and_no_more(backend: Backend) -> None:
    writes = [PutItem(Key("p", str(n)), {"n": n}) for n in range(MAX_TRANSACTION + 1)]

    async def scenario() -> None:
        with pytest.raises(InputError):
            await backend.table.transact(writes)
        assert await backend.table.query("p") == Page(())
        await backend.table.transact(writes[:-1])
        assert await backend.table.get(Key("p", "99")) == {"n": 99}

    asyncio.run(scenario())


def test_a_transaction_that_names_a_key_twice_is_refused(backend: Backend) -> None:
    async def scenario() -> None:
        with pytest.raises(InputError):
            await backend.table.transact(
                [PutItem(KEY, {"n": 1}), PutItem(Key("p", "q"), {}), UpdateItem(KEY, None, {"n": 2})]
            )
        assert await backend.table.get(KEY) is None

    asyncio.run(scenario())


def test_a_transaction_of_nothing_is_fine(backend: Backend) -> None:
    asyncio.run(backend.table.transact([]))
