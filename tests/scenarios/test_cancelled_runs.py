"""A cancelled run starts nothing more, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from detent import (
    App,
    Client,
    Context,
    RunStatus,
    StepStatus,
    WrongState,
)
from detent_infra.memory import MemoryLogs, Store, memory_backend
from detent_infra.ports import LogLine
from detent_state_machine.errors import Unavailable

from tests.scenarios.conftest import OpenHarness
from tests.support.shop import Order, open_shop
from tests.support.waiting import until_in, until_step


@pytest.mark.over_the_wire
def test_a_cancelled_run_starts_nothing_more_and_says_so(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("slow", input=int)
    begun: list[int] = []
    stopped: list[bool] = []

    @flow.step
    async def wait(n: int, ctx: Context) -> int:
        begun.append(n)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.append(ctx.is_cancelled)
            raise
        return n

    @flow.step
    def never(n: int = wait.output) -> int:
        return n

    h = harness(app)
    run = h.start(flow, 1)
    until_in(h, lambda: begun)
    h.wait_for(run.acancel())
    h.wait_for(run.acancel())  # again is fine
    assert h.settle(run) is RunStatus.CANCELLED
    assert until_in(h, lambda: stopped) == [True]
    until_step(h, run, "wait", StepStatus.CANCELLED)
    assert "never" not in h.steps(run)
    ends = h.logs(run, "{ $.engine = run_cancelled }")
    assert [(line.level, line.message.split(" after ")[0], line.workflow) for line in ends] == [
        ("INFO", "run cancelled", "slow")
    ]


class FullLogs(MemoryLogs):
    async def append(self, lines: Sequence[LogLine]) -> None:
        raise Unavailable("This log takes no line.")


def test_a_run_is_cancelled_though_its_log_takes_no_line() -> None:
    app = App(url="memory://")
    flow = app.workflow("slow", input=int)

    @flow.step
    def never(n: int) -> int:
        return n

    backend = replace(memory_backend(), logs=FullLogs(Store()))
    client = Client(backend=lambda: backend)
    run = client.start(flow, 1)
    client.cancel(run.id)
    client.cancel(run.id)
    assert client.get(run.id).status is RunStatus.CANCELLED


def test_an_ended_run_cannot_be_cancelled(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    run = h.start(shop.orders, Order(id="a"))
    h.result(run)
    with pytest.raises(WrongState, match="COMPLETED"):
        h.wait_for(run.acancel())
