"""Compiles declared steps into a Definition, or says what is wrong and what to do about it.

An SDK reads its language's declarations into `DeclaredStep`s; from here on no user code is involved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal, TypeAlias, cast

from pydantic import ValidationError

from detent_state_machine.compatibility import UNANNOTATED, admits, missing_field, name_of, optional, schema_of
from detent_state_machine.definition import (
    DEFAULT_RETENTION_DAYS,
    DEFAULT_TAKEOVERS,
    DEFAULT_TIMEOUT,
    MAX_NAME,
    Definition,
    JsonSchema,
    Parent,
    StepDefinition,
)
from detent_state_machine.errors import DefinitionError
from detent_state_machine.kinds import Call, Kind, own_references
from detent_state_machine.retry import Retry
from detent_state_machine.status import Delivery
from detent_state_machine.step_path import RESERVED
from detent_state_machine.suggest import did_you_mean
from detent_state_machine.when import Condition, Ref, references
from detent_state_machine.when import name_of as shown

Scope: TypeAlias = Literal["main", "on_failure", "on_success"]


@dataclass(frozen=True, slots=True)
class FromInput:
    """The workflow's input."""


@dataclass(frozen=True, slots=True)
class FromOutput:
    """The output of a step."""

    step: str


@dataclass(frozen=True, slots=True)
class Injected:
    """Provided by the SDK: the context, or why a failure handler runs."""

    what: Literal["context", "failure"]


Source: TypeAlias = FromInput | FromOutput | Injected


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    annotation: object
    source: Source


@dataclass(frozen=True, slots=True)
class DeclaredStep:
    """A step as its author wrote it. Annotations are types, or `UNANNOTATED`. Times in seconds."""

    name: str
    parameters: tuple[Parameter, ...] = ()
    returns: object = UNANNOTATED
    scope: Scope = "main"
    after: tuple[str, ...] = ()
    when: Condition | None = None
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    retry: Retry | None = None
    timeout: float = DEFAULT_TIMEOUT
    takeovers: int = DEFAULT_TAKEOVERS
    description: str = ""
    kind: Kind = Call()


def compile_workflow(
    name: str,
    steps: Sequence[DeclaredStep],
    *,
    input_type: object = UNANNOTATED,
    output_type: object = UNANNOTATED,
    description: str = "",
    retention_days: int = DEFAULT_RETENTION_DAYS,
) -> Definition:
    """The Definition of a workflow. Raises `DefinitionError`, which names the workflow, the step and the fix."""
    workflow = f"Workflow {name!r}"
    _check_name(workflow, name)
    if not steps:
        raise DefinitionError(f"{workflow} has no steps.", advice=f"Declare one with `@{_identifier(name)}.step`.")
    by_name = _unique(workflow, steps)
    for step in steps:
        _check_step(workflow, step, by_name, input_type)
    order = _in_order(workflow, by_name)
    try:
        definition = Definition(
            name=name,
            steps=tuple(_defined(workflow, step, steps) for step in steps),
            description=description,
            input_schema=_schema(input_type),
            retention_days=retention_days,
        )
    except ValidationError as error:
        raise DefinitionError(f"{workflow} is not valid: {_first(error)}.") from error
    _check_output(workflow, definition, by_name, order, output_type)
    return definition


def edges(step: DeclaredStep) -> list[str]:
    """The steps that must have ended before this one, each once, in the order they are written."""
    outputs = [parameter.source.step for parameter in step.parameters if isinstance(parameter.source, FromOutput)]
    shown = [ref.step for ref in references(step.when) if ref.step is not None] if step.when else []
    return list(dict.fromkeys([*outputs, *step.after, *shown, *_own(step)]))


def _own(step: DeclaredStep) -> list[str]:
    """The steps whose outputs its kind needs."""
    return [ref.step for ref in own_references(step.kind) if ref.step is not None]


def _defined(workflow: str, step: DeclaredStep, steps: Sequence[DeclaredStep]) -> StepDefinition:
    try:
        return _step(step, steps)
    except ValidationError as error:
        raise DefinitionError(
            f"{workflow}, step {step.name!r}: {_first(error)}.", advice="Change this option of the step."
        ) from error


def _step(step: DeclaredStep, steps: Sequence[DeclaredStep]) -> StepDefinition:
    scopes = {other.name: other.scope for other in steps}
    reads = [parameter.source.step for parameter in step.parameters if isinstance(parameter.source, FromOutput)]
    # A failure handler reads outputs of the main graph where there are any; it does not wait for them.
    names = [parent for parent in edges(step) if step.scope != "on_failure" or scopes[parent] == "on_failure"]
    if step.scope == "on_success":
        names += [sink for sink in _sinks(steps) if sink not in names]
    needed = {
        parameter.source.step
        for parameter in step.parameters
        if isinstance(parameter.source, FromOutput) and not _takes_none(parameter)
    } | set(_own(step))
    at_most_once = step.delivery is Delivery.AT_MOST_ONCE
    return StepDefinition(
        name=step.name,
        scope="on_failure" if step.scope == "on_failure" else "main",
        parents=tuple(Parent(step=p, need="completed" if p in needed else "done") for p in names),
        reads=tuple(dict.fromkeys(reads)),
        when=step.when,
        delivery=step.delivery,
        retry=step.retry or (Retry(attempts=1) if at_most_once else Retry()),
        timeout=step.timeout,
        takeovers=step.takeovers,
        description=step.description,
        output_schema=_schema(step.returns),
        kind=step.kind,
    )


def _takes_none(parameter: Parameter) -> bool:
    return parameter.annotation is not UNANNOTATED and optional(parameter.annotation)


def _unique(workflow: str, steps: Iterable[DeclaredStep]) -> dict[str, DeclaredStep]:
    by_name: dict[str, DeclaredStep] = {}
    for step in steps:
        if step.name in by_name:
            raise DefinitionError(
                f"{workflow} has two steps named {step.name!r}.",
                advice="A step is stored under its name: rename one, or give it `name=`.",
            )
        by_name[step.name] = step
    return by_name


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str):
        raise DefinitionError(f"{what}: a name is text, not {name!r}.", advice="Write it in quotes.")
    if not 0 < len(name) <= MAX_NAME:
        raise DefinitionError(f"{what}: a name has 1 to {MAX_NAME} characters, not {len(name)}.")
    if name.startswith("@") or not name.isprintable():
        raise DefinitionError(f"{what}: a name does not start with '@' and has no control characters.")


def _check_step(workflow: str, step: DeclaredStep, by_name: Mapping[str, DeclaredStep], input_type: object) -> None:
    where = f"{workflow}, step {step.name!r}"
    _check_name(where, step.name)
    if not set(RESERVED).isdisjoint(step.name):
        raise DefinitionError(
            f"{where}: a step's name has none of {' '.join(RESERVED)}, which tell its step runs apart.",
            advice="Rename it, or give it `name=`.",
        )
    for parent in edges(step):
        if parent not in by_name:
            raise DefinitionError(
                f"{where} follows {parent!r}, which is not a step of this workflow.",
                advice=did_you_mean(parent, by_name, f"It has: {', '.join(by_name)}."),
            )
        _check_scope(where, step, by_name[parent])
    inputs = [parameter for parameter in step.parameters if isinstance(parameter.source, FromInput)]
    if len(inputs) > 1:
        names = " and ".join(repr(parameter.name) for parameter in inputs)
        raise DefinitionError(
            f"{where} has two inputs: {names} have no default.",
            advice="One parameter takes the workflow's input; give the others `= step.output`.",
        )
    for parameter in step.parameters:
        _check_parameter(where, step, parameter, by_name, input_type)
    for ref in references(step.when) if step.when else ():
        _check_condition(where, ref, input_type if ref.step is None else by_name[ref.step].returns)
    for ref in own_references(step.kind):
        _check_condition(where, ref, input_type if ref.step is None else by_name[ref.step].returns)
    if step.delivery is Delivery.AT_MOST_ONCE and step.retry is not None and step.retry.attempts > 1:
        raise DefinitionError(
            f"{where} is at_most_once and has {step.retry.attempts} attempts.",
            advice="An at_most_once body never runs twice: drop `retry`, or choose another delivery.",
        )


def _check_scope(where: str, step: DeclaredStep, parent: DeclaredStep) -> None:
    if parent.scope == "on_failure" and step.scope != "on_failure":
        raise DefinitionError(
            f"{where} follows {parent.name!r}, a failure handler.",
            advice="Handlers run only after the workflow has failed; nothing of the workflow follows them.",
        )
    if parent.scope == "on_success" and step.scope == "main":
        raise DefinitionError(
            f"{where} follows {parent.name!r}, which runs after every other step.",
            advice="Declare it with `on_success` too, or make the other an ordinary step.",
        )
    if step.scope == "on_failure" and parent.scope != "on_failure" and parent.name in step.after:
        raise DefinitionError(
            f"{where} is a failure handler and waits for {parent.name!r}.",
            advice="That step may never end; take its output as an optional parameter instead.",
        )


def _check_condition(where: str, ref: Ref, annotation: object) -> None:
    """A field that is not there has the value null, so a slip of the pen would skip the step without a word."""
    missing = missing_field(annotation, ref.path)
    if missing is not None:
        raise DefinitionError(
            f"{where}: its condition looks at {shown(ref)}, but {name_of(missing.holder)} has no {missing.name!r}.",
            advice=did_you_mean(str(missing.name), missing.fields, "Fields are named as in the type's JSON."),
        )


def _check_parameter(
    where: str, step: DeclaredStep, parameter: Parameter, by_name: Mapping[str, DeclaredStep], input_type: object
) -> None:
    wanted = parameter.annotation
    match parameter.source:
        case FromInput():
            if not admits(wanted, input_type) and input_type is not UNANNOTATED:
                raise DefinitionError(
                    f"{where}: {parameter.name!r} is the workflow's input, but {name_of(wanted)} cannot hold "
                    f"{name_of(input_type)}.",
                    advice=f"Annotate it as {name_of(input_type)}.",
                )
        case FromOutput(parent):
            given = by_name[parent].returns
            if given is UNANNOTATED and wanted is not UNANNOTATED:
                raise DefinitionError(
                    f"{where}: {parameter.name!r} is {name_of(wanted)}, but step {parent!r} does not say what it "
                    "returns.",
                    advice=f"Annotate the return type of {parent!r}.",
                )
            if given is not UNANNOTATED and not admits(wanted, given):
                raise DefinitionError(
                    f"{where}: {parameter.name!r} is {name_of(wanted)}, which cannot hold {name_of(given)}, the output "
                    f"of {parent!r}.",
                    advice="Change one of the two annotations.",
                )
            late = step.scope == "on_failure" and by_name[parent].scope != "on_failure"
            if late and wanted is not UNANNOTATED and not optional(wanted):
                raise DefinitionError(
                    f"{where}: {parameter.name!r} takes the output of {parent!r}, which may not have run when the "
                    "handler starts.",
                    advice=f"Annotate it as {name_of(wanted)} | None.",
                )
        case Injected(what):
            if what == "failure" and step.scope != "on_failure":
                raise DefinitionError(
                    f"{where} takes a Failure, but it is not a failure handler.", advice="Declare it with `on_failure`."
                )


def _in_order(workflow: str, by_name: Mapping[str, DeclaredStep]) -> list[str]:
    """The steps, each after its parents."""
    try:
        order = list(TopologicalSorter({name: edges(step) for name, step in by_name.items()}).static_order())
    except CycleError as error:
        cycle = " → ".join(cast("list[str]", error.args[1]))
        raise DefinitionError(
            f"{workflow} waits for itself: {cycle}.", advice="A graph has no cycles: drop one of these edges."
        ) from None
    if all(step.scope != "main" for step in by_name.values()):
        raise DefinitionError(f"{workflow} has only handlers.", advice="Declare an ordinary step.")
    return order


def _check_output(
    workflow: str, definition: Definition, by_name: Mapping[str, DeclaredStep], order: Sequence[str], wanted: object
) -> None:
    if wanted is UNANNOTATED:
        return
    steps = {step.name: step for step in definition.steps}
    parents = {parent.step for step in definition.steps for parent in step.parents}
    sinks = [step.name for step in definition.steps if step.scope == "main" and step.name not in parents]
    if len(sinks) > 1:
        raise DefinitionError(
            f"{workflow} declares an output, but has {len(sinks)} last steps: {', '.join(sinks)}.",
            advice="Let one step follow all of them, or leave out `output`: the result is then an object by step name.",
        )
    given = by_name[sinks[0]].returns
    if given is UNANNOTATED or not admits(wanted, given):
        raise DefinitionError(
            f"{workflow} declares the output {name_of(wanted)}, but {sinks[0]!r}, its last step, returns "
            f"{name_of(given)}.",
            advice="Change one of the two annotations.",
        )
    skipped: set[str] = set()
    for name in order:
        needed = [parent.step for parent in steps[name].parents if parent.need == "completed"]
        if steps[name].when is not None or not skipped.isdisjoint(needed):
            skipped.add(name)
    if sinks[0] in skipped and not optional(wanted):
        raise DefinitionError(
            f"{workflow} declares the output {name_of(wanted)}, but {sinks[0]!r}, its last step, may be skipped: "
            "the output is then None.",
            advice=f"Declare the output as {name_of(wanted)} | None, or add a last step that always runs.",
        )


def _sinks(steps: Sequence[DeclaredStep]) -> list[str]:
    main = [step for step in steps if step.scope == "main"]
    parents = {parent for step in main for parent in edges(step)}
    return [step.name for step in main if step.name not in parents]


def _schema(annotation: object) -> JsonSchema:
    return cast("JsonSchema", schema_of(annotation))


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _identifier(name: str) -> str:
    return name if name.isidentifier() else "workflow"
