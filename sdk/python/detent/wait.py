"""A declared wait: a step without a function."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar, cast

from detent_state_machine.compiler import DeclaredStep
from detent_state_machine.durations import seconds_of, why_not_seconds
from detent_state_machine.errors import DefinitionError
from detent_state_machine.kinds.timer import MAX_SECONDS, At, Due, Sleep, milliseconds
from detent_state_machine.when import Ref

from detent.markers import Marker, ref_of
from detent.options import written
from detent.step import AnyStep

_O = TypeVar("_O", covariant=True)


class Wait(Generic[_O]):
    """A wait of a workflow, as `Workflow.sleep` and `Workflow.until` declare it. Other steps follow it as they follow
    a step.
    """

    def __init__(self, declared: DeclaredStep, workflow: str) -> None:
        self.declared = declared
        self.workflow = workflow

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
