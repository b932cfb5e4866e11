"""A body that blocks the event loop takes no other's lease away, and is told by name."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pytest
from detent import App, Client, Retry, RunFailed, RunStatus
from detent.testing import Harness
from detent_infra.engine import Engine
from detent_infra.loop_watch import LoopWatch
from detent_infra.memory import memory_backend
from detent_infra.ops.doctor.run_checks import check_loops
from detent_infra.ports import Backend, Timing
from detent_infra.worker import Worker
from detent_state_machine.keys import step_key
from detent_state_machine.step_path import StepPath

from tests.support.aws_stack import moto_backend
from tests.support.waiting import PATIENCE, until

QUICK = Timing(first_heartbeat=0.05, heartbeat=0.05, lease=30.0, visibility=30.0)
LEASE = 30_000

T = TypeVar("T")


@dataclass
class Time:
    """Passes only when a test says so."""

    now: int = 1_767_225_600_000

    def __call__(self) -> int:
        return self.now


def elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, from another thread's loop: this one's stands still."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(work)))
    thread.start()
    thread.join(PATIENCE)
    return found[0]


def lease_of(backend: Backend, run_id: str, step: str) -> int:
    item = elsewhere(backend.table.get(step_key(run_id, StepPath(step))))
    return 0 if item is None else int(str(item.get("lease", 0)))


async def work_until_ended(backend: Backend, app: App, run_id: str) -> RunStatus:
    stop = asyncio.Event()
    worker = asyncio.create_task(Worker(Engine(backend, app.executor), watch=LoopWatch(backend)).run(stop))
    client = Client("memory://", backend=lambda: backend)
    try:
        async with asyncio.timeout(PATIENCE):
            with suppress(RunFailed):
                await client.handle(run_id).aresult()
        return (await client.aget(run_id)).status
    finally:
        stop.set()
        await worker


@contextmanager
def backend_on(where: str, clock: Time) -> Iterator[Backend]:
    if where == "aws":
        with moto_backend(clock=clock, timing=QUICK) as backend:  # SQS keeps its own time
            yield backend
    else:
        yield memory_backend(clock=clock, timing=QUICK)


@pytest.mark.parametrize("where", ["memory", "aws"])
def test_leases_and_messages_stay_while_a_body_blocks_the_loop(where: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    with backend_on(where, clock) as backend:
        assert _blocked(backend, clock) is RunStatus.COMPLETED
    assert "stood still" in caplog.text
    assert "at step 'blocks' of run" in caplog.text


def _blocked(backend: Backend, clock: Time) -> RunStatus:
    """A body blocks its worker's loop for two leases, beside another one that waits."""
    app = App(url="memory://")
    flow = app.workflow("w", input=int)
    began, blocked = asyncio.Event(), asyncio.Event()
    bodies: list[str] = []
    stolen: list[object] = []
    run_ids: list[str] = []

    @flow.step(timeout=3_600, retry=Retry(attempts=1))
    async def innocent(n: int) -> int:
        bodies.append("innocent")
        began.set()
        await blocked.wait()
        return n

    @flow.step(timeout=3_600, retry=Retry(attempts=1))
    async def blocks(n: int) -> int:
        bodies.append("blocks")
        await began.wait()
        for _ in range(4):  # two leases and visibilities long
            clock.now += LEASE // 2
            until(lambda: lease_of(backend, run_ids[0], "blocks") == clock.now + LEASE)
            until(lambda: lease_of(backend, run_ids[0], "innocent") == clock.now + LEASE)
            stolen.extend(elsewhere(backend.queue.receive(10, wait=0.0, visibility=30.0)))
        blocked.set()
        return n

    async def scenario() -> RunStatus:
        run_ids.append((await Client("memory://", backend=lambda: backend).astart(flow, 1)).id)
        return await work_until_ended(backend, app, run_ids[0])

    status = asyncio.run(scenario())
    assert sorted(bodies) == ["blocks", "innocent"]
    assert stolen == []
    return status


def test_a_loop_that_hangs_past_the_steps_time_limit_is_left_to_others(caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    backend = memory_backend(clock=clock, timing=QUICK)
    app = App(url="memory://")
    flow = app.workflow("w", input=int)
    run_ids: list[str] = []
    taken: list[int] = []

    @flow.step(timeout=60, retry=Retry(attempts=1))
    async def hangs(n: int) -> int:
        until(lambda: lease_of(backend, run_ids[0], "hangs"))
        if not taken:
            clock.now += 60_000 + LEASE
            until(lambda: "past the step's time limit" in caplog.text)
            taken.append(len(elsewhere(backend.queue.receive(10, wait=0.0, visibility=30.0))))
        return n

    async def scenario() -> RunStatus:
        run_ids.append((await Client("memory://", backend=lambda: backend).astart(flow, 1)).id)
        return await work_until_ended(backend, app, run_ids[0])

    asyncio.run(scenario())
    assert taken == [1], "its message came back"


def test_the_log_of_a_run_names_the_step_that_held_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step
    async def sleeps(n: int) -> int:
        time.sleep(1.05)  # noqa: ASYNC251 - this is what it is about
        return n

    @flow.step
    async def awaits(n: int = sleeps.output) -> int:
        await asyncio.sleep(1.05)
        return n

    with Harness(app) as h:
        assert h.wait_for(check_loops(h.backend)).verdict == "ok"
        run = h.start(flow, 1)
        assert h.result(run) == 1
        held = [line for line in h.logs(run) if "held the event loop" in line.message]
        finding = h.wait_for(check_loops(h.backend))
    assert (finding.verdict, finding.command) == ("warn", f"detent logs {run.id}")
    assert "by step 'sleeps'" in finding.message
    assert [(line.path, line.level) for line in held] == [("sleeps", "WARN")]
    assert "write it as `def`" in held[0].message
    assert "step 'sleeps' held the event loop" in caplog.text


class ByHand:
    """An awaitable whose iterator has nothing but `__next__`; each turn takes the loop for so long."""

    def __init__(self, *turns: float) -> None:
        self._turns = list(turns)

    def __await__(self) -> Generator[None, None, int]:
        return cast("Generator[None, None, int]", self)

    def __iter__(self) -> ByHand:
        return self

    def __next__(self) -> None:
        if not self._turns:
            raise StopIteration(7)
        time.sleep(self._turns.pop(0))


def test_an_awaitable_made_by_hand_is_timed_like_a_coroutine() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int, output=int)

    @flow.step
    def gives(n: int) -> int:
        return cast("int", ByHand(0.0, 1.05, 0.0))

    with Harness(app) as h:
        run = h.start(flow, 1)
        assert h.result(run) == 7
        assert [line.path for line in h.logs(run) if line.engine == "loop_held"] == ["gives"]


class NeverReady(ByHand):
    """It yields one future that nothing resolves."""

    def __next__(self) -> Any:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting._asyncio_future_blocking = True
        return waiting


def test_an_awaitable_made_by_hand_that_never_ends_is_cut_off_by_its_steps_timeout() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int, output=int)

    @flow.step(timeout=5, retry=Retry(attempts=1))
    def gives(n: int) -> int:
        return cast("int", NeverReady())

    with Harness(app) as h, pytest.raises(RunFailed, match="StepTimeout"):
        h.result(h.start(flow, 1))


def test_a_body_is_not_changed_by_being_timed() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)
    seen: list[str] = []

    @flow.step(timeout=5)
    async def one(n: int) -> int:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(3_600)
        except TimeoutError:
            seen.append("time-out")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(1, "child"))
        seen.append(task.result())
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return n

    with Harness(app) as h:
        run = h.start(flow, 1)
        h.advance(6.0)
        del run
    assert seen[:3] == ["time-out", "child", "cancelled"]
