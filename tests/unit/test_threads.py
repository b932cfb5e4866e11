"""Synchronous bodies run in threads that hold up nobody: neither each other nor the end of the process."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from detent import threads
from detent_infra.executor import running

from tests.support.waiting import PATIENCE, until

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def body_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "detent-body"}


def test_a_body_gives_its_result_from_a_thread_of_its_own() -> None:
    async def main() -> tuple[int, str]:
        return await threads.run(lambda: (threading.get_ident(), threading.current_thread().name))

    ident, name = asyncio.run(main())
    assert ident != threading.get_ident()
    assert name == "detent-body"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()])
def test_what_a_body_raises_reaches_who_waits_for_it(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def main() -> BaseException | None:
        try:
            await threads.run(fail)
        except BaseException as raised:  # noqa: BLE001 - that it is this very one is the point
            return raised
        return None

    assert asyncio.run(main()) is error


def test_a_stop_iteration_does_not_vanish_in_the_event_loop() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(threads.run(lambda: next(iter(()))))


def test_context_variables_of_the_caller_are_seen_and_the_bodys_own_stay_with_it() -> None:
    def body() -> str:
        seen = variable.get()
        variable.set("changed by the body")
        return seen

    async def main() -> list[str]:
        variable.set("of the caller")
        return [await threads.run(body), await threads.run(body), variable.get()]

    assert asyncio.run(main()) == ["of the caller"] * 3


def look(marker: object) -> bool:
    time.sleep(0.01)  # so that the bodies overlap
    return running.get() is marker


def test_every_body_sees_the_context_of_its_own_step() -> None:
    async def one(name: str) -> bool:
        marker: Any = object()
        token = running.set(marker)
        try:
            return await threads.run(lambda: look(marker))
        finally:
            running.reset(token)

    async def main() -> list[bool]:
        return await asyncio.gather(*(one(str(n)) for n in range(20)))

    assert all(asyncio.run(main()))


def test_any_number_of_bodies_run_at_once() -> None:
    together = threading.Barrier(64, timeout=PATIENCE)

    async def main() -> list[int]:
        return await asyncio.gather(*(threads.run(together.wait) for _ in range(64)))

    assert sorted(asyncio.run(main())) == list(range(64))


def test_threads_are_used_again() -> None:
    async def main() -> set[threading.Thread]:
        await threads.run(lambda: None)
        before = body_threads()
        for _ in range(50):
            await threads.run(lambda: None)
        return body_threads() - before

    assert asyncio.run(main()) == set()


def test_an_abandoned_body_holds_up_nobody_and_its_thread_comes_back() -> None:
    release = threading.Event()
    in_body = threading.Event()
    stuck_in: list[int] = []

    def body() -> None:
        stuck_in.append(threading.get_ident())
        in_body.set()
        release.wait()

    def ident() -> int:
        time.sleep(0.02)  # so that every body of a round has a thread of its own
        return threading.get_ident()

    async def main() -> list[str]:
        stuck = asyncio.ensure_future(threads.run(body))
        assert await threads.run(lambda: in_body.wait(PATIENCE))
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        async with asyncio.timeout(PATIENCE):
            return [await threads.run(lambda: "answered") for _ in range(20)]

    async def idle() -> set[int]:
        return set(await asyncio.gather(*(threads.run(ident) for _ in range(len(threads._idle.inboxes)))))

    assert asyncio.run(main()) == ["answered"] * 20
    assert stuck_in[0] not in asyncio.run(idle())
    release.set()
    until(lambda: stuck_in[0] in asyncio.run(idle()))


def test_a_result_that_comes_when_the_loop_is_gone_disturbs_nobody() -> None:
    release = threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(threads.run(release.wait), 0.01)

    asyncio.run(main())
    release.set()
    assert asyncio.run(threads.run(lambda: "still works")) == "still works"


def test_a_process_ends_whatever_its_bodies_do() -> None:
    script = """
import asyncio, time
from detent import threads

async def main():
    asyncio.ensure_future(threads.run(lambda: time.sleep(600)))
    await asyncio.sleep(0.05)

asyncio.run(main())
print("ended")
"""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
    assert time.perf_counter() - begun < 30
