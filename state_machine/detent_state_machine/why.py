"""Why a live run does not move: what each of its open step runs is about, from records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from detent_state_machine.awaited import awaited
from detent_state_machine.graph import Graph
from detent_state_machine.kinds.timer import moment_text
from detent_state_machine.lines import duration_text
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.status import RunStatus, StepStatus
from detent_state_machine.step_path import StepPath


class Cause(StrEnum):
    """What a step run that has not ended is about."""

    AT_WORK = "at work"
    SILENT = "silent"
    """Its worker renews its lease no more: another takes it over."""
    QUEUED = "queued"
    """It is ready, and no worker has begun it."""
    NO_CODE = "no code"
    """No worker that looked has its code."""
    RETRYING = "retrying"
    WAITING = "waiting"
    """For a time or an event."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one step run has not ended. Times in milliseconds since the epoch. `said` goes on behind the step's name."""

    path: StepPath
    cause: Cause
    said: str
    since: int | None = None
    until: int | None = None


def reasons(
    run: RunRecord, graph: Graph, records: Iterable[StepRecord], no_code: Mapping[str, int], now: int
) -> list[Reason]:
    """Of each step run that can have a part in it, in the order of the graph; none of a run that has ended.

    `no_code`: steps that no worker had the code for, each with since when.
    """
    if not run.live:
        return []
    have = {record.path: record for record in records}
    ended = {path for path, record in have.items() if record.terminal}
    scope = "on_failure" if run.status is RunStatus.FAILING else "main"
    found: list[Reason] = []
    for step in graph.definition.steps:
        path = StepPath(step.name)
        record = have.get(path)
        if record is None:
            ready = step.scope == scope and all(StepPath(parent.step) in ended for parent in step.parents)
            if not ready:
                continue
        elif record.terminal:
            continue
        found.append(_reason(path, record, no_code.get(path), now))
    return found


def sentence(run: RunRecord, found: Sequence[Reason]) -> str:
    """One sentence that says why the run does not move."""
    if not run.live:
        return f"Run {run.run_id} has ended: it is {run.status}."
    doing = "is failing" if run.status is RunStatus.FAILING else "is running"
    if not found:
        # Every step has ended: what is missing is the run's own end, whose message is on its way.
        return f"Run {run.run_id} {doing}: every step has ended, and the message that ends it has not been handled yet."
    told = [f"step {each.path!r} {each.said}" for each in found[:SHOWN]]
    more = len(found) - SHOWN
    if more > 0:
        told.append(f"{more} more {'steps have' if more > 1 else 'step has'} not ended")
    return f"Run {run.run_id} {doing}: {'; '.join(told)}."


SHOWN = 3
"""Steps that the sentence names."""


def _reason(path: StepPath, record: StepRecord | None, no_code: int | None, now: int) -> Reason:
    if no_code is not None:
        said = f"waits for a worker that has its code; none has had it for {duration_text(now - no_code)}"
        return Reason(path, Cause.NO_CODE, said, since=no_code)
    if record is None:
        return Reason(path, Cause.QUEUED, "is ready, and no worker has begun it")
    match record.status:
        case StepStatus.RUNNING:
            return _running(path, record, now)
        case StepStatus.RETRYING:
            return _retrying(path, record, now)
        case StepStatus.WAITING:
            return _waiting(path, record, now)
        case StepStatus.COMPLETED | StepStatus.FAILED | StepStatus.SKIPPED | StepStatus.CANCELLED:
            raise ValueError(f"{path!r} has ended.")
        case _:
            assert_never(record.status)


def _running(path: StepPath, record: StepRecord, now: int) -> Reason:
    attempt = f"attempt {record.attempt}"
    if record.owned_until > now:
        said = f"has been at work for {duration_text(now - record.started)} ({attempt})"
        return Reason(path, Cause.AT_WORK, said, since=record.started)
    said = (
        f"was at work ({attempt}), and its worker fell silent {duration_text(now - record.owned_until)} ago: "
        "the next worker that gets its message takes it over"
    )
    return Reason(path, Cause.SILENT, said, since=record.owned_until)


def _retrying(path: StepPath, record: StepRecord, now: int) -> Reason:
    last = f", after {record.error.type}" if record.error is not None else ""
    if record.due > now:
        said = f"is tried again (attempt {record.attempt + 1}) in {duration_text(record.due - now)}{last}"
        return Reason(path, Cause.RETRYING, said, until=record.due)
    said = f"is ready to be tried again (attempt {record.attempt + 1}){last}, and no worker has begun it"
    return Reason(path, Cause.QUEUED, said, since=record.due)


def _waiting(path: StepPath, record: StepRecord, now: int) -> Reason:
    until = f", until {moment_text(record.due)}" if record.due else ", for as long as it takes"
    late = f", which was {duration_text(now - record.due)} ago: its message has not been handled yet"
    end = until + (late if 0 < record.due <= now else "")
    since = duration_text(now - record.started)
    what = awaited(record)
    said = f"{f'waits for {what}' if what else 'sleeps'}{end} (for {since} so far)"
    return Reason(path, Cause.WAITING, said, since=record.started, until=record.due or None)
