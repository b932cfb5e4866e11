"""Testing workflows: the real engine, in memory, under a clock that jumps.

    with Harness(app) as harness:
        harness.fail("charge", ConnectionError("psp is down"), times=2)
        assert harness.run(orders, order) == label        # two retries later, in no time

Nothing is mocked: compiler, engine, worker and the memory backend are the ones that ship. Synchronous bodies run on
the event loop's own thread here, so a run is the same every time.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from detent_infra import event_loop
from detent_infra.engine import Engine
from detent_infra.executor import Attempt, Control, Executor, Outcome
from detent_infra.logs.standard_logging import forward_standard_logging
from detent_infra.memory import memory_backend
from detent_infra.ports import Backend, Timing
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.virtual_time import EPOCH, TICKS, VirtualLoop
from detent_infra.worker import Rhythm, Worker
from detent_state_machine.definition import Definition, StepDefinition
from detent_state_machine.durations import Seconds
from detent_state_machine.errors import InputError, RunError
from detent_state_machine.keys import RUN
from detent_state_machine.records import ErrorInfo
from detent_state_machine.status import Delivery, RunStatus
from detent_state_machine.writes import Key
from pydantic_core import to_json

from detent.app import App
from detent.client import Client
from detent.context import Context
from detent.event import Event, publish_to
from detent.failures import failed
from detent.info import DeadLetterInfo, LogEntry, StepInfo, dead_letter_info, log_entry
from detent.options import seconds as duration
from detent.options import whole, written
from detent.run_handle import RunHandle, not_ended
from detent.runnable import Runnable

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_T = TypeVar("_T")

DAY = 86_400.0
LONG = 10 * 366 * DAY
"""Seconds of virtual time, in which a run that sleeps for months ends too."""
AT_LEISURE = Rhythm(receive=math.inf, reap=1_800.0, sweep=DAY / 2)
"""A memory backend loses no message, so that time need not stand at every minute on its way over a sleep. Retention is
a day or more."""
PAGE = 1_000
"""Runs that are read at once."""


class WorkerCrashed(BaseException):
    """What `Harness.crash` raises in place of a body: the worker is gone, its message stays."""


class Harness(AbstractContextManager["Harness"]):
    """Runs an app's workflows with a worker of its own.

    By default in memory under a virtual clock; with `backend`, on that backend in real time, so that one test can be
    run on both.
    """

    def __init__(self, app: App, *, backend: Backend | None = None, timing: Timing | None = None) -> None:
        self.app = app
        app.definitions()  # What is wrong with a workflow is said before anything is opened.
        self._loop: asyncio.AbstractEventLoop
        self._moved: asyncio.Event | None = None
        """A run was written, as far as a virtual clock needs to know."""
        self._rhythm = Rhythm()
        if backend is None:
            loop, moved = VirtualLoop(TICKS), asyncio.Event()
            numbers = itertools.count(1)

            def written(key: Key) -> None:
                if key.sk == RUN and not loop.is_closed():
                    loop.call_soon_threadsafe(moved.set)

            backend = memory_backend(
                clock=loop.wall_clock, ids=lambda: f"id{next(numbers):024d}", timing=timing, written=written
            )
            executor = app.executor.with_sync(on_the_spot)
            self._loop, self._moved, self._rhythm = loop, moved, AT_LEISURE
        else:
            self._loop = asyncio.new_event_loop()
            executor = app.executor
        self.backend = backend
        self.client = Client(backend.url, backend=lambda: self.backend)
        self._faults = PlannedErrors(executor)
        self._engine = Engine(backend, self._faults, jitter=lambda: 0.5)
        self._stop = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._open = False

    # ---- a test's own verbs -------------------------------------------------------------------------------

    @overload
    def start(
        self,
        workflow: Runnable[None, _Out],
        /,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[_Out]: ...
    @overload
    def start(
        self,
        workflow: Runnable[_In, _Out],
        value: _In,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[_Out]: ...
    def start(
        self,
        workflow: Runnable[Any, _Out],
        value: Any = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[_Out]:
        """Starts a run; it moves when time does (`advance`, `result`)."""
        return self.wait_for(self.client.astart(workflow, value, key=key, metadata=metadata))

    def send(
        self, queue: str, body: object, *, id: str | None = None, attributes: Mapping[str, str] | None = None
    ) -> str:
        """Puts a message into the queue that workflows name with `on_queue`, and returns its id; runs start when time
        moves. Text is sent as it is, anything else as JSON.
        """
        text = body if isinstance(body, str) else to_json(body).decode()
        return self.wait_for(self.backend.source(queue).send(text, id=id, attributes=attributes))

    @overload
    def publish(self, event: Event[_T], payload: _T, *, key: str = "", id: str | None = None) -> str: ...
    @overload
    def publish(self, event: str, payload: object, *, key: str = "", id: str | None = None) -> str: ...
    def publish(self, event: Event[Any] | str, payload: Any, *, key: str = "", id: str | None = None) -> str:
        """Publishes an event and returns its id, as `App.publish`. It meets its waits while time goes on."""
        return self.wait_for(publish_to(self.backend, event, payload, key=key, id=id))

    def runs(self, workflow: Runnable[Any, _Out]) -> list[RunHandle[_Out]]:
        """The workflow's runs, whatever started them, oldest first: all of them."""
        page = self.wait_for(self.client.aruns(workflow.name, limit=PAGE))
        found = list(page)
        while page.next is not None:
            page = self.wait_for(self.client.aruns(workflow.name, limit=PAGE, after=page.next))
            found += page
        return [RunHandle(self.client, run.run_id, workflow.output_json) for run in reversed(found)]

    def dead_letters(self, queue: str) -> list[DeadLetterInfo]:
        """The messages of the queue that could start nothing, each with the reason (at most 1,000)."""
        return [dead_letter_info(letter) for letter in self.wait_for(self.backend.source(queue).dead_letters(PAGE))]

    def result(self, run: RunHandle[_Out], *, within: Seconds = LONG) -> _Out:
        """The run's output, as soon as it has one; `within` bounds the time that passes (seconds, or a `timedelta`).

        Raises `RunFailed`, `RunCancelled` or `TimeoutError`.
        """
        return self.wait_for(self._result(run, duration("result", "within", within, above=True)))

    async def _result(self, run: RunHandle[_Out], within: float) -> _Out:
        """`run.aresult`. Under a virtual clock nothing asks again and again: time jumps to what is due next."""
        if self._moved is None:
            return await run.aresult(within)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while (await run.astatus()).live:
                    self._moved.clear()
                    await self._moved.wait()
                within = 0.0
        if within:
            raise not_ended(run.id, within)
        return await run.aresult()

    @overload
    def run(self, workflow: Runnable[None, _Out], /, *, within: Seconds = LONG) -> _Out: ...
    @overload
    def run(self, workflow: Runnable[_In, _Out], value: _In, *, within: Seconds = LONG) -> _Out: ...
    def run(self, workflow: Runnable[Any, _Out], value: Any = None, *, within: Seconds = LONG) -> _Out:
        """Starts a run and returns its output."""
        return self.result(self.start(workflow, value), within=within)

    def settle(self, run: RunHandle[Any], *, within: Seconds = LONG) -> RunStatus:
        """The run's status once it has ended, whatever it is."""

        async def ended() -> RunStatus:
            with suppress(RunError):
                await self._result(run, duration("settle", "within", within, above=True))
            return await run.astatus()

        return self.wait_for(ended())

    def advance(self, seconds: Seconds) -> None:
        """Lets this much time pass, and everything happen that is due."""
        self.wait_for(asyncio.sleep(duration("advance", "seconds", seconds)))

    def steps(self, run: RunHandle[Any]) -> dict[str, StepInfo]:
        """The run's steps that have begun, by path."""
        return {step.path: step for step in self.wait_for(self.client.asteps(run.id)) if step.status is not None}

    def output_of(self, run: RunHandle[Any], step: str) -> Any:
        """What one step of the run returned, as JSON values; None if it has not completed. Raises `UnknownStep`."""
        return self.wait_for(run.aoutput_of(step))

    def logs(self, run: RunHandle[Any], pattern: str = "") -> list[LogEntry]:
        """The run's log lines that match the CloudWatch filter pattern."""

        async def read() -> list[LogEntry]:
            return [line async for line in self.client.alogs(run.id, pattern=pattern)]

        return self.wait_for(read())

    def fail(self, step: str, error: BaseException, *, times: int = 1) -> None:
        """The next `times` attempts of the step raise this error in place of its body."""
        if not isinstance(error, BaseException):
            raise InputError(
                f"`fail({step!r}, {written(error)})`: it should be an error.", advice="Make one: `ConnectionError()`."
            )
        whole("fail", "times", times)
        self._faults.planned[step] += [error] * times

    def crash(self, step: str, *, times: int = 1) -> None:
        """The next `times` attempts of the step kill their worker in place of its body; its message comes back."""
        self.fail(step, WorkerCrashed(), times=times)

    def wait_for(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The coroutine's result, on the harness's event loop.

        Raises `InputError` outside of `with Harness(…)`, and inside of an event loop.
        """
        if not self._open or asyncio._get_running_loop() is not None:
            work.close()
            raise _not_here(self._open)
        task = self._loop.create_task(work)
        with event_loop.listening(self._loop, _interrupt) as heard:
            return event_loop.drive(self._loop, task, lambda: bool(heard))

    # ---- open and close -----------------------------------------------------------------------------------

    def start_worker(self) -> None:
        """Starts the worker again after `stop_worker`."""

        async def begin() -> asyncio.Task[None]:
            self._stop = asyncio.Event()
            await Lifecycle(self.backend, self._engine.definitions).register(self.app.definitions().values())
            worker = Worker(self._engine, subscriptions=self.app.subscriptions, grace=5.0, rhythm=self._rhythm)
            return asyncio.create_task(worker.run(self._stop))

        self._worker = self.wait_for(begin())

    def stop_worker(self) -> None:
        """Lets the worker end what it is doing, and stop."""
        if self._worker is not None:
            self._loop.call_soon(self._stop.set)
            worker, self._worker = self._worker, None
            event_loop.drive(self._loop, worker)

    def __enter__(self) -> Self:
        self._loop.set_exception_handler(_quiet_about_crashes)
        self._logging = forward_standard_logging()
        self._logging.__enter__()
        self._app_here = self.app._on(self.backend)
        self._app_here.__enter__()
        self._open = True
        self.start_worker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop_worker()
        finally:
            self._app_here.__exit__(None, None, None)
            self._logging.__exit__(None, None, None)
            self._open = False
            event_loop.end_tasks(self._loop)
            self.backend.close()
            event_loop.close(self._loop)


def context(
    *,
    run_id: str = "run",
    step: str = "step",
    attempt: int = 1,
    delivery: Delivery = Delivery.AT_LEAST_ONCE,
    metadata: Mapping[str, str] | None = None,
    lines: list[LogEntry] | None = None,
) -> Context:
    """A context for calling a step's function directly. Log lines go to `lines`; `committed` shows the writes."""
    sink = lines if lines is not None else []
    return Context(
        Attempt(
            run_id=run_id,
            workflow="test",
            path=step,
            step=StepDefinition(name=step, delivery=delivery),
            number=attempt,
            idempotency_key=f"{run_id}/{step}",
            input="null",
            outputs={},
            control=Control(lambda line: sink.append(log_entry(line)), lambda: EPOCH, EPOCH + 60_000),
            metadata=metadata or {},
        )
    )


class PlannedErrors:
    """An executor that raises planned errors in place of bodies; `WorkerCrashed` goes through it, as a kill does."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.planned: dict[str, list[BaseException]] = defaultdict(list)

    def definitions(self) -> Mapping[str, Definition]:
        return self._executor.definitions()

    def knows(self, workflow: str, step: str) -> bool:
        return self._executor.knows(workflow, step)

    def misfit(self, workflow: str, step: str, text: str) -> ErrorInfo | None:
        return self._executor.misfit(workflow, step, text)

    async def execute(self, attempt: Attempt) -> Outcome:
        planned = self.planned[attempt.path]
        if not planned:
            attempt.control.in_test = True
            return await self._executor.execute(attempt)
        error = planned.pop(0)
        if isinstance(error, WorkerCrashed):
            raise error
        return failed(error)


async def on_the_spot(function: Callable[[], object]) -> object:
    """Runs a synchronous body in the event loop's own thread: always at the same moment."""
    return function()


def _not_here(open_: bool) -> InputError:
    if not open_:
        return InputError(
            "This Harness is not open, so nothing runs in it.",
            advice="Use it inside of `with Harness(app) as harness:`.",
        )
    return InputError(
        "A Harness has an event loop of its own, and cannot be asked from inside of one.",
        advice="Call it from a synchronous test. In a body, use `await` and the async twins: `await workflow.arun(…)`.",
    )


def _interrupt() -> None:
    raise KeyboardInterrupt


def _quiet_about_crashes(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), WorkerCrashed):
        loop.default_exception_handler(context)
