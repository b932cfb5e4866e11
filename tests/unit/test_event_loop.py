"""Nothing that a body does ends its worker's event loop, or holds up its end. No call blocks the loop that it needs."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from detent import App, Client, ConfigurationError, InputError, Retry, RunFailed, RunStatus, portal
from detent.testing import Harness
from detent_infra import event_loop
from detent_infra.sqlite import sqlite_backend
from detent_infra.virtual_time import TICKS, VirtualLoop


@pytest.fixture(autouse=True)
def what_its_tasks_raised_is_logged_with_it() -> Iterator[None]:
    """Not during some later test, whenever the garbage happens to be collected."""
    yield
    gc.collect()


@pytest.fixture(params=["memory", "sqlite"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[App], Harness]:
    def make(app: App) -> Harness:
        if request.param == "memory":
            return Harness(app)
        return Harness(app, backend=sqlite_backend(str(tmp_path / "t.db"), url="sqlite:///t.db"))

    return make


def app_of(body: Callable[[str], Awaitable[str]], **options: Any) -> App:
    app = App("t")

    @app.workflow("w", input=str).step(**{"retry": Retry(attempts=2, initial=0), **options})
    async def f(how: str) -> str:
        return await body(how)

    return app


# ---- what tasks and callbacks beside a body raise ---------------------------------------------------------------


async def gathered(error: type[BaseException]) -> str:
    async def child() -> None:
        raise error("from a child")

    await asyncio.gather(child(), asyncio.sleep(0.1))
    return "ok"


async def grouped(error: type[BaseException]) -> str:
    async def child() -> None:
        raise error("from a child")

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
    return "ok"


async def beside(error: type[BaseException]) -> str:
    async def child() -> None:
        raise error("from a child")

    task = asyncio.create_task(child())
    await asyncio.sleep(0.01)
    assert task.done()
    return "ok"


async def called_back(error: type[BaseException]) -> str:
    def callback() -> None:
        raise error("from a callback")

    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0.01)
    return "ok"


async def threaded(error: type[BaseException]) -> str:
    def work() -> None:
        raise error("from a thread")

    await asyncio.to_thread(work)
    return "ok"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("way", "status"),
    [
        (gathered, RunStatus.FAILED),
        (grouped, RunStatus.FAILED),
        (beside, RunStatus.COMPLETED),
        (called_back, RunStatus.COMPLETED),
    ],
)
def test_an_exit_in_a_task_or_a_callback_of_a_body_ends_no_worker(
    harness: Callable[[App], Harness],
    way: Callable[[type[BaseException]], Awaitable[str]],
    status: RunStatus,
    error: type[BaseException],
) -> None:
    async def body(how: str) -> str:
        return await way(error) if how == "exit" else how

    app = app_of(body)
    with harness(app) as h:
        bad, fine = (h.start(app.workflows["w"], how) for how in ("exit", "fine"))
        assert h.settle(bad) is status
        assert h.settle(fine) is RunStatus.COMPLETED
        if status is RunStatus.FAILED:
            with pytest.raises(RunFailed, match=error.__name__):
                h.result(bad)
            step = h.steps(bad)["f"]
            assert (step.errors, step.takeovers) == (2, 0), "an error each, no dead worker"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_thread_of_a_body_is_its_attempts_error(tmp_path: Path, error: type[BaseException]) -> None:
    async def body(_: str) -> str:
        return await threaded(error)

    app = app_of(body)
    backend = sqlite_backend(str(tmp_path / "t.db"), url="sqlite:///t.db")
    with Harness(app, backend=backend) as h, pytest.raises(RunFailed, match=f"{error.__name__}: from a thread"):
        h.run(app.workflows["w"], "x")


def test_the_result_of_the_main_task_is_given_and_its_own_exit_goes_through() -> None:
    async def work() -> int:
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(0)
        return 7

    async def leave() -> None:
        sys.exit(3)

    assert event_loop.run(work()) == 7
    with pytest.raises(SystemExit):
        event_loop.run(leave())


# ---- closing ----------------------------------------------------------------------------------------------------


async def stubborn(_: str) -> str:
    while True:
        with suppress(BaseException):  # as bad as a body can be
            await asyncio.sleep(3_600)


def test_a_harness_closes_whatever_its_bodies_do(harness: Callable[[App], Harness]) -> None:
    app = app_of(stubborn, timeout=0.2, retry=1)
    with harness(app) as h, pytest.raises(RunFailed, match="StepTimeout"):
        h.run(app.workflows["w"], "x")


def test_the_end_of_a_loop_waits_for_no_thread_and_says_which_task_is_left(caplog: pytest.LogCaptureFixture) -> None:
    free = threading.Event()

    async def work() -> str:
        tasks = [asyncio.create_task(stubborn("x")), asyncio.create_task(asyncio.to_thread(free.wait))]
        await asyncio.sleep(0.01)
        return f"{len(tasks)} at work"

    assert event_loop.run(work()) == "2 at work"
    free.set()
    assert any("left behind" in record.message and "stubborn" in record.message for record in caplog.records)


def test_a_harness_that_is_not_open_says_so() -> None:
    app = app_of(gathered)  # type: ignore[arg-type]
    h = Harness(app)
    with pytest.raises(InputError, match="Use it inside of `with Harness"):
        h.run(app.workflows["w"], "x")
    with h:
        h.advance(1)
    with pytest.raises(InputError, match="is not open"):
        h.advance(1)


def test_a_harness_is_not_asked_from_inside_of_an_event_loop() -> None:
    app = app_of(gathered)  # type: ignore[arg-type]
    with Harness(app) as h:

        async def test() -> None:
            h.run(app.workflows["w"], "x")

        with pytest.raises(InputError, match="Call it from a synchronous test"):
            asyncio.run(test())


# ---- calls that block -------------------------------------------------------------------------------------------


BLOCKING: list[tuple[str, Callable[[App], object]]] = [
    (r"w\.arun", lambda app: app.workflows["w"].run("x")),
    (r"handle\.aresult", lambda app: app.client.handle("x").result()),
    (r"handle\.ahistory", lambda app: list(app.client.handle("x").history())),
    (r"client\.alogs", lambda app: list(app.client.logs("x", follow=True))),
]


@pytest.mark.parametrize(("instead", "call"), BLOCKING)
def test_a_call_that_waits_for_a_run_is_refused_in_an_async_body(
    harness: Callable[[App], Harness], instead: str, call: Callable[[App], object]
) -> None:
    async def body(how: str) -> str:
        call(app)
        return how

    app = app_of(body)
    with harness(app) as h, pytest.raises(RunFailed, match=rf"InputError: .*Write `await .*{instead}"):
        h.run(app.workflows["w"], "x")


def test_a_refused_call_has_started_nothing() -> None:
    app = app_of(gathered)  # type: ignore[arg-type]

    async def main() -> None:
        app.workflows["w"].run("x")

    with pytest.raises(InputError):
        asyncio.run(main())
    assert "backend" not in vars(app)


def test_a_worker_of_its_own_is_not_started_in_an_event_loop() -> None:
    async def main() -> None:
        app_of(gathered).run_worker()  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match=r"await app\.work"):
        asyncio.run(main())


def test_a_blocking_call_made_by_what_another_one_runs_is_refused() -> None:
    app = App("t", url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step
    def f(n: int) -> int:
        return n

    with pytest.raises(InputError, match="it would wait for itself"):
        flow.start_many([1], key=lambda n: str(Client("memory://").runs()))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_what_a_blocking_call_runs_reaches_its_caller_and_nobody_else(error: type[BaseException]) -> None:
    async def leave() -> None:
        raise error

    async def answer() -> int:
        return 7

    with pytest.raises(error):
        portal.run(leave())
    assert portal.run(answer()) == 7


# ---- virtual time -----------------------------------------------------------------------------------------------


def test_ten_tenths_of_a_second_are_a_second() -> None:
    async def wait() -> float:
        for _ in range(10):
            await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time()

    loop = VirtualLoop(TICKS)
    assert loop.run_until_complete(wait()) == 1.0
    loop.close()


@pytest.mark.parametrize("ticks", [None, TICKS])
@pytest.mark.parametrize("pause", [5, 0.1 + 0.2, 1 / 3, 7.0000000001, 1e-9, 1e-300, 86_399.999999999])
def test_who_waits_until_a_time_and_looks_finds_it_reached(pause: float, ticks: int | None) -> None:
    async def wait() -> int:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.7)
        ends, looks = loop.time() + pause, 0
        while loop.time() < ends:
            woken = loop.create_future()
            loop.call_at(ends, woken.set_result, None)
            await woken
            looks += 1
        return looks

    loop = VirtualLoop(ticks)
    assert loop.run_until_complete(wait()) <= 2
    loop.close()


@pytest.mark.parametrize("ticks", [None, TICKS])
@pytest.mark.parametrize("apart", [1, 2, 1_000])
def test_two_who_wait_until_times_a_hair_apart_do_not_keep_each_other_from_them(apart: int, ticks: int | None) -> None:
    """Each is woken while the other is ready to go on, when time does not jump: neither may be woken too early."""

    async def wait(ends: float) -> int:
        loop, looks = asyncio.get_running_loop(), 0
        while loop.time() < ends:
            assert looks < 10, "time stands still"
            woken = loop.create_future()
            loop.call_at(ends, woken.set_result, None)
            await woken
            looks += 1
        return looks

    async def both() -> list[int]:
        now = asyncio.get_running_loop().time()
        ends = [now + step * math.ulp(now) for step in range(1, 1 + 3 * apart, apart)]
        return await asyncio.gather(*map(wait, ends))

    loop = VirtualLoop(ticks)
    loop.run_until_complete(asyncio.sleep(9.458734))
    assert max(loop.run_until_complete(both())) <= 3
    loop.close()


@pytest.mark.parametrize("timeout", [5, 0.1, 1 / 3, 7.7777777, 60, 3_599.99])
def test_every_time_out_ends_in_settle_as_in_result(timeout: float) -> None:
    async def body(how: str) -> str:
        await asyncio.sleep(99_999)
        return how

    app = app_of(body, timeout=timeout)
    with Harness(app) as h:
        assert h.settle(h.start(app.workflows["w"], "x")) is RunStatus.FAILED
        with pytest.raises(RunFailed, match="StepTimeout"):
            h.run(app.workflows["w"], "x")


def test_a_time_out_of_a_harness_says_what_has_not_ended() -> None:
    async def body(how: str) -> str:
        await asyncio.sleep(50)
        return how

    app = app_of(body)
    with Harness(app) as h:
        run = h.start(app.workflows["w"], "x")
        for call in (h.settle, h.result):
            with pytest.raises(TimeoutError, match=f"Run {run.id} has not ended within 3 s. It goes on."):
                call(run, within=3)
