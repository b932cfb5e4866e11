"""What `--follow` says: of what has happened, and while nothing does."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from detent import App, Client
from detent.cli import follow
from detent.cli.project import Options
from detent_infra.memory import memory_backend
from detent_state_machine.records import MAX_HISTORY, ErrorInfo, PastAttempt, StepRecord
from detent_state_machine.status import StepStatus
from rich.console import Console


class Told(Exception):
    """It has said that no worker is there, which ends the test."""


class Watched(follow.Lines):
    def no_worker(self, url: str) -> None:
        super().no_worker(url)
        raise Told


def said_without_a_worker(url: str) -> str:
    app = App("shop", url="memory://")
    hello = app.workflow("hello", input=str, output=str)

    @hello.step
    def greet(name: str) -> str:
        return name

    printed = io.StringIO()
    backend = memory_backend()
    client = Client(url, backend=lambda: backend)

    async def work() -> None:
        run = await client.astart(hello, "you")
        await follow.follow(client, run.id, Watched(Console(file=printed, width=200), Options()))

    with pytest.raises(Told):
        asyncio.run(work())
    return printed.getvalue()


def test_a_function_on_aws_has_time_to_start_before_the_doctor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow.NO_FUNCTION_AFTER >= 15
    monkeypatch.setattr(follow, "NO_WORKER_AFTER", 0.01)
    monkeypatch.setattr(follow, "NO_FUNCTION_AFTER", 0.1)
    assert "Nothing has happened for 0.01 s" in said_without_a_worker("sqlite:///detent.db")
    told = said_without_a_worker("aws://shop?region=eu-west-1")
    assert "Nothing has happened for 0.1 s" in told
    assert "`detent doctor --stack 'aws://shop?region=eu-west-1'`" in told
    assert "detent worker" not in told


def record(
    status: StepStatus, history: Sequence[PastAttempt] = (), *, started: int = 0, ended: int | None = None, due: int = 0
) -> StepRecord:
    error = ErrorInfo("ValueError", "the card was\nrefused") if status is StepStatus.FAILED else None
    step = StepRecord("charge", status, "owner", True, started=started, ended=ended, due=due, error=error)
    return replace(step, errors=len(history), history=tuple(history[-MAX_HISTORY:]))


def failed(*starts: int) -> list[PastAttempt]:
    """Attempts that began then, and failed after 5 ms."""
    return [PastAttempt(start, start + 5, "ValueError: the card was\nrefused") for start in starts]


def told(record: StepRecord) -> list[tuple[int, str]]:
    return [(event.at, event.said) for event in follow.step_events(record)]


def test_a_failed_attempt_is_told_with_the_pause_that_follows_it_whenever_it_is_told() -> None:
    refused = "ValueError: the card was refused"
    waiting = record(StepStatus.RETRYING, failed(10), due=1015)
    assert told(waiting) == [(15, f"attempt 1 failed, again in 1.00 s: {refused}")]
    running = record(StepStatus.RUNNING, failed(10, 30), started=50)
    assert told(running) == [
        (15, f"attempt 1 failed, again in 15 ms: {refused}"),
        (35, f"attempt 2 failed, again in 15 ms: {refused}"),
        (50, "began, attempt 3"),
    ]
    completed = record(StepStatus.COMPLETED, failed(10), started=40, ended=47)
    assert told(completed) == [(15, f"attempt 1 failed, again in 25 ms: {refused}"), (47, "7 ms, attempt 2")]
    lost = record(StepStatus.FAILED, failed(10, 30), started=30, ended=35)
    assert told(lost) == [
        (15, f"attempt 1 failed, again in 15 ms: {refused}"),
        (35, f"failed, attempt 2: {refused}"),
    ]


def test_a_step_without_failed_attempts_is_told_by_its_status_alone() -> None:
    assert told(record(StepStatus.COMPLETED, started=40, ended=47)) == [(47, "7 ms")]
    assert told(record(StepStatus.SKIPPED, started=40, ended=40)) == [(40, "skipped")]
    assert told(record(StepStatus.RETRYING, due=40)) == []  # a deploy told it to stop


def test_attempts_keep_their_numbers_when_older_ones_are_dropped() -> None:
    waiting = record(StepStatus.RETRYING, failed(*range(100, 1300, 100)), due=2000)
    assert [event.attempt for event in follow.step_events(waiting)] == list(range(3, 13))


def test_a_cancelled_step_waits_for_no_attempt_any_more() -> None:
    cancelled = record(StepStatus.CANCELLED, failed(10), started=10, ended=60)
    assert told(cancelled)[0] == (15, "attempt 1 failed: ValueError: the card was refused")
