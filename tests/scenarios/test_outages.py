"""A backend that does not answer, answers late or has lost a payload, and a worker that is stopped meanwhile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import pytest
from detent import App, Context, RunFailed, Unavailable
from detent.testing import Harness
from detent_infra.engine import Engine
from detent_infra.ports import Received, Table
from detent_infra.relay import RelayedTable, TableCall
from detent_infra.worker import Worker
from detent_state_machine import writes
from detent_state_machine.messages import Drive, encode
from detent_state_machine.writes import Value, Write

from tests.support.shop import Order, open_shop
from tests.support.waiting import until_in

_T = TypeVar("_T")


def test_a_graceful_stop_is_no_take_over() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int, output=int)

    @flow.step(takeovers=1)
    async def long(n: int, ctx: Context) -> int:
        await asyncio.sleep(600 if ctx.attempt == 1 and len(stops) < 5 else 1)
        return n

    stops: list[int] = []
    with Harness(app) as h:
        run = h.start(flow, 7)
        for stop in range(5):
            h.advance(30)
            stops.append(stop)
            h.stop_worker()
            h.start_worker()
        assert h.result(run) == 7
        assert h.steps(run)["long"].takeovers == 0


class Stuttering(RelayedTable):
    """Each write of a step run goes unanswered once, applied or not."""

    def __init__(self, table: Table, *, applied: bool) -> None:
        super().__init__(table)
        self._applied = applied
        self._failed: set[tuple[str, Value | None]] = set()

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        for write in call.writes[:1]:
            mark = (write.key.sk, _set(write).get("status"))
            if write.key.sk.startswith("step#") and mark not in self._failed:
                self._failed.add(mark)
                if self._applied:
                    await act()
                raise Unavailable("stutter")
        return await act()


class SlowBeat(RelayedTable):
    """The write of a first heartbeat hangs for five seconds."""

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        if any(_set(write).get("status") == "RUNNING" and "started" in _set(write) for write in call.writes):
            await asyncio.sleep(5)
        return await act()


class Away(RelayedTable):
    """A table that answers nothing before it was asked five times."""

    left = 5

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        if self.left:
            self.left -= 1
            raise Unavailable("away")
        return await act()


def _set(write: Write) -> Mapping[str, Value]:
    return write.set if isinstance(write, writes.UpdateItem) else {}


def work_on(h: Harness, table: Table) -> None:
    """The worker sees this table; clients see the one behind it."""
    h._engine = Engine(replace(h.backend, table=table), h._faults)
    h.start_worker()


@pytest.mark.parametrize("applied", [True, False])
def test_one_unanswered_write_costs_no_attempt_of_any_delivery(applied: bool) -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        work_on(h, Stuttering(h.backend.table, applied=applied))
        assert h.run(shop.orders, Order(id="a", cents=5)) == "sent: label-a 5"
        assert shop.bodies == {"reserve": 1, "charge": 1, "label": 1, "ship": 1, "notify": 1}


def test_a_heartbeat_that_hangs_holds_up_neither_the_result_nor_the_timeout() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step(timeout=1.3, retry=None)
    async def slow(n: int) -> int:
        await asyncio.sleep(2.5 if n else 1.2)
        return n

    with Harness(app) as h:
        h.stop_worker()
        work_on(h, SlowBeat(h.backend.table))
        assert h.run(flow, 0) == 0
        with pytest.raises(RunFailed, match="did not end within"):
            h.result(h.start(flow, 1))


def test_a_missing_payload_fails_its_step_and_says_so() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=str)

    @flow.step
    def read(text: str) -> int:
        return len(text)

    with Harness(app) as h:
        h.stop_worker()
        run = h.start(flow, "x" * 20_000)
        h.backend.blobs._store.blobs.clear()  # type: ignore[attr-defined]
        h.start_worker()
        with pytest.raises(RunFailed, match="missing from the blob store"):
            h.result(run)


def test_a_duplicate_of_a_message_of_a_step_in_progress_is_handed_on_not_deleted() -> None:
    """The live lease rule, at the engine's own door: the copy is sent before the message may be deleted."""
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step(delivery="exactly_once")
    async def slow(n: int) -> int:
        await asyncio.sleep(10)
        return n

    with Harness(app) as h:
        run = h.start(flow, 1)
        h.advance(1.5)
        engine = Engine(h.backend, app.executor)
        before = len(h.backend.queue)  # type: ignore[arg-type]
        assert h.wait_for(engine.handle(Received(encode(Drive(run.id, "slow")), "0/0", 1)))
        assert len(h.backend.queue) == before + 1  # type: ignore[arg-type]
        assert h.result(run) == 1


def test_a_worker_that_starts_while_the_table_does_not_answer_waits_for_it() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        away = Away(h.backend.table)
        backend = replace(h.backend, table=away)
        stop = asyncio.Event()

        async def work() -> str:
            worker = asyncio.create_task(Worker(Engine(backend, h._faults)).run(stop))
            run = await h.client.astart(shop.orders, Order(id="a", cents=0))
            text = await run.aresult(60)
            stop.set()
            await worker
            return text

        assert h.wait_for(work()) == "sent: label-a free"
        assert away.left == 0


class Unreachable(RelayedTable):
    """A table that answers nothing while it is `out`."""

    out = False

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        if self.out:
            raise Unavailable("The table is out of reach.", advice="Wait.")
        return await act()


def test_an_outage_of_a_minute_is_told_once_and_its_end_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred steps at work beat, end and repeat meanwhile; messages of steps and of a queue come in vain."""
    app = App(url="memory://")
    flow = app.workflow("w", input=float, output=float)

    @flow.step(retry=3, timeout=600)
    async def work(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    mail = app.workflow("mail", input=int, on_queue="inbox")

    @mail.step
    def read(n: int) -> int:
        return n

    with Harness(app) as h:
        h.stop_worker()
        table = Unreachable(h.backend.table)
        work_on(h, table)
        runs = [h.start(flow, number / 2) for number in range(200)]
        h.advance(5)
        table.out = True
        for number in range(20):
            h.send("inbox", number)
        h.advance(60)
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 1, told[:5]
        assert told[0].startswith("the backend does not answer; calls are repeated until it does: The table is out of")
        table.out = False
        assert [h.result(run) for run in runs] == [number / 2 for number in range(200)]
        until_in(h, lambda: len(h.runs(mail)) == 20)
        _, end = [record.getMessage() for record in caplog.records]
        assert re.fullmatch(r"the backend answers again after 1 min 0\d s: \d{3,} calls were unanswered", end)


def test_a_backend_that_comes_and_goes_is_told_twice_in_half_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int, output=int)

    @flow.step
    async def work(n: int) -> int:
        return n

    with Harness(app) as h:
        h.stop_worker()
        table = Unreachable(h.backend.table)
        work_on(h, table)
        for number in range(20):
            run = h.start(flow, number)
            table.out = True
            h.advance(0.5)
            table.out = False
            h.advance(0.5)
            assert h.result(run) == number
        assert len(caplog.records) <= 2 * (1 + h.backend.clock() // 30_000)
