"""A step that waits for an event: it is WAITING, registered where the event will be stored, and no worker is busy.

    worker:     write WAITING        register          look back         acknowledge
    publisher:  store the event      look for waiters  send to each      return

One of the two sees the other, whatever the order. The publisher writes no step record, and the look back only sends:
the worker of a message that brings a stored event ends the wait. WAITS.md 4 to 11 and 14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from detent_state_machine import keys, transitions
from detent_state_machine.decisions import (
    Beginning,
    Fact,
    FactQuery,
    Go,
    HandOver,
    Here,
    IfRefused,
    LookBack,
    MissingBody,
    Owed,
    Register,
    Then,
    Transition,
    Unfit,
    final,
    later,
)
from detent_state_machine.errors import CorruptRecord, InputError
from detent_state_machine.events import MAX_EVENT_NAME, EventAddress, look_back_from
from detent_state_machine.formats import Since
from detent_state_machine.kinds.timer import MAX_SECONDS, moment_text
from detent_state_machine.lines import Line, duration_text, error_line, missing_code_line
from detent_state_machine.records import NULL, ErrorInfo, NoRecord, Seen, StepRecord
from detent_state_machine.status import StepStatus
from detent_state_machine.turn import Moment, Writer
from detent_state_machine.when import Lookup, Ref, name_of, value_of
from detent_state_machine.writes import Key, UpdateItem

if TYPE_CHECKING:
    from detent_state_machine.definition import StepDefinition


class EventWait(BaseModel):
    """Waits for the oldest event of this name and key that it may take, or until its time is out (seconds).

    A `Ref` as key is a value of the run: text. `match` is JMESPath over the payload. `since`: an event meets it that
    was stored since the run began, or only since the wait did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: Literal["event"] = "event"
    event: Annotated[str, Field(min_length=1, max_length=MAX_EVENT_NAME), Since(4)]
    key: Ref | str = ""
    match: str = ""
    timeout: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None
    since: Literal["run", "wait"] = "run"


def references(wait: EventWait) -> tuple[Ref, ...]:
    """The value of the run that is its key."""
    return (wait.key,) if isinstance(wait.key, Ref) else ()


def describe(wait: EventWait) -> str:
    """What it waits for, in a few words."""
    key = name_of(wait.key) if isinstance(wait.key, Ref) else wait.key
    return f"{wait.event} {key}".rstrip() + (f", up to {wait.timeout:g} s" if wait.timeout else "")


def asks(wait: EventWait, seen: Seen, brought: Key | None, now: int) -> FactQuery | None:
    """What to look up before it is decided: a message brings an event, or its time is out. A time-out looks once more:
    an event that was stored before is never lost to it. WAITS.md 6 and 9.
    """
    if not isinstance(seen, StepRecord) or seen.status is not StepStatus.WAITING:
        return None
    return _question(wait, seen, brought) if brought is not None or 0 < seen.due <= now else None


def begin(
    wait: EventWait, step: StepDefinition, me: Writer, seen: Seen, ready: Go | Unfit, here: Here, at: Moment
) -> Beginning:
    """WAITING is written first, then it registers and looks back, then the message is acknowledged.

    Who dies in between leaves this message, which finds WAITING and does the rest again.
    """
    if isinstance(seen, NoRecord):
        return _wait(wait, me, seen, ready, here, at)
    if seen.status is not StepStatus.WAITING:
        raise CorruptRecord(f"Step {step.name!r} waits for an event, and its record says that it is {seen.status}.")
    if here.fact is not None:
        return _meet(me, seen, here.fact, here, at)
    if 0 < seen.due <= at.time:
        waited = at.time - seen.started
        said = f"no {wait.event} within {duration_text(waited)}"
        line = Line("INFO", "step_timed_out", said, me.path, seen.attempt, {"duration_ms": waited})
        return Transition(transitions.meet(me, seen, at, output=NULL), Then.FOLLOW, IfRefused.BEGIN, line)
    # An event that does not match came from somebody whom it is registered with. Whoever registers has the message of
    # that still, if it has died.
    return HandOver() if here.brought is not None else HandOver(_owed(wait, me, seen.awaits, seen.since, seen.due, at))


def _wait(wait: EventWait, me: Writer, seen: NoRecord, ready: Go | Unfit, here: Here, at: Moment) -> Beginning:
    found = ready.error if isinstance(ready, Unfit) else _address(wait, ready.lookup)
    if isinstance(found, ErrorInfo):
        line = error_line("ERROR", "step_failed", "failed", me.path, seen.attempt, found)
        return Transition(transitions.interrupt(me, seen, at, found), Then.FOLLOW, IfRefused.BEGIN, line)
    due = 0 if wait.timeout is None else at.time + round(wait.timeout * 1000)
    since = here.since if wait.since == "run" else at.time
    said = f"waiting for {wait.event}" + (f" until {moment_text(due)}" if due else "")
    line = Line("INFO", "step_waiting", said, me.path, seen.attempt)
    write = transitions.wait(me, seen, at, due=due, awaits=found.partition, since=since)
    owes = _owed(wait, me, found.partition, since, due, at)
    return Transition(write, Then.ACKNOWLEDGE, IfRefused.BEGIN, line, owes)


def _meet(me: Writer, seen: StepRecord, fact: Fact, here: Here, at: Moment) -> Beginning:
    if not here.knows:
        why = f"this code has no step {me.path!r}, and cannot tell if the event fits: left for a worker that has it"
        missing = MissingBody(me.path, seen.started, at.expires, missing_code_line(me.path, seen.attempt))
        return HandOver((missing, later(me.path, at.lease, at.time, fact=fact.key)), why)
    waited = max(0, at.time - seen.started)
    took = {"duration_ms": waited}
    if fact.error is not None:
        line = error_line("ERROR", "step_failed", "failed", me.path, seen.attempt, fact.error, **took)
        write = transitions.refuse(me, seen, at, fact=fact.key.sk, error=fact.error)
        return Transition(write, Then.FOLLOW, IfRefused.BEGIN, line)
    line = Line("INFO", "step_completed", f"met after {duration_text(waited)}", me.path, seen.attempt, took)
    write = transitions.meet(me, seen, at, output=fact.payload, fact=fact.key.sk)
    return Transition(write, Then.FOLLOW, IfRefused.BEGIN, line)


def _owed(wait: EventWait, me: Writer, awaits: str, since: int, due: int, at: Moment) -> tuple[Owed, ...]:
    """The race that this order wins: an event is stored at this moment. Its publisher looks for waiters after that,
    so either it finds this one, or this one finds the event.
    """
    expires = at.expires + max(0, due - at.time) // 1000
    waiter = UpdateItem(
        Key(awaits, keys.waiter_sort(me.run_id, me.path)),
        set={"run": me.run_id, "path": str(me.path), "expires": expires},
    )
    looks = LookBack(me.path, FactQuery(awaits, look_back_from(since), wait.match))
    return (*((later(me.path, due, at.time),) if due else ()), Register(waiter), looks)


def _question(wait: EventWait, seen: StepRecord, brought: Key | None) -> FactQuery:
    return FactQuery(seen.awaits, look_back_from(seen.since), wait.match, brought)


def _address(wait: EventWait, lookup: Lookup) -> EventAddress | ErrorInfo:
    if isinstance(wait.key, str):
        return EventAddress(wait.event, wait.key)
    key = value_of(wait.key, lookup)
    try:
        if not isinstance(key, str) or not key:
            raise InputError(
                f"The key of an event cannot be {name_of(wait.key)}, which is {key!r}.",
                advice="Take a value that is text, and never empty: an empty key meets events without one.",
            )
        return EventAddress(wait.event, key)
    except InputError as error:
        return final(error)
