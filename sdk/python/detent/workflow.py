"""Declaring workflows: steps are plain functions, and the graph is read off their signatures."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    get_args,
    overload,
)

from detent_infra.executor import Failure
from detent_infra.sources.triggers import Subscription
from detent_state_machine.compatibility import UNANNOTATED
from detent_state_machine.compiler import (
    DeclaredStep,
    FromInput,
    FromOutput,
    Injected,
    Parameter,
    Scope,
    Source,
    compile_workflow,
)
from detent_state_machine.definition import DEFAULT_RETENTION_DAYS, DEFAULT_TAKEOVERS, DEFAULT_TIMEOUT, Definition
from detent_state_machine.errors import DefinitionError
from detent_state_machine.retry import Retry
from detent_state_machine.status import Delivery
from detent_state_machine.suggest import did_you_mean
from detent_state_machine.triggers import Queue, compile_trigger
from detent_state_machine.when import Ref

from detent.context import Context
from detent.json_values import Json
from detent.markers import Marker, condition_of, step_of
from detent.runnable import Runnable
from detent.runner import Body

if TYPE_CHECKING:
    from detent.app import App

_P = ParamSpec("_P")
_R = TypeVar("_R")
_O = TypeVar("_O")
_In = TypeVar("_In")
_Out = TypeVar("_Out")
DeliveryName: TypeAlias = Delivery | Literal["at_least_once", "at_most_once", "exactly_once"]


class Step(Generic[_P, _R, _O]):
    """A declared step. Calling it calls the function, as in a unit test: `ship(order, held, paid)`."""

    def __init__(self, function: Callable[_P, _R], declared: DeclaredStep, workflow: str) -> None:
        self.function = function
        self.declared = declared
        self.workflow = workflow
        where = f"Workflow {workflow!r}, step {declared.name!r}"
        self.body = Body.of(function, declared.parameters, declared.returns, where)
        update_wrapper(self, function)

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def output(self) -> _O:
        """Stands for what this step returns, as the default of another step's parameter, or in `when=`."""
        return cast("_O", Marker(Ref(step=self.name), self.workflow))

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<step {self.name!r} of workflow {self.workflow!r}>"


AnyStep: TypeAlias = Step[..., Any, Any]


class HandlerOptions(TypedDict, total=False):
    """What may be said of a failure handler."""

    name: str
    """Default: the function's."""
    after: Sequence[AnyStep | str]
    """Steps it follows without taking their output."""
    delivery: DeliveryName
    """How often the body may run. Default: `at_least_once`."""
    retry: Retry | None
    """Default: 3 attempts, exponential pauses with full jitter."""
    timeout: float
    """Seconds, per attempt. Default: 60."""
    takeovers: int
    """How often another worker may go on after one died. Default: 5."""


class StepOptions(HandlerOptions, total=False):
    """What may be said of a step."""

    when: bool | None
    """Skips the step unless the condition holds, and with it every step that needs its output (one whose parameter
    admits None runs all the same)."""


class StepDecorator(Protocol):
    """What `@orders.step(...)` returns."""

    @overload
    def __call__(self, function: Callable[_P, Coroutine[Any, Any, _O]], /) -> Step[_P, Coroutine[Any, Any, _O], _O]: ...
    @overload
    def __call__(self, function: Callable[_P, _O], /) -> Step[_P, _O, _O]: ...


class Workflow(Runnable[_In, _Out]):
    """A named set of steps. Made by `App.workflow`."""

    def __init__(
        self,
        app: App,
        name: str,
        *,
        input_type: object = UNANNOTATED,
        output_type: object = UNANNOTATED,
        description: str = "",
        retention_days: int = DEFAULT_RETENTION_DAYS,
        on_queue: Queue | str | None = None,
    ) -> None:
        self.app = app
        self.name = name
        self.trigger = None if on_queue is None else compile_trigger(name, on_queue)
        self.steps: dict[str, AnyStep] = {}
        self.input_json: Json[object] = Json(input_type, f"Workflow {name!r}: its input")
        self.output_json: Json[object] = Json(output_type, f"Workflow {name!r}: its output")
        self._declared: list[DeclaredStep] = []
        self._options: dict[str, Any] = {
            "input_type": input_type,
            "output_type": output_type,
            "description": description,
            "retention_days": retention_days,
        }
        self._definition: Definition | None = None

    @property
    def input(self) -> _In:
        """Stands for the workflow's input in `when=`."""
        return cast("_In", Marker(Ref(step=None), self.name))

    @property
    def definition(self) -> Definition:
        """The compiled workflow. Raises `DefinitionError`, which says what to mend."""
        if self._definition is None:
            self._definition = compile_workflow(self.name, self._declared, **self._options)
        return self._definition

    @property
    def subscription(self) -> Subscription | None:
        """What the messages of `on_queue` start; None without one."""
        what = f"The input of workflow {self.name!r}"

        def fit(text: str) -> str:
            # Written again, so that a message and a `start` of the same value are the same input under the same key.
            return self.input_json.write(self.input_json.read(text, what), what)

        return None if self.trigger is None else Subscription(self.trigger, self.definition, fit)

    # ---- declare ------------------------------------------------------------------------------------------

    @overload
    def step(self, function: Callable[_P, Coroutine[Any, Any, _O]], /) -> Step[_P, Coroutine[Any, Any, _O], _O]: ...
    @overload
    def step(self, function: Callable[_P, _O], /) -> Step[_P, _O, _O]: ...
    @overload
    def step(self, **options: Unpack[StepOptions]) -> StepDecorator: ...
    def step(self, function: Callable[..., Any] | None = None, **options: Unpack[StepOptions]) -> Any:
        """Declares a step.

        A parameter without a default takes the workflow's input, one with `= other.output` that step's output, one
        annotated `Context` the context. `StepOptions` says what each option does, and its default.
        """
        return self._decorate("main", function, options)

    @overload
    def on_failure(
        self, function: Callable[_P, Coroutine[Any, Any, _O]], /
    ) -> Step[_P, Coroutine[Any, Any, _O], _O]: ...
    @overload
    def on_failure(self, function: Callable[_P, _O], /) -> Step[_P, _O, _O]: ...
    @overload
    def on_failure(self, **options: Unpack[HandlerOptions]) -> StepDecorator: ...
    def on_failure(self, function: Callable[..., Any] | None = None, **options: Unpack[HandlerOptions]) -> Any:
        """Declares a failure handler: it runs once a step has failed for good, then the run ends as FAILED.

        A parameter annotated `Failure` says what failed. Outputs of ordinary steps are None where a step did not
        complete. Handlers may follow each other; if one fails for good, the run ends at once.
        """
        return self._decorate("on_failure", function, options)

    @overload
    def on_success(
        self, function: Callable[_P, Coroutine[Any, Any, _O]], /
    ) -> Step[_P, Coroutine[Any, Any, _O], _O]: ...
    @overload
    def on_success(self, function: Callable[_P, _O], /) -> Step[_P, _O, _O]: ...
    @overload
    def on_success(self, **options: Unpack[StepOptions]) -> StepDecorator: ...
    def on_success(self, function: Callable[..., Any] | None = None, **options: Unpack[StepOptions]) -> Any:
        """Declares a step that runs after every other one has completed or was skipped."""
        return self._decorate("on_success", function, options)

    def declare(self, function: Callable[..., Any], names: Mapping[str, object], **options: Any) -> AnyStep:
        """`step`, for a function that another declaration has found. `names` as in `signature_of`."""
        return self._add("main", function, names, **options)

    def _decorate(self, scope: Scope, function: Callable[..., Any] | None, options: HandlerOptions) -> Any:
        # Names in annotations are looked up where the function is defined: a test's local models are found too.
        names = dict(sys._getframe(2).f_locals)
        self._check_options(scope, options)
        if function is not None:
            return self._add(scope, function, names, **options)

        def decorate(given: Callable[..., Any]) -> AnyStep:
            return self._add(scope, given, names, **options)

        return decorate

    def _add(
        self,
        scope: Scope,
        function: Callable[..., Any],
        names: Mapping[str, object],
        *,
        name: str = "",
        after: Sequence[AnyStep | str] = (),
        when: object = None,
        delivery: DeliveryName = Delivery.AT_LEAST_ONCE,
        retry: Retry | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        takeovers: int = DEFAULT_TAKEOVERS,
    ) -> AnyStep:
        name = name or str(getattr(function, "__name__", ""))
        where = f"Workflow {self.name!r}, step {name!r}"
        with _naming(where):
            parameters, returns = signature_of(where, self.name, function, names)
            condition = None if when is None else condition_of(when, self.name)
        declared = DeclaredStep(
            name=name,
            parameters=parameters,
            returns=returns,
            scope=scope,
            after=self._names(where, after),
            when=condition,
            delivery=_delivery(where, delivery),
            retry=retry,
            timeout=timeout,
            takeovers=takeovers,
            description=inspect.getdoc(function) or "",
        )
        self._declared.append(declared)
        self._definition = None
        step: AnyStep = Step(function, declared, self.name)
        self.steps.setdefault(name, step)
        return step

    def _check_options(self, scope: Scope, options: HandlerOptions) -> None:
        known = list((HandlerOptions if scope == "on_failure" else StepOptions).__annotations__)
        for option in options:
            if option not in known:
                raise DefinitionError(
                    f"Workflow {self.name!r}: `@{'step' if scope == 'main' else scope}` has no option {option!r}.",
                    advice=did_you_mean(option, known, f"It has: {', '.join(known)}."),
                )

    def _names(self, where: str, others: Iterable[AnyStep | str] | AnyStep | str | None) -> tuple[str, ...]:
        if isinstance(others, Iterable) and not isinstance(others, str):
            return tuple(self._name(where, other) for other in others)
        one = others.name if isinstance(others, Step) else repr(others or "reserve")
        raise DefinitionError(
            f"{where}: `after=` is a list of steps, not {others!r}.", advice=f"Write it as `after=[{one}]`."
        )

    def _name(self, where: str, other: object) -> str:
        if isinstance(other, str):
            return other
        if not isinstance(other, Step):
            raise DefinitionError(
                f"{where} follows {other!r}, which is no step.",
                advice="Give the function that the decorator returned, or a step's name.",
            )
        if other.workflow != self.name:
            raise DefinitionError(
                f"{where} follows {other.name!r}, which is a step of workflow {other.workflow!r}.",
                advice="Only steps of one workflow follow each other.",
            )
        return other.name


@contextmanager
def _naming(where: str) -> Generator[None]:
    """Errors in a step's markers say which step."""
    try:
        yield
    except DefinitionError as error:
        if error.message.startswith(where):
            raise
        raise DefinitionError(f"{where}: {error.message}", advice=error.advice) from None


def _delivery(where: str, name: DeliveryName) -> Delivery:
    try:
        return Delivery(name)
    except ValueError:
        raise DefinitionError(
            f"{where}: there is no delivery {name!r}.",
            advice="It is at_least_once, at_most_once or exactly_once.",
        ) from None


def signature_of(
    where: str, workflow: str, function: Callable[..., Any], names: Mapping[str, object]
) -> tuple[tuple[Parameter, ...], object]:
    """What a function takes and returns. `names`: what its annotations may refer to beside its globals.

    Raises `DefinitionError`; `where` begins its message.
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
    for parameter in signature.parameters.values():
        annotation: object = hints.get(parameter.name, UNANNOTATED)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DefinitionError(
                f"{where}: parameter {parameter.name!r} cannot be passed by name.",
                advice="A step takes ordinary parameters: no *args, no **kwargs, none before a slash.",
            )
        source = _source(parameter, annotation, workflow)
        if source is not None:
            parameters.append(Parameter(parameter.name, annotation, source))
    return tuple(parameters), hints.get("return", UNANNOTATED)


def _source(parameter: inspect.Parameter, annotation: object, workflow: str) -> Source | None:
    """Where a parameter's value comes from; None leaves it to its ordinary default."""
    # `ctx: Context | None = None` is injected as well: so a unit test may leave it out.
    kinds = (annotation, *get_args(annotation))
    if Context in kinds:
        return Injected("context")
    if Failure in kinds:
        return Injected("failure")
    if parameter.default is inspect.Parameter.empty:
        return FromInput()
    step = step_of(parameter.default, workflow)
    return None if step is None else FromOutput(step)
