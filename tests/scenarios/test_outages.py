"""What must hold around a run: deploys, outages, retries of a run, shared workers. Each was once wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import pytest
from detent import App, Context, KeyConflict, RunFailed, RunStatus, Unavailable, Update, WrongState
from detent.testing import Harness
from detent_infra.engine import Engine
from detent_infra.memory import memory_backend
from detent_infra.ports import Received, Table, Timing
from detent_infra.relay import RelayedTable, TableCall
from detent_infra.runs.lifecycle import Lifecycle, NewRun
from detent_infra.runs.reaper import reap
from detent_infra.worker import Worker
from detent_state_machine import writes
from detent_state_machine.keys import run_key
from detent_state_machine.messages import Drive, Start, encode
from detent_state_machine.writes import Value, Write

from tests.scenarios.shop import Order, open_shop

_T = TypeVar("_T")
QUICK = Timing(first_heartbeat=0.1, heartbeat=0.2, lease=0.6, visibility=0.6)


def test_a_step_no_running_code_has_waits_for_as_long_as_it_takes() -> None:
    old, new = App(url="memory://"), App(url="memory://")
    flow = new.workflow("w", input=int, output=int)

    @flow.step
    def only(n: int) -> int:
        return n

    standing = old.workflow("unrelated", input=int)

    @standing.step
    def nothing(n: int) -> int:
        return n

    with Harness(old) as h:
        run = h.start(flow, 1)
        h.advance(4 * 3600.0)  # long past what a dead-letter queue allows
        assert h.wait_for(run.astatus()) is RunStatus.RUNNING
        assert len(h.wait_for(h.backend.dead_letters.receive(10, wait=0.0, visibility=1.0))) == 0


def test_a_retry_closes_what_the_failed_run_still_does_so_an_effect_happens_once() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)
    failing = [True]

    @flow.step
    async def fails(n: int) -> int:
        await asyncio.sleep(1.2)
        if failing:
            raise ValueError("no")
        return n

    @flow.step(delivery="exactly_once")
    async def counts(n: int, ctx: Context) -> int:
        await asyncio.sleep(4)
        ctx.commit(Update("counter", "c", add={"times": 1}))
        return n

    with Harness(app) as h:
        h.fail("fails", ValueError("no"), times=3)
        run = h.start(flow, 1)
        while h.wait_for(run.astatus()).live:
            h.advance(0.05)
        failing.clear()
        new = h.wait_for(h.client.aretry(run.id))
        h.result(new)
        h.advance(60)
        assert (h.wait_for(h.client.aread("counter", "c")) or {})["times"] == 1


def test_a_retry_waits_for_an_at_most_once_body_that_is_still_at_work() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step
    def fails(n: int) -> int:
        raise ValueError("no")

    @flow.step(delivery="at_most_once")
    async def mails(n: int) -> int:
        await asyncio.sleep(20)
        return n

    with Harness(app) as h:
        run = h.start(flow, 1)
        while h.wait_for(run.astatus()).live:
            h.advance(0.05)
        with pytest.raises(WrongState, match="still at work"):
            h.wait_for(h.client.aretry(run.id))


def test_retrying_a_run_whose_retry_failed_names_the_retry() -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)

    @flow.step
    def fails(n: int) -> int:
        return n

    with Harness(app) as h:
        h.fail("fails", ValueError("no"), times=6)
        run = h.start(flow, 1)
        h.settle(run)
        again = h.wait_for(h.client.aretry(run.id))
        h.settle(again)
        with pytest.raises(WrongState, match=again.id):
            h.wait_for(h.client.aretry(run.id))
        assert h.result(h.wait_for(h.client.aretry(again.id))) == 1


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
    return write.set if isinstance(write, writes.Update) else {}


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


def test_a_conflicting_key_among_many_starts_leaves_no_run_without_its_message() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.result(h.start(shop.orders, Order(id="x0"), key="k0"))
        h.stop_worker()
        orders = [Order(id=f"y{n}") for n in range(10)]
        with pytest.raises(KeyConflict):
            h.wait_for(h.client.astart_many(shop.orders, orders, key=lambda order: f"k{order.id[1:]}"))
        assert len(h.wait_for(h.client.aruns(statuses=[RunStatus.RUNNING]))) == 9
        h.start_worker()
        h.advance(5)
        assert h.wait_for(h.client.aruns(statuses=[RunStatus.RUNNING])) == []


def test_a_record_the_reaper_cannot_read_keeps_no_other_run_from_it() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        runs = [h.start(shop.orders, Order(id=f"o{n}")) for n in range(10)]
        for message in h.wait_for(h.backend.queue.receive(10, wait=0.0, visibility=9999.0)):
            h.wait_for(h.backend.queue.delete(message.receipt))
        h.wait_for(h.backend.table.write(_spoil(runs[3].id)))
        h.advance(h.backend.timing.reap_after + 60)
        report = h.wait_for(reap(h.backend))
        assert (report.looked, report.stalled) == (9, 9)
        assert h.wait_for(reap(h.backend)).looked == 0  # not again before it had time to help
        h.start_worker()
        assert [h.result(run) for n, run in enumerate(runs) if n != 3]


class _Meanwhile(RelayedTable):
    """Does something between two reads of the index."""

    def __init__(self, table: Table, act: Callable[[], Awaitable[object]], *, after: int) -> None:
        super().__init__(table)
        self._act = act
        self._left = after

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        answer = await act()
        if call.operation == "query_index":
            self._left -= 1
            if self._left == 0:
                await self._act()
        return answer


@pytest.mark.parametrize("after", range(1, 17))
def test_a_list_has_a_run_that_ends_while_it_is_made_and_has_it_once(after: int) -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        runs = [h.start(shop.orders, Order(id=f"o{n}")) for n in range(3)]
        table = _Meanwhile(h.backend.table, runs[1].acancel, after=after)
        listed = h.wait_for(Lifecycle(replace(h.backend, table=table)).list())
        assert sorted(run.run_id for run in listed) == sorted(run.id for run in runs)


def test_more_stopped_runs_than_a_reaper_reads_at_once_have_their_turn_all_the_same() -> None:
    """Those at the front, which nobody drives, are due for another visit before the last have had their first."""
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        runs = [h.start(shop.orders, Order(id=f"o{n}")) for n in range(40)]
        h.advance(h.backend.timing.reap_after + 60)
        for _ in range(40):
            assert h.wait_for(reap(h.backend, limit=2)).looked <= 2
            h.advance(60)
        assert all(_visited(h, run.id) for run in runs)


def test_the_reaper_goes_on_behind_a_run_that_has_ended_meanwhile_and_begins_anew_at_the_end() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        h.stop_worker()
        runs = [h.start(shop.orders, Order(id=f"o{n}")) for n in range(6)]
        h.advance(h.backend.timing.reap_after + 60)
        assert h.wait_for(reap(h.backend, limit=3)).looked == 3
        for run in runs:
            if not _visited(h, run.id):
                h.wait_for(run.acancel())
                break
        assert h.wait_for(reap(h.backend, limit=3)).looked == 2
        h.advance(h.backend.timing.reap_after + 60)
        assert h.wait_for(reap(h.backend, limit=9)).looked == 5


def _visited(h: Harness, run_id: str) -> bool:
    item = h.wait_for(h.backend.table.get(run_key(run_id)))
    return item is not None and "reaped" in item


def _spoil(run_id: str) -> Write:
    return writes.Update(run_key(run_id), None, {"v": 99})


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


def test_one_slot_is_enough_to_work_without_waiting_for_dead_letters() -> None:
    shop = open_shop()
    backend = memory_backend()
    loop = asyncio.new_event_loop()

    async def scenario() -> float:
        lifecycle = Lifecycle(backend)
        stop = asyncio.Event()
        worker = asyncio.create_task(Worker(Engine(backend, shop.app.executor), concurrency=1).run(stop))
        began = loop.time()
        definition = shop.orders.definition
        ids = await lifecycle.start_many(definition, [NewRun(f'{{"id":"o{n}","cents":0}}') for n in range(5)])
        for run_id in ids:
            await lifecycle.wait(run_id)
        took = loop.time() - began
        stop.set()
        await worker
        return took

    try:
        assert loop.run_until_complete(scenario()) < 10  # a poll of the dead letters takes 20 s
    finally:
        loop.close()


def test_code_that_changed_a_signature_gets_an_error_not_a_none() -> None:
    old, new = App(url="memory://"), App(url="memory://")
    before = old.workflow("w", input=int, output=str)

    @before.step
    def ship(n: int) -> str:
        return f"{n}"

    after = new.workflow("w", input=int, output=str)

    @after.step
    def price(n: int) -> int:
        return n

    @after.step(name="ship")
    def ship_now(n: int, p: int = price.output) -> str:
        return f"{n} for {p}"

    backend = memory_backend(timing=QUICK)
    with Harness(new, backend=backend) as h, pytest.raises(RunFailed, match="another version of the code"):
        h.result(h.start(before, 1))


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


def test_the_same_json_in_another_spelling_is_the_same_input() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        lifecycle = h.client.lifecycle
        first = h.wait_for(lifecycle.start_by_name("orders", '{"id": "a",  "cents": 1}', key="k"))
        assert h.wait_for(lifecycle.start_by_name("orders", '{"id":"a","cents":1}', key="k")) == first


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


def test_a_start_message_of_a_run_that_is_not_stored_is_kept() -> None:
    shop = open_shop()
    with Harness(shop.app) as h:
        engine = Engine(h.backend, shop.app.executor)
        message = Received(encode(Start("nobody", fresh=True)), "0/0", 1)
        assert h.wait_for(engine.handle(message)) is False
        assert h.wait_for(engine.handle(message, dead=True)) is True


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
