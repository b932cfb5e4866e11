"""`detent.testing`: the real engine in memory, under a clock that jumps, the same every time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from detent import App, Context, DefinitionError, Retry, RunCancelled, RunFailed, RunStatus, StepStatus, Workflow
from detent.testing import EPOCH, Harness, context
from detent_infra.memory import MemoryTable, memory_backend

AnyWorkflow = Workflow[Any, Any]


def shop() -> AnyWorkflow:
    """Two branches that meet, one of which is slow."""
    workflow = App("test", url="memory://").workflow("shop", input=int)

    @workflow.step(retry=Retry(attempts=4, initial=60.0, backoff=3.0))
    def reserve(n: int, ctx: Context) -> int:
        ctx.log("reserving", n=n)
        return n

    @workflow.step(delivery="exactly_once")
    async def pack(n: int = reserve.output) -> int:
        await asyncio.sleep(45)
        return n + 1

    @workflow.step
    async def label(n: int = reserve.output) -> int:
        await asyncio.sleep(20)
        return n + 2

    @workflow.step
    def ship(a: int = pack.output, b: int = label.output) -> int:
        return a * b

    return workflow


def test_hours_pass_in_no_time() -> None:
    workflow = App(url="memory://").workflow("w", input=int)

    @workflow.step(retry=Retry(attempts=3, initial=10_000.0, max_delay=15_000.0, jitter=False))
    def call(n: int) -> int:
        return n

    begun = time.perf_counter()
    with Harness(workflow.app) as h:
        h.fail("call", ConnectionError("closed"), times=2)
        run = h.start(workflow, 5)
        assert h.result(run) == 5
        record = h.steps(run)["call"]
    assert record.started is not None
    pause = record.started - record.failed_attempts[0].ended
    assert pause.total_seconds() == pytest.approx(25_000, abs=2)
    assert time.perf_counter() - begun < 10


def test_the_clock_begins_at_a_known_date_and_stands_still_while_nothing_waits() -> None:
    workflow = shop()
    with Harness(workflow.app) as h:
        assert h.backend.clock() == EPOCH
        run = h.start(workflow, 1)
        assert h.backend.clock() == EPOCH
        h.advance(3600)
        assert h.backend.clock() == EPOCH + 3_600_000
        assert h.settle(run) is RunStatus.COMPLETED


def test_a_run_moves_only_as_far_as_time_does() -> None:
    workflow = shop()
    with Harness(workflow.app) as h:
        run = h.start(workflow, 3)
        h.advance(30)
        assert {path: record.status for path, record in h.steps(run).items()} == {
            "reserve": StepStatus.COMPLETED,
            "label": StepStatus.COMPLETED,
            "pack": StepStatus.RUNNING,
        }
        h.advance(20)
        assert h.settle(run) is RunStatus.COMPLETED
        assert h.result(run) == 20


def test_two_runs_of_the_same_scenario_are_the_same_to_the_last_byte() -> None:
    def scenario() -> tuple[object, ...]:
        workflow = shop()
        with Harness(workflow.app) as h:
            h.fail("reserve", ConnectionError("closed"), times=2)
            h.crash("pack")
            runs = [h.start(workflow, n) for n in range(5)]
            results = [h.result(run) for run in runs]
            steps = [sorted(h.steps(run).items()) for run in runs]
            logs = [h.logs(run) for run in runs]
            assert isinstance(h.backend.table, MemoryTable)
            return results, steps, logs, dict(h.backend.table._store.items), h.backend.clock()

    first, second = scenario(), scenario()
    assert first == second
    assert first[0] == [(n + 1) * (n + 2) for n in range(5)]
    assert len(repr(first)) > 10_000


def test_fail_raises_in_place_of_the_body_as_often_as_asked() -> None:
    workflow = App(url="memory://").workflow("w", input=int)
    attempts: list[int] = []

    @workflow.step(retry=Retry(attempts=5))
    def call(n: int, ctx: Context) -> int:
        attempts.append(ctx.attempt)
        return n

    with Harness(workflow.app) as h:
        h.fail("call", ConnectionError("one"))
        h.fail("call", ValueError("two"), times=2)
        run = h.start(workflow, 5)
        assert h.result(run) == 5
        errors = [past.error for past in h.steps(run)["call"].failed_attempts]
        assert errors == ["ConnectionError: one", "ValueError: two", "ValueError: two"]
        assert attempts == [4]
        assert h.run(workflow, 6) == 6  # what was planned is used up


def test_crash_takes_the_worker_away_and_the_message_comes_back() -> None:
    workflow = App(url="memory://").workflow("w", input=int)
    bodies: list[int] = []

    @workflow.step(delivery="exactly_once")
    def call(n: int) -> int:
        bodies.append(n)
        return n

    with Harness(workflow.app) as h:
        h.crash("call", times=2)
        run = h.start(workflow, 5)
        assert h.result(run) == 5
        assert (h.steps(run)["call"].takeovers, bodies) == (2, [5])
        assert h.backend.clock() - EPOCH >= 2_000 * h.backend.timing.lease


def test_a_worker_that_is_stopped_lets_nothing_happen_until_it_is_started_again() -> None:
    workflow = shop()
    with Harness(workflow.app) as h:
        h.stop_worker()
        run = h.start(workflow, 1)
        h.advance(3600)
        assert h.steps(run) == {}
        h.start_worker()
        assert h.result(run) == 6
        h.stop_worker()
        h.stop_worker()  # again is fine


def test_failed_and_cancelled_runs_raise_from_result_and_return_from_settle() -> None:
    workflow = shop()
    with Harness(workflow.app) as h:
        h.fail("ship", ValueError("no"), times=3)
        failed, cancelled = h.start(workflow, 1), h.start(workflow, 2)
        h.wait_for(cancelled.acancel())
        with pytest.raises(RunFailed, match="ValueError: no"):
            h.result(failed)
        with pytest.raises(RunCancelled):
            h.result(cancelled)
        assert (h.settle(failed), h.settle(cancelled)) == (RunStatus.FAILED, RunStatus.CANCELLED)


def test_waiting_is_bounded_by_virtual_time() -> None:
    workflow = shop()
    with Harness(workflow.app) as h:
        run = h.start(workflow, 1)
        with pytest.raises(TimeoutError):
            h.result(run, within=10)
        assert h.backend.clock() == EPOCH + 10_000
        assert h.result(run) == 6


def test_waiting_for_what_never_comes_is_an_error_and_no_hang() -> None:
    workflow = shop()
    with Harness(workflow.app) as h:
        h.stop_worker()
        with pytest.raises(RuntimeError, match="waits for something that never comes"):
            h.wait_for(asyncio.Event().wait())


def test_a_wrong_workflow_is_said_before_anything_is_opened() -> None:
    app = App(url="memory://")
    app.workflow("empty")
    with pytest.raises(DefinitionError, match="Workflow 'empty' has no steps"):
        Harness(app)


def test_a_failing_test_closes_the_harness_and_shows_its_own_error() -> None:
    workflow = shop()
    opened = Harness(workflow.app)

    def failing_test() -> None:
        with opened as h:
            h.start(workflow, 1)
            h.advance(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_test()
    assert opened._loop.is_closed()
    with Harness(workflow.app) as again:
        assert again.run(workflow, 1) == 6


def test_blocking_bodies_run_one_after_the_other_in_the_same_order_every_time() -> None:
    workflow = App(url="memory://").workflow("w")
    order: list[str] = []

    def declare(name: str) -> None:
        @workflow.step(name=name)
        def body(n: int) -> None:
            order.append(name)

    for name in "abcdefgh":
        declare(name)
    with Harness(workflow.app) as h:
        h.run(workflow, 1)
        first, order[:] = list(order), []
        h.run(workflow, 1)
    assert order == first
    assert sorted(first) == list("abcdefgh")


def test_a_harness_on_a_backend_of_ones_own_runs_in_real_time() -> None:
    workflow = App(url="memory://").workflow("w", input=int)

    @workflow.step
    def call(n: int) -> int:
        time.sleep(0.05)
        return n

    with Harness(workflow.app, backend=memory_backend()) as h:
        begun = time.perf_counter()
        assert h.run(workflow, 5) == 5
        assert time.perf_counter() - begun >= 0.05
        assert abs(h.backend.clock() - time.time() * 1000) < 60_000


def test_a_step_is_called_like_the_function_it_is() -> None:
    workflow = shop()
    lines: list[Any] = []
    assert workflow.steps["ship"](2, 3) == 6
    assert workflow.steps["reserve"](7, context(lines=lines)) == 7
    assert [line.message for line in lines] == ["reserving"]
    assert (vars(workflow.steps["ship"])["__name__"], workflow.steps["ship"].name) == ("ship", "ship")
