"""Runs the bodies of an app's steps: JSON in, the function's own types inside, JSON out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from detent_infra.executor import Attempt, Completed, Failure, Outcome
from detent_infra.logs.step_output import end_lines
from detent_state_machine.compatibility import UNANNOTATED, optional
from detent_state_machine.compiler import FromInput, FromOutput, Injected, Parameter
from detent_state_machine.decisions import final
from detent_state_machine.definition import Definition
from detent_state_machine.errors import InputError
from detent_state_machine.records import ErrorInfo

from detent import threads
from detent.context import Context
from detent.failures import failed
from detent.json_values import Json
from detent.turns import Turns

RunSync: TypeAlias = Callable[[Callable[[], object]], Awaitable[object]]
"""How synchronous bodies are run: in a thread, or, under a virtual clock, on the spot."""


@dataclass(frozen=True)
class Body:
    """A step's function with what is needed to call it."""

    function: Callable[..., object]
    parameters: tuple[Parameter, ...]
    readers: Mapping[str, Json[object]]
    writer: Json[object]
    is_async: bool

    @staticmethod
    def of(function: Callable[..., object], parameters: tuple[Parameter, ...], returns: object, where: str) -> Body:
        """Raises `DefinitionError` for a type that has no JSON form; `where` begins its message."""
        read = {
            p.name: Json[object](p.annotation, f"{where}: {p.name!r}")
            for p in parameters
            if not isinstance(p.source, Injected)
        }
        writer: Json[object] = Json(returns, f"{where}: its output", written=True)
        return Body(function, parameters, read, writer, inspect.iscoroutinefunction(function))

    def arguments(self, attempt: Attempt, context: Context, older: Callable[[], bool]) -> dict[str, object]:
        """Raises `InputError` if the input or an output does not fit its parameter.

        `older`: whether the run was started with another version of the code.
        """
        found: dict[str, object] = {}
        for parameter in self.parameters:
            name = parameter.name
            match parameter.source:
                case FromInput():
                    found[name] = self.readers[name].read(attempt.input, "The run's input", older=older)
                case FromOutput(step):
                    text = attempt.outputs.get(step)
                    if text is None:
                        if not (parameter.annotation is UNANNOTATED or optional(parameter.annotation)):
                            raise InputError(
                                f"Parameter {name!r} needs the output of step {step!r}, which this run does not have.",
                                advice="The run was started with another version of the code: keep a changed step "
                                "under a new name, or let the parameter admit None.",
                            )
                        found[name] = None
                    else:
                        found[name] = self.readers[name].read(text, f"The output of step {step!r}", older=older)
                case Injected("context"):
                    found[name] = context
                case Injected():
                    found[name] = attempt.failure or Failure("", ErrorInfo("Unknown", ""))
        return found


class Runner:
    """The executor of an app's steps."""

    def __init__(
        self,
        definitions: Callable[[], Mapping[str, Definition]],
        body: Callable[[str, str], Body | None],
        fact: Callable[[str, str], Json[Any] | None],
        run_sync: RunSync = threads.run,
        *,
        home: Callable[[], str] = str,
    ) -> None:
        self._definitions = definitions
        self._body = body
        self._fact = fact
        self._run_sync = run_sync
        self._home = home  # the URL that the app calls its own

    def definitions(self) -> Mapping[str, Definition]:
        return self._definitions()

    def knows(self, workflow: str, step: str) -> bool:
        return self._body(workflow, step) is not None or self._fact(workflow, step) is not None

    def misfit(self, workflow: str, step: str, text: str) -> ErrorInfo | None:
        json = self._fact(workflow, step)
        try:
            if json is not None:
                json.read(text, "The event's payload")
        except InputError as error:
            return final(error)
        return None

    def with_sync(self, run_sync: RunSync) -> Runner:
        """The same steps, synchronous bodies run otherwise."""
        return Runner(self._definitions, self._body, self._fact, run_sync, home=self._home)

    async def execute(self, attempt: Attempt) -> Outcome:
        body = self._body(attempt.workflow, attempt.path)
        assert body is not None, "the engine asks `knows` first"
        context = Context(attempt)
        attempt.control.home = self._home()
        try:
            outcome = await self._outcome(body, attempt, context)
            if not await _still_cancelled():
                return outcome
            if attempt.control.cancelled:
                raise asyncio.CancelledError
            return failed(asyncio.CancelledError())
        finally:
            end_lines(attempt)

    async def _outcome(self, body: Body, attempt: Attempt, context: Context) -> Outcome:
        """Whatever the body raises is its step's error: SystemExit and KeyboardInterrupt are not the worker's."""
        try:
            arguments = body.arguments(attempt, context, lambda: self._is_older(attempt))
            value = await self._call(body, attempt, arguments)
            return Completed(body.writer.write(value, f"What step {attempt.path!r} returned"), tuple(context._writes))
        except asyncio.CancelledError as error:
            if attempt.control.cancelled:
                raise
            return failed(error)  # The body cancelled itself: an error like any other.
        except BaseException as error:  # noqa: BLE001 - as said above
            return failed(error)

    def _is_older(self, attempt: Attempt) -> bool:
        here = self._definitions().get(attempt.workflow)
        return here is None or here.version != attempt.version

    async def _call(self, body: Body, attempt: Attempt, arguments: dict[str, object]) -> object:
        if body.is_async:
            return await Turns(attempt, cast("Awaitable[object]", body.function(**arguments)))
        value = await self._run_sync(lambda: body.function(**arguments))
        if inspect.isawaitable(value):  # A plain function that returned a coroutine.
            return await Turns(attempt, value)
        return value


async def _still_cancelled() -> bool:
    """Whether the body cancelled its own task and has not met that yet; takes it back."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return False
    met = False
    try:
        await asyncio.sleep(0)  # a cancel that is pending is raised here
    except asyncio.CancelledError:
        met = True
    while task.uncancel():
        pass
    return met
