"""Python values to JSON and back, with errors that say where."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

from detent_state_machine.compatibility import UNANNOTATED, name_of
from detent_state_machine.errors import DefinitionError, InputError, NotSerializable
from detent_state_machine.nesting import MAX_NESTING, too_deep
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic_core import PydanticSerializationError, to_json

from detent.declared_types import proven, refusals
from detent.round_trip import FINITE, Difference, difference

_T = TypeVar("_T")

LARGE = 2**64
"""From here on a number may be longer than readers take: it is read back."""
SAME = "What is given and what is read are of one type: change the value, or one of the two annotations."
OLDER = (
    "The run was started with another version of the code: give a new field a default, or keep the changed step under "
    "a new name."
)


class Json(Generic[_T]):
    """Reads and writes values of one annotation: the one door through which values become JSON and come back.

    What `write` returns is read back as the value that it was given, of the same type, part by part; whatever would
    not be is refused, with the path to it.
    """

    def __init__(self, annotation: object, what: str = "A value", *, written: bool = False) -> None:
        """Raises `DefinitionError` for a type that has no JSON form, or, if its values are `written`, that shows that
        they would not come back; `what` names it.
        """
        self._annotation = annotation
        self._what = what
        self._written = written
        self._checked = False
        try:
            self._adapter: TypeAdapter[_T] = _adapter(annotation)
        except Exception as error:
            raise self._no_json_form(error) from error
        self.proven = proven(annotation)
        """Values of these very types come back as they are: nothing needs to be read back."""
        if self._adapter.pydantic_complete:
            self.check_complete()

    def check_complete(self) -> None:
        """Raises `DefinitionError` for a type with a part that is not defined anywhere, or that would not come back.

        Not when it is declared, if it is not complete by then: a model may name another that its module defines
        further down.
        """
        if self._checked:
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
        if self._written and (found := refusals(self._annotation)):
            said = " ".join(refusal.said for refusal in found[:3])
            raise DefinitionError(f"{self._what} is {name_of(self._annotation)}: {said}", advice=found[0].advice)
        self._checked = True

    def _no_json_form(self, error: Exception) -> DefinitionError:
        """Whatever a type's own hooks raise while it is built."""
        return DefinitionError(
            f"{self._what} is {name_of(self._annotation)}, which has no JSON form: {_first_line(error)}.",
            advice="Use pydantic models, dataclasses, or plain JSON types.",
        )

    def read(self, text: str, what: str, *, older: Callable[[], bool] = lambda: False) -> _T:
        """The value in the JSON text; `what` names it. Raises `InputError` with the path of what does not fit.

        `older` is asked then: whether another version of the code may have written it.
        """
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{what} does not fit {name_of(self._annotation)}: {_problems(error)}.",
                advice=OLDER if older() else SAME,
            ) from None  # the cause would show the value, which may be a secret

    def write(self, value: object, what: str) -> str:
        """The value as JSON text that is read back as the same value.

        Raises `InputError` if it does not fit the annotation, `NotSerializable` if it has no JSON form or would come
        back as something else, both with the path to the trouble.
        """
        kind = type(value)
        if kind in self.proven and (kind is not int or abs(cast("int", value)) < LARGE):
            return self._dumped(value, value, what)
        try:
            fitting = self._adapter.validate_python(value)
        except ValidationError as error:
            raise InputError(
                f"{what} does not fit {name_of(self._annotation)}: {_problems(error)}.",
                advice="Return what the annotation says, or change the annotation.",
            ) from None  # the cause would show the value, which may be a secret
        except RecursionError as error:
            raise self._unserializable(value, what, error) from error
        text = self._dumped(value, fitting, what)
        self._come_back(value, fitting, text, what)
        return text

    def _dumped(self, value: object, fitting: object, what: str) -> str:
        try:
            # By alias, for those are the names that it is read by. What pydantic would only warn of does not come back.
            return self._adapter.dump_json(cast("_T", fitting), by_alias=True, warnings=False).decode()
        except (PydanticSerializationError, UnicodeEncodeError, ValueError, RecursionError) as error:
            raise self._unserializable(value, what, error) from error

    def _come_back(self, value: object, fitting: object, text: str, what: str) -> None:
        """Raises `NotSerializable` unless the text is read as the value."""
        if too_deep(text):
            raise _too_deep(what)
        try:
            back = self._adapter.validate_json(text)
        except ValidationError as error:
            if path := _unserializable(value, "$", 0, numbers=True):
                raise self._changed(
                    Difference(path, "it is not a finite number", FINITE), what
                ) from None  # the cause would show the value, which may be a secret
            raise NotSerializable(
                f"{what} would not be read back as {name_of(self._annotation)}: {_problems(error)}.",
                path=_place(error.errors(include_url=False)[0]["loc"]),
                advice="Let it fit its type: what is assigned later is not checked, and names, validators and "
                "serializers must agree on what is written.",
            ) from None  # the cause would show the value, which may be a secret
        found = difference(value, back)
        if found is not None and fitting is not value:
            found = difference(value, back, forms=True) or difference(fitting, back)
        if found is not None:
            raise self._changed(found, what)

    def _changed(self, found: Difference, what: str) -> NotSerializable:
        return NotSerializable(
            f"{what} has no JSON form at {found.path} that comes back: {found.said}.",
            path=found.path,
            advice=found.advice,
        )

    def _unserializable(self, value: object, what: str, error: Exception) -> NotSerializable:
        if isinstance(error, RecursionError) or "depth exceeded" in str(error):
            return _too_deep(what)
        path = _unserializable(value, "$", 0)
        return NotSerializable(
            f"{what} has no JSON form at {path}: {_first_line(error)}.",
            path=path,
            advice="Use pydantic models, dataclasses, or plain JSON types.",
        )


def storable(text: str) -> str:
    """The text as any store takes it: what is not valid Unicode (parts of a file name, say) is written as `\\udce9`."""
    return text.encode("utf-8", "backslashreplace").decode()


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
    shown = [f"{_place(problem['loc'])}: {problem['msg']}" for problem in error.errors(include_url=False)[:3]]
    more = error.error_count() - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _too_deep(what: str) -> NotSerializable:
    return NotSerializable(
        f"{what} is nested more than {MAX_NESTING} levels deep.", advice="Flatten it, or write it as a text."
    )


def _place(parts: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _unserializable(value: object, path: str, depth: int, *, numbers: bool = False) -> str:
    """The path to the first part that has no JSON form; of `numbers` only, the first that is not finite."""
    if depth > 50:
        return "" if numbers else path
    if isinstance(value, float):
        return path if not math.isfinite(value) else ""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for name, part in cast("Mapping[object, object]", value).items():
            if found := _unserializable(part, f"{path}.{name}", depth + 1, numbers=numbers):
                return found
        return "" if depth or numbers else path
    if isinstance(value, list | tuple | set | frozenset):
        for index, part in enumerate(cast("list[object]", value)):
            if found := _unserializable(part, f"{path}[{index}]", depth + 1, numbers=numbers):
                return found
        return "" if depth or numbers else path
    if numbers:
        return ""
    try:
        to_json(value)
    except (PydanticSerializationError, UnicodeEncodeError, ValueError):
        return path
    return "" if depth else path


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
