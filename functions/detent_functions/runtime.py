"""What a function's process keeps from one invocation to the next: the event loop, the backend, the engine.

Imported by every function, so it imports nothing that only some of them use.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

from detent_infra import event_loop
from detent_infra.application import LoadAdvice, load_application
from detent_infra.aws import Resources, StdoutLines, aws_backend
from detent_infra.clock import wall_clock
from detent_infra.definitions import Definitions
from detent_infra.engine import Engine, LogSettings
from detent_infra.executor import Application, Executor
from detent_infra.ids import new_id
from detent_infra.logs.standard_logging import forward_standard_logging, keep_engine_lines
from detent_infra.logs.step_output import end_open_lines, step_output
from detent_infra.ports import Backend
from detent_state_machine.errors import ConfigurationError

from detent_functions.settings import FunctionSettings, settings
from detent_functions.telemetry import log

_T = TypeVar("_T")

ADVICE = LoadAdvice(
    module="Package it with the function, beside `detent_functions`.",
    dependency="Package that dependency with the function.",
    failed=lambda _: "Importing it on your own machine shows the whole trace.",
)


class Runtime:
    """Builds each part when it is first used, so that a function pays only for what it uses."""

    def __init__(self, settings: FunctionSettings) -> None:
        self.settings = settings
        self._loop = asyncio.new_event_loop()
        self._open = ExitStack()
        self._failed: Exception | None = None
        self._prepared = False

    def prepare(self) -> None:
        """Builds what every function uses. Raises nothing: the invocation that needs the part gets the error."""
        with suppress(Exception):
            _ = self.backend  # it fails at once, and does so again when it is asked for
        try:
            _ = self.application
        except Exception as error:  # noqa: BLE001 - raised again below
            self._failed = error

    def run(self, work: Coroutine[object, object, _T]) -> _T:
        """The result of the work, done on this process's one event loop."""
        return event_loop.drive(self._loop, self._loop.create_task(work))

    @contextmanager
    def beside(self, work: Coroutine[object, object, None]) -> Generator[None]:
        """Does the work while the block lasts, on a thread of its own: no body that blocks the loop holds it up."""
        doing = asyncio.run_coroutine_threadsafe(work, self._beside[0])
        try:
            yield
        finally:
            doing.cancel()

    @cached_property
    def _beside(self) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="detent-beside", daemon=True)
        thread.start()
        return loop, thread

    @cached_property
    def backend(self) -> Backend:
        s = self.settings
        resources = Resources(s.table, s.queue_url, s.dead_letter_queue_url, s.bucket, s.log_group)
        return aws_backend(resources, url=s.url, region=s.region, clock=wall_clock, ids=new_id)

    @cached_property
    def application(self) -> Application:
        if self._failed is not None:
            # Once: the next one imports it again, because the cause may have been a service that did not answer.
            failed, self._failed = self._failed, None
            raise failed
        if not self._prepared:
            self._prepared = True
            keep_engine_lines()
            self._open.enter_context(step_output())
            self._open.enter_context(forward_standard_logging(only=True))
        try:
            said = f"App {self.settings.app!r} (from DETENT_APP)"
            return load_application(self.settings.app, said, own=_own(), advice=ADVICE)
        finally:
            end_open_lines()  # what the module printed last must not swallow the first line of JSON

    @property
    def executor(self) -> Executor:
        return self.application.executor

    @cached_property
    def engine(self) -> Engine:
        # Lambda carries what is printed to the log group: it costs no request and no latency.
        log_settings = LogSettings(level=self.settings.log_level, at_once=StdoutLines())
        return Engine(self.backend, self.executor, log_settings=log_settings)

    @cached_property
    def definitions(self) -> Definitions:
        return Definitions(self.backend)

    async def register(self) -> None:
        """Stores the application's definitions, once per process, so that runs can be started by name."""
        for definition in self.executor.definitions().values():
            await self.definitions.register(definition)

    def close(self) -> None:
        if "_beside" in self.__dict__:
            loop, thread = self._beside
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            event_loop.close(loop)
        if "backend" in self.__dict__:
            self.backend.close()
        self._open.close()
        event_loop.close(self._loop)


@cache
def runtime() -> Runtime:
    """This process's runtime. Raises `ConfigurationError` if the environment is not as template.yaml makes it."""
    made = Runtime(settings())
    log.setLevel(made.settings.log_level)
    return made


def prepare() -> None:
    """Imports the application and makes AWS's clients, as a handler's module is imported. Raises nothing.

    Lambda imports that module in its INIT phase, with more CPU than a small function has afterwards, and tells how long
    it took as `Init Duration`. An error there would end the environment before a handler can say which messages to
    keep, and the next one too: it is raised in the first invocation instead.
    """
    with suppress(ConfigurationError):  # of the environment's variables, which `runtime` tells again
        runtime().prepare()


def _own() -> list[Path]:
    """Where the application's code lies: in a function, where it is unpacked."""
    return [Path(folder) for folder in dict.fromkeys((*sys.path, str(Path.cwd()))) if folder]
