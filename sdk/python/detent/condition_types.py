"""What a condition compares, by Python's types: it means what Python means, or is refused where it is written."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import math
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, cast, get_args, get_origin
from uuid import UUID

from detent_state_machine.compatibility import UNANNOTATED, name_of
from detent_state_machine.errors import DefinitionError
from detent_state_machine.json_shapes import Array, Dictionary, Record, members, plain, shape_of
from detent_state_machine.when import Constant, Read, Scalar, read
from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python

_C = TypeVar("_C", bound=type)
Op: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
Kinds: TypeAlias = "frozenset[object] | None"
"""The types that a value may have, None among them as NoneType; None where it may be anything."""

NUMBERS: Final[frozenset[object]] = frozenset({int, float, bool, Decimal})
READ_AS: Final[dict[object, Read]] = {
    Decimal: "decimal",
    dt.date: "date",
    dt.time: "time",
    dt.datetime: "datetime",
    dt.timedelta: "timedelta",
}
"""Types whose values JSON has as text."""
ORDERED: Final[frozenset[object]] = NUMBERS | READ_AS.keys() | {str, UUID}
NONE: Final = type(None)


def kinds_of(annotation: object) -> Kinds:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if _is_subclass(annotation, RootModel):
        return frozenset({annotation})  # an object to Python, whatever its JSON is
    annotation = plain(annotation)
    if _is_anything(annotation):
        return None
    if parts := members(annotation):
        found = [kinds_of(part) for part in parts]
        return None if None in found else frozenset[object]().union(*cast("list[frozenset[object]]", found))
    if get_origin(annotation) is Literal:
        return frozenset[object]({_kind(cast("object", type(get_args(annotation)[0])))})
    return frozenset[object]({_kind(annotation)})


def _is_anything(annotation: object) -> bool:
    return annotation in (UNANNOTATED, Any, object) or isinstance(annotation, TypeVar)


def _is_subclass(kind: object, base: type) -> bool:
    return isinstance(kind, type) and issubclass(cast("type[object]", kind), base)


def _kind(annotation: object) -> object:
    """The type by whose rules its values compare: an enumeration of ints as ints."""
    origin: object = get_origin(annotation) or annotation
    if not isinstance(origin, type):
        return annotation
    if issubclass(origin, dt.datetime):
        return dt.datetime
    for base in (bool, int, float, str, Decimal, dt.date, dt.time, dt.timedelta, UUID):
        if issubclass(origin, base):
            return base
    return annotation


def part_of(annotation: object, part: object) -> object:
    """The type of an attribute or item; `UNANNOTATED` where it cannot be told, or is written in a way of its own."""
    annotation = plain(annotation)
    if parts := members(annotation):
        found = [part_of(one, part) for one in parts if plain(one) is not NONE]
        optional = (None,) if len(found) < len(parts) else ()
        if any(one is UNANNOTATED for one in found):
            return UNANNOTATED
        return _union((*found, *optional))
    match shape_of(annotation):
        case Record(fields) if part in fields and not _is_written_otherwise(annotation, str(part)):
            return fields[str(part)].annotation
        case Dictionary(value=value):
            return value
        case Array(items, fixed) if isinstance(part, int):
            if not fixed:
                return items[0]
            return items[part] if -len(items) <= part < len(items) else UNANNOTATED
        case _:
            return UNANNOTATED


def _union(parts: tuple[object, ...]) -> object:
    joined: Any = parts[0]
    for part in parts[1:]:
        joined = joined | part
    return joined


def _is_written_otherwise(annotation: object, name: str) -> bool:
    """Whether a serializer of the author's decides what its JSON is."""
    own = cast("Any", getattr(get_origin(annotation) or annotation, "__pydantic_decorators__", None))
    info = getattr(annotation, "__pydantic_fields__", {}).get(name)
    if info is not None and any(type(extra).__name__.endswith("Serializer") for extra in info.metadata):
        return True
    if own is None:
        return False
    return bool(own.model_serializers) or any(
        {name, "*"} & {*found.info.fields} for found in own.field_serializers.values()
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: what it is called, what it may be, and, if it is written out, its value."""

    said: str
    kinds: Kinds
    value: Scalar | Constant = None
    is_literal: bool = False


def literal(value: object, said: str, other: Kinds) -> Side:
    """What is compared with, as data. A text stands for a decimal, date or time where only those can be meant."""
    kind = _kind(type(value))
    if isinstance(value, Enum):
        given = cast("object", value.value)
        if isinstance(given, str | int | float):
            return Side(said, frozenset({kind}), given, True)
    elif value is None or isinstance(value, bool) or (isinstance(value, int | float) and math.isfinite(value)):
        return Side(said, frozenset({kind}), value, True)
    elif isinstance(value, str):
        return _text(value, said, other)
    elif isinstance(value, UUID):
        return Side(said, frozenset({kind}), str(value), True)
    elif kind in READ_AS and not (isinstance(value, Decimal) and not value.is_finite()):
        written = cast("str", to_jsonable_python(value))
        return Side(said, frozenset({kind}), Constant(type=READ_AS[kind], value=written), True)
    raise DefinitionError(
        f"A condition compares with text, finite numbers, booleans, None, enums, dates and times, not with {said}.",
        advice="Work out a bool in a step, and look at its output.",
    )


def _text(value: str, said: str, other: Kinds) -> Side:
    as_text = Side(said, frozenset({str}), str(value), True)
    if other is None or str in other:
        return as_text
    for kind in other:
        if kind is UUID:
            try:
                return Side(said, frozenset({UUID}), str(UUID(value)), True)
            except ValueError:
                continue
        if kind in READ_AS:
            try:
                read(value, READ_AS[kind])
            except ValueError:
                continue
            return Side(said, frozenset({kind}), Constant(type=READ_AS[kind], value=value), True)
    return as_text


def check_comparison(op: Op, left: Side, right: Side) -> None:
    """Raises `DefinitionError` for what Python refuses, or never finds equal."""
    equality = op in ("==", "!=")
    if not equality and any(side.is_literal and side.value is None for side in (left, right)):
        raise _refused(op, left, right, "None has no order", "Write `== None` or `!= None`.")
    if left.kinds is None or right.kinds is None:
        return
    for side in (left, right):
        _check_readable(op, left, right, side)
    one, other = left.kinds - {NONE}, right.kinds - {NONE}
    if equality and (not one or not other):
        return  # with None: an output of a skipped step is None, whatever its type
    if any(_comparable(a, b, equality=equality) for a in one for b in other):
        return
    why = (
        f"Python never finds {_names(one)} equal to {_names(other)}"
        if equality
        else (f"Python does not order {_names(one)} and {_names(other)}")
    )
    raise _refused(op, left, right, why, _advice(one, other))


def _comparable(one: object, other: object, *, equality: bool) -> bool:
    if one in NUMBERS and other in NUMBERS:
        return True
    if one == other and one in ORDERED:
        return True
    return equality and one == other and (_is_enum(one) or _is_plain(one))


def _is_enum(kind: object) -> bool:
    return _is_subclass(kind, Enum)


def _is_plain(annotation: object) -> bool:
    """Whether equal values have equal JSON."""
    annotation = plain(annotation)
    match shape_of(annotation):
        case Array(items):
            return all(map(_is_plain, members(annotation) or items))
        case Dictionary(value=value):
            return _is_plain(value)
        case Record():
            return False
        case None:
            return {_kind(part) for part in members(annotation) or (annotation,)} <= {int, bool, str, NONE}


def _check_readable(op: Op, left: Side, right: Side, side: Side) -> None:
    texts = {kind for kind in side.kinds or () if kind in READ_AS or kind is str or kind is UUID}
    if len(texts) > 1:
        raise _refused(
            op,
            left,
            right,
            f"the JSON of {side.said} does not tell {_names(texts)} apart",
            "Give it one of these types.",
        )


def read_as(op: Op, kinds: Kinds, other: Kinds) -> Read | None:
    """How a value is read before it is compared; None as long as its JSON compares as Python compares it."""
    if kinds is None or other == frozenset[object]({NONE}):
        return None
    for kind in kinds:
        if kind in READ_AS:
            return READ_AS[kind]
    both = kinds | (other or frozenset())
    mixed = bool in both and (op not in ("==", "!=") or not both <= {bool, NONE})
    return "json" if mixed or (str in both and both & NUMBERS) else None


def truth_of(kinds: Kinds, said: str) -> Read | None:
    """How a value is read before it is asked for its truth. Raises `DefinitionError` where JSON does not show it."""
    if kinds is None:
        return None
    asked = kinds - {NONE}
    if asked & READ_AS.keys() - {dt.date, dt.time, dt.datetime}:
        texts = {kind for kind in asked if kind in READ_AS or kind is str or kind is UUID}
        if len(texts) == 1:
            return READ_AS[next(iter(texts))]
        raise _no_truth(said, asked)
    objects = frozenset(kind for kind in asked if _is_object(kind))
    if not objects:
        if complex in asked:
            raise _no_truth(said, asked)
        return None
    if objects != asked or any(_says_its_truth(kind) for kind in objects):
        raise _no_truth(said, asked)
    return "object"


def _is_object(kind: object) -> bool:
    """Whether its values are true in Python and their JSON need not be."""
    origin: object = get_origin(kind) or kind
    if _is_subclass(origin, Enum) or _is_subclass(origin, RootModel):
        return True
    if _is_subclass(origin, BaseModel) or dataclasses.is_dataclass(origin):
        shape = shape_of(kind)
        never_empty = isinstance(shape, Record) and any(field.always for field in shape.fields.values())
        return not never_empty or _says_its_truth(kind)
    return False


def _says_its_truth(kind: object) -> bool:
    origin = cast("type", get_origin(kind) or kind)
    return any(inspect.isfunction(getattr(origin, name, None)) for name in ("__bool__", "__len__"))


def _no_truth(said: str, kinds: frozenset[object]) -> DefinitionError:
    return DefinitionError(
        f"The condition {said!r} asks for the truth of {_names(kinds)}, which JSON does not show.",
        advice="Compare it with a value, or work out a bool in a step, and look at its output.",
    )


def _refused(op: Op, left: Side, right: Side, why: str, advice: str) -> DefinitionError:
    return DefinitionError(f"The condition '{left.said} {op} {right.said}' means nothing: {why}.", advice=advice)


def _advice(one: frozenset[object], other: frozenset[object]) -> str:
    for kinds, against in ((one, other), (other, one)):
        for kind in kinds:
            if _is_enum(kind) and str in against:
                return f"Compare with a member, as in `{name_of(kind)}.{next(iter(cast('type[Enum]', kind))).name}`."
            if kind in READ_AS and str in against:
                return f"Compare with a {name_of(kind)}, or with its text as JSON has it."
    return "Compare values of one type, or work out a bool in a step, and look at its output."


def _names(kinds: frozenset[object] | set[object]) -> str:
    return " or ".join(sorted(name_of(kind) for kind in kinds))


UNSUPPORTED: Final[dict[str, tuple[str, str]]] = {
    "__invert__": ("~", "Write `not_(…)`."),
    "__len__": ("len()", "An empty list, text or dictionary is false: write the value itself as the condition."),
    "__call__": ("a method", "Work it out in a step, and look at its output."),
    "__str__": ("str()", "Take the value as a step's parameter, and make the text in its body."),
    "__format__": ("an f-string", "Take the value as a step's parameter, and make the text in its body."),
    "__int__": ("int()", "Take the value as a step's parameter."),
    "__float__": ("float()", "Take the value as a step's parameter."),
    "__reversed__": ("reversed()", "Take the value as a step's parameter."),
    **{
        f"__{side}{name}__": (sign, "Work it out in a step, and look at its output.")
        for name, sign in {
            "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
            "matmul": "@", "lshift": "<<", "rshift": ">>", "divmod": "divmod()",
        }.items()
        for side in ("", "r")
    },
    **{
        f"__{name}__": (sign, "Work it out in a step, and look at its output.")
        for name, sign in {"neg": "-", "pos": "+", "abs": "abs()", "round": "round()", "index": "an index"}.items()
    },
    **{
        f"__{name}__": (sign, "Put each comparison in parentheses: `(a > 0) & (b == 1)`.")
        for name, sign in {"rand": "&", "ror": "|", "xor": "^", "rxor": "^"}.items()
    },
}  # fmt: skip
"""Operators of Python that a condition does not have, with what to write instead."""


COMPARED: Final[dict[str, tuple[str, str]]] = {
    f"__{name}__": (sign, "Put each comparison in parentheses, and write a condition as it is or as `not_(…)`.")
    for name, sign in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items()
}
"""What is compared is a value: a condition has none yet."""


def refusing(names: dict[str, tuple[str, str]]) -> Callable[[_C], _C]:
    """Gives a class methods that refuse these operators."""

    def decorate(kind: _C) -> _C:
        for name, (sign, advice) in names.items():
            setattr(kind, name, _refusal(sign, advice))
        return kind

    return decorate


def _refusal(sign: str, advice: str) -> Callable[..., object]:
    def refuse(self: object, *_others: object, **_named: object) -> object:
        raise DefinitionError(
            f"{self!r} is not known while the workflow is declared: {sign} cannot be used on it.", advice=advice
        )

    return refuse
