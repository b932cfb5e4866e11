"""What may be said of a step, and what is refused, by name, because it cannot mean what its author thinks."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, cast

from detent_infra.connect import FORMS
from detent_state_machine.definition import DEFAULT_RETENTION_DAYS, DEFAULT_TAKEOVERS, DEFAULT_TIMEOUT
from detent_state_machine.durations import Seconds, seconds_of, why_not_seconds
from detent_state_machine.errors import ConfigurationError, DefinitionError, DetentError, InputError
from detent_state_machine.retry import MAX_ATTEMPTS, Retry
from detent_state_machine.status import Delivery, RunStatus
from detent_state_machine.suggest import did_you_mean

from detent.settings import settings

if TYPE_CHECKING:
    from detent.wait import AnyNode

DeliveryName: TypeAlias = Delivery | Literal["at_least_once", "at_most_once", "exactly_once"]
StatusName: TypeAlias = Literal["RUNNING", "FAILING", "COMPLETED", "FAILED", "CANCELLED"]
MAX_TIMEOUT = 86_400
"""Seconds."""
MAX_TAKEOVERS = 100
MAX_RETENTION_DAYS = 3_650


class HandlerOptions(TypedDict, total=False):
    """What may be said of a failure handler."""

    name: str
    """Default: the function's."""
    after: Sequence[AnyNode | str]
    """Steps it follows without taking their output."""
    delivery: DeliveryName
    """How often the body may run. Default: `at_least_once`."""
    retry: Retry | int | None
    """A policy, or a number of attempts. Default: 3 attempts, exponential pauses with full jitter."""
    timeout: Seconds
    """Seconds or a `timedelta`, per attempt. Default: 60 s."""
    takeovers: int
    """How often another worker may go on after one died. Default: 5."""


class StepOptions(HandlerOptions, total=False):
    """What may be said of a step."""

    when: bool | None
    """Skips the step unless the condition holds, and with it every step that needs its output (one whose parameter
    admits None runs all the same)."""


def check_known(where: str, decorator: str, options: Mapping[str, object], kind: type) -> None:
    """Raises `DefinitionError` for an option that the decorator does not have."""
    known = list(kind.__annotations__)
    for option in options:
        if option not in known:
            raise DefinitionError(
                f"{where}: `@{decorator}` has no option {option!r}.",
                advice=did_you_mean(option, known, f"It has: {', '.join(known)}."),
            )


# ---- options of a step, each as it is declared ------------------------------------------------------------------


def retry_policy(where: str, given: object) -> Retry | None:
    """The policy in `retry=`; None for the default."""
    if given is None or isinstance(given, Retry):
        return given
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MAX_ATTEMPTS:
        return Retry(attempts=given)
    if given is Retry:
        advice = "Call it: `retry=Retry()`."
    elif isinstance(given, bool | int) and given in (0, False):
        advice = "A step that is not tried again has `retry=1`: its first attempt is one."
    else:
        advice = "Write `retry=3` for three attempts, or `retry=Retry(attempts=3, initial=0.5)`."
    raise DefinitionError(
        f"{where}: `retry={written(given)}` is neither a `Retry` nor a number of attempts from 1 to {MAX_ATTEMPTS:,}.",
        advice=advice,
    )


def timeout_seconds(where: str, given: object) -> float:
    """The seconds in `timeout=`."""
    if why := why_not_seconds(given, most=MAX_TIMEOUT, above=True):
        raise DefinitionError(
            f"{where}: `timeout={written(given)}`: it should be {why}.",
            advice=f"Each attempt has a time-out: left out, it is {DEFAULT_TIMEOUT:g} s.",
        )
    return cast("float", seconds_of(given))


def takeover_count(where: str, given: object) -> int:
    """The number in `takeovers=`."""
    return _whole(where, "takeovers", given, 0, MAX_TAKEOVERS, DEFAULT_TAKEOVERS)


def retention(where: str, given: object) -> int:
    """The days in `retention_days=`."""
    return _whole(where, "retention_days", given, 1, MAX_RETENTION_DAYS, DEFAULT_RETENTION_DAYS)


def delivery_of(where: str, given: object) -> Delivery:
    """The delivery in `delivery=`."""
    try:
        return Delivery(cast("str", given))
    except ValueError:
        names = [each.value for each in Delivery]
        likely = given.lower().replace("-", "_").replace(" ", "_") if isinstance(given, str) else ""
        raise DefinitionError(
            f"{where}: there is no delivery {written(given)}.",
            advice=f"Write {likely!r}." if likely in names else "It is at_least_once, at_most_once or exactly_once.",
        ) from None


def text(where: str, option: str, given: object) -> str:
    """Text, perhaps empty."""
    if not isinstance(given, str):
        raise DefinitionError(f"{where}: `{option}={written(given)}`: it should be text.", advice="Write it in quotes.")
    return given


def json_type(where: str, option: str, given: object) -> object:
    """What was given as `input=` or `output=`: a type."""
    if isinstance(given, str) or inspect.isroutine(given):
        advice = f"Write it without quotes: `{option}={given}`." if isinstance(given, str) else "Give its type instead."
        raise DefinitionError(f"{where}: `{option}={written(given)}` is not a type.", advice=advice)
    return given


def step_name(where: str, given: object) -> str:
    """What was given as `name=`."""
    if not isinstance(given, str):
        raise DefinitionError(f"{where}: a name is text, not {written(given)}.", advice="Write it in quotes.")
    if not given:
        raise DefinitionError(f"{where}: `name=''` names nothing.", advice="Leave it out: the name is the function's.")
    return given


def _whole(where: str, option: str, given: object, least: int, most: int, default: int) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and least <= given <= most:
        return given
    raise DefinitionError(
        f"{where}: `{option}={written(given)}`: it should be a whole number from {least} to {most:,}.",
        advice=f"Left out, it is {default}.",
    )


# ---- arguments of calls ---------------------------------------------------------------------------------------


def backend_url(call: str, given: object) -> str:
    """The URL in `url=`, by default that of the settings. Raises `ConfigurationError`."""
    if given is None:
        return settings().url
    if not isinstance(given, str) or not given:
        raise ConfigurationError(f"`{call}(url={written(given)})`: it is not the URL of a backend.", advice=FORMS)
    return given


def seconds(
    call: str,
    option: str,
    given: object,
    *,
    above: bool = False,
    advice: str = "",
    error: type[DetentError] = InputError,
) -> float:
    """The seconds in an argument of a call. Raises `InputError` (or `error`) that names both."""
    if why := why_not_seconds(given, above=above):
        raise error(f"`{call}({option}={written(given)})`: it should be {why}.", advice=advice)
    return cast("float", seconds_of(given))


def whole(call: str, option: str, given: object, least: int = 1) -> int:
    """A whole number in an argument of a call. Raises `InputError` that names both."""
    if isinstance(given, int) and not isinstance(given, bool) and given >= least:
        return given
    raise InputError(f"`{call}({option}={written(given)})`: it should be a whole number, {least} or more.")


def check_text(call: str, option: str, given: object) -> None:
    """Raises `InputError` for an argument that is not text, or is empty."""
    if not isinstance(given, str) or not given:
        raise InputError(f"`{call}({option}={written(given)})`: it should be text, and not empty.")


def check_start(key: object, metadata: object) -> None:
    """Raises `InputError` for a key that is not text, or metadata that is not by name."""
    if key is not None and not isinstance(key, str):
        raise InputError(
            f"`start(key={written(key)})`: an idempotency key is text.", advice=f"Write it as `key={str(key)!r}`."
        )
    check_metadata("start", metadata)


def check_metadata(call: str, given: object) -> None:
    """Raises `InputError` for metadata that is not a mapping of text to text. The values may be secrets."""
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise InputError(f"`{call}(metadata=…)` is a {type(given).__name__}: it should be text by name.")
    for name, value in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InputError(
                f"`{call}(metadata=…)`: a run's metadata is text by name, and {written(name)} is not.",
                advice="Write numbers and dates as text.",
            )


def check_many(values: object, key: object) -> None:
    """Raises `InputError` for arguments of `start_many` that are not a list of inputs and a function of each."""
    given = written(values)
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise InputError(
            f"`start_many(values={given})`: it should be a list of inputs.",
            advice="Write one input as `[value]`, an iterator as `list(values)`.",
        )
    if key is not None and not callable(key):
        raise InputError(
            f"`start_many(key={written(key)})`: it should be a function that makes each value's key.",
            advice="Write `key=lambda value: value.id`.",
        )


def run_statuses(given: object) -> tuple[RunStatus, ...]:
    """The statuses in `statuses=`, given as `RunStatus` or by name. Raises `InputError`."""
    if isinstance(given, str) or not isinstance(given, Collection):
        one = f"[{given!r}]" if isinstance(given, str) else "['FAILED']"
        raise InputError(
            f"`runs(statuses={written(given)})`: it should be a list of statuses.", advice=f"Write `statuses={one}`."
        )
    names = [status.value for status in RunStatus]
    found: list[RunStatus] = []
    for each in cast("Collection[object]", given):
        name = each.strip().upper() if isinstance(each, str) else each
        if name not in names:
            raise InputError(
                f"`runs(statuses=…)`: {written(each)} is not the status of a run.",
                advice=f"They are {', '.join(names)}.",
            )
        found.append(RunStatus(name))
    return tuple(found)


def moment(call: str, option: str, given: object, now: int) -> int:
    """A `datetime`, or a `timedelta` before now, in milliseconds since the epoch; 0 for None. Raises `InputError`."""
    match given:
        case None:
            return 0
        case datetime():
            return int(given.astimezone(UTC).timestamp() * 1000)
        case timedelta():
            return now - int(given.total_seconds() * 1000)
        case _:
            raise InputError(
                f"`{call}({option}={written(given)})`: it should be a `datetime`, or a `timedelta`.",
                advice=f"Write `{option}=timedelta(hours=1)` for the last hour.",
            )


def written(given: object) -> str:
    """A refused value as its author wrote it, as far as that can be told."""
    return given.__name__ if isinstance(given, type) else repr(given)[:80]
