"""What the engine knows of user code: an attempt goes in, an outcome comes out. The SDK implements it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from detent_state_machine.records import ErrorInfo
from detent_state_machine.writes import Write

from detent_infra import forks
from detent_infra.ports import Backend, LogLine

if TYPE_CHECKING:
    from detent_state_machine.definition import Definition, StepDefinition  # pydantic: a third of `detent --help`

    from detent_infra.sources.triggers import Subscription

log = logging.getLogger("detent")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the workflow's failure handler runs."""

    step: str
    error: ErrorInfo


@dataclass
class Control:
    """The engine's side of a running body: says when to stop, takes log lines."""

    log: Callable[[LogLine], None]
    """The engine adds where the line comes from."""
    now: Callable[[], int]
    deadline: int
    """When the attempt times out, in milliseconds since the epoch."""
    cancelled: bool = False
    over: bool = False
    """Whether the attempt has ended or was given up. What it started may go on, and write lines."""
    backend: Backend | None = None
    """What the body runs on, which code in it uses."""
    home: str = ""
    """The URL that the body's app calls its own, wherever it runs."""
    in_test: bool = False
    """Whether code in the body may use no other backend."""
    process: int = field(default_factory=forks.generation)
    """Which of the processes that forked from one another runs the body."""
    holds_loop: bool = False
    """Whether the body itself is running on the event loop at this moment, and nothing else there can."""
    said: bool = False
    """Whether a forked child has said that its lines are lost."""

    @property
    def is_copy(self) -> bool:
        """Whether this is a forked child of the process that runs the body: nothing told here reaches the engine."""
        return self.process != forks.generation()

    def write(self, line: LogLine) -> None:
        """A line of the body, from any thread. Best effort."""
        if not self.is_copy:
            self.log(replace(line, attempt_over=True) if self.over else line)
        elif not self.said:
            self.said = True
            log.warning("a forked child of step %r writes no lines into its run's log: %s", line.path, line.message)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one step run. Input and outputs are JSON texts."""

    run_id: str
    workflow: str
    path: str
    step: StepDefinition
    number: int
    """From 1."""
    idempotency_key: str
    """The same for every attempt of the step run, and when the run is retried."""
    input: str
    outputs: Mapping[str, str | None]
    """Of the steps in `step.reads`; None where one did not complete."""
    control: Control
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    failure: Failure | None = None
    version: str = ""
    """Of the definition that drives the run."""


running: ContextVar[Attempt | None] = ContextVar("detent_attempt", default=None)
"""The attempt that is running here, if one is: in its body, and in threads and tasks that the body starts."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The body returned. `writes` land in the same transaction as the step's completion."""

    output: str
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The body raised, or its input or output did not fit."""

    error: ErrorInfo


Outcome: TypeAlias = Completed | Failed


class Executor(Protocol):
    """Runs bodies. Must not raise, except when it is cancelled."""

    def definitions(self) -> Mapping[str, Definition]:
        """The workflows this code declares, by name."""
        ...

    def knows(self, workflow: str, step: str) -> bool:
        """Whether this code has the step's body or declares the wait. If not, it is left for a worker that does."""
        ...

    def misfit(self, workflow: str, step: str, text: str) -> ErrorInfo | None:
        """Why a fact, as JSON text, cannot end a wait that this code declares: it does not fit the wait's type."""
        ...

    async def execute(self, attempt: Attempt) -> Outcome:
        """Runs the body of a step it knows."""
        ...


class Application(Protocol):
    """What `DETENT_APP` names: something with an executor, the URL of its backend, and what messages start."""

    @property
    def executor(self) -> Executor: ...

    @property
    def url(self) -> str: ...

    @property
    def subscriptions(self) -> Sequence[Subscription]: ...
