"""What `reserve.output` and `orders.input` are at run time: references to values that do not exist yet.

Type checkers see the value's own type, so `held: Reservation = reserve.output` and
`when=orders.input.total > 0` check like ordinary code; here they become data.
"""

from __future__ import annotations

from typing import NoReturn, cast

from detent_state_machine.compatibility import UNANNOTATED, admits
from detent_state_machine.compatibility import name_of as shown_type
from detent_state_machine.errors import DefinitionError
from detent_state_machine.when import All, Compare, Condition, Either, Not, Ref, Truthy, describe
from detent_state_machine.when import name_of as shown

from detent.condition_types import (
    COMPARED,
    UNSUPPORTED,
    Op,
    Side,
    check_comparison,
    kinds_of,
    literal,
    part_of,
    read_as,
    refusing,
    truth_of,
)
from detent.options import written


@refusing(UNSUPPORTED)
class Marker:
    """A value of a run: its input or a step's output, or a part of it by attribute or index."""

    __slots__ = ("_detent_annotation", "_detent_ref", "_detent_workflow")
    __hash__ = object.__hash__

    def __init__(self, ref: Ref, workflow: str, annotation: object = UNANNOTATED) -> None:
        """`annotation` is the type of the value; `UNANNOTATED` if nobody says it."""
        self._detent_ref = ref
        self._detent_workflow = workflow
        self._detent_annotation = annotation

    def __getattr__(self, name: str) -> Marker:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, part: str | int) -> Marker:
        if not isinstance(part, str | int) or isinstance(part, bool):
            raise DefinitionError(
                f"{self!r} has no part {part!r}.", advice="Take a field by its name, or an item by its place."
            )
        ref = Ref(step=self._detent_ref.step, path=(*self._detent_ref.path, part))
        return Marker(ref, self._detent_workflow, part_of(self._detent_annotation, part))

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

    def _compare(self, op: Op, other: object) -> Check:
        kinds = kinds_of(self._detent_annotation)
        left = Side(shown(self._detent_ref), kinds)
        if isinstance(other, Marker):
            ref = _ref_of(other, self._detent_workflow)
            right = Side(shown(ref), kinds_of(other._detent_annotation))
        elif isinstance(other, Check):
            raise _no_value_yet()
        else:
            ref, right = None, literal(other, written(other), kinds)
        check_comparison(op, left, right)
        own = self._detent_ref.model_copy(update={"read": read_as(op, kinds, right.kinds)})
        against = right.value if ref is None else ref.model_copy(update={"read": read_as(op, right.kinds, kinds)})
        return Check(Compare(op=op, left=own, right=against), self._detent_workflow)


@refusing({name: refused for name, refused in UNSUPPORTED.items() if name not in ("__str__", "__format__")} | COMPARED)
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

    def __repr__(self) -> str:
        return f"<condition {describe(self.condition)}>"


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


def ref_of(marker: Marker, workflow: str, wanted: type) -> Ref:
    """Where the value stands. Raises `DefinitionError` if it cannot be of that type, or is another workflow's."""
    given = marker._detent_annotation
    if given is not UNANNOTATED and not admits(wanted, given):
        raise DefinitionError(
            f"{marker!r} is {shown_type(given)}, not {wanted.__name__}.", advice=f"Annotate it as {wanted.__name__}."
        )
    return _ref_of(marker, workflow)


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
        annotation, ref = value._detent_annotation, value._detent_ref
        read = truth_of(kinds_of(annotation), shown(ref))
        return Check(Truthy(ref=ref.model_copy(update={"read": read})), value._detent_workflow)
    plain = " (`is`, `in` and `isinstance` give one at once: write `== None`, or `==` for each with |.)"
    raise DefinitionError(
        f"`when=` needs a condition on the workflow's input or a step's output, not {value!r}.",
        advice="Write it as `when=orders.input.total > 0` or `when=check.output`."
        + (plain if isinstance(value, bool) else ""),
    )


def _ref_of(marker: Marker, workflow: str) -> Ref:
    if marker._detent_workflow != workflow:
        raise DefinitionError(
            f"{marker!r} is used in workflow {workflow!r}.", advice="Only values of the same workflow are known there."
        )
    return marker._detent_ref


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
