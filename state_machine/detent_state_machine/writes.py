"""What a table is asked to do, as data: the condition language, three writes, and their meaning.

`holds` and `apply` are the meaning. The memory and sqlite adapters call them; the aws adapter translates the
same values to DynamoDB expressions, and one conformance suite holds all of them to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, assert_never, cast

from detent_state_machine.errors import InputError

Value: TypeAlias = str | int | bool | frozenset[int] | frozenset[str]
"""What an attribute can hold. Integers stay within 64 bits; sets are never empty; structures are JSON strings."""

Item: TypeAlias = Mapping[str, Value]


class Key(NamedTuple):
    """Where an item lives: items of one partition are ordered by their sort key."""

    pk: str
    sk: str

    def __str__(self) -> str:
        return f"The item {self.sk[:80]!r} of {self.pk[:80]!r}"


@dataclass(frozen=True, slots=True)
class Missing:
    """No item is stored under the key."""


@dataclass(frozen=True, slots=True)
class Equals:
    """The item's attribute has this value."""

    name: str
    value: str | int | bool


@dataclass(frozen=True, slots=True)
class OneOf:
    """The item's attribute has one of these values."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LessThan:
    """The item's attribute is a number below this one."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Expect, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Expect, ...]


Expect: TypeAlias = Missing | Equals | OneOf | LessThan | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class PutItem:
    """Store the item whole. By default only where none is stored; `expect=None` replaces whatever is there."""

    key: Key
    item: Item
    expect: Expect | None = Missing()


@dataclass(frozen=True, slots=True)
class UpdateItem:
    """Change attributes of the item, creating it if `expect` allows a missing one.

    `add` adds to a number (missing counts as 0) or unites with a set (missing counts as empty), so adding the
    same members again changes nothing.
    """

    key: Key
    expect: Expect | None = None
    set: Mapping[str, Value] = field(default_factory=dict[str, Value])
    add: Mapping[str, int | frozenset[int] | frozenset[str]] = field(
        default_factory=dict[str, int | frozenset[int] | frozenset[str]]
    )
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """Remove the item; a missing one is fine unless `expect` says otherwise."""

    key: Key
    expect: Expect | None = None


Write: TypeAlias = PutItem | UpdateItem | DeleteItem


def holds(expect: Expect | None, item: Item | None) -> bool:
    """Whether the condition is true of the stored item."""
    match expect:
        case None:
            return True
        case Missing():
            return item is None
        case Equals(name, value):
            return item is not None and name in item and _same(item[name], value)
        case OneOf(name, values):
            return item is not None and item.get(name) in values
        case LessThan(name, value):
            stored = None if item is None else item.get(name)
            return isinstance(stored, int) and not isinstance(stored, bool) and stored < value
        case AllOf(parts):
            return all(holds(part, item) for part in parts)
        case AnyOf(parts):
            return any(holds(part, item) for part in parts)
        case _:
            assert_never(expect)


def apply(write: Write, item: Item | None) -> Item | None:
    """The item as it is after the write (None: deleted). The caller has checked `expect`.

    Raises `InputError` if the write adds to an attribute of another kind.
    """
    match write:
        case PutItem(item=new):
            return dict(new)
        case DeleteItem():
            return None
        case UpdateItem():
            after: dict[str, Value] = dict(item or {})
            after.update(write.set)
            for name, more in write.add.items():
                after[name] = _sum(write.key, name, after.get(name), more)
            for name in write.remove:
                after.pop(name, None)
            return after
        case _:
            assert_never(write)


def _same(stored: Value, wanted: Value) -> bool:
    # In Python 1 == True; in a table a number and a boolean are different things.
    return stored == wanted and isinstance(stored, bool) == isinstance(wanted, bool)


def kind_of(value: Value) -> str:
    """What the value is, in words."""
    match value:
        case bool():
            return "a bool"
        case int():
            return "a number"
        case str():
            return "a text"
        case frozenset():
            return "a set of texts" if _members(value) is str else "a set of numbers"
        case _:
            assert_never(value)


def _sum(key: Key, name: str, stored: Value | None, more: int | frozenset[int] | frozenset[str]) -> Value:
    if stored is None:
        return more
    if isinstance(more, int):
        if isinstance(stored, int) and not isinstance(stored, bool):
            return stored + more
    elif isinstance(stored, frozenset) and _members(stored) is _members(more):
        return cast("frozenset[str]", stored) | cast("frozenset[str]", more)
    raise InputError(
        f"{key}: {kind_of(more)} cannot be added to {name!r}, which is {kind_of(stored)}.",
        advice="Add what the attribute holds, or replace it with `set`.",
    )


def _members(of: frozenset[int] | frozenset[str]) -> type:
    return type(next(iter(of), ""))
