"""A worker process is killed in a body, and another goes on at once, though leases and visibility last for an hour."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from detent import App, RunHandle, RunStatus, StepStatus
from detent.testing import Harness
from detent_infra.ports import Backend, Timing
from detent_infra.sqlite import sqlite_backend

from tests.support.waiting import until

HOUR = 3600.0
SILENT = Timing(first_heartbeat=HOUR, heartbeat=HOUR, lease=HOUR, visibility=HOUR)
"""The body that is killed leaves no record, unless it was claimed."""
BEATING = Timing(first_heartbeat=0.05, heartbeat=HOUR, lease=HOUR, visibility=HOUR)


def make(folder: Path, delivery: str) -> App:
    app = App("t", url="memory://")
    flow = app.workflow("flow", input=int, output=int)

    def deadly(name: str) -> None:
        marker = folder / name
        if (folder / "dies").read_text() == name and not marker.exists():
            marker.touch()
            signal.pause()

    @flow.step
    def first(n: int) -> int:
        deadly("first")
        return n

    @flow.step(delivery=delivery)  # type: ignore[call-overload, untyped-decorator]
    def second(n: int = first.output) -> int:
        deadly("second")
        return n + 1

    @flow.step
    def beside(n: int) -> int:
        return n

    @flow.step
    def join(a: int = second.output, b: int = beside.output) -> int:
        deadly("join")
        return a + b

    return app


@contextmanager
def killed_worker(app: App, folder: Path, timing: Timing, dies: str) -> Iterator[tuple[Backend, RunHandle[int]]]:
    """A run whose worker was killed in the body of this step."""
    (folder / "dies").write_text(dies)
    with closing(sqlite_backend(folder / "detent.db", timing=timing)) as backend:
        child = os.fork()
        if child == 0:
            try:
                app._stand_in = sqlite_backend(folder / "detent.db", timing=timing)
                asyncio.run(app.work(asyncio.Event()))
            finally:
                os._exit(1)  # it is not to go on with the tests
        try:
            with app._on(backend):
                run = app.workflows["flow"].start(3)
            until((folder / dies).exists)
            if timing is BEATING:
                until(lambda: step_of(app, backend, run, dies) is StepStatus.RUNNING)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        yield backend, run


def step_of(app: App, backend: Backend, run: RunHandle[int], name: str) -> StepStatus | None:
    with app._on(backend):
        return {step.path: step.status for step in app.client.steps(run.id)}[name]


@pytest.mark.parametrize("timing", [SILENT, BEATING], ids=["before its first heartbeat", "later"])
@pytest.mark.parametrize("dies", ["first", "second", "join"])
def test_what_a_killed_worker_was_at_goes_on_in_the_next_one(tmp_path: Path, timing: Timing, dies: str) -> None:
    app = make(tmp_path, "at_least_once")
    with killed_worker(app, tmp_path, timing, dies) as (backend, run), Harness(app, backend=backend) as h:
        assert h.result(run, within=60) == 7
        if timing is BEATING:
            assert h.steps(run)[dies].takeovers == 1


def test_a_claimed_step_of_a_killed_worker_is_taken_over_and_counted(tmp_path: Path) -> None:
    app = make(tmp_path, "exactly_once")
    with killed_worker(app, tmp_path, SILENT, "second") as (backend, run), Harness(app, backend=backend) as h:
        assert h.result(run, within=60) == 7
        assert h.steps(run)["second"].takeovers == 1
        assert any("the worker at it died" in line.message for line in h.logs(run))


def test_an_at_most_once_step_of_a_killed_worker_fails_at_once(tmp_path: Path) -> None:
    app = make(tmp_path, "at_most_once")
    with killed_worker(app, tmp_path, SILENT, "second") as (backend, run), Harness(app, backend=backend) as h:
        assert h.settle(run, within=60) is RunStatus.FAILED
        error = h.steps(run)["second"].error
        assert error is not None
        assert error.type == "Interrupted"
