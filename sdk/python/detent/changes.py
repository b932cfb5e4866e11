"""What has happened to the steps of a run, read off their records: it is told whole, however seldom one looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from detent_state_machine.awaited import awaited
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.status import StepStatus

from detent.info import moment


@dataclass(frozen=True, slots=True)
class StepChange:
    """Something that happened to a step run. `time` is when, in UTC.

    RETRYING with an `error` is an attempt that failed, RETRYING without one an attempt that a deploy stopped. `took` is
    how long the attempt took, `pause` how long after it the next one began or will begin; of one that is WAITING, how
    long it waits, if that is known, and `awaited` for what. A step that a retried run takes over from the older one
    changes once, at the start, with `took` None.
    """

    path: str
    status: StepStatus
    attempt: int
    time: datetime
    took: timedelta | None = None
    pause: timedelta | None = None
    error: str = ""
    awaited: str = ""


class Changes:
    """Tells what is new since the last look."""

    def __init__(self) -> None:
        self._told: Counter[tuple[str, StepStatus, datetime]] = Counter()

    def of(self, run: RunRecord, steps: Iterable[tuple[str, StepRecord | None]]) -> list[StepChange]:
        """In the order in which they happened."""
        new: list[StepChange] = []
        for _, record in steps:
            found: Counter[tuple[str, StepStatus, datetime]] = Counter()  # two attempts may end in one millisecond
            for change in () if record is None else step_changes(run, record):
                mark = (change.path, change.status, change.time)
                found[mark] += 1
                if found[mark] > self._told[mark]:
                    self._told[mark] += 1
                    new.append(change)
        return sorted(new, key=lambda change: change.time)


def step_changes(run: RunRecord, record: StepRecord) -> Iterator[StepChange]:
    """Its attempts that failed before the last, of those that are kept, then its status."""
    if carried_over(run, record):
        yield StepChange(record.path, record.status, record.attempt, moment(run.created))
        return
    failed = list(record.failed_attempts())
    if record.status is StepStatus.FAILED:
        failed = failed[:-1]  # the last one is what its status says
    waiting = record.status is StepStatus.RETRYING and not stopped(record)
    begins = [*(past.started for _, past in failed), record.due if waiting else record.started][1:]
    for (attempt, past), begin in zip(failed, begins, strict=True):
        began = begin > past.started  # else none did: it was cancelled
        pause = _span(past.ended, max(past.ended, begin)) if began else None
        ran = _span(past.started, past.ended)
        yield StepChange(record.path, StepStatus.RETRYING, attempt, moment(past.ended), ran, pause, past.error)
    if record.status is not StepStatus.RETRYING:
        took = None if record.ended is None else _span(record.started, record.ended)
        ended_with = record.error if record.status is StepStatus.FAILED else None  # else it is of an attempt before
        error = "" if ended_with is None else f"{ended_with.type}: {ended_with.message}"
        at = record.started if record.ended is None else record.ended
        sleeps = record.status is StepStatus.WAITING and record.due
        pause = _span(record.started, max(record.started, record.due)) if sleeps else None
        yield StepChange(record.path, record.status, record.attempt, moment(at), took, pause, error, awaited(record))
    elif not waiting:
        yield StepChange(record.path, record.status, record.attempt + 1, moment(record.due))


def _span(since: int, until: int) -> timedelta:
    return timedelta(milliseconds=until - since)


def stopped(record: StepRecord) -> bool:
    """Whether its newest attempt was stopped by a deploy, and has not begun again yet."""
    failed_since = bool(record.history) and record.history[-1].started >= record.started
    return record.status is StepStatus.RETRYING and not failed_since


def carried_over(run: RunRecord, record: StepRecord) -> bool:
    """Whether it was done in the run that this one retries."""
    return run.retry_of is not None and record.ended is not None and record.ended < run.created
