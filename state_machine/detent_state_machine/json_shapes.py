"""What a type looks like as JSON: an array, an object with any keys, or an object with known fields."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

from pydantic import AliasChoices, RootModel
from pydantic.fields import FieldInfo
from typing_extensions import ReadOnly, TypeAliasType, get_type_hints, is_typeddict


@dataclass(frozen=True, slots=True)
class Array:
    """`items` are the types at each place if `fixed`, else the one type of all. `least` places must be filled."""

    items: tuple[object, ...]
    fixed: bool = False
    least: int = 0


@dataclass(frozen=True, slots=True)
class Dictionary:
    """An object whose keys are values of a type."""

    key: object
    value: object


@dataclass(frozen=True, slots=True)
class RecordField:
    """`read_as` are the names under which it is read, `needed` whether it must be there, `always` whether it is written
    even if it was not given.
    """

    annotation: object
    needed: bool
    always: bool
    read_as: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """An object with these fields, by the name they are written under."""

    fields: Mapping[str, RecordField]
    extra: Literal["ignore", "forbid", "allow"] = "ignore"


Shape: TypeAlias = Array | Dictionary | Record

_ARRAYS: frozenset[object] = frozenset(
    {
        list,
        tuple,
        set,
        frozenset,
        collections.deque,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Set,
        collections.abc.MutableSet,
        collections.abc.Collection,
        collections.abc.Iterable,
    }
)
_DICTIONARIES: frozenset[object] = frozenset(
    {
        dict,
        collections.OrderedDict,
        collections.defaultdict,
        collections.abc.Mapping,
        collections.abc.MutableMapping,
    }
)


def shape_of(annotation: object) -> Shape | None:
    """The shape of a type without aliases; None for scalars and for what is written in a way of its own."""
    origin: object = get_origin(annotation) or annotation
    if origin in _ARRAYS:
        return _array(annotation, origin)
    if origin in _DICTIONARIES:
        key, value = get_args(annotation) or (Any, Any)
        return Dictionary(key, value)
    if origin is collections.Counter:
        return Dictionary((get_args(annotation) or (Any,))[0], int)
    return _of_class(origin, get_args(annotation)) if isinstance(origin, type) else None


def _of_class(origin: type[object], arguments: tuple[object, ...]) -> Shape | None:
    if is_typeddict(origin):
        return _typed_dict(origin)
    if hasattr(origin, "_field_defaults"):
        return _named_tuple(origin)
    if hasattr(origin, "__pydantic_fields__"):
        return _model(origin)
    return _dataclass(origin, arguments) if dataclasses.is_dataclass(origin) else None


def plain(annotation: object) -> object:
    """Without what JSON does not show: `Annotated`, aliases, `NewType`, root models."""
    while True:
        origin: object = get_origin(annotation)
        if origin in (Annotated, Required, NotRequired, ReadOnly):
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, TypeAliasType):
            annotation = annotation.__value__
        elif isinstance(annotation, NewType):
            annotation = cast("object", annotation.__supertype__)
        elif (root := _root(annotation)) is not None:
            annotation = root
        elif annotation is None or (origin is Literal and get_args(annotation) == (None,)):
            return type(None)
        else:
            return annotation


def members(annotation: object) -> tuple[object, ...]:
    """The parts of a union, and of a literal with several values; none for any other type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return arguments
    if origin is Literal and len(arguments) > 1:
        return tuple(Literal[value] for value in arguments)  # pyright: ignore[reportInvalidTypeForm]
    return ()


def _root(annotation: object) -> object:
    """What a root model is a model of; None for any other type."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        fields = cast("Mapping[str, FieldInfo]", annotation.__pydantic_fields__)
        return fields["root"].annotation if "root" in fields else None
    return None


def _array(annotation: object, origin: object) -> Array:
    arguments = get_args(annotation)
    if origin is not tuple or annotation is tuple:
        return Array(arguments or (Any,))
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return Array(arguments[:1])
    return Array(arguments, fixed=True, least=len(arguments))


def _named_tuple(origin: type[object]) -> Array:
    hints = _hints(origin)
    names = cast("tuple[str, ...]", getattr(origin, "_fields", ()))
    defaults = cast("Mapping[str, object]", getattr(origin, "_field_defaults", {}))
    return Array(tuple(hints.get(name, Any) for name in names), fixed=True, least=len(names) - len(defaults))


def _typed_dict(origin: type[object]) -> Record:
    fields: dict[str, RecordField] = {}
    for name, hint in _hints(origin, include_extras=True).items():
        # Asked of the annotation first: `__required_keys__` does not see through annotations that are strings.
        said: object = get_origin(hint)
        required = said is Required or (said is not NotRequired and name in getattr(origin, "__required_keys__", ()))
        fields[name] = RecordField(hint, required, required, (name,))
    return Record(fields)


def _dataclass(origin: type[object], arguments: tuple[object, ...]) -> Record:
    hints = _hints(origin)
    given: dict[object, object] = dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))
    fields: dict[str, RecordField] = {}
    for field in dataclasses.fields(cast("Any", origin)):
        unset = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        annotation = _filled_in(hints.get(field.name, Any), given)
        fields[field.name] = RecordField(annotation, unset, True, (field.name,))
    return Record(fields)


def _filled_in(annotation: object, given: Mapping[object, object]) -> object:
    """The annotation with its type variables replaced."""
    if isinstance(annotation, TypeVar):
        return given.get(annotation, annotation)
    open_ = cast("tuple[object, ...]", getattr(annotation, "__parameters__", ()))
    if not open_ or isinstance(annotation, type):
        return annotation
    return cast("Any", annotation)[tuple(given.get(variable, variable) for variable in open_)]


def _model(origin: type[object]) -> Record:
    """Of a pydantic model or dataclass."""
    given = getattr(origin, "model_config", None) or getattr(origin, "__pydantic_config__", None)
    config = cast("Mapping[str, Any]", given or {})
    by_name = bool(config.get("populate_by_name") or config.get("validate_by_name"))
    infos = cast("Mapping[str, FieldInfo]", getattr(origin, "__pydantic_fields__", {}))
    fields: dict[str, RecordField] = {}
    for name, info in infos.items():
        read = (*_read_as(info, name), *([name] if by_name else []))
        written = info.serialization_alias or name
        fields[written] = RecordField(info.annotation, info.is_required(), info.exclude is not True, read)
    decorators = cast("Any", getattr(origin, "__pydantic_decorators__", None))
    for name, computed in dict[str, Any](decorators.computed_fields if decorators else {}).items():
        fields[computed.info.alias or name] = RecordField(computed.info.return_type, False, True, ())
    return Record(fields, config.get("extra") or "ignore")


def _read_as(info: FieldInfo, name: str) -> Iterator[str]:
    alias = info.validation_alias
    if alias is None:
        yield name
    elif isinstance(alias, str):
        yield alias
    elif isinstance(alias, AliasChoices):
        yield from (choice for choice in alias.choices if isinstance(choice, str))


def _hints(origin: type[object], *, include_extras: bool = False) -> dict[str, object]:
    """Annotations of the class; those that cannot be looked up stand for anything."""
    try:
        return cast("dict[str, object]", get_type_hints(origin, include_extras=include_extras))
    except (NameError, AttributeError, SyntaxError, TypeError):
        return dict.fromkeys(getattr(origin, "__annotations__", ()), Any)
