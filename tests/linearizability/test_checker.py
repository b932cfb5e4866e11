"""The checker itself: it accepts what one store can have done, and refuses what none can."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from detent_state_machine.writes import Equals, Item, Key, Missing, PutItem, UpdateItem
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linearizability.history import (
    NOTHING,
    Call,
    Done,
    Fact,
    Outcome,
    Read,
    Refused,
    Request,
    Single,
    State,
    Together,
    Unknown,
    check_table,
    connected,
    outcome_line,
    read_outcome,
    step,
    thaw,
)
from tests.linearizability.workload import Workload, draw, read_record

A, B = Key("p", "a"), Key("p", "b")
ADD = Single(UpdateItem(A, add={"n": 1}))


def call(invoked: int, returned: int | None, request: Request, outcome: Outcome) -> Call:
    return Call("c", invoked, returned, request, outcome)


def put(key: Key, owner: str) -> Single:
    return Single(PutItem(key, {"owner": owner}))


# ---- histories that no table can have -----------------------------------------------------------------------------

IMPOSSIBLE: dict[str, list[Call]] = {
    "two writers of a missing item win": [
        call(0, 10, put(A, "x"), Done({"owner": "x"})),
        call(5, 15, put(A, "y"), Done({"owner": "y"})),
    ],
    "an increment is lost": [
        call(0, 10, ADD, Done({"n": 1})),
        call(5, 15, ADD, Done({"n": 1})),
    ],
    "an increment happens twice": [
        call(0, 10, ADD, Done({"n": 1})),
        call(20, 30, Read(A), Done({"n": 2})),
    ],
    "a member of a set is lost": [
        call(0, 10, Single(UpdateItem(A, add={"s": frozenset({1})})), Done({"s": frozenset({1})})),
        call(5, 15, Single(UpdateItem(A, add={"s": frozenset({2})})), Done({"s": frozenset({1, 2})})),
        call(20, 30, Read(A), Done({"s": frozenset({2})})),
    ],
    "a set is seen complete by two who joined it": [
        call(0, 10, Single(UpdateItem(A, add={"s": frozenset({1})})), Done({"s": frozenset({1, 2})})),
        call(5, 15, Single(UpdateItem(A, add={"s": frozenset({2})})), Done({"s": frozenset({1, 2})})),
    ],
    "a read is stale": [
        call(0, 10, put(A, "x"), Done({"owner": "x"})),
        call(20, 30, Read(A), Done(None)),
    ],
    "a read sees what is written later": [
        call(0, 10, Read(A), Done({"owner": "x"})),
        call(20, 30, put(A, "x"), Done({"owner": "x"})),
    ],
    "two reads see a write come and go": [
        call(0, 100, put(A, "x"), Done({"owner": "x"})),
        call(10, 20, Read(A), Done({"owner": "x"})),
        call(30, 40, Read(A), Done(None)),
    ],
    "a refused write is applied": [
        call(0, 10, Single(UpdateItem(A, Equals("owner", "z"), {"owner": "x"})), Refused(0, None)),
        call(20, 30, Read(A), Done({"owner": "x"})),
    ],
    "a write is refused though its condition held all the time": [
        call(0, 10, Single(PutItem(A, {}, Missing())), Refused(0, {})),
    ],
    "a refusal shows an item that was never stored": [
        call(0, 10, put(A, "x"), Done({"owner": "x"})),
        call(20, 30, put(A, "y"), Refused(0, {"owner": "z"})),
    ],
    "half a transaction is seen": [
        call(0, 10, Together((PutItem(A, {"n": 1}), PutItem(B, {"n": 1}))), Done(None)),
        call(2, 4, Read(A), Done({"n": 1})),
        call(5, 7, Read(B), Done(None)),
    ],
    "a refused transaction leaves its first write": [
        call(0, 10, put(B, "x"), Done({"owner": "x"})),
        call(20, 30, Together((PutItem(A, {}), PutItem(B, {}))), Refused(1, {"owner": "x"})),
        call(40, 50, Read(A), Done({})),
    ],
    "a transaction names a write that was not the first refused": [
        call(0, 10, put(A, "x"), Done({"owner": "x"})),
        call(20, 30, Together((PutItem(A, {}), PutItem(B, {}, Equals("owner", "y")))), Refused(1, None)),
    ],
    "what a dead client may have written is seen before it asked": [
        call(0, 10, Read(A), Done({"owner": "x"})),
        call(20, None, put(A, "x"), Unknown()),
    ],
    "what a dead client may have written is seen, then not, then again": [
        call(0, None, put(A, "x"), Unknown()),
        call(10, 20, Read(A), Done({"owner": "x"})),
        call(30, 40, Read(A), Done(None)),
        call(50, 60, Read(A), Done({"owner": "x"})),
    ],
    "true is taken for 1": [
        call(0, 10, Single(PutItem(A, {"n": 1})), Done({"n": 1})),
        call(20, 30, Read(A), Done({"n": True})),
    ],
}


@pytest.mark.parametrize("calls", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_history_that_no_table_can_have_is_refused(calls: list[Call]) -> None:
    verdict = check_table(calls)
    assert not verdict.linearizable
    assert verdict.stuck, "it says which calls cannot follow"
    assert all(each in calls for each in (*verdict.order, *verdict.stuck))


POSSIBLE: dict[str, list[Call]] = {
    "nothing": [],
    "calls that overlap happen in either order": [
        call(0, 10, put(A, "x"), Refused(0, {"owner": "y"})),
        call(5, 15, put(A, "y"), Done({"owner": "y"})),
    ],
    "a read that overlaps a write sees either": [
        call(0, 10, put(A, "x"), Done({"owner": "x"})),
        call(5, 15, Read(A), Done(None)),
        call(5, 15, Read(A), Done({"owner": "x"})),
    ],
    "what a dead client asked for is done": [
        call(0, None, put(A, "x"), Unknown()),
        call(10, 20, Read(A), Done({"owner": "x"})),
    ],
    "what a dead client asked for is not done": [
        call(0, None, put(A, "x"), Unknown()),
        call(10, 20, Read(A), Done(None)),
    ],
    "what a dead client asked for is done late": [
        call(0, None, put(A, "x"), Unknown()),
        call(10, 20, Read(A), Done(None)),
        call(30, 40, Read(A), Done({"owner": "x"})),
    ],
}


@pytest.mark.parametrize("calls", POSSIBLE.values(), ids=POSSIBLE.keys())
def test_a_history_that_a_table_can_have_is_accepted(calls: list[Call]) -> None:
    verdict = check_table(calls)
    assert verdict.linearizable
    assert not verdict.stuck


# ---- histories drawn at random ------------------------------------------------------------------------------------


def answers(state: State, request: Request) -> Outcome:
    """What a correct table says."""
    items = {key: thaw(item) for key, item in state}
    probes: Iterator[Outcome] = itertools.chain(
        (Done(item) for item in (None, *items.values())),
        (Refused(index, item) for index in range(3) for item in (None, *items.values())),
    )
    for outcome in probes:
        if any(True for _ in step(state, Fact.of(call(0, 1, request, outcome)))):
            return outcome
    # The item after an update is none that was there before.
    (after,) = step(state, Fact.of(call(0, None, request, Unknown())))
    assert isinstance(request, Single)
    return Done({key: thaw(item) for key, item in after}.get(request.write.key))


def true_history(seed: int, count: int) -> list[Call]:
    """A history with calls that overlap, made from moments at which they happened."""
    rng = random.Random(seed)
    state = NOTHING
    calls: list[Call] = []
    for n in range(count):
        request = draw(rng, str(n))
        outcome = answers(state, request)
        (state,) = step(state, Fact.of(call(0, 1, request, outcome)))
        before, after = rng.randrange(1, 60), rng.randrange(1, 60)
        lost = rng.random() < 0.1
        calls.append(call(n * 10 - before, None if lost else n * 10 + after, request, Unknown() if lost else outcome))
    rng.shuffle(calls)
    return calls


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 80))
def test_every_history_of_a_correct_table_is_accepted(seed: int, count: int) -> None:
    assert check_table(true_history(seed, count)).linearizable


def every_order(calls: Sequence[Call]) -> bool:
    """Whether some order explains the calls, found by trying all of them."""
    unanswered = [each for each in calls if each.returned is None]
    for dropped in itertools.chain.from_iterable(
        itertools.combinations(unanswered, size) for size in range(len(unanswered) + 1)
    ):
        kept = [each for each in calls if each not in dropped]
        for order in itertools.permutations(kept):
            in_time = all(
                later.returned is None or earlier.invoked <= later.returned
                for earlier, later in itertools.combinations(order, 2)
            )
            if in_time and explains(order):
                return True
    return False


def explains(order: Sequence[Call]) -> bool:
    states = {NOTHING}
    for each in order:
        states = {after for state in states for after in step(state, Fact.of(each))}
    return bool(states)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.data())
def test_the_checker_agrees_with_trying_every_order(seed: int, count: int, data: st.DataObject) -> None:
    """Answers are swapped between calls, so that about half of these histories are impossible."""
    calls = [replace(each, client=str(n)) for n, each in enumerate(true_history(seed, count))]
    n, other = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    outcome, request = calls[other].outcome, calls[n].request
    if calls[n].returned is not None and not isinstance(outcome, Unknown) and fits(request, outcome):
        calls[n] = replace(calls[n], outcome=outcome)
    assert check_table(calls).linearizable == every_order(calls)


def fits(request: Request, outcome: Outcome) -> bool:
    return not (isinstance(request, Read) and isinstance(outcome, Refused))


def test_a_long_history_is_checked_in_no_time() -> None:
    assert check_table(true_history(7, 2000)).linearizable


# ---- keys and records ---------------------------------------------------------------------------------------------


def test_keys_that_no_transaction_connects_are_checked_by_themselves() -> None:
    c, d = Key("p", "c"), Key("q", "a")
    calls = [
        call(0, 1, Together((PutItem(A, {}), PutItem(B, {}))), Done(None)),
        call(2, 3, Together((PutItem(B, {}), PutItem(c, {}))), Refused(0, {})),
        call(4, 5, Read(d), Done(None)),
        call(6, 7, Read(c), Done(None)),
    ]
    assert sorted(map(len, connected(calls))) == [1, 3]


ITEMS: list[Item | None] = [None, {}, {"n": 1, "b": True, "s": frozenset({1, 2}), "t": 'é \n"'}]


@pytest.mark.parametrize(
    "outcome",
    [Unknown(), *map(Done, ITEMS), *(Refused(2, item) for item in ITEMS)],
    ids=lambda outcome: f"{outcome!s:.30}",
)
def test_an_outcome_comes_back_from_its_line(outcome: Outcome) -> None:
    line = outcome_line(outcome)
    assert "\n" not in line
    assert read_outcome(line) == outcome


def test_the_calls_of_a_client_that_was_killed_are_unknown() -> None:
    workload = Workload("w", tasks=2, requests=2, seed=1)
    lines = [
        "w 0 0 invoked 10\n",
        "w 1 0 invoked 11\n",
        'w 0 0 returned 20 {"item": null}\n',
        "w 0 1 invoked 30\n",
        'w 0 1 returned 40 {"it',
    ]
    calls = list(read_record([workload], lines))
    assert [(each.invoked, each.returned) for each in calls] == [(10, 20), (11, None), (30, None)]
    assert [each.outcome for each in calls] == [Done(None), Unknown(), Unknown()]
