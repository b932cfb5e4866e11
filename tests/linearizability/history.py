"""What clients asked of a table and what they were told, and what a table that does one thing at a time would say."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, assert_never, cast

from detent_state_machine.writes import Item, Key, Value, Write, apply, holds

from tests.linearizability.checker import Verdict, check


@dataclass(frozen=True, slots=True)
class Read:
    """`get`, or one key of a `get_many`, which is not one snapshot."""

    key: Key


@dataclass(frozen=True, slots=True)
class Single:
    write: Write


@dataclass(frozen=True, slots=True)
class Together:
    """A transaction."""

    writes: tuple[Write, ...]


Request: TypeAlias = Read | Single | Together


@dataclass(frozen=True, slots=True)
class Done:
    """The item that was read, or as it is after a single write; None after a transaction."""

    item: Item | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A `Conflict`: which write, and what was stored."""

    index: int
    item: Item | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The client died, or was told `Unavailable`: it may have been done, and it may be done later."""


Outcome: TypeAlias = Done | Refused | Unknown


@dataclass(frozen=True, slots=True)
class Call:
    """Nanoseconds of the machine's monotonic clock, which all its processes share."""

    client: str
    invoked: int
    returned: int | None
    request: Request
    outcome: Outcome


Frozen: TypeAlias = frozenset[tuple[str, str, Value]]
"""An item that can be hashed. The types' names tell 1 from true."""
State: TypeAlias = frozenset[tuple[Key, Frozen]]
NOTHING: State = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Fact:
    """A call whose answer is ready to be compared: the search looks at it many times."""

    call: Call
    invoked: int
    returned: int | None
    told: Frozen | None

    @staticmethod
    def of(call: Call) -> Fact:
        item = None if isinstance(call.outcome, Unknown) else call.outcome.item
        return Fact(call, call.invoked, call.returned, None if item is None else freeze(item))


def check_table(calls: Iterable[Call]) -> Verdict[Call]:
    """Whether an empty table could have answered so. Keys that no transaction connects are checked by themselves."""
    order: list[Call] = []
    for group in connected(calls):
        verdict = check(map(Fact.of, group), NOTHING, step)
        order += [fact.call for fact in verdict.order]
        if not verdict.linearizable:
            return Verdict(False, [fact.call for fact in verdict.order], [fact.call for fact in verdict.stuck])
    return Verdict(True, order, [])


def keys_of(request: Request) -> list[Key]:
    match request:
        case Read(key):
            return [key]
        case Single(write):
            return [write.key]
        case Together(writes):
            return [write.key for write in writes]
        case _:
            assert_never(request)


def connected(calls: Iterable[Call]) -> list[list[Call]]:
    """The calls in groups that share no key."""
    root: dict[Key, Key] = {}

    def find(key: Key) -> Key:
        while (above := root.setdefault(key, key)) != key:
            key = above
        return key

    all_calls = list(calls)
    for call in all_calls:
        first, *others = keys_of(call.request)
        for other in others:
            root[find(other)] = find(first)
    groups: dict[Key, list[Call]] = defaultdict(list)
    for call in all_calls:
        groups[find(keys_of(call.request)[0])].append(call)
    return list(groups.values())


def step(state: State, fact: Fact) -> Iterator[State]:
    """The state after the call, if a table in this state can have answered it so."""
    match fact.call.request:
        case Read(key):
            if fact.returned is None or contents(state).get(key) == fact.told:
                yield state
        case Single(write):
            yield from _write(state, (write,), fact, shown=True)
        case Together(writes):
            yield from _write(state, writes, fact, shown=False)
        case _:
            assert_never(fact.call.request)


def _write(state: State, writes: tuple[Write, ...], fact: Fact, *, shown: bool) -> Iterator[State]:
    """`shown`: whether the answer has the item as it is afterwards."""
    before = contents(state)
    outcome = fact.call.outcome
    for index, write in enumerate(writes):
        stored = before.get(write.key)
        if not holds(write.expect, thaw(stored)):
            refused = isinstance(outcome, Refused) and outcome.index == index and stored == fact.told
            if refused or isinstance(outcome, Unknown):
                yield state
            return
    if isinstance(outcome, Refused):
        return
    after = dict(before)
    for write in writes:
        changed = apply(write, thaw(before.get(write.key)))
        if changed is None:
            after.pop(write.key, None)
        else:
            after[write.key] = freeze(changed)
    if isinstance(outcome, Done) and shown and after.get(writes[0].key) != fact.told:
        return
    yield frozenset(after.items())


@lru_cache(maxsize=10_000)
def contents(state: State) -> Mapping[Key, Frozen]:
    return dict(state)


@lru_cache(maxsize=10_000)
def thaw(item: Frozen | None) -> Item | None:
    return None if item is None else {name: value for name, _, value in item}


def freeze(item: Item) -> Frozen:
    return frozenset((name, type(value).__name__, value) for name, value in item.items())


# ---- as lines, so that what a killed process has done is still there ---------------------------------------------


def outcome_line(outcome: Outcome) -> str:
    match outcome:
        case Done(item):
            return json.dumps({"item": _plain(item)})
        case Refused(index, item):
            return json.dumps({"refused": index, "item": _plain(item)})
        case Unknown():
            return "{}"
        case _:
            assert_never(outcome)


def read_outcome(line: str) -> Outcome:
    parsed: dict[str, object] = json.loads(line)
    if not parsed:
        return Unknown()
    item = _item(parsed["item"])
    return Refused(cast("int", parsed["refused"]), item) if "refused" in parsed else Done(item)


def _plain(item: Item | None) -> object:
    """Sets become lists, which no other value is."""
    if item is None:
        return None
    return {name: list(value) if isinstance(value, frozenset) else value for name, value in item.items()}


def _item(plain: object) -> Item | None:
    if plain is None:
        return None
    values = cast("dict[str, Value | list[int]]", plain)
    return {name: frozenset(value) if isinstance(value, list) else value for name, value in values.items()}
