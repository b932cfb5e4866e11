"""A declared wait: a step without a function."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, cast

from detent_state_machine.compatibility import UNANNOTATED
from detent_state_machine.compiler import DeclaredStep
from detent_state_machine.durations import seconds_of, why_not_seconds
from detent_state_machine.errors import DefinitionError, InputError
from detent_state_machine.events import EventAddress
from detent_state_machine.expressions import Expression
from detent_state_machine.kinds import EventWait
from detent_state_machine.kinds.timer import MAX_SECONDS, At, Due, Sleep, milliseconds
from detent_state_machine.when import Ref

from detent.event import Event
from detent.json_values import Json
from detent.markers import Marker, ref_of
from detent.options import written
from detent.step import AnyStep

_O = TypeVar("_O", covariant=True)


class EventOptions(TypedDict, total=False):
    """Options of `Workflow.event`."""

    match: str
    """JMESPath over the payload: events for which it is false, null or empty do not meet the wait."""
    since: Literal["run", "wait"]
    """`"run"` (the default): events meet it that were published since the run began. `"wait"`: since it was reached. A
    minute before that counts too, for clocks differ."""
    after: Sequence[AnyNode | str]
    """Steps that must have ended before."""
    when: bool | None
    """A condition. If it does not hold, the wait is skipped."""


class Wait(Generic[_O]):
    """A wait of a workflow, as `Workflow.event`, `sleep` and `until` declare it. Other steps follow it as they follow
    a step.
    """

    def __init__(self, declared: DeclaredStep, workflow: str, fact: Json[Any] | None = None) -> None:
        """`fact`: what a fact must be that ends it; None: any JSON."""
        self.declared = declared
        self.workflow = workflow
        self.fact = fact

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def output(self) -> _O:
        """Stands for what it ended with, as the default of a step's parameter, or in `when=`."""
        return cast("_O", Marker(Ref(step=self.name), self.workflow, self.declared.returns))

    def __repr__(self) -> str:
        return f"<wait {self.name!r} of workflow {self.workflow!r}>"


AnyNode: TypeAlias = AnyStep | Wait[Any]
"""What steps follow."""


def sleep_for(where: str, given: object) -> Due:
    """How long a sleep is. Raises `DefinitionError`."""
    wrong = why_not_seconds(given, most=MAX_SECONDS)
    if wrong:
        raise DefinitionError(
            f"{where}: it sleeps {written(given)}: it should be {wrong}.",
            advice="Write it as `timedelta(hours=1)`, or as seconds.",
        )
    return Sleep(seconds=seconds_of(given) or 0.0)


def wait_until(where: str, given: object, workflow: str) -> Due:
    """The time that is waited for, or where it stands. Raises `DefinitionError`."""
    if isinstance(given, Marker):
        return ref_of(given, workflow, datetime)
    if not isinstance(given, datetime):
        raise DefinitionError(
            f"{where}: it waits until {written(given)}, which is not a time.",
            advice="Give a `datetime`, or where a run has one, as `orders.input.due`.",
        )
    try:
        return At(time=milliseconds(given))
    except (ValueError, OverflowError):
        raise DefinitionError(
            f"{where}: it waits until {given}, which has no offset, so that it is another time in another place.",
            advice="Write it with one: `datetime(2030, 1, 1, tzinfo=UTC)`.",
        ) from None


def wait_for_event(
    where: str,
    workflow: str,
    event: object,
    key: object,
    type: object,
    timeout: object,
    match: object,
    since: object,
) -> tuple[EventWait, Event[Any]]:
    """The wait, and the event with its type. Raises `DefinitionError`; warns of a wait that nobody may ever end."""
    declared = _event(where, event, type)
    wrong = why_not_seconds(timeout, most=MAX_SECONDS, above=True) if timeout is not None else ""
    if wrong:
        raise DefinitionError(
            f"{where}: `timeout={written(timeout)}`: it should be {wrong}.",
            advice="Write it as `timedelta(days=1)`, or as seconds. Left out, it waits for as long as it takes.",
        )
    if match is not None:
        Expression(cast("str", match), f"{where}: match")
    if since not in ("run", "wait"):
        raise DefinitionError(
            f"{where}: `since={written(since)}`: it is 'run' or 'wait'.",
            advice="Events meet the wait that were published since its run began, or only since it was reached.",
        )
    found = _key(where, declared.name, key, workflow)
    if found == "" and timeout is None and match is None:
        warnings.warn(
            f"{where} waits for any event {declared.name!r} that is published without a key, for ever: the first one "
            "meets every run. Give it the `key=` by which it finds its run, or a `timeout=`.",
            stacklevel=3,
        )
    seconds = None if timeout is None else seconds_of(timeout)
    return EventWait(
        event=declared.name, key=found, match=cast("str", match or ""), timeout=seconds, since=since
    ), declared


def _event(where: str, event: object, type: object) -> Event[Any]:
    if isinstance(event, Event):
        if type is not None:
            raise DefinitionError(
                f"{where}: event {event.name!r} has a type, and `type={written(type)}` is another.",
                advice="Leave `type=` out.",
            )
        return event  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(event, str):
        raise DefinitionError(
            f"{where} waits for {written(event)}, which is not an event.",
            advice='Give the name of one, or what `app.event("payment.received", type=Payment)` returned.',
        )
    try:
        return Event(event, cast("Any", UNANNOTATED if type is None else type))
    except InputError as error:
        raise DefinitionError(f"{where}: {error.message}", advice=error.advice) from None


def _key(where: str, event: str, key: object, workflow: str) -> Ref | str:
    if isinstance(key, Marker):
        return ref_of(key, workflow, str)
    if not isinstance(key, str):
        raise DefinitionError(
            f"{where}: `key={written(key)}`: a key is text.",
            advice='Give a value of the run that is text, as `orders.input.id`, or "" for events without a key.',
        )
    try:
        return EventAddress(event, key).key
    except InputError as error:
        raise DefinitionError(f"{where}: {error.message}", advice=error.advice) from None
