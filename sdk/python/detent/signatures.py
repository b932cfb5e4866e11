"""Reads the graph off the signature of a step's function, or says why what was decorated cannot be a step."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

from detent_infra.executor import Failure
from detent_state_machine.compatibility import UNANNOTATED, name_of, optional
from detent_state_machine.compiler import FromInput, FromOutput, Injected, Parameter, Source
from detent_state_machine.errors import DefinitionError

from detent.context import Context
from detent.markers import Check, Marker, step_of
from detent.step import Step
from detent.wait import Wait

_NAMED = "A step is a function of a module that every worker imports"


@contextmanager
def naming(where: str) -> Generator[None]:
    """Errors in a step's markers say which step."""
    try:
        yield
    except DefinitionError as error:
        if error.message.startswith(where):
            raise
        raise DefinitionError(f"{where}: {error.message}", advice=error.advice) from None


def check_function(where: str, decorator: str, given: object, name: str | None) -> None:
    """Raises `DefinitionError` for what is not an ordinary function, each kind with its own advice. `name`: `name=`."""
    said, advice = _trouble(decorator, given, name)
    if said:
        raise DefinitionError(f"{where}: {said}", advice=advice)


def _trouble(decorator: str, given: object, name: str | None) -> tuple[str, str]:
    called = getattr(given, "__name__", None)
    if isinstance(given, str):
        return f"`@{decorator}({given!r})`: options have names.", f"Write it as `@{decorator}(name={given!r})`."
    if isinstance(given, type):
        return f"`@{decorator}` stands before the class {called!r}.", (
            f"{_NAMED}: write `def`, and make the object in its body."
        )
    if isinstance(given, staticmethod | classmethod):
        kind = type(given).__name__  # pyright: ignore[reportUnknownArgumentType]
        return f"`@{decorator}` stands before a {kind}.", f"{_NAMED}: move it out of its class."
    if isinstance(given, functools.partial):
        inner = getattr(given.func, "__name__", "function")  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        return f"`@{decorator}` was given a partial of {inner!r}.", (
            f"{_NAMED}: write `def` with a name of its own that calls {inner!r}."
        )
    if inspect.ismethod(given):
        return f"`@{decorator}` was given {called!r}, a method bound to an object.", (
            f"{_NAMED}, and the object is not there in another process: write `def` that makes the object and calls it."
        )
    if called == "<lambda>" and not name:
        return f"`@{decorator}` was given a lambda, which has no name.", (
            "A step is stored under its name: write `def`, or give it `name=`."
        )
    if not callable(given):
        return f"`@{decorator}` stands before {str(given)[:60]!r}, which is not a function.", (
            f"Options have names, as in `@{decorator}(timeout=30)`."
        )
    if called is None:
        return f"`@{decorator}` was given an object of the class {type(given).__name__!r} with `__call__`.", (
            f"{_NAMED}: write `def` that makes the object and calls it."
        )
    return "", ""


def signature_of(
    where: str, workflow: str, function: Callable[..., Any], names: Mapping[str, object]
) -> tuple[tuple[Parameter, ...], object]:
    """The function's parameters with where their values come from, and what it returns.

    `names`: what its annotations may refer to beside its globals. Raises `DefinitionError`; `where` begins its message.
    """
    try:
        hints = typing.get_type_hints(function, localns=dict(names), include_extras=True)
        signature = inspect.signature(function)
    except (NameError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise DefinitionError(
            f"{where}: its annotations cannot be read: {error}.",
            advice="Import what they name at run time, not only under TYPE_CHECKING.",
        ) from error
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"{where}: it is a generator: it has a `yield`.",
            advice="A step returns its result once: return a list of what it would yield.",
        )
    parameters: list[Parameter] = []
    _check_kinds(where, function, signature)
    for position, parameter in enumerate(signature.parameters.values()):
        annotation: object = hints.get(parameter.name, UNANNOTATED)
        if position == 0 and annotation is UNANNOTATED and parameter.name in ("self", "cls"):
            raise DefinitionError(
                f"{where}: it takes {parameter.name!r}, so it is a method.",
                advice=f"{_NAMED}: move it out of its class.",
            )
        source = _source(where, parameter, annotation, workflow)
        if source is not None:
            parameters.append(Parameter(parameter.name, annotation, source))
    _check_unannotated_context(where, parameters)
    return tuple(parameters), hints.get("return", UNANNOTATED)


def _check_kinds(where: str, function: Callable[..., Any], signature: inspect.Signature) -> None:
    kinds = {parameter.kind: parameter.name for parameter in signature.parameters.values()}
    rest, options = kinds.get(inspect.Parameter.VAR_POSITIONAL), kinds.get(inspect.Parameter.VAR_KEYWORD)
    if rest is not None and options is not None and "<locals>" in getattr(function, "__qualname__", ""):
        raise DefinitionError(
            f"{where}: it takes `*{rest}, **{options}`, as the wrapper of a decorator does: the parameters of the "
            "function below cannot be seen.",
            advice="Give the wrapper `@functools.wraps(function)`.",
        )
    if rest is not None:
        raise DefinitionError(
            f"{where}: parameter '*{rest}' cannot be passed by name.",
            advice="A step takes ordinary parameters: write out each one.",
        )
    if options is not None:
        raise DefinitionError(
            f"{where}: parameter '**{options}' cannot be passed by name, for it has none.",
            advice="A step takes ordinary parameters: write out each one.",
        )
    if (before := kinds.get(inspect.Parameter.POSITIONAL_ONLY)) is not None:
        raise DefinitionError(
            f"{where}: parameter {before!r} cannot be passed by name: it stands before a slash.",
            advice="A step's parameters are passed by name: drop the `/`.",
        )


def _source(where: str, parameter: inspect.Parameter, annotation: object, workflow: str) -> Source | None:
    """Where a parameter's value comes from; None leaves it to its ordinary default."""
    # `ctx: Context | None = None` is injected as well: so a unit test may leave it out.
    kinds = (annotation, *get_args(annotation))
    if Context in kinds:
        return Injected("context")
    if Failure in kinds:
        return Injected("failure")
    if parameter.default is inspect.Parameter.empty:
        return FromInput()
    if isinstance(parameter.default, Marker):
        return FromOutput(step_of(parameter.default, workflow))
    _check_default(where, parameter, annotation)
    return None


def _check_default(where: str, parameter: inspect.Parameter, annotation: object) -> None:
    """An ordinary default is what the body always gets. Refuses those that were meant otherwise."""
    from detent.workflow import Workflow  # which reads signatures here

    name, default = parameter.name, parameter.default
    if isinstance(default, Step | Wait):
        said, advice = f"the step {default.name!r} itself", f"Its output is `{name} = {default.name}.output`."
    elif isinstance(default, Workflow):
        said = f"the workflow {default.name!r}"
        advice = "A parameter without a default takes the workflow's input."
    elif default is Context or default is Failure:
        said, advice = f"the class {default.__name__}", f"Write it as the annotation: `{name}: {default.__name__}`."
    elif isinstance(default, Check):
        said, advice = "a condition", "A condition is an option of the step: `when=…`."
    elif default is None and annotation is not UNANNOTATED and not optional(annotation):
        said = f"None, which {name_of(annotation)} does not admit, and which is all that it would ever get"
        advice = f"Drop the default to take the workflow's input, or annotate it as {name_of(annotation)} | None."
    else:
        return
    raise DefinitionError(f"{where}: the default of parameter {name!r} is {said}.", advice=advice)


def _check_unannotated_context(where: str, parameters: list[Parameter]) -> None:
    inputs = [each for each in parameters if isinstance(each.source, FromInput)]
    for each in inputs if len(inputs) > 1 else ():
        if each.annotation is UNANNOTATED and each.name in ("ctx", "context", "failure"):
            kind = "Failure" if each.name == "failure" else "Context"
            raise DefinitionError(
                f"{where}: parameter {each.name!r} has no annotation, so it would be another input.",
                advice=f"Write `{each.name}: {kind}`.",
            )
