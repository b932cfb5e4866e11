"""Random sequences of writes: every table agrees with `writes.holds` and `writes.apply`, step by step."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from detent_infra.ports import Backend, Conflict
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
    apply,
    holds,
)
from hypothesis import given, settings
from hypothesis import strategies as st

# Every attribute keeps one type, as the records do: what adding a text to a number means, no adapter promises.
TEXTS = st.sampled_from(["", "RUNNING", "FAILED", "é 😀", '{"a":[1]}'])
NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 2**31, 2**63 - 1])
SMALL = st.integers(-3, 3)
VALUES: dict[str, st.SearchStrategy[Value]] = {
    "text": TEXTS,
    "number": NUMBERS,
    "count": SMALL,
    "flag": st.booleans(),
    "members": st.frozensets(SMALL, min_size=1),
    "names": st.frozensets(TEXTS.filter(bool), min_size=1),
}
ITEMS = st.fixed_dictionaries({}, optional=VALUES)
NAMES = [Key("", name) for name in ("a", "b#/é")]

SIMPLE: st.SearchStrategy[Expect] = st.one_of(
    st.just(Missing()),
    st.builds(Equals, st.just("text"), TEXTS),
    st.builds(Equals, st.just("number"), NUMBERS),
    st.builds(Equals, st.just("flag"), st.booleans()),
    st.builds(OneOf, st.just("text"), st.lists(TEXTS, min_size=1, max_size=3, unique=True).map(tuple)),
    st.builds(LessThan, st.sampled_from(["number", "count"]), SMALL),
)
EXPECTS: st.SearchStrategy[Expect | None] = st.one_of(
    st.none(),
    SIMPLE,
    st.lists(SIMPLE, min_size=1, max_size=3).map(lambda parts: AllOf(tuple(parts))),
    st.lists(SIMPLE, min_size=1, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
    st.lists(SIMPLE, min_size=1, max_size=2).map(lambda parts: AnyOf((Missing(), AllOf(tuple(parts))))),
)


@st.composite
def updates(draw: st.DrawFn) -> UpdateItem:
    """An attribute is set, added to, or removed: DynamoDB takes one of them in an update."""
    names = draw(st.permutations(sorted(VALUES)))
    first, second = sorted(draw(st.tuples(st.integers(0, 3), st.integers(0, 6))))
    set_ = {name: draw(VALUES[name]) for name in names[:first]}
    addable = [name for name in names[first:second] if name in ("count", "members", "names")]
    add = {name: draw(VALUES[name]) for name in addable}
    remove = tuple(names[second : second + draw(st.integers(0, 2))])
    return UpdateItem(draw(st.sampled_from(NAMES)), draw(EXPECTS), set_, add, remove)  # type: ignore[arg-type]


WRITES: st.SearchStrategy[Write] = st.one_of(
    st.builds(PutItem, st.sampled_from(NAMES), ITEMS, EXPECTS),
    updates(),
    updates(),
    st.builds(DeleteItem, st.sampled_from(NAMES), EXPECTS),
)


def test_a_table_does_what_the_model_says(backend: Backend, adapter: str) -> None:
    fresh = itertools.count()

    async def play(sequence: list[Write], pk: str) -> None:
        model: dict[str, Item] = {}
        for asked in sequence:
            write = elsewhere(asked, pk)
            before = model.get(write.key.sk)
            if holds(write.expect, before):
                after = apply(write, before)
                assert await backend.table.write(write) == after
                model = {sk: item for sk, item in {**model, write.key.sk: after}.items() if item is not None}
            else:
                with pytest.raises(Conflict) as refusal:
                    await backend.table.write(write)
                assert refusal.value.item == before
        page = await backend.table.query(pk)
        assert {key.sk: item for key, item in page.items} == model

    slow = adapter in ("aws", "service")

    @settings(
        max_examples=15 if slow else 150, deadline=None, database=None, derandomize=slow or settings().derandomize
    )
    @given(st.lists(WRITES, min_size=1, max_size=12))
    def check(sequence: list[Write]) -> None:
        asyncio.run(play(sequence, f"p{next(fresh)}"))

    check()


def elsewhere(write: Write, pk: str) -> Write:
    """The same write in a partition of its own, so that examples do not see each other."""
    key = Key(pk, write.key.sk)
    match write:
        case PutItem():
            return PutItem(key, write.item, write.expect)
        case UpdateItem():
            return UpdateItem(key, write.expect, write.set, write.add, write.remove)
        case DeleteItem():
            return DeleteItem(key, write.expect)
