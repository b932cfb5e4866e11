"""Writes that a step commits together with its own completion: `ctx.commit(Put(...), Update(...))`.

They go to detent's own table, under collections of your choosing, and land in the same transaction as the step's
completion: both or neither, whatever crashes. Read them with `Client.read`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from detent_state_machine import item_limits, writes
from detent_state_machine.errors import InputError
from detent_state_machine.keys import data_key
from detent_state_machine.writes import Expect, Missing, Value

MAX_WRITES = 99
"""A transaction holds 100 writes (DynamoDB's limit); one is the step's completion."""
MAX_TEXT = 300_000
"""Bytes of a text value. A DynamoDB item takes 400 KB in all."""
MAX_KEY = 1_000
"""Bytes of a collection's name, and of a key (a DynamoDB sort key takes 1,024)."""
MAX_NAME = 255
"""Bytes of a value's name."""
RESERVED = frozenset({"expires", "ipk", "isk"})
"""Attributes by which detent indexes records and drops old ones."""


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
    for what, name in (("collection", write.collection), ("key", write.key)):
        if _size(name, f"The {what} {name[:40]!r}") > MAX_KEY:
            raise InputError(f"The {what} {name[:40]!r}… of a committed write is longer than {MAX_KEY:,} bytes.")
    converted = _converted(write, data_key(write.collection, write.key))
    item_limits.check(converted)
    return converted


def _converted(write: DataWrite, key: writes.Key) -> writes.Write:
    match write:
        case Put(values=values, expect=expect):
            _check(values)
            return writes.PutItem(key, dict(values), expect)
        case Update(set=values, add=add, expect=expect):
            _check(values)
            _check(add)
            for name, more in add.items():
                if isinstance(more, str | bool):
                    raise InputError(
                        f"A {type(more).__name__} cannot be added to {name!r}.", advice="Use `set` for it."
                    )
                if name in values:
                    raise InputError(f"{name!r} is both set and added to.", advice="Do one of the two.")
            return writes.UpdateItem(key, expect, dict(values), dict(add))
        case Delete(expect=expect):
            return writes.DeleteItem(key, expect)


def _check(values: Mapping[str, object]) -> None:
    for name, given in values.items():
        if type(name) is not str:
            raise InputError(f"The name of a committed value is a {type(name).__name__}.", advice="Names are text.")
        if not 0 < _size(name, "A name") <= MAX_NAME:
            raise InputError(f"The name of a committed value has 1 to {MAX_NAME} bytes: {name[:40]!r}.")
        if name in RESERVED:
            raise InputError(f"{name!r} is a name of detent's own.", advice="Call the value something else.")
        if type(given) is frozenset:
            _check_set(name, cast("frozenset[object]", given))
        elif type(given) is str:
            if _size(given, f"The value {name!r}") > MAX_TEXT:
                raise InputError(f"The value {name!r} of a committed write is longer than {MAX_TEXT:,} bytes.")
        elif type(given) is int:
            _check_number(name, given)
        elif type(given) is bool:
            continue
        else:
            raise InputError(
                f"The value {name!r} of a committed write is a {type(given).__name__}.",
                advice="Use text, an int, a bool or a frozenset of them, none of a subclass, which would come back as "
                "its base; put structures in as JSON text.",
            )


def _check_set(name: str, given: frozenset[object]) -> None:
    kinds = {type(member) for member in given}
    if kinds not in ({int}, {str}):
        raise InputError(
            f"The value {name!r} of a committed write is {set(given) or 'an empty set'}.",
            advice="A set holds one or more members, either all int or all text.",
        )
    for member in given:
        if isinstance(member, str):
            _size(member, f"The value {name!r}")
        elif isinstance(member, int):
            _check_number(name, member)


def _check_number(name: str, number: int) -> None:
    if not -(2**63) <= number < 2**63:
        raise InputError(f"The value {name!r} of a committed write is too large: numbers stay within 64 bits.")


def _size(text: str, what: str) -> int:
    """Bytes of the text."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InputError(f"{what} of a committed write is not valid Unicode: {text[:40]!r}.") from None
