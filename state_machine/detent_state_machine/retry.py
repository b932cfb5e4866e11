"""When a failed attempt is tried again. Pure: the jitter is an argument."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import TYPE_CHECKING, Annotated, NoReturn, Self, TypeAlias, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from detent_state_machine.backoff import Backoff
from detent_state_machine.durations import Seconds, seconds_of, why_not_seconds
from detent_state_machine.errors import DefinitionError
from detent_state_machine.suggest import did_you_mean

MAX_DELAY = 86_400.0
"""Longest pause between two attempts, in seconds; also bounds what a server's Retry-After can ask for."""
MAX_ATTEMPTS = 1000


def _pause(given: object, info: ValidationInfo) -> object:
    if info.mode == "json":  # read from a stored definition: whoever reads it says where
        return given
    if why := why_not_seconds(given, most=MAX_DELAY):
        _refuse(str(info.field_name), given, why)
    return seconds_of(given)


def _names(given: object, info: ValidationInfo) -> object:
    if info.mode == "json":
        return given
    if not isinstance(given, tuple | list):
        one = _spelling(given)
        raise DefinitionError(
            f"`Retry(non_retryable=…)` takes a tuple of names of exceptions, or of their classes, not {given!r}.",
            advice=f"Write it as `non_retryable=({one},)`.",
        )
    return tuple(_name_of(each) for each in cast("Sequence[object]", given))


def _spelling(given: object) -> str:
    if isinstance(given, type):
        return given.__name__
    return repr(given) if isinstance(given, str) and given else "ValueError"


def _name_of(given: object) -> str:
    """The name of an exception class. Refuses what no error is ever called: the option would do nothing."""
    if isinstance(given, type):
        if issubclass(given, BaseException):
            return given.__name__
        raise DefinitionError(
            f"`Retry(non_retryable=…)`: {given.__name__} is not an exception class, so no step can raise it.",
            advice="Give the class of the error, or a base class of it.",
        )
    if not isinstance(given, str):
        raise DefinitionError(
            f"`Retry(non_retryable=…)` takes exception classes or their names, not {given!r}.",
            advice="Give the class of the error: `non_retryable=(ValueError,)`.",
        )
    last = given.strip().rpartition(".")[2]
    plausible = last.isidentifier() and not iskeyword(last)
    if given == last and plausible and last != "object" and not last[0].islower():
        return given
    likely = last if not plausible or not last[0].islower() else last[0].upper() + last[1:]
    fix = f"Write {likely!r}, or give" if plausible and likely != "Object" else "Give"
    raise DefinitionError(
        f"`Retry(non_retryable=…)`: no error can match {given!r}. Errors are matched by the name of their class alone, "
        "without its module.",
        advice=f"{fix} the class itself.",
    )


class Retry(BaseModel):
    """Retry policy of a step. `retry=3` is short for `retry=Retry(attempts=3)`.

    `attempts` counts the first one too (default 3). The pause before attempt n+1 is drawn evenly from 0 to
    `initial * backoff**(n-1)` seconds, at most `max_delay` (full jitter; defaults 1 s, factor 2, 60 s); with
    `jitter=False` it is exactly that. `initial` and `max_delay` are numbers of seconds or `timedelta`s. An error that
    names a pause of its own (`RetryAfter`) waits at least that long. Errors whose class, or a base class, is in
    `non_retryable` are not tried again: give exception classes, or their names where importing them is unwanted.
    Raises `DefinitionError`, which names the option.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS, strict=True)] = 3
    backoff: Annotated[float, Field(ge=1, le=1000, strict=True, allow_inf_nan=False)] = 2.0
    initial: Annotated[float, Field(ge=0, le=MAX_DELAY, allow_inf_nan=False), BeforeValidator(_pause)] = 1.0
    max_delay: Annotated[float, Field(ge=0, le=MAX_DELAY, allow_inf_nan=False), BeforeValidator(_pause)] = 60.0
    jitter: Annotated[bool, Field(strict=True)] = True
    non_retryable: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            attempts: int = 3,
            backoff: float = 2.0,
            initial: Seconds = 1.0,
            max_delay: Seconds = 60.0,
            jitter: bool = True,
            non_retryable: Sequence[str | type[BaseException]] = (),
        ) -> None: ...

    else:

        def __new__(cls, *positional: object, **_: object) -> Self:
            if positional:
                raise DefinitionError(
                    f"`Retry({positional[0]!r})`: its options have names.", advice="Write it as `Retry(attempts=3)`."
                )
            return super().__new__(cls)

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
    return _refusal(option, given, problem["msg"].removeprefix("Input should be "))


def _refuse(option: str, given: object, why: str) -> NoReturn:
    raise _refusal(option, given, why)


def _refusal(option: str, given: object, why: str) -> DefinitionError:
    return DefinitionError(
        f"`Retry({option}={given!r})`: it should be {why}.",
        advice=f"Left out, it is {Retry.model_fields[option].default!r}.",
    )


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
    ceiling = Backoff(policy.initial, policy.max_delay, policy.backoff).pause(errors)
    pause = ceiling * jitter if policy.jitter else ceiling
    return Again(max(pause, min(retry_after or 0.0, MAX_DELAY)))
