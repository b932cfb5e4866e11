"""Whether a parameter can hold what a step returns. Judged on annotations, before anything runs.

Values travel as JSON, so what counts is whether the JSON of the one type is valid for the other: a dataclass and a
model with the same fields are compatible, an int fits a float, a list of them too.
"""

from __future__ import annotations

import collections.abc
import types
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from typing_extensions import TypeAliasType

UNANNOTATED = object()
"""Stands for a missing annotation."""

_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Set)
_WIDER = {int: (float, complex), bool: (int, float)}


def optional(annotation: object) -> bool:
    """Whether the type admits None."""
    annotation = _plain(annotation)
    return annotation is type(None) or _anything(annotation) or any(optional(part) for part in _members(annotation))


def admits(parameter: object, output: object) -> bool:
    """Whether a parameter of this type can hold an output of that type."""
    parameter, output = _plain(parameter), _plain(output)
    if parameter is UNANNOTATED or _anything(parameter) or output is Any or parameter == output:
        return True
    if parts := _members(output):
        return all(admits(parameter, part) for part in parts)
    if parts := _members(parameter):
        return any(admits(part, output) for part in parts)
    if get_origin(output) is Literal:
        return all(value in get_args(parameter) or admits(parameter, value.__class__) for value in get_args(output))
    if isinstance(parameter, TypeVar) or isinstance(output, TypeVar):
        return True
    return _same_shape(parameter, output) or _same_json(parameter, output)


def schema_of(annotation: object) -> dict[str, object]:
    """The JSON Schema of a type; empty (anything) where there is none."""
    if annotation is UNANNOTATED:
        return {}
    try:
        return TypeAdapter[Any](cast("Any", annotation)).json_schema()
    except PydanticUserError:
        return {}


def name_of(annotation: object) -> str:
    """The type as an author would write it."""
    if annotation is UNANNOTATED:
        return "(not annotated)"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _same_shape(parameter: object, output: object) -> bool:
    wide, narrow = get_origin(parameter) or parameter, get_origin(output) or output
    if not isinstance(wide, type) or not isinstance(narrow, type):
        return False
    if wide in _WIDER.get(narrow, ()):
        return True
    both_sequences = wide in _SEQUENCES and narrow in _SEQUENCES
    if not both_sequences and not issubclass(narrow, wide):
        return False
    inner, given = get_args(parameter), get_args(output)
    if not inner or not given:
        return True
    if both_sequences:
        return all(admits(_item(inner), part) for part in given if part is not Ellipsis)
    return len(inner) == len(given) and all(admits(a, b) for a, b in zip(inner, given, strict=True))


def _item(arguments: tuple[object, ...]) -> object:
    return Union[tuple(part for part in arguments if part is not Ellipsis)]  # noqa: UP007 - built at run time


def _same_json(parameter: object, output: object) -> bool:
    """Two classes with the same fields, whatever they are called."""
    wide, narrow = _fields(parameter), _fields(output)
    if wide is None or narrow is None:
        return False
    wide_properties, wide_required = wide
    narrow_properties, _ = narrow
    return wide_required <= set(narrow_properties) and all(
        _kind(schema) == _kind(wide_properties[name])
        for name, schema in narrow_properties.items()
        if name in wide_properties
    )


@cache
def _fields(annotation: object) -> tuple[dict[str, dict[str, object]], set[str]] | None:
    schema = schema_of(annotation)
    if schema.get("type") != "object" or "properties" not in schema:
        return None
    properties = cast("dict[str, dict[str, object]]", schema["properties"])
    return properties, set(cast("list[str]", schema.get("required", [])))


def _kind(schema: dict[str, object]) -> object:
    if "anyOf" in schema:
        parts = cast("list[dict[str, object]]", schema["anyOf"])
        return sorted(str(_kind(part)) for part in parts)
    return schema.get("type") or schema.get("$ref") or schema.get("enum")


def _anything(annotation: object) -> bool:
    return annotation is Any or annotation is object


def _plain(annotation: object) -> object:
    """Without `Annotated` and aliases."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, TypeAliasType):
            annotation = annotation.__value__
        else:
            return type(None) if annotation is None else annotation


def _members(annotation: object) -> tuple[object, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
