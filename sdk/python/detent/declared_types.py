"""What a type shows when it is declared: that its values always come back as they are, or that some never do."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from itertools import combinations
from types import NoneType
from typing import Annotated, Any, Final, cast, get_args, get_origin

from detent_state_machine.compatibility import UNANNOTATED, admits, name_of
from detent_state_machine.json_shapes import Array, Dictionary, Record, members, plain, shape_of
from pydantic import AliasChoices, AliasPath, BaseModel, Discriminator, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType, is_typeddict

_ALWAYS: Final[frozenset[object]] = frozenset({int, str, bool, NoneType, None})
_ONCE: Final[frozenset[object]] = frozenset(
    {collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator}
)
_LOOK_UP: Final = (
    "Hand over the secret's name, and look it up in the step that needs it; or write it with a serializer."
)


@dataclasses.dataclass(frozen=True, slots=True)
class TypeRefusal:
    said: str
    advice: str


def proven(annotation: object) -> frozenset[type]:
    """The types whose values, of that very type, come back as they are under this annotation: known without a look."""
    if annotation is UNANNOTATED or annotation is Any or annotation is object:
        return frozenset({int, str, bool, NoneType})
    if annotation is float:
        return frozenset({float})
    parts = members(annotation) or (annotation,)
    if not all(isinstance(part, type | None) and part in _ALWAYS for part in parts):
        return frozenset()
    return frozenset(NoneType if part is None else cast("type", part) for part in parts)


def refusals(annotation: object) -> list[TypeRefusal]:
    """The places of the type in which no value would come back as it was, each with the fix."""
    return [] if annotation is UNANNOTATED else list(_refusals(annotation, "$", set()))


def _refusals(annotation: object, path: str, met: set[object]) -> Iterator[TypeRefusal]:
    told_apart = False
    if get_origin(annotation) is Annotated:
        extras = get_args(annotation)[1:]
        if any(map(_writes_its_own_way, extras)):
            return
        told_apart = any(isinstance(extra, Discriminator) or getattr(extra, "discriminator", None) for extra in extras)
    if isinstance(annotation, TypeAliasType):
        if annotation in met:
            return
        met.add(annotation)
    annotation = plain(annotation)
    if parts := members(annotation):
        if not told_apart:
            yield from _alike(parts, path)
        for part in parts:
            yield from _refusals(part, path, met)
        return
    origin: object = get_origin(annotation) or annotation
    if origin in _ONCE:
        said = f"{path} is {name_of(annotation)}, which is read as an iterator that can be gone through once."
        yield TypeRefusal(said, "Annotate it as a list.")
    if isinstance(origin, type) and issubclass(origin, SecretStr | SecretBytes | Secret):
        yield TypeRefusal(
            f"{path} is {name_of(annotation)}, whose JSON is asterisks: the secret would be lost.", _LOOK_UP
        )
    elif not (isinstance(origin, type) and _is_custom(origin)):
        yield from _in_parts(annotation, origin, path, met)


def _in_parts(annotation: object, origin: object, path: str, met: set[object]) -> Iterator[TypeRefusal]:
    match shape_of(annotation):
        case Array(items):
            for item in items:
                yield from _refusals(item, f"{path}[]", met)
        case Dictionary(value=value):
            yield from _refusals(value, f"{path}[]", met)
        case Record() as record if annotation not in met:
            met.add(annotation)
            yield from _of_record(cast("type", origin), record, path, met)
        case _:
            return


def _alike(parts: tuple[object, ...], path: str) -> Iterator[TypeRefusal]:
    """Two classes of a union that no JSON tells apart."""
    shaped = [(plain(part), shape_of(plain(part))) for part in parts if not is_typeddict(plain(part))]
    records = [(part, shape) for part, shape in shaped if isinstance(shape, Record)]
    for (one, left), (other, right) in combinations(records, 2):
        if left.fields.keys() == right.fields.keys() and admits(one, other) and admits(other, one):
            yield TypeRefusal(
                f"{path} is {name_of(one)} or {name_of(other)}, and nothing in their JSON tells the two apart.",
                f'Give each a field of its own, as in `kind: Literal["{name_of(one).lower()}"] = '
                f'"{name_of(one).lower()}"`.',
            )


def _of_record(origin: type, record: Record, path: str, met: set[object]) -> Iterator[TypeRefusal]:
    yield from _of_init_vars(origin, path)
    infos = cast("Mapping[str, FieldInfo]", getattr(origin, "__pydantic_fields__", {}))
    own = cast("Any", getattr(origin, "__pydantic_decorators__", None))
    reads_its_own_way = own is not None and (
        bool(own.root_validators) or any(found.info.mode != "after" for found in own.model_validators.values())
    )
    if not reads_its_own_way and own is not None:
        yield from _of_names(origin, infos, record, path)
    serialized: set[str] = {
        name for found in (own.field_serializers.values() if own else ()) for name in found.info.fields
    }
    if "*" in serialized:
        return
    for name, info in infos.items():
        if name not in serialized and info.exclude is not True and not any(map(_writes_its_own_way, info.metadata)):
            given = Annotated[info.annotation, info] if info.discriminator else info.annotation
            yield from _refusals(given, f"{path}.{name}", met)
    if not infos:
        for name, field in record.fields.items():
            yield from _refusals(field.annotation, f"{path}.{name}", met)


def _of_names(origin: type, infos: Mapping[str, FieldInfo], record: Record, path: str) -> Iterator[TypeRefusal]:
    """Fields that are written under a name by which they are not read, or not at all."""
    for name, info in infos.items():
        written = info.serialization_alias or name
        field = record.fields[written]
        if info.exclude is True:
            if field.needed:
                yield TypeRefusal(
                    f"{path}.{name} is required and excluded: {name_of(origin)} cannot be read as it is written.",
                    "Give it a default, or do not exclude it.",
                )
        elif written not in field.read_as and not _has_path(info):
            read = " or ".join(repr(one) for one in field.read_as) or "no name"
            yield TypeRefusal(
                f"{path}.{name} is written as {written!r} and read as {read}: its value would be lost.",
                "Use one `alias=` for both, or set `populate_by_name=True` on the model.",
            )
    computed = [name for name, field in record.fields.items() if not field.read_as and name not in infos]
    computed = [name for name in computed if not any(info.serialization_alias == name for info in infos.values())]
    if computed and record.extra != "ignore":
        yield TypeRefusal(
            f"{path} has the computed field {computed[0]!r} and extra={record.extra!r}: {name_of(origin)} cannot be "
            "read as it is written.",
            'Set extra="ignore", or make the computed field a plain property.',
        )


def _of_init_vars(origin: type, path: str) -> Iterator[TypeRefusal]:
    if not dataclasses.is_dataclass(origin):
        return
    kept = {field.name for field in dataclasses.fields(origin)}
    for name, parameter in inspect.signature(origin).parameters.items():
        if name not in kept and parameter.default is inspect.Parameter.empty:
            yield TypeRefusal(
                f"{path}.{name} is an InitVar: it is not kept, and {name_of(origin)} cannot be made without it.",
                "Make it an ordinary field, or give it a default.",
            )


def _has_path(info: FieldInfo) -> bool:
    alias = info.validation_alias
    choices: list[object] = [*alias.choices] if isinstance(alias, AliasChoices) else [alias]
    return any(isinstance(choice, AliasPath) for choice in choices)


def _is_custom(origin: type) -> bool:
    """Whether a class says itself how it is written: then only its values show what comes back."""
    own = cast("Any", origin.__dict__.get("__pydantic_decorators__"))
    config = cast("Mapping[str, Any]", getattr(origin, "model_config", None) or {})
    if (own is not None and own.model_serializers) or config.get("json_encoders"):
        return True
    named = ("__get_pydantic_core_schema__", "__get_validators__")
    bases = [
        base for base in origin.__mro__ if base is not BaseModel and base.__module__.partition(".")[0] != "pydantic"
    ]
    return any(name in vars(base) for base in bases for name in named)


def _writes_its_own_way(extra: object) -> bool:
    return type(extra).__name__ in ("PlainSerializer", "WrapSerializer") or (
        hasattr(extra, "__get_pydantic_core_schema__") and type(extra).__module__.partition(".")[0] != "pydantic"
    )
