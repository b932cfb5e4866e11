"""What `reserve.output` and `orders.input` are at run time: references to values that do not exist yet.

Type checkers see the value's own type, so `held: Reservation = reserve.output` and
`when=orders.input.total > 0` check like ordinary code; here they become data.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Literal, NoReturn, TypeAlias, cast

from detent_state_machine.errors import DefinitionError
from detent_state_machine.when import All, Compare, Condition, Either, Not, Ref, Scalar, Truthy, describe
from detent_state_machine.when import name_of as shown

_Op: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]


class Marker:
    """A value of a run: its input or a step's output, or a part of it by attribute or index."""

    __slots__ = ("_detent_ref", "_detent_workflow")
    __hash__ = object.__hash__

    def __init__(self, ref: Ref, workflow: str) -> None:
        self._detent_ref = ref
        self._detent_workflow = workflow

    def __getattr__(self, name: str) -> Marker:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, part: str | int) -> Marker:
        ref = self._detent_ref
        return Marker(Ref(step=ref.step, path=(*ref.path, part)), self._detent_workflow)

    def __eq__(self, other: object) -> Check:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Check:  # type: ignore[override]
        return self._compare("!=", other)

    def __lt__(self, other: object) -> Check:
        return self._compare("<", other)

    def __le__(self, other: object) -> Check:
        return self._compare("<=", other)

    def __gt__(self, other: object) -> Check:
        return self._compare(">", other)

    def __ge__(self, other: object) -> Check:
        return self._compare(">=", other)

    def __and__(self, other: object) -> Check:
        return _check(self) & other

    def __or__(self, other: object) -> Check:
        return _check(self) | other

    def __bool__(self) -> bool:
        raise _no_value_yet()

    def __iter__(self) -> NoReturn:
        # Without this, Python would ask for item 0, 1, 2, … and never come to an end.
        raise _not_there_yet(self)

    def __contains__(self, item: object) -> NoReturn:
        raise _not_there_yet(self)

    def __repr__(self) -> str:
        return f"<{shown(self._detent_ref)} of workflow {self._detent_workflow!r}>"

    def _compare(self, op: _Op, other: object) -> Check:
        right = _ref_of(other, self._detent_workflow) if isinstance(other, Marker) else _literal(other)
        return Check(Compare(op=op, left=self._detent_ref, right=right), self._detent_workflow)


class Check:
    """A condition on values of a run. Combine two with `&` and `|`, turn one around with `not_`."""

    __slots__ = ("condition", "workflow")

    def __init__(self, condition: Condition, workflow: str) -> None:
        self.condition = condition
        self.workflow = workflow

    def __and__(self, other: object) -> Check:
        return Check(All(parts=(self.condition, condition_of(other, self.workflow))), self.workflow)

    def __or__(self, other: object) -> Check:
        return Check(Either(parts=(self.condition, condition_of(other, self.workflow))), self.workflow)

    def __bool__(self) -> bool:
        raise _no_value_yet()


def not_(condition: bool) -> bool:
    """The opposite of a condition of `when=`."""
    check = _check(condition)
    return cast("bool", Check(Not(part=check.condition), check.workflow))


def condition_of(value: object, workflow: str) -> Condition:
    """The condition in what was written as `when=`. Raises `DefinitionError` if it is none, or another workflow's."""
    check = _check(value)
    if check.workflow != workflow:
        raise DefinitionError(
            f"The condition {describe(check.condition)!r} looks at workflow {check.workflow!r}.",
            advice=f"Only values of the same workflow, {workflow!r}, are known when its steps run.",
        )
    return check.condition


def step_of(marker: Marker, workflow: str) -> str:
    """The step whose whole output a parameter's default stands for."""
    ref = _ref_of(marker, workflow)
    if ref.step is None or ref.path:
        own = " The workflow's input goes to the parameter without a default." if ref.step is None else ""
        raise DefinitionError(
            f"A parameter's default is {marker!r}: only a step's whole output can be handed over.",
            advice=f"Take the whole output, and pick the part in the body.{own}",
        )
    return ref.step


def _check(value: object) -> Check:
    if isinstance(value, Check):
        return value
    if isinstance(value, Marker):
        return Check(Truthy(ref=value._detent_ref), value._detent_workflow)
    raise DefinitionError(
        f"`when=` needs a condition on the workflow's input or a step's output, not {value!r}.",
        advice="Write it as `when=orders.input.total > 0` or `when=check.output`.",
    )


def _ref_of(marker: Marker, workflow: str) -> Ref:
    if marker._detent_workflow != workflow:
        raise DefinitionError(
            f"{marker!r} is used in workflow {workflow!r}.", advice="Only values of the same workflow are known there."
        )
    return marker._detent_ref


def _literal(value: object) -> Scalar:
    if isinstance(value, Enum):
        value = cast("object", value.value)  # as JSON has it
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise DefinitionError(
        f"A condition compares with text, finite numbers, booleans or None, not with {value!r}.",
        advice="Compare with its JSON form, e.g. a date as '2026-01-31', a decimal as '9.99'.",
    )


def _no_value_yet() -> DefinitionError:
    return DefinitionError(
        "A condition has no value while the workflow is declared.",
        advice="Combine conditions with & and | (in parentheses), not with `and`, `or` or `not`.",
    )


def _not_there_yet(marker: Marker) -> DefinitionError:
    return DefinitionError(
        f"{marker!r} is not known while the workflow is declared, so it cannot be gone through.",
        advice="Take the value as a step's parameter, and loop in its body.",
    )
