"""A declared step, and what its decorator returns."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

from detent_state_machine.compiler import DeclaredStep
from detent_state_machine.when import Ref

from detent.json_values import Json
from detent.markers import Marker
from detent.runner import Body

_P = ParamSpec("_P")
_R = TypeVar("_R")
_O = TypeVar("_O")


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
    def json(self) -> Iterator[Json[object]]:
        """How its values are read and written."""
        yield from self.body.readers.values()
        yield self.body.writer

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def output(self) -> _O:
        """Stands for what this step returns, as the default of another step's parameter, or in `when=`."""
        return cast("_O", Marker(Ref(step=self.name), self.workflow, self.declared.returns))

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<step {self.name!r} of workflow {self.workflow!r}>"


AnyStep: TypeAlias = Step[..., Any, Any]


class StepDecorator(Protocol):
    """What `@orders.step(...)` returns."""

    @overload
    def __call__(self, function: Callable[_P, Coroutine[Any, Any, _O]], /) -> Step[_P, Coroutine[Any, Any, _O], _O]: ...
    @overload
    def __call__(self, function: Callable[_P, _O], /) -> Step[_P, _O, _O]: ...
