"""What no table takes: DynamoDB's limits, which every adapter keeps, so that what one stores all do.

`check` looks at a write before it is sent, `applied` at the item as it would be afterwards. A write that is refused
here can never succeed: nobody tries it again.

Figures: DynamoDB Developer Guide, "Quotas in Amazon DynamoDB", "Constraints", "Item sizes and formats".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never, cast

from detent_state_machine.errors import InputError, PayloadTooLarge
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
    kind_of,
)

MAX_ITEM = 400 * 1024
"""Bytes of one item, names and key included."""
MAX_TRANSACTION = 100
"""Writes in one transaction, each to another item."""
MAX_TRANSACTION_BYTES = 4 * 1024 * 1024
"""Bytes of all items of a transaction, as they are afterwards."""
MAX_PARTITION_KEY, MAX_SORT_KEY = 2048, 1024
"""Bytes. An empty key is refused too."""
MAX_NAME = 65_535
"""Bytes of an attribute's name."""
MAX_DIGITS = 38
MAX_CHANGES = 200
"""Attributes that one update names: the expression that says so may have 4 KB."""
MAX_COMPARED = 100
"""Values that one condition compares with, and parts of it in all."""
FAR_FROM_ANY_LIMIT = 60_000
"""Bytes."""

_INDEX_KEYS: Mapping[str, int] = {"ipk": MAX_PARTITION_KEY, "isk": MAX_SORT_KEY}
_TOO_MANY_DIGITS = 10**MAX_DIGITS


def check(write: Write) -> None:
    """Raises `InputError` for a write that can never succeed, `PayloadTooLarge` if it is its size."""
    key = write.key
    if not (key.pk and key.sk and _is_short(key.pk + key.sk)):
        _check_key(key)
    match write:
        case PutItem():
            if not _is_plain(write.item):
                _check_values(key, write.item)
                _check_size(key, write.item)
        case UpdateItem():
            _check_update(write)
        case DeleteItem():
            pass
        case _:
            assert_never(write)
    if write.expect is not None:
        _check_condition(key, write.expect)


def check_transaction(writes: Sequence[Write]) -> None:
    """The same for writes that land together."""
    if len(writes) > MAX_TRANSACTION or len({write.key for write in writes}) < len(writes):
        raise InputError(f"A transaction takes at most {MAX_TRANSACTION} writes, each to another item.")
    for write in writes:
        check(write)
    _check_total(size_of(write.key, write.item) for write in writes if isinstance(write, PutItem))


def applied(write: Write, current: Item | None) -> Item | None:
    """The item as it is after the write (None: deleted). The caller has checked the write and its condition.

    Raises `InputError` if the write adds to an attribute of another kind, or more digits than a number has;
    `PayloadTooLarge` if the item becomes too large.
    """
    after = apply(write, current)
    if type(write) is UpdateItem and after is not None:
        for name in write.add:
            _check_value(write.key, name, after[name])
        # Where nothing was stored, the item is what the update sets and adds, and `check` has measured that.
        if current is not None and not _is_plain(after):
            _check_size(write.key, after)
    return after


def applied_together(writes: Sequence[Write], current: Sequence[Item | None]) -> list[Item | None]:
    """The same for writes that land together. Raises `PayloadTooLarge` if the items are too large in all, too."""
    after = [applied(write, item) for write, item in zip(writes, current, strict=True)]
    _check_total(size_of(write.key, item) for write, item in zip(writes, after, strict=True) if item is not None)
    return after


def size_of(key: Key, item: Item) -> int:
    """Bytes of the item as DynamoDB counts them: names and values as UTF-8, two digits of a number in a byte."""
    return item_size({"pk": key.pk, "sk": key.sk, **item})


def item_size(item: Item) -> int:
    """The same for an item that has its key among its attributes, or for a part of one."""
    return sum(_length(name) + _bytes(value) for name, value in item.items())


def _bytes(value: Value) -> int:
    match value:
        case bool():
            return 1
        case int():
            return 1 + (len(str(abs(value))) + 1) // 2 + (value < 0)
        case str():
            return _length(value)
        case frozenset():
            return sum(map(_bytes, value))
        case _:
            assert_never(value)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _check_total(sizes: Iterable[int]) -> None:
    total = sum(sizes)
    if total > MAX_TRANSACTION_BYTES:
        raise PayloadTooLarge(
            f"A transaction of {total:,} bytes is larger than the limit of {MAX_TRANSACTION_BYTES:,}.",
            advice="Commit less in one step, or store large values elsewhere and commit where they are.",
        )


def _check_size(key: Key, item: Item) -> None:
    size = size_of(key, item)
    if size > MAX_ITEM:
        raise PayloadTooLarge(
            f"{key} has {size:,} bytes: more than the limit of {MAX_ITEM:,}.",
            advice="Make the values smaller, or store them elsewhere and keep where they are.",
        )


def _is_short(text: str) -> bool:
    return 0 < len(text) < 256 and text.isascii()


def _is_plain(values: Mapping[str, object]) -> bool:
    """No limit is near: what is nearly always written is seen at a glance."""
    if "" in values:
        return False
    texts = [*values]
    for value in values.values():
        if type(value) is str:
            texts += (value,)
        elif type(value) is int:
            if not -(2**63) <= value < 2**63:
                return False
        elif type(value) is not bool:
            return False
    whole = "".join(texts)  # looked at once: every step run comes through here
    return (
        len(whole) < FAR_FROM_ANY_LIMIT
        and whole.isascii()
        and (("isk" not in values and "ipk" not in values) or _are_short_index_keys(values))
    )


def _are_short_index_keys(values: Mapping[str, object]) -> bool:
    keys = [values[name] for name in _INDEX_KEYS if name in values]
    return all(type(key) is str and _is_short(key) for key in keys)


def _check_update(update: UpdateItem) -> None:
    key, add = update.key, update.add
    names = [*update.set, *add, *update.remove]
    count = len(names)
    if count > MAX_CHANGES:
        raise InputError(
            f"{key}: an update of {count} attributes.",
            advice=f"It names at most {MAX_CHANGES}; put more into one value, as JSON text.",
        )
    if (add or update.remove) and len({*names}) < count:
        raise InputError(f"{key}: one update changes an attribute twice.", advice="Set it, add to it or remove it.")
    for name, more in add.items():
        if isinstance(more, bool | str):
            raise InputError(
                f"{key}: {kind_of(more)} cannot be added to {name!r}.",
                advice="Add a number or a set; `set` replaces a value.",
            )
    if not add and "" not in update.remove and _is_plain({**update.set, **dict.fromkeys(update.remove, 0)}):
        return
    _check_values(key, update.set)
    _check_values(key, add)
    _check_names(key, update.remove)
    _check_size(key, {**update.set, **add})


def _check_key(key: Key) -> None:
    for text, limit in ((key.pk, MAX_PARTITION_KEY), (key.sk, MAX_SORT_KEY)):
        if not 0 < _checked_length(key, text) <= limit:
            raise InputError(f"{key}: a key has 1 to {limit:,} bytes.", advice="Shorten the name.")


def _check_names(key: Key, names: Iterable[str]) -> None:
    for name in names:
        if not 0 < _checked_length(key, name) <= MAX_NAME:
            raise InputError(f"{key}: an attribute's name has 1 to {MAX_NAME:,} bytes: {name[:40]!r}.")


def _check_values(key: Key, item: Mapping[str, Value]) -> None:
    _check_names(key, item)
    for name, value in item.items():
        _check_value(key, name, value)
        if name in _INDEX_KEYS and not (
            isinstance(value, str) and 0 < _checked_length(key, value) <= _INDEX_KEYS[name]
        ):
            raise InputError(f"{key}: {name!r} is a text of 1 to {_INDEX_KEYS[name]:,} bytes.")


def _check_value(key: Key, name: str, value: object) -> None:
    kind = type(value)
    if kind is str:
        _checked_length(key, cast("str", value))
    elif kind is int:
        if not -_TOO_MANY_DIGITS < cast("int", value) < _TOO_MANY_DIGITS:
            raise _too_many_digits(key, name)
    elif kind is frozenset:
        members = cast("frozenset[object]", value)
        if {type(member) for member in members} not in ({int}, {str}):
            raise InputError(
                f"{key}: {name!r} is {set(members) or 'an empty set'}.",
                advice="A set holds one or more members, either all int or all text.",
            )
        for member in members:
            _check_value(key, name, member)
    elif kind is not bool:
        raise InputError(
            f"{key}: {name!r} is a {kind.__name__}.",
            advice="An attribute is text, an int, a bool or a frozenset of text or of int.",
        )


def _check_condition(key: Key, expect: Expect) -> None:
    parts: list[Expect] = [expect]
    compared = 0
    texts: list[str] = []
    for part in parts:  # it grows on the way: no recursion, however deep the condition is
        match part:
            case Equals(name, value):
                if type(value) is str and type(name) is str and value and name:
                    texts += (name, value)
                else:
                    _check_compared(key, name, value)
            case AllOf(inner) | AnyOf(inner):
                parts += inner
            case Missing():
                pass
            case LessThan(name, number):
                if type(number) is not int:
                    raise InputError(f"{key}: {name!r} is compared with {number!r:.80}, which is not a number.")
                _check_compared(key, name, number)
            case OneOf(name, values):
                compared += len(values)
                for text in values:
                    if type(text) is not str:
                        raise InputError(f"{key}: {name!r} is compared with {text!r:.80}, which is not a text.")
                    _check_compared(key, name, text)
            case _:
                raise InputError(f"{key}: {part!r:.80} is not a condition.")
    if texts and not _is_short("".join(texts)):
        for name, value in zip(texts[::2], texts[1::2], strict=True):
            _check_compared(key, name, value)
    if len(parts) > MAX_COMPARED or compared > MAX_COMPARED:
        raise InputError(
            f"{key}: its condition has more than {MAX_COMPARED} parts or values.",
            advice="Compare with one value that says the same.",
        )


def _check_compared(key: Key, name: str, value: object) -> None:
    _check_names(key, [name])
    if not isinstance(value, str | int):
        raise InputError(f"{key}: a condition compares {name!r} with {value!r:.80}, which no attribute can be.")
    _check_value(key, name, value)


def _checked_length(key: Key, text: str) -> int:
    try:
        return _length(text)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{key}: a text holds {text[error.start : error.end]!r}, half a surrogate pair.",
            advice="Decode the text properly, or replace what is not Unicode before you hand it over.",
        ) from None


def _too_many_digits(key: Key, name: str) -> InputError:
    return InputError(f"{key}: the number {name!r} has more than {MAX_DIGITS} digits.", advice="Keep it as text.")
