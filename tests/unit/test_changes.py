"""What has happened to a run's steps is told whole and in order, however seldom one looks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from detent import App, Context, Retry, RunHandle, RunStatus, StepChange
from detent.changes import Changes, step_changes
from detent.cli.follow import change_text
from detent.testing import Harness
from detent_state_machine.records import MAX_HISTORY, NULL, ErrorInfo, PastAttempt, RunRecord, StepRecord
from detent_state_machine.status import StepStatus
from detent_state_machine.step_path import StepPath

RUN = RunRecord("r", "orders", "v", RunStatus.RUNNING, 0, NULL)


def record(
    status: StepStatus, history: Sequence[PastAttempt] = (), *, started: int = 0, ended: int | None = None, due: int = 0
) -> StepRecord:
    error = ErrorInfo("ValueError", "no\nluck") if history and status is not StepStatus.COMPLETED else None
    step = StepRecord(StepPath("charge"), status, "owner", True, started=started, ended=ended, due=due, error=error)
    return replace(step, errors=len(history), history=tuple(history[-MAX_HISTORY:]))


def failed(*starts: int, took: int = 5) -> list[PastAttempt]:
    return [PastAttempt(start, start + took, "ValueError: no\nluck") for start in starts]


def milliseconds(time: datetime) -> int:
    """Since the epoch."""
    return (time - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


def told(record: StepRecord, run: RunRecord = RUN) -> list[tuple[int, str]]:
    return [(milliseconds(change.time), change_text(change)) for change in step_changes(run, record)]


FIRST = "attempt 1 failed, again in 15 ms: ValueError: no luck"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (record(StepStatus.COMPLETED, started=40, ended=47), [(47, "7 ms")]),
        (record(StepStatus.SKIPPED, started=40, ended=40), [(40, "skipped")]),
        (
            record(StepStatus.RETRYING, failed(10), started=10, due=1015),
            [(15, "attempt 1 failed, again in 1.00 s: ValueError: no luck")],
        ),
        (
            record(StepStatus.RUNNING, failed(10, 30), started=50),
            [(15, FIRST), (35, FIRST.replace("1 failed", "2 failed")), (50, "began, attempt 3")],
        ),
        (record(StepStatus.COMPLETED, failed(10), started=30, ended=37), [(15, FIRST), (37, "7 ms, attempt 2")]),
        (
            record(StepStatus.FAILED, failed(10, 30), started=30, ended=35),
            [(15, FIRST), (35, "failed, attempt 2: ValueError: no luck")],
        ),
        (record(StepStatus.RUNNING, failed(10, took=0), started=25), [(10, FIRST), (25, "began, attempt 2")]),
    ],
    ids=["completed", "skipped", "waiting", "running", "completed at last", "failed", "failed at once"],
)
def test_failed_attempts_are_told_with_the_pause_after_them_and_then_the_status(
    step: StepRecord, said: list[tuple[int, str]]
) -> None:
    assert told(step) == said


def test_an_error_is_told_with_the_attempt_that_ended_with_it_alone() -> None:
    for status in (StepStatus.RUNNING, StepStatus.CANCELLED):
        step = record(status, failed(10), started=30, ended=None if status is StepStatus.RUNNING else 60)
        assert [change.error for change in step_changes(RUN, step)] == ["ValueError: no\nluck", ""]


@pytest.mark.parametrize("took", [0, 5])
def test_a_step_that_is_cancelled_while_it_waits_begins_no_other_attempt(took: int) -> None:
    cancelled = record(StepStatus.CANCELLED, failed(10, took=took), started=10, ended=60)
    assert told(cancelled) == [(10 + took, "attempt 1 failed: ValueError: no luck"), (60, "cancelled")]


def test_an_attempt_that_a_deploy_stopped_is_told_as_such_and_again_each_time_it_begins() -> None:
    changes = Changes()

    def new(step: StepRecord) -> list[str]:
        return [change_text(change) for change in changes.of(RUN, [("charge", step)])]

    stopped = "attempt 2 stopped with its worker, and begins again"
    assert new(record(StepStatus.RUNNING, failed(10), started=30)) == [FIRST, "began, attempt 2"]
    assert new(record(StepStatus.RETRYING, failed(10), started=30, due=600)) == [stopped]
    assert new(record(StepStatus.RUNNING, failed(10), started=610)) == ["began, attempt 2"]
    assert new(record(StepStatus.RETRYING, failed(10), started=610, due=900)) == [stopped]
    assert told(record(StepStatus.RETRYING, started=30, due=600)) == [(600, stopped.replace("2", "1"))]


def test_what_a_retried_run_takes_over_is_told_once_as_done_earlier() -> None:
    again = replace(RUN, retry_of="q", created=100)
    assert told(record(StepStatus.COMPLETED, failed(10), started=30, ended=37), again) == [(100, "earlier")]


def test_no_attempt_is_told_twice_or_not_at_all_when_older_ones_are_dropped() -> None:
    changes, times = Changes(), []
    for count in range(1, 15):
        step = record(StepStatus.RETRYING, failed(*range(100, 100 + 100 * count, 100)), started=100 * count, due=9_000)
        times += [(milliseconds(change.time), change.attempt) for change in changes.of(RUN, [("charge", step)])]
    assert times == [(100 * count + 5, count) for count in range(1, 15)]


def test_attempts_of_one_millisecond_are_told_each() -> None:
    changes = Changes()
    step = record(StepStatus.RETRYING, failed(10, 10, 10, took=0), started=10, due=90)
    assert [change.attempt for change in changes.of(RUN, [("charge", step)])] == [1, 2, 3]
    assert changes.of(RUN, [("charge", step)]) == []


def seen(h: Harness, run: RunHandle[str]) -> list[tuple[str, str, int, str]]:
    async def collect() -> list[StepChange]:
        return [change async for change in run.ahistory()]

    changes = h.wait_for(collect())
    assert [change.time for change in changes] == sorted(change.time for change in changes)
    return [
        (change.path, change.status, change.attempt, change.error)
        for change in changes
        if change.status is not StepStatus.RUNNING
    ]


def test_the_history_of_a_run_is_its_failed_attempts_and_the_ends_of_its_steps() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int, output=str)

    @flow.step(retry=Retry(attempts=2))
    async def charge(n: int, ctx: Context) -> int:
        await asyncio.sleep(2)
        if ctx.attempt == 1:
            raise ConnectionError("no answer")
        return n

    @flow.step(retry=Retry(attempts=1))
    def ship(n: int = charge.output) -> str:
        return str(n)

    with Harness(app) as h:
        h.fail("ship", ValueError("no van"), times=1)
        run = h.start(flow, 1)
        charged = [("charge", "RETRYING", 1, "ConnectionError: no answer"), ("charge", "COMPLETED", 2, "")]
        assert seen(h, run) == [*charged, ("ship", "FAILED", 1, "ValueError: no van")]
        assert seen(h, run) == [*charged, ("ship", "FAILED", 1, "ValueError: no van")], "one who comes late sees it too"
        again = h.wait_for(h.client.aretry(run.id))
        assert h.settle(again) is RunStatus.COMPLETED
        assert seen(h, again) == [("charge", "COMPLETED", 2, ""), ("ship", "COMPLETED", 1, "")]
        assert again.id != run.id
