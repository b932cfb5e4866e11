"""The registry of workflows, bound to one backend."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar, overload

from detent_infra import event_loop, forks
from detent_infra.engine import Engine, LogSettings
from detent_infra.logs.standard_logging import forward_standard_logging
from detent_infra.loop_watch import LoopWatch
from detent_infra.ports import Backend
from detent_infra.sources.triggers import Subscription
from detent_infra.worker import Worker
from detent_state_machine.compatibility import UNANNOTATED
from detent_state_machine.definition import DEFAULT_RETENTION_DAYS, Definition
from detent_state_machine.durations import Seconds
from detent_state_machine.errors import ConfigurationError, DefinitionError
from detent_state_machine.triggers import Queue
from typing_extensions import TypeForm

from detent.ambient import backend_for, open_url
from detent.client import Client
from detent.event import Event
from detent.json_values import Json
from detent.logs import log_settings
from detent.options import backend_url, seconds, whole, written
from detent.runner import Body, Runner
from detent.task import TaskDeclarer
from detent.workflow import Workflow

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_T = TypeVar("_T")


@forks.unlocked_in_children
class App:
    """Workflows that live on one backend.

    `url` is `sqlite:///path.db`, `aws://<stack>?region=…` or `memory://`; by default DETENT_URL, else
    `sqlite:///.detent/detent.db` under the current directory. Nothing is opened before it is needed.
    """

    def __init__(self, name: str = "app", *, url: str | None = None) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"`App({written(name)})`: an app's name is text.", advice='Write `App("shop")`.')
        self.name = name
        self.url = backend_url("App", url)
        self._has_url = url is not None
        self._stand_in: Backend | None = None
        self._workflows: dict[str, Workflow[Any, Any]] = {}
        self._events: dict[str, Event[Any]] = {}

    @property
    def events(self) -> Mapping[str, Event[Any]]:
        """The declared events by name."""
        return MappingProxyType(self._events)

    @property
    def workflows(self) -> Mapping[str, Workflow[Any, Any]]:
        """The declared workflows by name."""
        return MappingProxyType(self._workflows)

    @overload
    def workflow(
        self,
        name: str,
        *,
        input: type[_In],
        output: type[_Out],
        description: str = "",
        retention_days: int = DEFAULT_RETENTION_DAYS,
        on_queue: Queue | str | None = None,
    ) -> Workflow[_In, _Out]: ...
    @overload
    def workflow(
        self,
        name: str,
        *,
        input: type[_In],
        description: str = "",
        retention_days: int = DEFAULT_RETENTION_DAYS,
        on_queue: Queue | str | None = None,
    ) -> Workflow[_In, Any]: ...
    @overload
    def workflow(
        self,
        name: str,
        *,
        output: type[_Out],
        description: str = "",
        retention_days: int = DEFAULT_RETENTION_DAYS,
        on_queue: Queue | str | None = None,
    ) -> Workflow[Any, _Out]: ...
    @overload
    def workflow(
        self,
        name: str,
        *,
        description: str = "",
        retention_days: int = DEFAULT_RETENTION_DAYS,
        on_queue: Queue | str | None = None,
    ) -> Workflow[Any, Any]: ...
    def workflow(
        self,
        name: str,
        *,
        input: object = UNANNOTATED,
        output: object = UNANNOTATED,
        description: str = "",
        retention_days: int = DEFAULT_RETENTION_DAYS,
        on_queue: Queue | str | None = None,
    ) -> Workflow[Any, Any]:
        """Declares a workflow. `input` and `output` are its types: models, dataclasses or plain JSON types.

        With `output`, results have that type, and the last step is checked against it. Ended runs are kept for
        `retention_days` (default 30). Messages of the queue `on_queue` start runs, each message one: by its name if
        they hold the input as JSON, else by a `Queue` that says how they are read. Raises `DefinitionError` if the
        name is taken, or if `on_queue` cannot be used.
        """
        if not isinstance(name, str):
            raise DefinitionError(
                f"Workflow {written(name)}: a name is text, not {written(name)}.",
                advice='Write `app.workflow("orders")`.',
            )
        workflow: Workflow[Any, Any] = Workflow(
            self,
            name,
            input_type=input,
            output_type=output,
            description=description,
            retention_days=retention_days,
            on_queue=on_queue,
        )
        self.add(workflow)
        return workflow

    @cached_property
    def task(self) -> TaskDeclarer:
        """Declares a workflow of one step from a function, sync or async: `@app.task` or `@app.task(timeout=30)`.

        The result is started like a workflow (`thumbnail.start("a.png")`, `.run`), and called like the function.
        """
        return TaskDeclarer(self)

    def event(self, name: str, *, type: TypeForm[_T]) -> Event[_T]:
        """Declares a kind of event: runs wait for it by `orders.event(…)`, and `publish` takes it instead of a name.

        Raises `DefinitionError` for a type that has no JSON form or a name that is taken, `InputError` for a name
        with a '#'.
        """
        event = Event(name, type)
        if name in self._events:
            raise DefinitionError(
                f"App {self.name!r} declares event {name!r} twice.", advice="Declare it once, and use that object."
            )
        self._events[name] = event
        return event

    @overload
    def publish(self, event: Event[_T], payload: _T, *, key: str = "", id: str | None = None) -> str: ...
    @overload
    def publish(self, event: str, payload: object, *, key: str = "", id: str | None = None) -> str: ...
    def publish(self, event: Event[Any] | str, payload: Any, *, key: str = "", id: str | None = None) -> str:
        """Publishes an event and returns its id. When it returns, the event is stored and will meet who waits for it.

        It meets waits for its name and `key`, those that begin later too: it is stored for 30 days. Published twice
        under one `id` it is one event. Raises `InputError` for a payload that does not fit, `KeyConflict` if the id
        was published with another payload.
        """
        return self.client.publish(event, payload, key=key, id=id)

    @overload
    async def apublish(self, event: Event[_T], payload: _T, *, key: str = "", id: str | None = None) -> str: ...
    @overload
    async def apublish(self, event: str, payload: object, *, key: str = "", id: str | None = None) -> str: ...
    async def apublish(self, event: Event[Any] | str, payload: Any, *, key: str = "", id: str | None = None) -> str:
        """`publish`, async."""
        return await self.client.apublish(event, payload, key=key, id=id)

    def add(self, workflow: Workflow[Any, Any]) -> None:
        """Makes the workflow one of this app's. Raises `DefinitionError` if its name is taken."""
        if workflow.name in self._workflows:
            raise DefinitionError(f"App {self.name!r} has two workflows named {workflow.name!r}.", advice="Rename one.")
        self._workflows[workflow.name] = workflow

    @property
    def backend(self) -> Backend:
        """The opened backend: in the body of a step the one that it runs on. Raises `ConfigurationError`."""
        return backend_for(self.url if self._has_url else None, lambda: self._stand_in or self._opened)

    @cached_property
    def _opened(self) -> Backend:
        return open_url(self.url)

    @contextmanager
    def _on(self, backend: Backend) -> Generator[None]:
        """While it is open, the app lives on this backend, whatever its URL says: a test's."""
        before, self._stand_in = self._stand_in, backend
        try:
            yield
        finally:
            self._stand_in = before

    @cached_property
    def client(self) -> Client:
        """Starts and looks at runs on this app's backend."""
        return Client(self.url, backend=lambda: self.backend)

    @cached_property
    def executor(self) -> Runner:
        """Runs this app's steps; what workers and Lambda handlers drive."""
        return Runner(self.definitions, self._body, self._fact, home=lambda: self.url)

    @property
    def subscriptions(self) -> list[Subscription]:
        """What the messages of queues start. Raises `DefinitionError` for the first workflow that is wrong."""
        return [found for each in self._workflows.values() if (found := each.subscription) is not None]

    def definitions(self) -> dict[str, Definition]:
        """Every workflow, compiled. Raises `DefinitionError` for the first that is wrong."""
        return {name: workflow.definition for name, workflow in self._workflows.items()}

    def run_worker(self, *, concurrency: int = 100, grace: Seconds = 30.0) -> None:
        """Works on this app's runs until SIGINT or SIGTERM.

        `concurrency` is how many messages are driven at once; `grace` how long a stop waits for steps in progress
        (seconds, or a `timedelta`). What is cut off is delivered again. Raises `DefinitionError`, `ConfigurationError`.
        """
        if asyncio._get_running_loop() is not None:
            raise ConfigurationError(
                "`run_worker` has an event loop of its own, and another one runs here.",
                advice="Write `await app.work(stop)`, with an `asyncio.Event` that ends it.",
            )
        with event_loop.leaving_threads():
            event_loop.run(self._work_until_signal(concurrency, grace))

    async def work(self, stop: asyncio.Event, *, concurrency: int = 100, grace: Seconds = 30.0) -> None:
        """`run_worker` inside your own event loop, until `stop` is set."""
        await work_with(self, log_settings(), stop, concurrency=concurrency, grace=grace)

    async def _work_until_signal(self, concurrency: int, grace: Seconds) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, stop.set)
            except (NotImplementedError, RuntimeError):  # Windows, or not the main thread: Ctrl-C raises instead.
                logging.getLogger("detent").debug("no handler for %s here", number)
        await self.work(stop, concurrency=concurrency, grace=grace)

    def _body(self, workflow: str, step: str) -> Body | None:
        try:
            return self._workflows[workflow].steps[step].body
        except KeyError:
            return None

    def _fact(self, workflow: str, step: str) -> Json[Any] | None:
        try:
            return self._workflows[workflow].waits[step].fact
        except KeyError:
            return None


async def work_with(
    app: App, log_settings: LogSettings, stop: asyncio.Event, *, concurrency: int, grace: Seconds
) -> None:
    """`App.work`, writing lines so."""
    concurrency, grace = whole("run_worker", "concurrency", concurrency), seconds("run_worker", "grace", grace)
    engine = Engine(app.backend, app.executor, log_settings=log_settings)
    watch = LoopWatch(engine.backend)
    worker = Worker(engine, subscriptions=app.subscriptions, concurrency=concurrency, grace=grace, watch=watch)
    with forward_standard_logging():
        await worker.run(stop)
