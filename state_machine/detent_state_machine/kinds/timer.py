"""A step that waits until a time, and needs no worker meanwhile: it is WAITING, and a message comes when it is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, assert_never, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from detent_state_machine import transitions
from detent_state_machine.decisions import (
    Beginning,
    Go,
    HandOver,
    IfRefused,
    Then,
    Transition,
    Unfit,
    final,
    later,
)
from detent_state_machine.errors import CorruptRecord, InputError
from detent_state_machine.lines import Line, duration_text, error_line
from detent_state_machine.records import ErrorInfo, NoRecord, Payload, Seen
from detent_state_machine.status import StepStatus
from detent_state_machine.turn import Moment, Writer
from detent_state_machine.when import Lookup, Ref, name_of, read, value_of

if TYPE_CHECKING:
    from detent_state_machine.definition import StepDefinition

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
MAX_SECONDS = 100 * 366 * 86_400
FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999
"""Of the times that a `datetime` can be, the first and the last; milliseconds."""


class Sleep(BaseModel):
    """Due so many seconds after the step run was reached."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: Literal["sleep"] = "sleep"
    seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)]


class At(BaseModel):
    """Due at a time: milliseconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: Literal["at"] = "at"
    time: Annotated[int, Field(ge=FIRST, le=LAST)]


Due: TypeAlias = Annotated[Sleep | At | Ref, Field(discriminator="kind")]


class Timer(BaseModel):
    """Waits until it is due. A `Ref` is a value of the run: a time as text, with its offset."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: Literal["timer"] = "timer"
    due: Due


def references(timer: Timer) -> tuple[Ref, ...]:
    """The values of the run that say when it is due."""
    return (timer.due,) if isinstance(timer.due, Ref) else ()


def describe(timer: Timer) -> str:
    """What it waits for, in a few words."""
    match timer.due:
        case Sleep(seconds=seconds):
            return f"sleeps {seconds:g} s"
        case At(time=time):
            return f"until {moment_text(time)}"
        case Ref() as ref:
            return f"until {name_of(ref)}"
        case _:
            assert_never(timer.due)


def begin(timer: Timer, step: StepDefinition, me: Writer, seen: Seen, ready: Go | Unfit, at: Moment) -> Beginning:
    """WAITING is written first, then the message for its time is sent, then this one is acknowledged.

    Who dies in between leaves this message, which finds WAITING and sends again. Any worker can end the wait, whatever
    code it has.
    """
    if not isinstance(seen, NoRecord):
        if seen.status is not StepStatus.WAITING:
            raise CorruptRecord(f"Step {step.name!r} waits for a time, and its record says that it is {seen.status}.")
        if seen.due > at.time:
            return HandOver((later(me.path, seen.due, at.time),))
        return _meet(me, seen, seen.due, at)
    due = ready.error if isinstance(ready, Unfit) else _due(timer, ready.lookup, at.time)
    if isinstance(due, ErrorInfo):
        line = error_line("ERROR", "step_failed", "failed", me.path, seen.attempt, due)
        return Transition(transitions.interrupt(me, seen, at, due), Then.FOLLOW, IfRefused.BEGIN, line)
    if due <= at.time:
        return _meet(me, seen, due, at)
    line = Line("INFO", "step_waiting", f"sleeping until {moment_text(due)}", me.path, seen.attempt)
    write = transitions.wait(me, seen, at, due=due)
    return Transition(write, Then.ACKNOWLEDGE, IfRefused.BEGIN, line, (later(me.path, due, at.time),))


def _meet(me: Writer, seen: Seen, due: int, at: Moment) -> Transition:
    slept = 0 if isinstance(seen, NoRecord) else max(0, at.time - seen.started)
    said = f"slept for {duration_text(slept)}" if slept else "was due when it was reached"
    line = Line("INFO", "step_completed", said, me.path, seen.attempt, {"duration_ms": slept})
    write = transitions.meet(me, seen, at, output=Payload(f'"{moment_text(due)}"'))
    return Transition(write, Then.FOLLOW, IfRefused.BEGIN, line)


def _due(timer: Timer, lookup: Lookup, now: int) -> int | ErrorInfo:
    match timer.due:
        case Sleep(seconds=seconds):
            return now + round(seconds * 1000)
        case At(time=time):
            return time
        case Ref() as ref:
            return _time_in(ref, value_of(ref, lookup))
        case _:
            assert_never(timer.due)


def _time_in(ref: Ref, value: JsonValue) -> int | ErrorInfo:
    try:
        if not isinstance(value, str):
            raise ValueError("not text")
        return milliseconds(cast("datetime", read(value, "datetime")))
    except (ValueError, OverflowError):
        told = InputError(
            f"The timer cannot wait until {name_of(ref)}, which is {value!r}: it is not a time with an offset.",
            advice="Give it an aware datetime, as in `datetime.now(UTC) + timedelta(days=1)`.",
        )
        return final(told)


def milliseconds(time: datetime) -> int:
    """Since the epoch. Raises `ValueError` for a time without an offset, and `OverflowError` beyond the year 9999."""
    if time.utcoffset() is None:
        raise ValueError("it has no offset")
    return (time.astimezone(UTC) - EPOCH) // MILLISECOND


def moment_text(time: int) -> str:
    """Milliseconds since the epoch, as ISO text in UTC."""
    return (EPOCH + time * MILLISECOND).isoformat().replace("+00:00", "Z")
