"""Writes that a step commits together with its own completion: `ctx.commit(Put(...), Update(...))`.

They go to detent's own table, under collections of your choosing, and land in the same transaction as the step's
completion: both or neither, whatever crashes. Read them with `Client.read`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from detent_state_machine import writes
from detent_state_machine.errors import InputError
from detent_state_machine.keys import data_key
from detent_state_machine.writes import Expect, Missing, Value

MAX_WRITES = 99
"""A transaction holds 100 writes (DynamoDB's limit); one is the step's completion."""
_MAX_TEXT = 300_000


@dataclass(frozen=True, slots=True)
class Put:
    """Stores `values` under (collection, key). By default only if nothing is stored there: `expect=None` replaces."""

    collection: str
    key: str
    values: Mapping[str, Value]
    expect: Expect | None = Missing()


@dataclass(frozen=True, slots=True)
class Update:
    """Changes values, creating the entry if `expect` allows. `add` adds to numbers and unites sets."""

    collection: str
    key: str
    set: Mapping[str, Value] = field(default_factory=dict[str, Value])
    add: Mapping[str, int | frozenset[int] | frozenset[str]] = field(
        default_factory=dict[str, int | frozenset[int] | frozenset[str]]
    )
    expect: Expect | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes the entry, if `expect` holds."""

    collection: str
    key: str
    expect: Expect | None = None


DataWrite: TypeAlias = Put | Update | Delete


def to_table(write: DataWrite) -> writes.Write:
    """The table write. Raises `InputError` for what no table takes."""
    if not write.collection or not write.key:
        raise InputError("A committed write needs a collection and a key.")
    key = data_key(write.collection, write.key)
    match write:
        case Put(values=values, expect=expect):
            _check(values)
            return writes.Put(key, dict(values), expect)
        case Update(set=values, add=add, expect=expect):
            _check(values)
            _check(add)
            return writes.Update(key, expect, dict(values), dict(add))
        case Delete(expect=expect):
            return writes.Delete(key, expect)


def _check(values: Mapping[str, object]) -> None:
    for name, given in values.items():
        if not isinstance(given, str | int | frozenset):
            raise InputError(
                f"The value {name!r} of a committed write is a {type(given).__name__}.",
                advice="Use text, an int, a bool or a frozenset of them; put structures in as JSON text.",
            )
        if isinstance(given, str) and len(given) > _MAX_TEXT:
            raise InputError(f"The value {name!r} of a committed write is longer than {_MAX_TEXT:,} characters.")
