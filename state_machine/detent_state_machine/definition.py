"""The Definition: a workflow as data. JSON in, JSON out, versioned by its content."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, Literal, Self, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.fields import FieldInfo

from detent_state_machine.errors import CorruptRecord, NewerRecord
from detent_state_machine.formats import Since as Since
from detent_state_machine.kinds import Call, Kind
from detent_state_machine.retry import Retry
from detent_state_machine.status import Delivery
from detent_state_machine.when import Condition

FORMAT = 4
"""The newest feature that this version reads and writes."""
MAX_STEPS = 1000
MAX_NAME = 128
DEFAULT_TIMEOUT = 60.0
DEFAULT_TAKEOVERS = 5
DEFAULT_RETENTION_DAYS = 30

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
JsonSchema = dict[str, JsonValue]


class Parent(BaseModel):
    """An edge of the graph. `need="completed"`: a skipped parent skips this step too; `"done"`: it does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: Name
    need: Literal["completed", "done"]


class StepDefinition(BaseModel):
    """A step as the engine sees it. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    scope: Literal["main", "on_failure"] = "main"
    parents: tuple[Parent, ...] = ()
    reads: tuple[Name, ...] = ()
    """Steps whose outputs are handed to the body; null where one did not complete."""
    when: Condition | None = None
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    retry: Retry = Retry()
    timeout: Annotated[float, Field(gt=0, le=86_400)] = DEFAULT_TIMEOUT
    takeovers: Annotated[int, Field(ge=0, le=100)] = DEFAULT_TAKEOVERS
    """How many times another worker may take over from a dead one before the step run is FAILED (Interrupted)."""
    description: str = ""
    output_schema: JsonSchema = {}
    kind: Annotated[Kind, Since(3)] = Call()
    """What it does: calls the function that the code has under its name, or waits."""


class Definition(BaseModel):
    """A compiled workflow: what the engine follows, whatever code is deployed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1, 2, 3, 4] = 1
    """The newest feature that the definition uses. It is worked out; what is given counts only where it is read."""
    name: Name
    steps: Annotated[tuple[StepDefinition, ...], Field(min_length=1, max_length=MAX_STEPS)]
    description: str = ""
    input_schema: JsonSchema = {}
    retention_days: Annotated[int, Field(ge=1, le=3650)] = DEFAULT_RETENTION_DAYS

    @model_validator(mode="after")
    def _work_out_format(self) -> Self:
        vars(self)["format"] = format_needed(self)  # the model is frozen for everybody else
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy that was changed has a text, a version and a format of its own."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            for name in ("text", "version"):
                vars(copied).pop(name, None)
            vars(copied)["format"] = format_needed(copied)
        return copied

    @cached_property
    def version(self) -> str:
        """Hash of the content: the same declaration has the same version on every machine.

        What has its default does not count, so that a new option changes the version of nobody who does not use it.
        """
        return sha256(self.to_json().encode()).hexdigest()[:16]

    @cached_property
    def text(self) -> str:
        """See `to_json`. A definition that was read keeps its text, and so the version that it is stored under."""
        written = {**without_defaults(self), "format": self.format}
        return json.dumps(written, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def takes_input(self) -> bool:
        """Whether a run needs an input. A task without parameters takes null, and so does a workflow of any input."""
        return self.input_schema not in ({}, {"type": "null"})

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, nothing that has its default. Equal definitions are equal texts,
        but for one that an older detent wrote: read back, it is the text that was written then.
        """
        return self.text

    @staticmethod
    def from_json(text: str) -> Definition:
        """Raises `NewerRecord` for a newer format and `CorruptRecord` for what is not a definition."""
        try:
            definition = Definition.model_validate_json(text)
        except ValidationError as error:
            if (newer := _format_of(text)) > FORMAT:
                raise _too_new(newer, error) from error
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "as a whole"
            raise CorruptRecord(
                f"A stored definition cannot be read: {where}: {first['msg']}.",
                advice="It was not written by detent, or was changed by hand.",
            ) from error
        vars(definition)["text"] = text
        return definition


def without_defaults(model: BaseModel) -> dict[str, object]:
    """The model as JSON. Fields that have their default are left out, tags of a union excepted."""
    return {name: _plain(value) for name, _, value in _written(model)}


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return without_defaults(value)
    return [_plain(part) for part in cast("tuple[object, ...]", value)] if isinstance(value, tuple) else value


def format_needed(value: object) -> int:
    """The format of the newest feature that the value uses."""
    if isinstance(value, tuple):
        return max(map(format_needed, cast("tuple[object, ...]", value)), default=1)
    needed = [1]
    if isinstance(value, BaseModel):
        for _, field, part in _written(value):
            needed.append(format_needed(part))
            needed += [mark.needed_by(part) for mark in field.metadata if isinstance(mark, Since)]
    return max(needed)


def _written(model: BaseModel) -> Iterator[tuple[str, FieldInfo, object]]:
    """The fields that are written: their default may never change, or what is stored would change its meaning."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if field.is_required() or _is_tag(field) or value != field.default:
            yield name, field, value


def _is_tag(field: FieldInfo) -> bool:
    """Whether it tells members of a union apart: it can have one value only."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _too_new(newer: int, error: ValidationError) -> NewerRecord:
    problems = error.errors(include_url=False, include_input=False)
    unknown = [".".join(map(str, each["loc"])) for each in problems if each["loc"] != ("format",)]
    said = f" It does not know {', '.join(unknown[:3])[:200]!r}." if unknown else ""
    return NewerRecord(
        f"A definition has format {newer}; this worker reads up to {FORMAT}.{said}",
        advice="Upgrade this worker. The runs of this definition wait for it, and lose nothing.",
    )


def _format_of(text: str) -> int:
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return 0
    found = parsed.get("format") if isinstance(parsed, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return found if isinstance(found, int) else 0
