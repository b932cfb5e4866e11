"""What a program is told about runs, their steps and their logs: values of Python's own types, read off the records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from detent_infra.ports import DeadLetter, LogLine
from detent_state_machine.awaited import awaited, met_by
from detent_state_machine.records import ErrorInfo, RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as it is at this moment. Times are in UTC.

    `version` is the version of the workflow that drives the run. A run in a list has no `failed_step`, `error`,
    `retry_of` and `origin`; `Client.get` reads them.
    """

    run_id: str
    workflow: str
    version: str
    status: RunStatus
    created: datetime
    ended: datetime | None = None
    key: str | None = None
    """The idempotency key it was started with."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    failed_step: str | None = None
    """Path of the step that failed for good."""
    error: ErrorInfo | None = None
    """The error of that step."""
    retry_of: str | None = None
    """The run that this one retries."""
    origin: str | None = None
    """The first run of a chain of retries."""


class RunPage(list[RunInfo]):
    """Runs, newest first, as a list. With more behind them, `next` is what `Client.runs` takes as `after`."""

    def __init__(self, runs: Iterable[RunInfo] = (), next: str | None = None) -> None:
        super().__init__(runs)
        self.next = next
        """None: these are the last."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that failed. `error` is the class of the error and its message, as one text."""

    attempt: int
    started: datetime
    ended: datetime
    error: str


@dataclass(frozen=True, slots=True)
class StepInfo:
    """A step of a run as it is at this moment. Times are in UTC."""

    path: str
    """Address of the step run in its run: the step's name, in a graph."""
    status: StepStatus | None = None
    """None for a step that has not begun."""
    attempt: int = 0
    """Number of the newest attempt, from 1; 0 for a step that has not begun or was skipped."""
    errors: int = 0
    """How many attempts failed."""
    takeovers: int = 0
    """How many attempts ended because their worker died."""
    started: datetime | None = None
    """When the newest attempt began."""
    ended: datetime | None = None
    due: datetime | None = None
    """When the next attempt begins, while the step is RETRYING, or until when it is WAITING; None: for as long as it
    takes."""
    waits_for: str = ""
    """What a wait is for, or was: `event 'payment' with key 'A-17'`; empty for a sleep, and for a step that runs."""
    met_by: str = ""
    """Id of the event that ended a wait; empty if none did."""
    error: ErrorInfo | None = None
    """The newest error; None once the step has completed."""
    failed_attempts: tuple[FailedAttempt, ...] = ()
    """The newest ten of them, in order."""
    commits: int = 0
    """How many writes of `ctx.commit` landed with the step's completion."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of a run's log. `time` is in UTC.

    `path` and `attempt` are of the step that wrote it, or that it is about; a line about the run itself has none.
    """

    time: datetime
    level: str
    """TRACE, DEBUG, INFO, WARN, ERROR or CRITICAL."""
    message: str
    run_id: str = ""
    path: str = ""
    attempt: int = 0
    fields: Mapping[str, object] = field(default_factory=dict[str, object])
    """The values that the step gave by name, as JSON values."""
    workflow: str = ""
    worker: str = ""
    """Who wrote it: host and process of a worker; on Lambda the execution environment."""
    request_id: str = ""
    """Of the Lambda invocation."""
    trace_id: str = ""
    """Of the invocation's trace, as X-Ray writes it."""
    engine: str = ""
    """What happened, as in `step_completed`, if the engine wrote the line. Empty in a step's own line."""
    attempt_over: bool = False
    """Whether the step wrote it after its attempt had ended or was given up, as a thread may after a timeout."""


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """A message of a queue that could start nothing. `sent` is in UTC."""

    id: str
    queue: str
    body: str
    sent: datetime
    error: str = ""
    """The class of the error; empty if the queue itself gave up delivering the message."""
    reason: str = ""
    """What the error said."""


def moment(milliseconds: int) -> datetime:
    """The time that a record holds as milliseconds since the epoch."""
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)


def run_info(record: RunRecord) -> RunInfo:
    return RunInfo(
        run_id=record.run_id,
        workflow=record.workflow,
        version=record.version,
        status=record.status,
        created=moment(record.created),
        ended=None if record.ended is None else moment(record.ended),
        key=record.key,
        metadata=dict(record.metadata),
        failed_step=record.failed_step,
        error=record.error,
        retry_of=record.retry_of,
        origin=record.origin,
    )


def step_info(path: str, record: StepRecord | None) -> StepInfo:
    if record is None:
        return StepInfo(path)
    return StepInfo(
        path=path,
        status=record.status,
        attempt=record.attempt,
        errors=record.errors,
        takeovers=record.takeovers,
        started=moment(record.started) if record.started else None,
        ended=None if record.ended is None else moment(record.ended),
        due=None if record.goes_on is None else moment(record.goes_on),
        waits_for=awaited(record),
        met_by=met_by(record),
        error=record.error,
        failed_attempts=tuple(
            FailedAttempt(number, moment(past.started), moment(past.ended), past.error)
            for number, past in record.failed_attempts()
        ),
        commits=record.commits,
    )


def log_entry(line: LogLine) -> LogEntry:
    return LogEntry(
        time=moment(line.time),
        level=line.level,
        message=line.message,
        run_id=line.run_id,
        path=line.path,
        attempt=line.attempt,
        fields=_fields(line.fields),
        workflow=line.workflow,
        worker=line.worker,
        request_id=line.request_id,
        trace_id=line.trace_id,
        engine=line.engine,
        attempt_over=line.attempt_over,
    )


def dead_letter_info(letter: DeadLetter) -> DeadLetterInfo:
    message, refusal = letter.message, letter.refusal
    return DeadLetterInfo(
        id=message.id,
        queue=message.queue,
        body=message.body,
        sent=moment(message.sent),
        error="" if refusal is None else refusal.error,
        reason="" if refusal is None else refusal.reason,
    )


def _fields(text: str) -> dict[str, object]:
    """What was written is nested no deeper than JSON is read; a line that others wrote may be."""
    try:
        return cast("dict[str, object]", json.loads(text))
    except RecursionError:
        return {"fields_dropped": True}
