"""Tasks: a workflow of one step, declared by one decorator."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from detent_state_machine.compiler import FromInput
from detent_state_machine.definition import Definition
from detent_state_machine.durations import Seconds
from detent_state_machine.retry import Retry
from detent_state_machine.triggers import Queue

from detent.context import Context
from detent.options import DeliveryName, check_known, step_name
from detent.runnable import Runnable
from detent.signatures import check_function, naming, signature_of
from detent.workflow import Workflow

if TYPE_CHECKING:
    from detent.app import App

_P = ParamSpec("_P")
_R = TypeVar("_R")
_O = TypeVar("_O")
_A = TypeVar("_A")
_C = TypeVar("_C", bound=Context)
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Task(Runnable[_In, _Out], Generic[_P, _R, _In, _Out]):
    """A workflow of one step. Calling it calls the function, as in a unit test: `thumbnail("a.png")`."""

    def __init__(self, function: Callable[_P, _R], workflow: Workflow[_In, _Out]) -> None:
        self.function = function
        self.workflow = workflow
        update_wrapper(self, function)
        self.app = workflow.app
        self.name = workflow.name
        self.input_json = workflow.input_json
        self.output_json = workflow.output_json

    @property
    def input(self) -> _In:
        return self.workflow.input

    @property
    def definition(self) -> Definition:
        return self.workflow.definition

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name!r}>"


class TaskOptions(TypedDict, total=False):
    """What `@app.task(...)` takes."""

    name: str
    """Default: the function's."""
    retry: Retry | int | None
    """A policy, or a number of attempts. Default: 3 attempts, exponential pauses with full jitter."""
    timeout: Seconds
    """Seconds or a `timedelta`, per attempt. Default: 60 s."""
    delivery: DeliveryName
    """How often the body may run. Default: `at_least_once`."""
    takeovers: int
    """How often another worker may go on after one died. Default: 5."""
    retention_days: int
    """How long ended runs are kept. Default: 30."""
    on_queue: Queue | str | None
    """The queue whose messages start it, each message one run."""


WORKFLOW_OPTIONS = ("retention_days", "on_queue")


def declare_task(
    app: App, function: Callable[..., Any], names: Mapping[str, object], options: TaskOptions
) -> Task[..., Any, Any, Any]:
    """Declares the workflow of one step. `names`: what annotations may refer to beside the function's globals.

    Raises `DefinitionError`.
    """
    check_function(f"App {app.name!r}", "app.task", function, options.get("name"))
    name = step_name("`@app.task`", options.get("name", function.__name__))
    check_known(f"Task {name!r}", "app.task", cast("Mapping[str, object]", options), TaskOptions)
    with naming(f"Task {name!r}"):
        parameters, returns = signature_of(f"Task {name!r}", name, function, names)
    inputs = [parameter.annotation for parameter in parameters if isinstance(parameter.source, FromInput)]
    given = cast("dict[str, Any]", options)
    workflow: Workflow[Any, Any] = Workflow(
        app,
        name,
        input_type=inputs[0] if inputs else type(None),
        output_type=returns,
        description=inspect.getdoc(function) or "",
        **{option: given[option] for option in WORKFLOW_OPTIONS if option in given},
    )
    step = {option: value for option, value in given.items() if option not in WORKFLOW_OPTIONS}
    workflow.declare(function, names, **{**step, "name": name})
    app.add(workflow)
    return Task(function, workflow)


class _Anything:
    """Nobody has one: a function that would take it takes anything. Its parameter is `Any` or `object`."""


class TaskDecorator(Protocol):
    """What `@app.task(...)` returns. The order of the overloads decides which one a function meets first."""

    @overload  # f(anything, …): before f(ctx), which it would match
    def __call__(
        self, function: Callable[Concatenate[_Anything, _P], Coroutine[Any, Any, _O]], /
    ) -> Task[Concatenate[Any, _P], Coroutine[Any, Any, _O], Any, _O]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[_Anything, _P], _O], /
    ) -> Task[Concatenate[Any, _P], _O, Any, _O]: ...
    @overload  # f(ctx)
    def __call__(
        self, function: Callable[[_C], Coroutine[Any, Any, _O]], /
    ) -> Task[[_C], Coroutine[Any, Any, _O], None, _O]: ...
    @overload  # f()
    def __call__(
        self, function: Callable[[], Coroutine[Any, Any, _O]], /
    ) -> Task[[], Coroutine[Any, Any, _O], None, _O]: ...
    @overload
    def __call__(self, function: Callable[[_C], _O], /) -> Task[[_C], _O, None, _O]: ...
    @overload
    def __call__(self, function: Callable[[], _O], /) -> Task[[], _O, None, _O]: ...
    @overload  # f(ctx, input, …)
    def __call__(
        self, function: Callable[Concatenate[_C, _A, _P], Coroutine[Any, Any, _O]], /
    ) -> Task[Concatenate[_C, _A, _P], Coroutine[Any, Any, _O], _A, _O]: ...
    @overload  # f(input, …)
    def __call__(
        self, function: Callable[Concatenate[_A, _P], Coroutine[Any, Any, _O]], /
    ) -> Task[Concatenate[_A, _P], Coroutine[Any, Any, _O], _A, _O]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[_C, _A, _P], _O], /
    ) -> Task[Concatenate[_C, _A, _P], _O, _A, _O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[_A, _P], _O], /) -> Task[Concatenate[_A, _P], _O, _A, _O]: ...


class TaskDeclarer:
    """What `app.task` is: used as `@app.task` or as `@app.task(timeout=30)`."""

    def __init__(self, app: App) -> None:
        self._app = app

    @overload  # f(anything, …): before f(ctx), which it would match
    def __call__(
        self, function: Callable[Concatenate[_Anything, _P], Coroutine[Any, Any, _O]], /
    ) -> Task[Concatenate[Any, _P], Coroutine[Any, Any, _O], Any, _O]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[_Anything, _P], _O], /
    ) -> Task[Concatenate[Any, _P], _O, Any, _O]: ...
    @overload  # f(ctx)
    def __call__(
        self, function: Callable[[_C], Coroutine[Any, Any, _O]], /
    ) -> Task[[_C], Coroutine[Any, Any, _O], None, _O]: ...
    @overload  # f()
    def __call__(
        self, function: Callable[[], Coroutine[Any, Any, _O]], /
    ) -> Task[[], Coroutine[Any, Any, _O], None, _O]: ...
    @overload
    def __call__(self, function: Callable[[_C], _O], /) -> Task[[_C], _O, None, _O]: ...
    @overload
    def __call__(self, function: Callable[[], _O], /) -> Task[[], _O, None, _O]: ...
    @overload  # f(ctx, input, …)
    def __call__(
        self, function: Callable[Concatenate[_C, _A, _P], Coroutine[Any, Any, _O]], /
    ) -> Task[Concatenate[_C, _A, _P], Coroutine[Any, Any, _O], _A, _O]: ...
    @overload  # f(input, …)
    def __call__(
        self, function: Callable[Concatenate[_A, _P], Coroutine[Any, Any, _O]], /
    ) -> Task[Concatenate[_A, _P], Coroutine[Any, Any, _O], _A, _O]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[_C, _A, _P], _O], /
    ) -> Task[Concatenate[_C, _A, _P], _O, _A, _O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[_A, _P], _O], /) -> Task[Concatenate[_A, _P], _O, _A, _O]: ...
    @overload
    def __call__(self, **options: Unpack[TaskOptions]) -> TaskDecorator: ...
    def __call__(self, function: Callable[..., Any] | None = None, **options: Unpack[TaskOptions]) -> Any:
        """Declares a workflow of one step from a function. `TaskOptions` says what each option does, and its default.

        Its first parameter without a default takes the input; one annotated `Context` takes the context; others keep
        their defaults. Raises `DefinitionError`.
        """
        # Names in annotations are looked up where the function is defined: a test's local models are found too.
        names = dict(sys._getframe(1).f_locals)
        if function is not None:
            return declare_task(self._app, function, names, options)

        def decorate(given: Callable[..., Any]) -> Task[..., Any, Any, Any]:
            return declare_task(self._app, given, names, options)

        return decorate
