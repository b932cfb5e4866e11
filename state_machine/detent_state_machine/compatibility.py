"""Whether a parameter can hold what a step returns. Judged on annotations, before anything runs.

Values travel as JSON, so what counts is whether the JSON of the one type is valid for the other: a dataclass and a
model with the same fields are compatible, an int fits a float, a list of them too. Constraints (`Field(gt=0)`) and
validators are not looked at: they are checked on the values.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from detent_state_machine.json_shapes import Array, Dictionary, Record, members, plain, shape_of

UNANNOTATED = object()
"""Stands for a missing annotation."""

_SCALARS: tuple[object, ...] = (str, int, float, bool)
_WIDER: dict[object, tuple[object, ...]] = {int: (float, complex), bool: (int, float, complex)}
_Met: TypeAlias = frozenset[tuple[object, object]]
"""Pairs of records that are being compared: a type that contains itself is compared once."""


def optional(annotation: object) -> bool:
    """Whether the type admits None."""
    annotation = plain(annotation)
    return annotation is type(None) or _anything(annotation) or any(optional(part) for part in members(annotation))


def admits(parameter: object, output: object) -> bool:
    """Whether a parameter of this type can hold an output of that type."""
    return _admits(parameter, output, frozenset())


@dataclass(frozen=True, slots=True)
class MissingField:
    """`holder` is the type that has no `name`, `fields` are those it has."""

    name: str | int
    holder: object
    fields: tuple[str, ...] = ()


def missing_field(annotation: object, path: tuple[str | int, ...]) -> MissingField | None:
    """The first part of the path that no value of the type has; None where one may have it all."""
    for position, part in enumerate(path):
        annotation = plain(annotation)
        if parts := members(annotation):
            found = [missing_field(one, path[position:]) for one in parts if plain(one) is not type(None)]
            return next(iter(found), None) if all(found) else None
        match shape_of(annotation):
            case Record(fields, extra):
                if part not in fields:
                    return None if extra == "allow" else MissingField(part, annotation, tuple(fields))
                annotation = fields[str(part)].annotation
            case Dictionary(value=value):
                annotation = value
            case Array(items, fixed):
                if not isinstance(part, int):
                    return MissingField(part, annotation)
                annotation = Any if fixed else items[0]
            case None:
                return MissingField(part, annotation) if annotation in _SCALARS else None
    return None


def schema_of(annotation: object) -> dict[str, object]:
    """The JSON Schema of a type; empty (anything) where there is none."""
    if annotation is UNANNOTATED:
        return {}
    try:
        return TypeAdapter[Any](cast("Any", annotation)).json_schema()
    except (PydanticUserError, PydanticUndefinedAnnotation):
        return {}


def name_of(annotation: object) -> str:
    """The type as an author would write it."""
    if annotation is UNANNOTATED:
        return "(not annotated)"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _admits(parameter: object, output: object, met: _Met) -> bool:
    parameter, output = plain(parameter), plain(output)
    if parameter is UNANNOTATED or _anything(parameter) or output is Any or parameter == output:
        return True
    if isinstance(parameter, TypeVar) or isinstance(output, TypeVar):
        return True
    if parts := members(output):
        return all(_admits(parameter, part, met) for part in parts)
    if parts := members(parameter):
        return any(_admits(part, output, met) for part in parts)
    if get_origin(output) is Literal:
        return _admits(parameter, get_args(output)[0].__class__, met)
    wide, narrow = shape_of(parameter), shape_of(output)
    match wide, narrow:
        case None, None:
            return _is_a(parameter, output)
        case Array(), Array():
            return _array_fits(wide, narrow, met)
        case Dictionary(), Dictionary():
            return _key_fits(wide.key, narrow.key, met) and _admits(wide.value, narrow.value, met)
        case Dictionary(), Record():
            known = all(_admits(wide.value, field.annotation, met) for field in narrow.fields.values())
            return _admits(wide.key, str, met) and known and (narrow.extra != "allow" or _anything(wide.value))
        case Record(), Record():
            return (parameter, output) in met or _record_fits(wide, narrow, met | {(parameter, output)})
        case _:
            return False


def _is_a(parameter: object, output: object) -> bool:
    wide, narrow = get_origin(parameter) or parameter, get_origin(output) or output
    if not isinstance(wide, type) or not isinstance(narrow, type):
        return False
    if wide is dt.date:
        return not issubclass(narrow, dt.datetime) and issubclass(narrow, wide)  # a date has no time of day
    return wide in _WIDER.get(narrow, ()) or issubclass(narrow, wide)


def _array_fits(wide: Array, narrow: Array, met: _Met) -> bool:
    if not wide.fixed:
        return all(_admits(wide.items[0], item, met) for item in narrow.items)
    if not narrow.fixed or not wide.least <= len(narrow.items) <= len(wide.items):
        return False
    return all(_admits(a, b, met) for a, b in zip(wide.items, narrow.items, strict=False))


def _key_fits(wide: object, narrow: object, met: _Met) -> bool:
    """Keys are text in JSON: text takes them all, and true and false are read back as booleans only."""
    wide, narrow = plain(wide), plain(narrow)
    if wide is str or wide == narrow:
        return True
    return bool not in (narrow, *members(narrow)) and _admits(wide, narrow, met)


def _record_fits(wide: Record, narrow: Record, met: _Met) -> bool:
    read: set[str] = set()
    for field in wide.fields.values():
        given = [name for name in field.read_as if name in narrow.fields]
        if field.needed and not any(narrow.fields[name].always for name in given):
            return False
        if not all(_admits(field.annotation, narrow.fields[name].annotation, met) for name in given):
            return False
        read.update(given)
    return wide.extra != "forbid" or (narrow.extra != "allow" and read >= narrow.fields.keys())


def _anything(annotation: object) -> bool:
    return annotation is Any or annotation is object
