"""What follows from a definition's edges: who comes next, what joins, what ends the run."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from detent_state_machine.definition import Definition, Parent, StepDefinition
from detent_state_machine.errors import UnknownStep
from detent_state_machine.graph import (
    END,
    HANDLED,
    MEMBERS,
    START,
    Arrival,
    Graph,
    Successor,
    arrivals,
    graph_of,
    topological,
)
from detent_state_machine.step_path import StepPath
from hypothesis import given
from hypothesis import strategies as st


def step(name: str, *after: str, **more: object) -> StepDefinition:
    parents = tuple(Parent(step=parent, need="completed") for parent in after)
    return StepDefinition.model_validate({"name": name, "parents": parents, **more})


def graph(*steps: StepDefinition) -> Graph:
    return graph_of(Definition(name="orders", steps=steps))


def names(found: tuple[Successor, ...]) -> list[str]:
    return [successor.target for successor in found]


def test_a_chain_has_one_successor_each_and_nothing_to_join() -> None:
    chain = graph(step("a"), step("b", "a"), step("c", "b"))
    assert chain.successors == {
        START: (Successor(StepPath("a"), ()),),
        "a": (Successor(StepPath("b"), ()),),
        "b": (Successor(StepPath("c"), ()),),
        "c": (Successor(END, ()),),
    }
    assert chain.sinks == ("c",)


def test_a_diamond_joins_where_it_closes() -> None:
    diamond = graph(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
    assert diamond.successors["a"] == (Successor(StepPath("b"), ()), Successor(StepPath("c"), ()))
    assert diamond.successors["b"] == (Successor(StepPath("d"), (Arrival("d", None, 0, 2),)),)
    assert diamond.successors["c"] == (Successor(StepPath("d"), (Arrival("d", None, 1, 2),)),)


def test_several_last_steps_join_at_the_end() -> None:
    fork = graph(step("a"), step("b", "a"), step("c", "a"))
    assert fork.sinks == ("b", "c")
    assert fork.successors["b"] == (Successor(END, (Arrival(END, None, 0, 2),)),)
    assert fork.successors["c"] == (Successor(END, (Arrival(END, None, 1, 2),)),)


def test_several_first_steps_follow_the_start_message() -> None:
    assert names(graph(step("a"), step("b"), step("c", "a", "b")).successors[START]) == ["a", "b"]


def test_a_failure_handler_is_a_graph_of_its_own() -> None:
    handled = graph(step("a"), step("undo", scope="on_failure"), step("tell", "undo", scope="on_failure"))
    assert handled.sinks == ("a",)
    assert handled.handler_roots == ("undo",)
    assert names(handled.successors[START]) == ["a"]
    assert names(handled.successors["a"]) == [END]
    assert names(handled.successors["undo"]) == ["tell"]
    assert names(handled.successors["tell"]) == [HANDLED]
    assert handled.is_handler("tell")
    assert not handled.is_handler("a")


def test_an_unknown_step_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownStep, match=r"'orders' .* has no step 'ship'\. It has: a, b\."):
        graph(step("a"), step("b", "a")).step("ship")


def test_records_are_kept_for_the_days_of_the_definition() -> None:
    kept = graph_of(Definition(name="orders", steps=(step("a"),), retention_days=2))
    assert kept.retention == 2 * 86_400


# ---- joins ----------------------------------------------------------------------------------------------------------


def test_a_single_parent_joins_nothing() -> None:
    assert arrivals("d", 0, 1) == ()


def test_up_to_a_group_of_parents_share_one_set() -> None:
    assert arrivals("d", 99, MEMBERS) == (Arrival("d", None, 99, MEMBERS),)


def test_more_parents_arrive_in_groups_and_groups_at_the_root() -> None:
    assert arrivals("d", 0, MEMBERS + 1) == (Arrival("d", 0, 0, MEMBERS), Arrival("d", None, 0, 2))
    assert arrivals("d", MEMBERS, MEMBERS + 1) == (Arrival("d", 1, 0, 1), Arrival("d", None, 1, 2))


def arrive(count: int, order: list[int]) -> list[int]:
    """Lets the parents arrive in this order; the parents whose arrival completed the join."""
    sets: dict[tuple[str, int | None], set[int]] = defaultdict(set)
    completed: list[int] = []
    for parent in order:
        for arrival in arrivals("d", parent, count):
            members = sets[arrival.join, arrival.group]
            members.add(arrival.member)
            assert len(members) <= arrival.size <= MEMBERS
            if len(members) < arrival.size:
                break
        else:
            completed.append(parent)
    return completed


@given(st.integers(2, 1000), st.randoms())
def test_the_last_parent_to_arrive_completes_the_join_and_no_other(count: int, shuffled: random.Random) -> None:
    order = list(range(count))
    shuffled.shuffle(order)
    assert arrive(count, order) == [order[-1]]


@given(st.integers(2, 300), st.randoms())
def test_arriving_again_changes_nothing_before_the_last(count: int, shuffled: random.Random) -> None:
    order = list(range(count)) * 2
    shuffled.shuffle(order)
    last = max(order.index(parent) for parent in range(count))
    assert arrive(count, order)[0] == order[last]


# ---- order -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.sets(st.integers(0, 20), max_size=3), min_size=1, max_size=15), st.randoms())
def test_steps_are_ordered_after_their_parents_each_once(parents: list[set[int]], shuffled: random.Random) -> None:
    steps = [
        step(f"s{index}", *(f"s{parent}" for parent in sorted(above) if parent < index))
        for index, above in enumerate(parents)
    ]
    shuffled.shuffle(steps)
    ordered = topological(steps)
    assert sorted(s.name for s in ordered) == sorted(s.name for s in steps)
    place = {s.name: index for index, s in enumerate(ordered)}
    assert all(place[parent.step] < place[s.name] for s in steps for parent in s.parents)


def test_without_edges_the_order_of_declaration_stays() -> None:
    assert [s.name for s in topological([step("c"), step("a"), step("b")])] == ["c", "a", "b"]


def test_a_cycle_ends_the_order_and_loses_no_step() -> None:
    assert [s.name for s in topological([step("a"), step("b", "c"), step("c", "b")])] == ["a", "b", "c"]


def test_a_parent_that_another_parent_has_waited_for_is_not_waited_for_again() -> None:
    shop = graph(step("reserve"), step("charge", "reserve"), step("ship", "reserve", "charge"))
    assert shop.successors["reserve"] == (Successor(StepPath("charge"), ()),)
    assert shop.successors["charge"] == (Successor(StepPath("ship"), ()),)
