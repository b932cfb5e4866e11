"""A process forks while it uses a backend: both sides go on, or the child is told at its first call that it cannot."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from detent import App, Client, Context, Put, threads
from detent.portal import run
from detent.testing import context
from detent_infra.ports import Backend
from detent_infra.sqlite import sqlite_backend
from detent_state_machine import writes
from detent_state_machine.errors import ConfigurationError, InputError
from detent_state_machine.status import Delivery
from detent_state_machine.writes import Key

from tests.support.forking import begin_child, in_child, result_of
from tests.support.waiting import until

SHARED = ("sqlite", "service")
"""Adapters whose store is outside of the process. moto is in it: a child has a copy, which it can use all the same."""


async def use(backend: Backend, name: str) -> str:
    """Every port once, and the item written stays."""
    await backend.table.write(writes.PutItem(Key("p", name), {"by": name}))
    await backend.queue.send([name])
    ref = await backend.blobs.put(name.encode())
    assert await backend.blobs.get(ref) == name.encode()
    for message in await backend.queue.receive(10, wait=0, visibility=30):
        await backend.queue.delete(message.receipt)
    return name


def using(backend: Backend, name: str) -> str:
    return run(use(backend, name))


async def names(backend: Backend) -> list[str]:
    return [key.sk for key, _ in (await backend.table.query("p")).items]


def refuses(work: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], object]:
    def child() -> str:
        with pytest.raises(ConfigurationError) as error:
            asyncio.run(work())
        return str(error.value)

    return child


@pytest.mark.parametrize("how", ["new loops", "the portal"])
def test_a_child_and_its_parent_both_go_on(backend: Backend, adapter: str, how: str) -> None:
    work: Callable[[Coroutine[Any, Any, object]], object] = asyncio.run if how == "new loops" else run
    work(use(backend, "before"))
    if adapter == "memory":
        said = in_child(refuses(lambda: backend.table.get(Key("p", "before"))))
        assert "memory:// backend was opened before this process was forked" in str(said)
    else:

        def child() -> object:
            work(use(backend, "child"))
            return in_child(lambda: work(use(backend, "grandchild")))

        assert in_child(child) == "grandchild"
    work(use(backend, "after"))
    expected = {"before", "after"} | ({"child", "grandchild"} if adapter in SHARED else set())
    assert set(asyncio.run(names(backend))) == expected


def test_a_child_of_a_process_whose_threads_are_at_work_goes_on(backend: Backend, adapter: str) -> None:
    if adapter not in SHARED:
        pytest.skip("a child of memory:// is refused, and one of moto has locks that moto's threads held")
    stop = threading.Event()
    written: list[str] = []

    def busy(number: int) -> None:
        async def write() -> None:
            turn = 0
            while not stop.is_set():
                written.append(await use(backend, f"busy-{number}-{turn}"))
                turn += 1

        asyncio.run(write()) if number % 2 else run(write())

    at_work = [threading.Thread(target=busy, args=(number,)) for number in range(4)]
    for thread in at_work:
        thread.start()
    try:
        children = [begin_child(partial(using, backend, f"child-{number}")) for number in range(4)]
        found = [result_of(child) for child in children]
    finally:
        stop.set()
        for thread in at_work:
            thread.join()
    assert found == [f"child-{number}" for number in range(4)]
    assert set(asyncio.run(everything(backend))) >= {*written, *map(str, found)}


async def everything(backend: Backend) -> list[str]:
    found: list[str] = []
    after: str | None = None
    while True:
        page = await backend.table.query("p", after=after, limit=1000)
        found += [key.sk for key, _ in page.items]
        if (after := page.next) is None:
            return found


def test_what_a_child_writes_survives_its_parent(tmp_path: Path) -> None:
    file = tmp_path / "detent.db"

    def parent() -> object:
        backend = sqlite_backend(file)
        run(use(backend, "parent"))
        gone, reading = os.pipe()

        def child() -> object:
            os.close(reading)
            os.read(gone, 1)  # until the parent has ended
            with closing(sqlite_backend(file)) as other:  # the last one out cleans up behind itself
                assert asyncio.run(names(other)) == ["parent"]
            return run(use(backend, "orphan"))

        begin_child(child)
        return os.getpid()

    in_child(parent)
    with closing(sqlite_backend(file)) as backend:
        until(lambda: "orphan" in asyncio.run(names(backend)))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_child_that_was_forked_past_python_is_told_at_its_first_call(tmp_path: Path) -> None:
    """Such a child hangs in Python itself if another thread had just asked for its lock. Then another one is tried."""

    def process() -> object:
        backend = sqlite_backend(tmp_path / "detent.db")
        run(use(backend, "parent"))
        reading, writing = os.pipe()
        for _ in range(5):
            child = ctypes.PyDLL(None).fork()
            if child == 0:
                try:
                    run(use(backend, "child"))
                except ConfigurationError as error:
                    os.write(writing, str(error).encode())
                os._exit(0)
            ends = time.monotonic() + 10
            while os.waitpid(child, os.WNOHANG)[0] == 0:
                if time.monotonic() > ends:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    break
                time.sleep(0.01)
            else:
                break
        os.close(writing)
        with os.fdopen(reading) as answer:
            return answer.read()

    assert "was open when this process was forked past Python" in str(in_child(process))


def test_synchronous_bodies_run_in_a_child_of_a_process_that_ran_some() -> None:
    async def body() -> int:
        return await threads.run(lambda: 17)

    assert asyncio.run(body()) == 17
    assert in_child(lambda: asyncio.run(body())) == 17


def test_a_client_that_was_used_before_a_fork_starts_runs_on_both_sides(tmp_path: Path) -> None:
    app = App("t", url=f"sqlite:///{tmp_path}/detent.db")
    flow = app.workflow("w", input=int)

    @flow.step
    def step(n: int) -> int:
        return n

    flow.start(0, key="parent")

    def start(number: int) -> str:
        return flow.start(number, key=f"{number}").id

    children = [begin_child(partial(start, number)) for number in range(1, 6)]
    started = {str(result_of(child)) for child in children}
    flow.start(9, key="parent again")
    found = {run.run_id for run in Client(app.url).runs("w")}
    assert len(started) == 5
    assert started < found
    assert len(found) == 7


def test_a_forked_child_of_a_body_cannot_commit_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[Any] = []
    ctx: Context = context(delivery=Delivery.EXACTLY_ONCE, lines=lines)

    def child() -> str:
        ctx.log.info("from the child")
        ctx.log.info("again")
        with pytest.raises(InputError) as error:
            ctx.commit(Put("c", "k", {}))
        return str(error.value)

    assert "in a forked child" in str(in_child(child))
    ctx.log.info("from the parent")
    ctx.commit(Put("c", "k", {}))
    assert [line.message for line in lines] == ["from the parent"]
    assert capfd.readouterr().err.count("writes no lines into its run's log") <= 1
