"""Declaring workflows: steps are plain functions, and the graph is read off their signatures."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Optional, ParamSpec, TypeVar, Unpack, cast, overload

from detent_infra.sources.triggers import Subscription
from detent_state_machine.compatibility import UNANNOTATED
from detent_state_machine.compiler import DeclaredStep, FromInput, Scope, compile_workflow
from detent_state_machine.definition import DEFAULT_RETENTION_DAYS, DEFAULT_TAKEOVERS, DEFAULT_TIMEOUT, Definition
from detent_state_machine.durations import Seconds
from detent_state_machine.errors import DefinitionError, NotSerializable
from detent_state_machine.kinds import Kind, Timer
from detent_state_machine.retry import Retry
from detent_state_machine.status import Delivery
from detent_state_machine.triggers import Queue, compile_trigger
from detent_state_machine.when import Ref
from typing_extensions import TypeForm

from detent.event import Event
from detent.json_values import Json
from detent.markers import Marker, condition_of
from detent.options import (
    DeliveryName,
    HandlerOptions,
    StepOptions,
    check_known,
    delivery_of,
    json_type,
    retention,
    retry_policy,
    step_name,
    takeover_count,
    text,
    timeout_seconds,
)
from detent.runnable import Runnable
from detent.signatures import check_function, naming, signature_of
from detent.step import AnyStep, Step, StepDecorator
from detent.wait import AnyNode, EventOptions, Wait, sleep_for, wait_for_event, wait_until

if TYPE_CHECKING:
    from detent.app import App

_P = ParamSpec("_P")
_O = TypeVar("_O")
_In = TypeVar("_In")
_Out = TypeVar("_Out")


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
        where = f"Workflow {name!r}"
        self.app = app
        self.name = name
        self.trigger = None if on_queue is None else compile_trigger(name, on_queue)
        self.steps: dict[str, AnyStep] = {}
        self.waits: dict[str, Wait[Any]] = {}
        self.input_json: Json[object] = Json(
            json_type(where, "input", input_type), f"Workflow {name!r}: its input", written=True
        )
        self.output_json: Json[object] = Json(json_type(where, "output", output_type), f"Workflow {name!r}: its output")
        self._declared: list[DeclaredStep] = []
        self._options: dict[str, Any] = {
            "input_type": input_type,
            "output_type": output_type,
            "description": text(where, "description", description),
            "retention_days": retention(where, retention_days),
        }
        self._definition: Definition | None = None

    @property
    def input(self) -> _In:
        """Stands for the workflow's input in `when=`."""
        return cast("_In", Marker(Ref(step=None), self.name, self._options["input_type"]))

    @property
    def definition(self) -> Definition:
        """The compiled workflow. Raises `DefinitionError`, which says what to fix."""
        if self._definition is None:
            for json in (
                self.input_json,
                self.output_json,
                *(each for step in self.steps.values() for each in step.json),
                *(wait.fact for wait in self.waits.values() if wait.fact is not None),
            ):
                json.check_complete()
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

    def sleep(
        self, name: str, duration: Seconds, /, *, after: Sequence[AnyNode | str] = (), when: bool | None = None
    ) -> Wait[datetime]:
        """Declares a step that waits for so long (seconds, or a `timedelta`; at most 100 years) from when it is
        reached. No worker is busy meanwhile. Its output is the time at which it was due, in UTC.
        """
        due = sleep_for(f"Workflow {self.name!r}, step {name!r}", duration)
        return self._wait(name, Timer(due=due), datetime, after, when)

    def until(
        self, name: str, time: datetime, /, *, after: Sequence[AnyNode | str] = (), when: bool | None = None
    ) -> Wait[datetime]:
        """Declares a step that waits until a time: an aware `datetime`, or where a run has one, as `orders.input.due`
        or a step's output. A time in the past is due at once; a step behind whose output is not there is skipped.
        """
        due = wait_until(f"Workflow {self.name!r}, step {name!r}", time, self.name)
        return self._wait(name, Timer(due=due), datetime, after, when)

    @overload
    def event(
        self, name: str, event: Event[_O], /, *, key: str, timeout: None = None, **options: Unpack[EventOptions]
    ) -> Wait[_O]: ...
    @overload
    def event(
        self, name: str, event: Event[_O], /, *, key: str, timeout: Seconds, **options: Unpack[EventOptions]
    ) -> Wait[_O | None]: ...
    @overload
    def event(
        self,
        name: str,
        event: str,
        /,
        *,
        key: str,
        type: TypeForm[_O],
        timeout: None = None,
        **options: Unpack[EventOptions],
    ) -> Wait[_O]: ...
    @overload
    def event(
        self,
        name: str,
        event: str,
        /,
        *,
        key: str,
        type: TypeForm[_O],
        timeout: Seconds,
        **options: Unpack[EventOptions],
    ) -> Wait[_O | None]: ...
    @overload
    def event(
        self, name: str, event: str, /, *, key: str, timeout: Seconds | None = None, **options: Unpack[EventOptions]
    ) -> Wait[Any]: ...
    def event(
        self, name: str, event: Any, /, *, key: Any, type: Any = None, timeout: Any = None, **options: Any
    ) -> Any:
        """Declares a step that waits for an event of this name and `key`: text, or a value of the run that is text.
        With the key "" it meets events that were published without one. No worker is busy meanwhile.

        Its output is the payload; None if none came within `timeout` (seconds, or a `timedelta`; by default it waits
        for as long as it takes). It takes the oldest event that meets it, one published before the wait was reached
        too. A payload that does not fit the type fails the step. Raises `DefinitionError`.
        """
        where = f"Workflow {self.name!r}, step {name!r}"
        check_known(where, "event", cast("Mapping[str, object]", options), EventOptions)
        given: dict[str, Any] = {"match": None, "since": "run", "after": (), "when": None, **options}
        with naming(where):
            kind, declared = wait_for_event(where, self.name, event, key, type, timeout, given["match"], given["since"])
        known = declared.type is not UNANNOTATED and timeout is not None
        returns = Optional[declared.type] if known else declared.type  # noqa: UP045 - a value, not an annotation
        return self._wait(name, kind, returns, given["after"], given["when"], declared.payload_json)

    def _wait(
        self,
        name: str,
        kind: Kind,
        returns: Any,
        after: Sequence[AnyNode | str],
        when: object,
        fact: Json[Any] | None = None,
    ) -> Wait[Any]:
        where = f"Workflow {self.name!r}, step {name!r}"
        with naming(where):
            condition = None if when is None else condition_of(when, self.name)
        declared = DeclaredStep(name=name, returns=returns, after=self._names(where, after), when=condition, kind=kind)
        self._declared.append(declared)
        self._definition = None
        wait: Wait[Any] = Wait(declared, self.name, fact)
        self.waits.setdefault(name, wait)
        return wait

    def declare(self, function: Callable[..., Any], names: Mapping[str, object], **options: Any) -> AnyStep:
        """`step`, for a function that another declaration has found. `names` as in `signature_of`."""
        return self._add("main", function, names, **options)

    def _decorate(self, scope: Scope, function: Callable[..., Any] | None, options: HandlerOptions) -> Any:
        # Names in annotations are looked up where the function is defined: a test's local models are found too.
        names = dict(sys._getframe(2).f_locals)
        decorator = f"{'step' if scope == 'main' else scope}"
        kind = HandlerOptions if scope == "on_failure" else StepOptions
        where = f"Workflow {self.name!r}"
        check_known(where, decorator, cast("Mapping[str, object]", options), kind)

        def decorate(given: Callable[..., Any]) -> AnyStep:
            check_function(where, decorator, given, options.get("name"))
            return self._add(scope, given, names, **options)

        return decorate if function is None else decorate(function)

    def _add(
        self,
        scope: Scope,
        function: Callable[..., Any],
        names: Mapping[str, object],
        *,
        name: str | None = None,
        after: Sequence[AnyNode | str] = (),
        when: object = None,
        delivery: DeliveryName = Delivery.AT_LEAST_ONCE,
        retry: Retry | int | None = None,
        timeout: Seconds = DEFAULT_TIMEOUT,
        takeovers: int = DEFAULT_TAKEOVERS,
    ) -> AnyStep:
        called = function.__name__ if name is None else name
        where = f"Workflow {self.name!r}, step {called!r}"
        with naming(where):
            called = step_name(where, called)
            parameters, returns = signature_of(where, self.name, function, names)
            condition = None if when is None else condition_of(when, self.name)
        declared = DeclaredStep(
            name=called,
            parameters=parameters,
            returns=returns,
            scope=scope,
            after=self._names(where, after),
            when=condition,
            delivery=delivery_of(where, delivery),
            retry=retry_policy(where, retry),
            timeout=timeout_seconds(where, timeout),
            takeovers=takeover_count(where, takeovers),
            description=inspect.getdoc(function) or "",
        )
        self._declared.append(declared)
        self._definition = None
        step: AnyStep = Step(function, declared, self.name)
        self.steps.setdefault(called, step)
        return step

    def _names(self, where: str, others: object) -> tuple[str, ...]:
        if isinstance(others, list | tuple):
            return tuple(self._name(where, other) for other in cast("Sequence[object]", others))
        given = tuple(cast("Iterable[object]", others)) if isinstance(others, set | frozenset) else (others,)
        shown = sorted(each.name if isinstance(each, Step | Wait) else repr(each or "reserve") for each in given)
        raise DefinitionError(
            f"{where}: `after=` is a list of steps, not {others!r}.",
            advice=f"Write it as `after=[{', '.join(shown)}]`.",
        )

    def _name(self, where: str, other: object) -> str:
        if isinstance(other, str):
            return other
        if isinstance(other, Marker):
            raise DefinitionError(
                f"{where} follows {other!r}, which is a value, not a step.",
                advice="Give the step itself, without `.output`.",
            )
        if not isinstance(other, Step | Wait):
            raise DefinitionError(
                f"{where} follows {other!r}, which is not a step.",
                advice="Give the function that the decorator returned, or a step's name.",
            )
        if other.workflow != self.name:
            raise DefinitionError(
                f"{where} follows {other.name!r}, which is a step of workflow {other.workflow!r}.",
                advice="Only steps of one workflow follow each other.",
            )
        return other.name

    def write_input(self, value: object, what: str) -> str:
        """As `Runnable.write_input`. Without `input=`, what JSON alone does not bring back is of the one type that all
        steps take it as.
        """
        try:
            return self.input_json.write(value, what)
        except NotSerializable:
            taken = [
                p.annotation for step in self._declared for p in step.parameters if isinstance(p.source, FromInput)
            ]
            if self._options["input_type"] is not UNANNOTATED or len({id(one) for one in taken}) != 1:
                raise
            return Json[object](taken[0], f"Workflow {self.name!r}: its input", written=True).write(value, what)
