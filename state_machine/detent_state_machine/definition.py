"""The Definition: a workflow as data. JSON in, JSON out, versioned by its content."""

from __future__ import annotations

import json
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from detent_state_machine.errors import CorruptRecord, NewerRecord
from detent_state_machine.retry import Retry
from detent_state_machine.status import Delivery
from detent_state_machine.when import Condition

FORMAT = 1
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


class Definition(BaseModel):
    """A compiled workflow: what the engine follows, whatever code is deployed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: Name
    steps: Annotated[tuple[StepDefinition, ...], Field(min_length=1, max_length=MAX_STEPS)]
    description: str = ""
    input_schema: JsonSchema = {}
    retention_days: Annotated[int, Field(ge=1, le=3650)] = DEFAULT_RETENTION_DAYS

    @cached_property
    def version(self) -> str:
        """Hash of the content: the same declaration has the same version on every machine."""
        return sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def takes_input(self) -> bool:
        """Whether a run needs an input. A task without parameters takes null, and so does a workflow of any input."""
        return self.input_schema not in ({}, {"type": "null"})

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, so that equal definitions are equal texts."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Definition:
        """Raises `NewerRecord` for a newer format and `CorruptRecord` for what is no definition."""
        try:
            return Definition.model_validate_json(text)
        except ValidationError as error:
            if (newer := _format_of(text)) > FORMAT:
                raise NewerRecord(
                    f"A definition has format {newer}; this worker reads up to {FORMAT}.",
                    advice="Upgrade this worker.",
                ) from error
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "as a whole"
            raise CorruptRecord(
                f"A stored definition cannot be read: {where}: {first['msg']}.",
                advice="It was not written by detent, or was changed by hand.",
            ) from error


def _format_of(text: str) -> int:
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return 0
    found = parsed.get("format") if isinstance(parsed, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return found if isinstance(found, int) else 0
