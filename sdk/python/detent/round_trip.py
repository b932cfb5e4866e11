"""Whether what is read back is what was written: the same types with the same parts, as Python tells values apart.

JSON has fewer types than Python, so a value may come back as another one: a secret as asterisks, a subclass as its
base, the key 17 as "17". `Json.write` reads back what it wrote and asks here; nothing else decides it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from functools import cached_property, lru_cache
from itertools import zip_longest
from types import NoneType
from typing import Final, TypeAlias, cast
from uuid import UUID

from pydantic import BaseModel

Step: TypeAlias = "tuple[Step, str] | None"
"""A path as a chain from its end, so that it costs nothing where no difference is found."""
Pair: TypeAlias = "tuple[object, object, Step]"

ABSENT: Final = object()
"""Stands for a part that one of two values has not."""
EXACT: Final[frozenset[type]] = frozenset({str, int, bool, NoneType, bytes, UUID, dt.date, dt.timedelta})
"""Values of these types differ exactly where Python says so."""
QUICK: Final = EXACT | {float}
"""Equal values of these types are the same, unless they are false: there are two zeros."""
JSON_TYPES: Final[frozenset[type]] = frozenset({str, int, float, bool, NoneType, list, dict})
"""What JSON is read as without an annotation."""

KEEP: Final = "Give it a type whose JSON keeps all of it, or leave it out."
FINITE: Final = (
    'Use None, or annotate it as float (in a model of your own, with `ConfigDict(ser_json_inf_nan="strings")`).'
)


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """`said` continues "… would not come back at `path`: "."""

    path: str
    said: str
    advice: str


def difference(given: object, back: object, *, forms: bool = False) -> Difference | None:
    """The first part of the value that came back as something else; None if it came back as it was.

    With `forms`, a plain JSON value that stands for a richer one (a dictionary for a model, a text for a date) came
    back as that one.
    """
    if type(given) is type(back) and (_are_same_flat_models(given, back) or _are_same_flat_dicts(given, back)):
        return None
    todo: list[Pair] = [(given, back, None)]
    met: dict[tuple[int, int], object] = {}
    while todo:
        one, other, path = todo.pop()
        if one is other:
            continue
        kind = type(one)
        if kind is not type(other):
            if isinstance(one, BaseModel) and isinstance(other, BaseModel) and _generic(one) is _generic(other):
                todo.extend(_parts(one, other, path, forms))
            elif not (_widened(one, other) or (forms and _is_form(one, other))):
                return _of_types(one, other, path)
        elif kind in EXACT:
            if one != other:
                return _of_values(one, path)
        elif issubclass(kind, set | frozenset):
            first, second = cast("AbstractSet[object]", one), cast("AbstractSet[object]", other)
            if (found := _of_sets(first, second, path, forms)) is not None:
                return found
        elif not _has_parts(cast("Hashable", kind)):
            if not _same(one, other):
                return _of_values(one, path)
        elif (id(one), id(other)) not in met:  # what is private may contain itself
            met[id(one), id(other)] = one, other  # kept, so that no other object gets their ids
            todo.extend(reversed(list(_parts(one, other, path, forms))))
    return None


def _are_same_flat_models(one: object, other: object) -> bool:
    """A quick yes for the most frequent case: a model with fields of simple types and nothing else."""
    cached, declared, is_model = _plan(cast("Hashable", type(one)))
    if not is_model or cached or declared:
        return False
    left, right = cast("BaseModel", one), cast("BaseModel", other)
    if left.__pydantic_private__ or left.__pydantic_extra__ or right.__pydantic_private__ or right.__pydantic_extra__:
        return False
    fields = right.__dict__
    for name, value in left.__dict__.items():
        came = fields.get(name, ABSENT)
        if value is not came and not (type(value) is type(came) and type(value) in QUICK and value == came and value):
            return False
    return len(left.__dict__) == len(fields)


def _are_same_flat_dicts(one: object, other: object) -> bool:
    """The same for a plain dictionary of simple values by texts, as JSON has them."""
    if type(one) is not dict:
        return False
    left, right = cast("dict[object, object]", one), cast("dict[object, object]", other)
    for (key, value), (found, came) in zip(left.items(), right.items(), strict=False):
        if not (type(key) is str and type(found) is str and key == found):
            return False
        if not (type(value) is type(came) and type(value) in QUICK and value == came and (value or value is came)):
            return False
    return len(left) == len(right)


def shown(path: Step) -> str:
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(part)
    return "$" + "".join(reversed(parts))


def _widened(one: object, other: object) -> bool:
    """An int where a float is annotated is that number, if a float can be it."""
    return type(one) is int and type(other) is float and one == other


def _is_form(one: object, other: object) -> bool:
    """Whether a plain value was read as the richer one that it stands for."""
    if isinstance(one, int | float) and isinstance(other, Decimal | complex | dt.date | dt.time | dt.timedelta):
        return type(one) is not bool and one == other
    plain = type(one) in JSON_TYPES or (type(one) is tuple and issubclass(type(other), tuple))
    return plain and other is not ABSENT and type(other) not in JSON_TYPES


@lru_cache(maxsize=1024)
def _has_parts(kind: Hashable) -> bool:
    """Whether two of its kind are compared part by part, and not by their own `==`, which may leave parts out."""
    found = cast("type[object]", kind)
    if issubclass(found, BaseModel | dict | list | tuple | deque) or dataclasses.is_dataclass(found):
        return True
    return _is_itself_only(found) and found.__dictoffset__ != 0 and not issubclass(found, Enum | type)


def _same(one: object, other: object) -> bool:
    """For two values of one type without parts. `==` alone does not tell all of them apart."""
    match one, other:
        case float(), float():
            same = one == other and math.copysign(1, one) == math.copysign(1, other)
            return same or (math.isnan(one) and math.isnan(other))
        case (Decimal(), Decimal()) | (complex(), complex()):
            return str(one) == str(other)
        case ((dt.datetime() | dt.time()), (dt.datetime() | dt.time())):
            alike = one == other and one.fold == other.fold and one.utcoffset() == other.utcoffset()
            return alike and _zone(one) is None
        case _:
            try:
                return bool(one == other)
            except Exception:  # noqa: BLE001 - the author's own `__eq__`
                return False


def _zone(value: object) -> dt.tzinfo | None:
    """The zone, if its offset changes over the year: JSON keeps the offset alone."""
    zone = value.tzinfo if isinstance(value, dt.datetime) else None
    return zone if zone is not None and zone.utcoffset(None) is None else None


def _of_sets(one: AbstractSet[object], other: AbstractSet[object], path: Step, forms: bool) -> Difference | None:
    if len(one) != len(other):
        return Difference(shown(path), "members that are told apart now are one when it is read", KEEP)
    found = {member: member for member in other}
    for member in one:
        if member in found:
            if (inner := difference(member, found[member], forms=forms)) is not None:
                return dataclasses.replace(inner, path=shown(path))
        elif not forms and not (isinstance(member, float) and math.isnan(member)):
            return Difference(shown(path), f"a member, {_a(member)}, is something else when it is read", KEEP)
    return None


def _parts(one: object, other: object, path: Step, forms: bool) -> Iterator[Pair]:
    """The parts of two values of one type that must be the same."""
    kind = type(one)
    if issubclass(kind, dict):
        yield from _entries(cast("dict[object, object]", one), cast("dict[object, object]", other), path, forms)
    elif issubclass(kind, list | tuple | deque):
        first, second = cast("Sequence[object]", one), cast("Sequence[object]", other)
        for index, (value, came) in enumerate(zip_longest(first, second, fillvalue=ABSENT)):
            yield value, came, (path, f"[{index}]")
        if isinstance(one, deque):
            yield one.maxlen, cast("deque[object]", other).maxlen, (path, ".maxlen")
    else:
        left, right = _state(one), _state(other)
        for name, value in left.items():
            came = right.get(name, ABSENT)
            if value is not came and not (type(value) is type(came) and type(value) in EXACT and value == came):
                yield value, came, (path, f".{name}")
        for name in right.keys() - left.keys():
            yield ABSENT, right[name], (path, f".{name}")


def _entries(one: dict[object, object], other: dict[object, object], path: Step, forms: bool) -> Iterator[Pair]:
    keys = {key: key for key in other}
    by_place = forms and len(one) == len(other) and not one.keys() <= keys.keys()
    for key, came in zip(one, list(other) if by_place else one, strict=True):
        if came in keys:
            yield key, keys[came], (path, f"[key {_short(key)}]")
            yield one[key], other[came], (path, f".{key}" if isinstance(key, str) else f"[{_short(key)}]")
        elif isinstance(key, str):
            yield one[key], ABSENT, (path, f".{key}")
        else:
            yield key, _written(key, keys), (path, f"[key {_short(key)}]")
    for key in other:
        if not by_place and key not in one:
            yield ABSENT, other[key], (path, f".{_short(key)}")
    if isinstance(one, defaultdict):
        yield one.default_factory, getattr(other, "default_factory", None), (path, ".default_factory")
    if isinstance(one, OrderedDict) and not by_place:
        yield list(one), list(other), (path, ".keys()")


def _written(key: object, keys: dict[object, object]) -> object:
    """The text that stands for the key now."""
    return next((text for text in (_short(key), _short(key).lower()) if text in keys), ABSENT)


def _state(value: object) -> Mapping[str, object]:
    """Everything that makes up an object: fields, extra and private attributes, whatever was set on it later."""
    cached, declared, is_model = _plan(cast("Hashable", type(value)))
    extra = value.__pydantic_extra__ if is_model else None  # type: ignore[attr-defined]
    private = value.__pydantic_private__ if is_model else None  # type: ignore[attr-defined]
    plain: Mapping[str, object] = getattr(value, "__dict__", {})
    if not (cached or declared or extra or private):
        return plain
    state = {name: part for name, part in plain.items() if name not in cached}
    state.update((name, getattr(value, name, ABSENT)) for name in declared)
    state.update(cast("Mapping[str, object]", extra or {}))
    for name, part in cast("Mapping[str, object]", private or {}).items():
        # A lock is equal to itself only: what matters is that there is one.
        opaque = _is_itself_only(type(part)) and not hasattr(part, "__dict__")
        state[name] = type(part) if opaque else part
    return state


def _is_itself_only(kind: type[object]) -> bool:
    """Whether one of its kind is equal to no other object."""
    return next(base for base in kind.__mro__ if "__eq__" in vars(base)) is object


@lru_cache(maxsize=1024)
def _plan(kind: Hashable) -> tuple[frozenset[str], tuple[str, ...], bool]:
    """Of a class: what is worked out from the rest when it is asked for; the fields of a dataclass, some of which may
    be in slots, or held by the class; whether it is a model.
    """
    found = cast("type[object]", kind)
    cached = frozenset(
        n for base in found.__mro__ for n, part in vars(base).items() if isinstance(part, cached_property)
    )
    fields = tuple(field.name for field in dataclasses.fields(found)) if dataclasses.is_dataclass(found) else ()
    return cached, fields, issubclass(found, BaseModel)


def _generic(model: BaseModel) -> type:
    return model.__pydantic_generic_metadata__["origin"] or type(model)


def _of_types(one: object, other: object, path: Step) -> Difference:
    where, kind = shown(path), type(one).__name__
    if other is ABSENT:
        return Difference(where, f"{_a(one)} is there now, and is not when it is read", KEEP)
    if one is ABSENT:
        return Difference(where, f"{_a(other)} is there only when it is read", "Set it, or take it out of the type.")
    if isinstance(one, float) and not math.isfinite(one):
        return Difference(where, "it is not a finite number", FINITE)
    said = f"it is {_a(one)}, and is {_a(other)} when it is read"
    if isinstance(one, type(other)):
        said = f"it is {_a(one)}, and is only {_a(other)} when it is read"
        return Difference(where, said, f"Annotate it as {kind}, or make it {_a(other)}.")
    if type(other) in JSON_TYPES:
        return Difference(where, said, f"Annotate it as {kind}, or convert it yourself.")
    return Difference(where, said, f"Let the annotation tell the two apart, or give it {_a(other)}.")


def _of_values(one: object, path: Step) -> Difference:
    where, advice = shown(path), "Let the type be read as it is written: mind its validators and serializers."
    if hasattr(one, "get_secret_value"):
        said = f"the JSON of {_a(one)} is asterisks"
        return Difference(where, said, "Hand over the secret's name, and look it up in the step that needs it.")
    if (zone := _zone(one)) is not None:
        return Difference(
            where,
            f"JSON keeps its offset, but not its zone, {zone}",
            "Convert it with `.astimezone(timezone.utc)`, and keep the zone's name beside it.",
        )
    if isinstance(one, dt.datetime | dt.time) and one.fold:
        return Difference(where, "JSON does not keep its `fold`", "Convert it to UTC, or set `fold=0`.")
    return Difference(where, f"it is another {type(one).__name__} when it is read", advice)


def _a(value: object) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[:1] in 'aeiouAEIO' else 'a'} {name}"


def _short(key: object) -> str:
    try:
        return repr(key)[:40]
    except Exception:  # noqa: BLE001 - the author's own `__repr__`, or a number of 5,000 digits
        return type(key).__name__
