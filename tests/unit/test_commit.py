"""What a step may commit with its completion: checked when it is given, not when half of it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from detent import AllOf, Delete, Equals, InputError, LessThan, Missing, Put, Update
from detent.commit import MAX_KEY, MAX_TEXT, DataWrite, to_table
from detent.testing import context
from detent_state_machine import writes
from detent_state_machine.keys import data_key, run_key, step_key
from detent_state_machine.status import Delivery
from detent_state_machine.step_path import StepPath


def refused(write: DataWrite) -> str:
    with pytest.raises(InputError) as error:
        to_table(write)
    return str(error.value)


def test_a_put_stores_where_nothing_is_unless_it_says_otherwise() -> None:
    values: dict[str, Any] = {
        "text": "a",
        "number": -(2**63),
        "flag": True,
        "numbers": frozenset({1, 2}),
        "words": frozenset({"x"}),
    }
    assert to_table(Put("ledger", "o1", values)) == writes.PutItem(data_key("ledger", "o1"), values, Missing())
    assert to_table(Put("ledger", "o1", {}, expect=None)) == writes.PutItem(data_key("ledger", "o1"), {}, None)


def test_an_update_sets_and_adds_under_its_condition() -> None:
    condition = AllOf((Equals("status", "open"), LessThan("count", 5)))
    write = to_table(Update("ledger", "o1", {"status": "done"}, {"count": 1, "who": frozenset({"me"})}, condition))
    assert write == writes.UpdateItem(
        data_key("ledger", "o1"), condition, {"status": "done"}, {"count": 1, "who": frozenset({"me"})}
    )


def test_a_delete_removes_under_its_condition() -> None:
    assert to_table(Delete("ledger", "o1", Equals("a", 1))) == writes.DeleteItem(
        data_key("ledger", "o1"), Equals("a", 1)
    )


def test_what_is_committed_later_does_not_change_with_the_authors_own_dictionary() -> None:
    values: dict[str, Any] = {"n": 1}
    write = to_table(Put("c", "k", values))
    values["n"] = 2
    assert isinstance(write, writes.PutItem)
    assert write.item == {"n": 1}


@pytest.mark.parametrize(("collection", "key"), [("", "k"), ("c", "")])
def test_a_write_needs_a_collection_and_a_key(collection: str, key: str) -> None:
    for write in (Put(collection, key, {}), Update(collection, key), Delete(collection, key)):
        assert "needs a collection and a key" in refused(write)


def test_names_are_as_long_as_a_table_takes_in_bytes() -> None:
    to_table(Put("c" * MAX_KEY, "k" * MAX_KEY, {}))
    for write in (Put("c", "ä" * (MAX_KEY // 2 + 1), {}), Delete("c" * (MAX_KEY + 1), "k")):
        assert f"{MAX_KEY:,} bytes" in refused(write)


def test_no_collection_or_key_reaches_records_of_detents_own() -> None:
    own = {run_key("r").pk, step_key("r", StepPath("s")).pk, "workflows", "definitions#w"}
    for collection in ("run#r", "#", "workflows", "../run#r", "a#b"):
        write = to_table(Put(collection, "run", {}))
        assert write.key.pk == f"data#{collection}"
        assert write.key.pk not in own


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1.5, "float"), (None, "NoneType"), ([1], "list"), ({"a": 1}, "dict"), (b"x", "bytes"), (object(), "object")],
)
def test_a_value_that_no_table_holds_is_refused_with_what_to_do(value: Any, kind: str) -> None:
    for write in (Put("c", "k", {"price": value}), Update("c", "k", {"price": value})):
        said = refused(write)
        assert f"The value 'price' of a committed write is a {kind}" in said
        assert "put structures in as JSON text" in said


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, frozenset({2**70})])
def test_numbers_stay_within_64_bits(value: Any) -> None:
    assert "64 bits" in refused(Put("c", "k", {"n": value}))
    assert "64 bits" in refused(Update("c", "k", add={"n": value}))


@pytest.mark.parametrize(
    "value", [frozenset(), frozenset({1, "a"}), frozenset({1.5}), frozenset({True}), frozenset({None})]
)
def test_a_set_holds_numbers_or_texts_and_is_never_empty(value: Any) -> None:
    assert "A set holds" in refused(Put("c", "k", {"tags": value}))


@pytest.mark.parametrize("more", ["x", True, 1.5, None])
def test_only_numbers_and_sets_are_added(more: Any) -> None:
    assert "'n'" in refused(Update("c", "k", add={"n": more}))


def test_one_value_is_not_set_and_added_to_at_once() -> None:
    assert "'n' is both set and added to" in refused(Update("c", "k", {"n": 1}, {"n": 2}))


@pytest.mark.parametrize("name", ["expires", "ipk", "isk"])
def test_names_by_which_detent_indexes_and_drops_records_are_refused(name: str) -> None:
    for write in (Put("c", "k", {name: 1}), Update("c", "k", {name: "x"}), Update("c", "k", add={name: 1})):
        assert f"{name!r} is a name of detent's own" in refused(write)


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_a_value_has_a_name_of_ordinary_length(name: str) -> None:
    assert "name" in refused(Put("c", "k", {name: 1}))


@pytest.mark.parametrize("name", ["pk", "sk", "status", "a.b", "#n0", ":v0", "größe", "select"])
def test_any_other_name_is_fine(name: str) -> None:
    write = to_table(Put("c", "k", {name: 1}))
    assert isinstance(write, writes.PutItem)
    assert write.item == {name: 1}


def test_long_text_is_refused_by_its_bytes() -> None:
    to_table(Put("c", "k", {"note": "x" * MAX_TEXT}))
    assert f"{MAX_TEXT:,} bytes" in refused(Put("c", "k", {"note": "ä" * (MAX_TEXT // 2 + 1)}))


@pytest.mark.parametrize(
    "write",
    [
        Put("c", "\ud800", {}),
        Put("\ud800", "k", {}),
        Put("c", "k", {"n": "\ud800"}),
        Put("c", "k", {"\ud800": 1}),
        Put("c", "k", {"n": frozenset({"\ud800"})}),
        Update("c", "k", add={"n": frozenset({"\ud800"})}),
    ],
)
def test_text_that_no_store_takes_is_refused(write: DataWrite) -> None:
    assert "not valid Unicode" in refused(write)


# ---- through the context ---------------------------------------------------------------------------------------


def test_a_context_collects_what_is_committed_in_order() -> None:
    ctx = context(delivery=Delivery.EXACTLY_ONCE)
    ctx.commit(Put("c", "1", {}))
    ctx.commit(Put("c", "2", {}), Delete("d", "1"))
    assert ctx.committed == (Put("c", "1", {}), Put("c", "2", {}), Delete("d", "1"))


@pytest.mark.parametrize("delivery", [Delivery.AT_LEAST_ONCE, Delivery.AT_MOST_ONCE])
def test_only_exactly_once_steps_commit(delivery: Delivery) -> None:
    with pytest.raises(InputError, match=r"delivery is at_.*Declare the step with `delivery=\"exactly_once\"`"):
        context(delivery=delivery).commit(Put("c", "k", {}))


def test_a_step_commits_at_most_99_writes_each_to_another_entry() -> None:
    ctx = context(delivery=Delivery.EXACTLY_ONCE)
    ctx.commit(*(Put("c", str(n), {}) for n in range(98)))
    attempts: list[Callable[[], None]] = [
        lambda: ctx.commit(Put("c", "x", {}), Put("c", "y", {})),
        lambda: ctx.commit(Update("c", "97")),
        lambda: ctx.commit(Put("c", "z", {}), Delete("c", "z")),
    ]
    for attempt in attempts:
        with pytest.raises(InputError, match="at most 99 writes, each to another entry"):
            attempt()
    assert len(ctx.committed) == 98  # a refused call leaves nothing behind
    ctx.commit(Put("c", "last", {}))
    assert len(ctx.committed) == 99


def test_a_refused_write_leaves_out_the_whole_call() -> None:
    ctx = context(delivery=Delivery.EXACTLY_ONCE)
    with pytest.raises(InputError):
        ctx.commit(Put("c", "good", {}), Put("c", "bad", {"x": 1.5}))  # type: ignore[dict-item]
    assert ctx.committed == ()
