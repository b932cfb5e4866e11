"""What `reserve.output` and `orders.input` are at run time: references to values that do not exist yet.

Type checkers see the value's own type, so `held: Reservation = reserve.output` and
`when=orders.input.total > 0` check like ordinary code; here they become data.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

from detent_state_machine.errors import DefinitionError
from detent_state_machine.when import All, Compare, Condition, Either, Not, Ref, Scalar, Truthy

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
        return Check(All(parts=(condition_of(self), condition_of(other))))

    def __or__(self, other: object) -> Check:
        return Check(Either(parts=(condition_of(self), condition_of(other))))

    def __bool__(self) -> bool:
        raise _no_value_yet()

    def __repr__(self) -> str:
        return f"<value of {self._detent_ref.step or 'input'} at {list(self._detent_ref.path)}>"

    def _compare(self, op: _Op, other: object) -> Check:
        right = other._detent_ref if isinstance(other, Marker) else _literal(other)
        return Check(Compare(op=op, left=self._detent_ref, right=right))


class Check:
    """A condition on values of a run. Combine two with `&` and `|`, turn one around with `not_`."""

    __slots__ = ("condition",)

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def __and__(self, other: object) -> Check:
        return Check(All(parts=(self.condition, condition_of(other))))

    def __or__(self, other: object) -> Check:
        return Check(Either(parts=(self.condition, condition_of(other))))

    def __bool__(self) -> bool:
        raise _no_value_yet()


def not_(condition: bool) -> bool:
    """The opposite of a condition of `when=`."""
    return cast("bool", Check(Not(part=condition_of(condition))))


def condition_of(value: object) -> Condition:
    """The condition in what was written as `when=`. Raises `DefinitionError` if it is none."""
    if isinstance(value, Check):
        return value.condition
    if isinstance(value, Marker):
        return Truthy(ref=value._detent_ref)
    raise DefinitionError(
        f"`when=` needs a condition on the workflow's input or a step's output, not {value!r}.",
        advice="Write it as `when=orders.input.total > 0` or `when=check.output`.",
    )


def step_of(value: object, workflow: str) -> str | None:
    """The step whose whole output a parameter's default stands for, if it does."""
    if not isinstance(value, Marker):
        return None
    ref = value._detent_ref
    if value._detent_workflow != workflow:
        raise DefinitionError(
            f"A parameter's default is {value!r} of workflow {value._detent_workflow!r}.",
            advice="Only outputs of the same workflow can be handed over.",
        )
    if ref.step is None or ref.path:
        raise DefinitionError(
            f"A parameter's default is {value!r}: only a step's whole output can be handed over.",
            advice="Take the whole output, and pick the part in the body.",
        )
    return ref.step


def _literal(value: object) -> Scalar:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise DefinitionError(
        f"A condition compares with text, numbers, booleans or None, not {type(value).__name__}.",
        advice="Compare with its JSON form, e.g. a date as '2026-01-31', a decimal as '9.99'.",
    )


def _no_value_yet() -> DefinitionError:
    return DefinitionError(
        "A condition has no value while the workflow is declared.",
        advice="Combine conditions with & and | (in parentheses), not with `and`, `or` or `not`.",
    )
