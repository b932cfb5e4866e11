"""Python values to JSON and back, with errors that say where."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import NoneType
from typing import Any, Generic, TypeVar, cast

from detent_state_machine.compatibility import UNANNOTATED, name_of
from detent_state_machine.errors import DefinitionError, InputError, NotSerializable
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic_core import PydanticSerializationError, to_json

_T = TypeVar("_T")

NOT_FINITE = ('"NaN"', '"Infinity"', '"-Infinity"')
"""How numbers are written that JSON has none for."""


class Json(Generic[_T]):
    """Reads and writes values of one annotation."""

    def __init__(self, annotation: object, what: str = "A value") -> None:
        """Raises `DefinitionError` for a type that has no JSON form; `what` names it."""
        self._annotation = annotation
        self._what = what
        try:
            self._adapter: TypeAdapter[_T] = _adapter(annotation)
        except Exception as error:
            raise self._no_json_form(error) from error

    def check_complete(self) -> None:
        """Raises `DefinitionError` for a type with a part that is not defined anywhere.

        Not when it is declared: a model may name another that its module defines further down.
        """
        if self._adapter.pydantic_complete:
            return
        try:
            self._adapter.rebuild(raise_errors=True)
        except PydanticUndefinedAnnotation as error:
            raise DefinitionError(
                f"{self._what} is {name_of(self._annotation)}, which names {error.name!r}, and that is not defined.",
                advice=f"Define {error.name!r} in the module of the type that names it, or import it there.",
            ) from error
        except Exception as error:
            raise self._no_json_form(error) from error

    def _no_json_form(self, error: Exception) -> DefinitionError:
        """Whatever a type's own hooks raise while it is built."""
        return DefinitionError(
            f"{self._what} is {name_of(self._annotation)}, which has no JSON form: {_first_line(error)}.",
            advice="Use pydantic models, dataclasses, or plain JSON types.",
        )

    def read(self, text: str, what: str) -> _T:
        """The value in the JSON text; `what` names it. Raises `InputError` with the path of what does not fit."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{what} does not fit {name_of(self._annotation)}: {_problems(error)}.",
                advice="The JSON was written for another type, or by another version of the code.",
            ) from error

    def write(self, value: object, what: str) -> str:
        """The value as JSON text. Raises `InputError` if it does not fit the annotation, `NotSerializable` if it has
        no JSON form, both with the path to the trouble.
        """
        try:
            fitting = self._adapter.validate_python(value)
            # By alias, for those are the names that it is read by.
            text = self._adapter.dump_json(fitting, by_alias=True).decode()
        except ValidationError as error:
            raise InputError(
                f"{what} does not fit {name_of(self._annotation)}: {_problems(error)}.",
                advice="Return what the annotation says, or change the annotation.",
            ) from error
        except (PydanticSerializationError, UnicodeEncodeError, ValueError, RecursionError) as error:
            path = _unserializable(value, "$", 0)
            raise NotSerializable(
                f"{what} has no JSON form at {path}: {_first_line(error)}.",
                path=path,
                advice="Use pydantic models, dataclasses, or plain JSON types.",
            ) from error
        if path := self._lost_number(fitting, text):
            raise NotSerializable(
                f"{what} has no JSON form at {path}: it is not a finite number.",
                path=path,
                advice="Use None, or annotate it as float (in a model of your own, with "
                '`ConfigDict(ser_json_inf_nan="strings")`).',
            )
        return text

    def _lost_number(self, fitting: _T, text: str) -> str:
        """The path to a number that does not come back from the text, as those that are not finite may not: pydantic
        writes them as null, or as a text that only an annotation of float reads as a number again.
        """
        plain = partial(self._adapter.dump_python, by_alias=True)
        path = _turned_into(NoneType, plain(fitting), json.loads(text), "$") if "null" in text else ""
        if not path and any(word in text for word in NOT_FINITE):
            with suppress(ValidationError):  # who reads it hears of that
                path = _turned_into(str, plain(fitting), plain(self._adapter.validate_json(text)), "$")
        return path


def storable(text: str) -> str:
    """The text as any store takes it: what is not valid Unicode (parts of a file name, say) is written as `\\udce9`."""
    return text.encode("utf-8", "backslashreplace").decode()


def _turned_into(kind: type, value: object, back: object, path: str) -> str:
    """The path to a number that came back as something of this kind."""
    if isinstance(value, float):
        return path if isinstance(back, kind) else ""
    if isinstance(value, Mapping) and isinstance(back, Mapping):
        found = (
            _turned_into(kind, part, cast("Mapping[object, object]", back)[name], f"{path}.{name}")
            for name, part in cast("Mapping[object, object]", value).items()
            if name in back
        )
        return next(filter(None, found), "")
    if isinstance(value, list | tuple) and isinstance(back, list | tuple):
        parts = zip(cast("Sequence[object]", value), cast("Sequence[object]", back), strict=False)
        return next(filter(None, (_turned_into(kind, a, b, f"{path}[{n}]") for n, (a, b) in enumerate(parts))), "")
    return ""


def _adapter(annotation: object) -> TypeAdapter[Any]:
    plain: Any = Any if annotation is UNANNOTATED else annotation
    if _has_own_config(plain):
        return TypeAdapter(plain)
    try:
        # Not a number has no JSON form; as text it survives the way there and back.
        return TypeAdapter(plain, config=ConfigDict(ser_json_inf_nan="strings"))
    except Exception:  # noqa: BLE001 - types with a config of their own refuse a second one
        return TypeAdapter(plain)


def _has_own_config(annotation: object) -> bool:
    return dataclasses.is_dataclass(annotation) or (inspect.isclass(annotation) and issubclass(annotation, BaseModel))


def _problems(error: ValidationError) -> str:
    shown: list[str] = []
    for problem in error.errors(include_url=False)[:3]:
        path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        shown.append(f"{path}: {problem['msg']}")
    more = error.error_count() - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _unserializable(value: object, path: str, depth: int) -> str:
    """The path to the first part that has no JSON form."""
    if depth > 50:
        return path
    if isinstance(value, float):
        return path if not math.isfinite(value) else ""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for name, part in cast("Mapping[object, object]", value).items():
            if found := _unserializable(part, f"{path}.{name}", depth + 1):
                return found
        return "" if depth else path
    if isinstance(value, list | tuple | set | frozenset):
        for index, part in enumerate(cast("list[object]", value)):
            if found := _unserializable(part, f"{path}[{index}]", depth + 1):
                return found
        return "" if depth else path
    try:
        to_json(value)
    except (PydanticSerializationError, UnicodeEncodeError, ValueError):
        return path
    return "" if depth else path


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
