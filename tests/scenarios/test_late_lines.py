"""What a body writes after its attempt has ended, or was given up, is kept, and marked."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from detent import App, Context, RunFailed, RunHandle
from detent.testing import Harness
from detent_infra.logs.buffer import LineBuffer, LogSettings
from detent_infra.memory import MemoryLogs, Store
from detent_infra.ports import LogLine
from detent_infra.sqlite import sqlite_backend
from detent_infra.unanswered import Outage

from tests.scenarios.conftest import OpenHarness
from tests.support.timing import LIVE
from tests.support.waiting import until_async, until_in

OWN = "{ $.engine NOT EXISTS }"


def late(h: Harness, run: RunHandle[object], count: int) -> list[tuple[str, bool]]:
    """The run's own lines, with what is said of each, once there are so many."""

    def lines() -> list[tuple[str, bool]]:
        return [(line.message, line.attempt_over) for line in h.logs(run, OWN)]

    until_in(h, lambda: len(lines()) >= count)
    return lines()


def test_what_a_body_writes_after_its_timeout_is_kept_and_marked(harness: OpenHarness) -> None:
    app = App("t")
    flow = app.workflow("w", input=int)

    @flow.step(timeout=0.5, retry=1)
    async def stubborn(n: int, ctx: Context) -> None:
        ctx.log.info("in time")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
        ctx.log.info("too late", n=n)
        logging.getLogger("mine").warning("by logging")

    h = harness(app)
    run = h.start(flow, 7)
    with pytest.raises(RunFailed, match="StepTimeout"):
        h.result(run)
    assert late(h, run, 3) == [("in time", False), ("too late", True), ("by logging", True)]
    [line] = [line for line in h.logs(run, OWN) if line.message == "too late"]
    assert (line.path, line.attempt, line.fields) == ("stubborn", 1, {"n": 7})


def test_what_a_thread_writes_after_its_timeout_is_kept_and_marked(tmp_path: Path) -> None:
    app = App("t")
    flow = app.workflow("w", input=int)
    go_on = threading.Event()

    @flow.step(timeout=0.5, retry=1)
    def stubborn(n: int, ctx: Context) -> None:
        ctx.log.info("in time")
        go_on.wait(60)
        ctx.log.info("too late", n=n)
        logging.getLogger("mine").warning("by logging")

    # Not in memory: its time stands still while a thread of a body works.
    with Harness(app, backend=sqlite_backend(tmp_path / "detent.db", timing=LIVE)) as h:
        run = h.start(flow, 7)
        with pytest.raises(RunFailed, match="StepTimeout"):
            h.result(run)
        go_on.set()
        assert late(h, run, 3) == [("in time", False), ("too late", True), ("by logging", True)]


class Busy(MemoryLogs):
    """While it takes its first lines, another comes."""

    meanwhile: LineBuffer

    async def append(self, lines: Sequence[LogLine]) -> None:
        first = not self._store.logs
        await super().append(lines)
        if first:
            self.meanwhile.add(LogLine(2, "INFO", "second", "r"))


def test_a_line_that_comes_while_the_last_ones_are_handed_over_is_kept() -> None:
    async def write() -> list[str]:
        logs = Busy(Store())
        logs.meanwhile = buffer = LineBuffer(logs, lambda: 0, Outage(), LogSettings(), "r", "w")
        buffer.add(LogLine(1, "INFO", "first", "r"))
        await buffer.close()
        await until_async(lambda: len(logs._store.logs) == 2)
        return [line.message for line in logs._store.logs]

    assert asyncio.run(write()) == ["first", "second"]


def test_what_a_thread_writes_after_the_body_returned_is_kept_and_marked(harness: OpenHarness) -> None:
    app = App("t")
    flow = app.workflow("w", input=int)
    go_on, threads = threading.Event(), list[threading.Thread]()

    @flow.step
    async def leaves(n: int, ctx: Context) -> int:
        def on_and_on() -> None:
            go_on.wait(60)
            for number in range(200):
                ctx.log.info(f"{number}")

        threads.append(threading.Thread(target=on_and_on))
        threads[0].start()
        ctx.log.info("in time")
        return n

    h = harness(app)
    run = h.start(flow, 7)
    assert h.result(run) == 7
    go_on.set()
    threads[0].join(60)
    assert late(h, run, 201) == [("in time", False), *((f"{number}", True) for number in range(200))]


def test_a_line_after_the_worker_has_stopped_harms_nobody(harness: OpenHarness) -> None:
    app = App("t")
    flow = app.workflow("w", input=int)
    go_on, failed, threads = threading.Event(), list[BaseException](), list[threading.Thread]()

    @flow.step
    async def leaves(n: int, ctx: Context) -> int:
        def on() -> None:
            go_on.wait(60)
            try:
                ctx.log.info("nobody is there")
            except BaseException as error:  # noqa: BLE001 - told by the test
                failed.append(error)

        threads.append(threading.Thread(target=on))
        threads[0].start()
        return n

    h = harness(app)
    assert h.run(flow, 7) == 7
    h.stop_worker()
    go_on.set()
    threads[0].join(60)
    assert failed == []
