"""When a failed attempt is tried again. Pure: the jitter is an argument."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from detent_state_machine.errors import DefinitionError
from detent_state_machine.suggest import did_you_mean

MAX_DELAY = 86_400.0
"""Longest pause between two attempts, in seconds; also bounds what a server's Retry-After can ask for."""


class Retry(BaseModel):
    """Retry policy of a step.

    `attempts` counts the first one too (default 3). The pause before attempt n+1 is drawn evenly from 0 to
    `initial * backoff**(n-1)` seconds, at most `max_delay` (full jitter; defaults 1 s, factor 2, 60 s); with
    `jitter=False` it is exactly that. An error that names a pause of its own (`RetryAfter`) waits at least that
    long. Errors whose class, or a base class, is named in `non_retryable` are not tried again. Raises
    `DefinitionError`, which names the option.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: Annotated[int, Field(ge=1, le=1000)] = 3
    backoff: Annotated[float, Field(ge=1, le=1000)] = 2.0
    initial: Annotated[float, Field(ge=0, le=MAX_DELAY)] = 1.0
    max_delay: Annotated[float, Field(ge=0, le=MAX_DELAY)] = 60.0
    jitter: bool = True
    non_retryable: tuple[str, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_by_name(cls, data: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            if info.mode == "json" or not isinstance(data, dict):  # read from a text, or no options: others say where
                raise
            raise _refused(error, cls) from error


def _refused(error: ValidationError, policy: type[Retry]) -> DefinitionError:
    problem = error.errors()[0]
    option, given = str(problem["loc"][0]), problem["input"]
    if problem["type"] == "extra_forbidden":
        known = list(policy.model_fields)
        advice = did_you_mean(option, known, f"It has: {', '.join(known)}.")
        return DefinitionError(f"`Retry` has no option {option!r}.", advice=advice)
    if option == "non_retryable":
        name = given.__name__ if isinstance(given, type) else given if isinstance(given, str) else "ValueError"
        said = f"`Retry(non_retryable=…)` takes a tuple of names of exception classes, not {given!r}."
        return DefinitionError(said, advice=f"Write it as `non_retryable=({name!r},)`.")
    said = f"`Retry({option}={given!r})`: it {problem['msg'].removeprefix('Input ')}."
    return DefinitionError(said, advice=f"Left out, it is {policy.model_fields[option].default!r}.")


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after this many seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The step run has failed for good."""

    reason: str


Verdict: TypeAlias = Again | GiveUp


def decide(
    policy: Retry,
    *,
    errors: int,
    kinds: Collection[str],
    retryable: bool,
    retry_after: float | None,
    jitter: float,
) -> Verdict:
    """What follows the error that made the count `errors`.

    `kinds` are the names of the exception's class and its bases, `jitter` is a number from 0 up to 1.
    """
    if not retryable:
        return GiveUp("the error says not to retry")
    named = sorted(set(kinds) & set(policy.non_retryable))
    if named:
        return GiveUp(f"{named[0]} is listed as non-retryable")
    if errors >= policy.attempts:
        return GiveUp(f"attempt {errors} of {policy.attempts} failed")
    ceiling = _ceiling(policy, errors)
    pause = ceiling * jitter if policy.jitter else ceiling
    return Again(max(pause, min(retry_after or 0.0, MAX_DELAY)))


def _ceiling(policy: Retry, errors: int) -> float:
    if policy.initial == 0:
        return 0.0
    try:
        grown = policy.initial * policy.backoff ** (errors - 1)
    except OverflowError:
        return policy.max_delay
    return min(policy.max_delay, grown)
