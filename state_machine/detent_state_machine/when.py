"""Skip conditions: a closed, tiny language over the run's input and the outputs of steps, as data.

A definition stores conditions, any SDK writes them, and any worker evaluates them the same way. A field that is
not there, or an output of a skipped step, has the value null. Ordering against null is false.

A condition means what Python means by it. Where JSON alone does not show that (it has dates and decimals as text),
the condition says how a value is read, and then Python compares; elsewhere JSON values are compared as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from functools import cache
from operator import eq, ge, gt, le, lt, ne
from typing import Annotated, Any, Final, Literal, TypeAlias, assert_never, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from detent_state_machine.errors import InputError
from detent_state_machine.formats import Since

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""How JSON has the floats that it has no numbers for."""

Scalar: TypeAlias = str | int | float | bool | None
Read: TypeAlias = Literal["decimal", "date", "time", "datetime", "timedelta", "json", "object"]
"""As what a JSON value is read: `json` as Python reads JSON, `object` as one that is true unless it is null."""

_TYPES: Final[Mapping[str, type]] = {
    "decimal": Decimal,
    "date": date,
    "time": time,
    "datetime": datetime,
    "timedelta": timedelta,
}
_OPERATORS: Final = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


class _Node(BaseModel):
    # Validated as a part of a definition: validators of their own are made when one is first needed.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Ref(_Node):
    """A value of the run: a path into its input (`step` is null) or into a step's output."""

    kind: Literal["ref"] = "ref"
    step: str | None
    path: tuple[str | int, ...] = ()
    read: Annotated[Read | None, Since(2)] = None
    """None: as JSON; a text that is a number is one beside a number."""


class Constant(_Node):
    """A value that is written out, of a type that JSON has as text."""

    kind: Literal["constant"] = "constant"
    type: Annotated[Read, Since(2)]
    value: str | int | float


class Compare(_Node):
    """`left op right`. Numbers compare as numbers, also when JSON carries one of them as a string (decimals)."""

    kind: Literal["compare"] = "compare"
    op: Literal["==", "!=", "<", "<=", ">", ">="]
    left: Ref
    right: Ref | Constant | Scalar


class Truthy(_Node):
    """The value is neither null, false, 0, nor empty."""

    kind: Literal["truthy"] = "truthy"
    ref: Ref


class Not(_Node):
    kind: Literal["not"] = "not"
    part: Condition


class All(_Node):
    kind: Literal["all"] = "all"
    parts: tuple[Condition, ...]


class Either(_Node):
    kind: Literal["either"] = "either"
    parts: tuple[Condition, ...]


Condition: TypeAlias = Annotated[Compare | Truthy | Not | All | Either, Field(discriminator="kind")]

Lookup: TypeAlias = Callable[[str | None], JsonValue]
"""The run's input for None, a step's output for its name (null if it was skipped)."""


def evaluate(condition: Condition, lookup: Lookup) -> bool:
    """Whether the condition holds. Raises `InputError` where two values cannot be put in order."""
    match condition:
        case Compare(op=op, left=left, right=right):
            if (
                isinstance(right, Constant)
                or left.read is not None
                or (isinstance(right, Ref) and right.read is not None)
            ):
                return _compare_read(op, left, right, lookup)
            other = value_of(right, lookup) if isinstance(right, Ref) else right
            return _compare(op, value_of(left, lookup), other, left)
        case Truthy(ref=Ref(read="object") as ref):
            return value_of(ref, lookup) is not None
        case Truthy(ref=ref):
            return bool(_read(ref, value_of(ref, lookup), ref.read))
        case Not(part=part):
            return not evaluate(part, lookup)
        case All(parts=parts):
            return all(evaluate(part, lookup) for part in parts)
        case Either(parts=parts):
            return any(evaluate(part, lookup) for part in parts)
        case _:
            assert_never(condition)


def references(condition: Condition) -> Iterator[Ref]:
    """Every value the condition looks at."""
    match condition:
        case Compare(left=left, right=right):
            yield left
            if isinstance(right, Ref):
                yield right
        case Truthy(ref=ref):
            yield ref
        case Not(part=part):
            yield from references(part)
        case All(parts=parts) | Either(parts=parts):
            for part in parts:
                yield from references(part)
        case _:
            assert_never(condition)


def describe(condition: Condition) -> str:
    """The condition in one line, as drawings and errors show it."""
    match condition:
        case Compare(op=op, left=left, right=right):
            match right:
                case Ref():
                    shown = name_of(right)
                case Constant(value=value):
                    shown = str(value)
                case _:
                    shown = repr(right)
            return f"{name_of(left)} {op} {shown}"
        case Truthy(ref=ref):
            return name_of(ref)
        case Not(part=part):
            return f"not ({describe(part)})"
        case All(parts=parts):
            return " and ".join(f"({describe(part)})" for part in parts)
        case Either(parts=parts):
            return " or ".join(f"({describe(part)})" for part in parts)
        case _:
            assert_never(condition)


def name_of(ref: Ref) -> str:
    steps = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in ref.path)
    return (ref.step or "input") + steps


def value_of(ref: Ref, lookup: Lookup) -> JsonValue:
    """The value that is referred to; null where there is none."""
    value = lookup(ref.step)
    for part in ref.path:
        if isinstance(value, Mapping):
            value = value.get(str(part))
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int):
            value = value[part] if -len(value) <= part < len(value) else None
        else:
            return None
    return value


def read(value: JsonValue, read_as: Read) -> object:
    """The Python value that the JSON value stands for. Raises `ValueError` if it stands for none."""
    if value is None or read_as in ("json", "object") or (read_as == "decimal" and isinstance(value, int | float)):
        return value
    return _adapter(read_as).validate_python(value)


@cache
def _adapter(read_as: str) -> TypeAdapter[Any]:
    return TypeAdapter(_TYPES[read_as])


def _read(ref: Ref, value: JsonValue, read_as: Read | None) -> object:
    try:
        return value if read_as is None else read(value, read_as)
    except ValueError:
        raise InputError(
            f"The condition on {name_of(ref)} cannot read {value!r} as a {read_as}.",
            advice="Let the value's JSON be what its type says.",
        ) from None


def _compare_read(op: str, left: Ref, right: Ref | Constant | Scalar, lookup: Lookup) -> bool:
    """As Python compares what the JSON stands for. A value of an unknown type is read as the other one is."""
    one: object
    other: object
    if isinstance(right, Constant):
        other = _read(left, right.value, right.type)
        one = _read(left, value_of(left, lookup), left.read or right.type)
    else:
        one = _read(left, value_of(left, lookup), left.read)
        other = _read(right, value_of(right, lookup), right.read) if isinstance(right, Ref) else right
    if op not in ("==", "!=") and (one is None or other is None):
        return False
    try:
        return bool(_OPERATORS[op](cast("Any", one), cast("Any", other)))
    except (TypeError, ArithmeticError) as error:
        raise InputError(
            f"The condition on {name_of(left)} cannot order {one!r} and {other!r}: {error}.",
            advice="Give both times an offset, or neither; compare values of one type.",
        ) from None


def _compare(op: str, left: JsonValue, right: JsonValue, ref: Ref) -> bool:
    numbers = _numbers(left, right)
    if op in ("==", "!="):
        if numbers:
            equal = numbers[0] == numbers[1]
        else:
            equal = left == right and isinstance(left, bool) == isinstance(right, bool)
        return equal == (op == "==")
    if left is None or right is None:
        return False
    pair: tuple[Decimal, Decimal] | tuple[str, str]
    if numbers:
        pair = numbers
    elif isinstance(left, str) and isinstance(right, str):
        pair = (left, right)
    else:
        raise InputError(
            f"The condition on {name_of(ref)} cannot order {left!r} and {right!r}.",
            advice="Compare numbers with numbers and strings with strings.",
        )
    low, high = cast("tuple[Decimal, Decimal]", pair)
    if numbers and any(number.is_nan() for number in numbers):
        return False
    match op:
        case "<":
            return low < high
        case "<=":
            return low <= high
        case ">":
            return low > high
        case _:
            return low >= high


def _numbers(left: JsonValue, right: JsonValue) -> tuple[Decimal, Decimal] | None:
    if isinstance(left, str) and isinstance(right, str):
        return None
    first, second = _number(left), _number(right)
    return None if first is None or second is None else (first, second)


def _number(value: JsonValue) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    written = str(value)
    if written in _NOT_FINITE:
        return Decimal(written)
    if not _NUMBER.fullmatch(written):  # Decimal alone also reads " 1", "1_000" and digits of other scripts
        return None
    try:
        return Decimal(written)
    except InvalidOperation:
        return None
