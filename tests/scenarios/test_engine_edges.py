"""Workers that come back late, how far one delivery goes, and runs that are wide or long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from detent import (
    Context,
    Retry,
    RunStatus,
    StepStatus,
    Update,
)
from detent_infra.relay import RelayedTable, TableCall
from detent_state_machine.graph import MEMBERS
from detent_state_machine.keys import RUN, join_key
from detent_state_machine.kinds.call import TIME_MARGIN
from detent_state_machine.messages import Drive, encode

from tests.scenarios.faulty import Faulty, Told, World, chain, failing, world

_T = TypeVar("_T")

# ---- who lost its lease ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sleep", [20.0, 500.0], ids=["commits late", "beats late"])
def test_a_worker_that_comes_back_after_its_lease_was_taken_changes_and_deletes_nothing(sleep: float) -> None:
    w = world()
    stopped: list[str] = []

    @w.flow.step(delivery="exactly_once", timeout=900)
    async def pay(n: int, ctx: Context) -> str:
        w.bodies["pay"] += 1
        who = "zombie" if ctx.attempt == 1 else "heir"
        ctx.commit(Update("ledger", "total", add={"count": 1}))
        try:
            await asyncio.sleep(sleep if who == "zombie" else 0.0)
        except asyncio.CancelledError:
            stopped.append(who)
            raise
        return who

    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 1)
        heir = h.engine(h.backend)

        async def scenario() -> bool:
            zombie = asyncio.ensure_future(h._engine.handle(await h.next_message()))
            await asyncio.sleep(0.5)
            h.machine.pause(200)  # it stands still, past its lease, and then goes on as if nothing had happened
            while (await run.astatus()).live:
                message = await h.next_message()
                if await heir.handle(message):
                    await h.queue.delete(message.receipt)
            await h.queue.send([encode(Drive(run.id, "pay"))])  # what an old receipt could delete
            return await zombie

        assert h.wait_for(scenario()) is False  # its message is not its to delete
        assert len(h.queue.bodies()) == 1
        assert h.result(run) == "heir"
        assert h.value("ledger", "total") == {"count": 1}
        record = h.steps(run)["pay"]
        assert (record.takeovers, record.status, w.bodies["pay"]) == (1, StepStatus.COMPLETED, 2)
        assert stopped == (["zombie"] if sleep > 300 else [])


@pytest.mark.parametrize("handling", [0.0, 50.0], ids=["failed", "failing"])  # shorter than its time limit
def test_a_step_beside_one_that_failed_is_stopped_at_its_heartbeat(handling: float) -> None:
    w = failing()
    slow_down = [handling]

    @w.flow.on_failure
    async def tidy(n: int) -> None:
        await asyncio.sleep(slow_down[0])

    with Faulty(w.app) as h:
        run = h.start(w.flow, 5)
        h.advance(20)
        beside = h.steps(run)["beside"]
        assert beside.status is StepStatus.CANCELLED
        assert beside.started is not None
        assert beside.ended is not None
        assert (beside.ended - beside.started).total_seconds() <= h.backend.timing.heartbeat
        assert h.wait_for(run.astatus()) is (RunStatus.FAILING if handling else RunStatus.FAILED)
        assert h.settle(run) is RunStatus.FAILED
        assert h.steps(run)["tidy"].status is StepStatus.COMPLETED
        assert h.steps(run)["beside"] == beside


class SlowReply(RelayedTable):
    """A table that answers the second question about a run six seconds after it has looked."""

    asked = 0

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        answer = await act()
        if [key.sk for key in call.keys] == [RUN]:
            self.asked += 1
            if self.asked == 2:
                await asyncio.sleep(6.0)
        return answer


def test_a_cancel_that_a_slow_reply_does_not_tell_of_is_seen_before_the_next_step() -> None:
    w = world()

    @w.flow.step
    async def long(n: int) -> int:
        await asyncio.sleep(8.0)
        return n

    @w.flow.step
    async def after(n: int = long.output) -> int:
        w.bodies["after"] += 1
        return n

    with Faulty(w.app) as h:
        h.stop_worker()
        slow = SlowReply(h.backend.table)
        h._engine = h.engine(replace(h.machine.backend, table=slow))
        h.start_worker()
        run = h.start(w.flow, 1)
        h.advance(3)
        assert slow.asked == 2, "by its first heartbeat"
        h.wait_for(run.acancel())
        h.advance(60)
        assert h.wait_for(run.astatus()) is RunStatus.CANCELLED
        assert w.bodies["after"] == 0


# ---- how far one delivery goes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_hops", "deliveries"), [(1, 6), (3, 3), (10, 2), (11, 1), (100, 1)])
def test_one_delivery_drives_a_bounded_number_of_steps(max_hops: int, deliveries: int) -> None:
    w, told = chain(11), Told()
    with Faulty(w.app, max_hops=max_hops) as h:
        h.gate.plan = told
        run = h.start(w.flow, 5)
        assert h.result(run) == 10
        assert sum(call.operation == "receive" for call in told.calls) == deliveries
        assert set(w.bodies.values()) == {1}


def test_a_cascade_of_skips_is_bounded_too_and_comes_to_its_end() -> None:
    w, told = chain(60, when=lambda flow: flow.input > 100), Told()
    with Faulty(w.app) as h:
        h.gate.plan = told
        run = h.start(w.flow, 5)
        assert h.result(run, within=5) is None
        assert {record.status for record in h.steps(run).values()} == {StepStatus.SKIPPED}
        assert sum(call.operation == "receive" for call in told.calls) == 3
        assert w.bodies == {}


def pair(first: float, second: float, body: float = 0.0) -> World:
    """Two steps in a row, with these timeouts; the first takes this long."""
    w = world()

    @w.flow.step(timeout=first, retry=Retry(attempts=1))
    async def one(n: int) -> int:
        w.bodies["one"] += 1
        await asyncio.sleep(body)
        return n

    @w.flow.step(timeout=second)
    def two(n: int = one.output) -> int:
        w.bodies["two"] += 1
        return n

    return w


def deliver(h: Faulty, seconds: float) -> None:
    """Drives the next message with an invocation that ends in so many seconds."""

    async def one() -> None:
        message = await h.next_message()
        assert await h._engine.handle(message, deadline=h.backend.clock() + int(seconds * 1000))
        await h.queue.delete(message.receipt)

    h.wait_for(one())


def acknowledges(h: Faulty, seconds: float, *, slow: float = 0.0) -> bool:
    """Whether the engine acknowledges the next message in an invocation that ends in so many seconds.

    `slow`: so many of them pass before the table answers.
    """

    async def one() -> bool:
        h.machine.pause(slow)
        found = await h.queue.receive(1, wait=0.0, visibility=30.0)
        return bool(found) and await h._engine.handle(found[0], deadline=h.backend.clock() + int(seconds * 1000))

    return h.wait_for(one())


def test_an_invocation_goes_on_inline_only_where_it_can_wait_for_the_whole_timeout() -> None:
    w = pair(first=60, second=60, body=10)
    margin = TIME_MARGIN / 1000
    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        deliver(h, 60 + margin - 1)  # too short for the first: sent on
        assert (h.steps(run), len(h.queue.bodies())) == ({}, 1)
        deliver(h, 70 + margin - 1)  # the first takes ten seconds, and leaves too little for the second
        assert set(h.steps(run)) == {"one"}
        deliver(h, 5)  # a message's own step runs however short the time
        assert h.result(run) == 5
    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        deliver(h, 70 + margin)
        assert (h.result(run), h.queue.bodies()) == (5, [])


def test_of_several_successors_the_first_that_there_is_time_for_goes_on_inline() -> None:
    w = world()
    for name, timeout in (("long", 600.0), ("short", 5.0), ("shorter", 4.0)):
        w.flow.step(name=name, timeout=timeout)(lambda n: n)
    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        deliver(h, 30)
        assert set(h.steps(run)) == {"short"}
        assert len(h.queue.bodies()) == 2


def test_a_body_is_given_no_more_time_than_its_invocation_has() -> None:
    w = pair(first=600, second=60, body=100)
    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        deliver(h, 10)
        deliver(h, 30)
        error = h.steps(run)["one"].error
        assert error is not None
        assert (error.type, error.message) == ("StepTimeout", "Step 'one' did not end within 28 s.")


@pytest.mark.parametrize("left", [TIME_MARGIN / 1000 - 1, TIME_MARGIN / 1000])
def test_a_step_whose_invocation_has_no_time_left_does_not_begin_and_its_message_is_left(left: float) -> None:
    w = pair(first=60, second=60)
    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        deliver(h, 10)  # too short for the first: sent on
        assert not acknowledges(h, left)
        assert (h.steps(run), w.bodies, len(h.queue.bodies())) == ({}, {}, 1)
        h.advance(60)
        deliver(h, 60)
        assert h.steps(run)["one"].status is StepStatus.COMPLETED


def test_a_step_does_not_begin_when_most_of_its_invocation_was_used_up_before_it() -> None:
    """A table that answers slowly took the time: the body would time out through no fault of its own."""
    w = pair(first=600, second=60)
    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        deliver(h, 10)
        assert not acknowledges(h, 30, slow=20)
        assert (h.steps(run), w.bodies) == ({}, {})
        h.advance(60)
        deliver(h, 60)
        assert h.steps(run)["one"].status is StepStatus.COMPLETED


def test_a_step_that_never_finds_the_time_fails_when_its_take_overs_are_used_up() -> None:
    """So that a function whose timeout is too short for anything does not send itself messages for ever."""
    w = pair(first=60, second=60)
    with Faulty(w.app) as h:
        h.stop_worker()
        run = h.start(w.flow, 5)
        deliver(h, 10)
        deliveries = 0
        while h.wait_for(h.client.aget(run.id)).status.live:
            if h.queue.bodies():
                deliveries += 1
                assert not acknowledges(h, 1)
            h.advance(60)
            for message in h.wait_for(h.dead.receive(10, wait=0.0, visibility=60.0)):
                assert h.wait_for(h._engine.handle(message, dead=True))
                h.wait_for(h.dead.delete(message.receipt))
        error = h.steps(run)["one"].error
        assert error is not None
        assert (error.type, w.bodies) == ("DeadLetter", {})
        assert 50 <= deliveries <= 70, "ten for the first message, and ten for each take-over"


# ---- wide and long -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joined", [True, False], ids=["joined by a step", "joined by the end"])
def test_250_parallel_steps_run_once_each_and_are_joined_once(joined: bool) -> None:
    w = world()

    def declare(number: int) -> None:
        @w.flow.step(name=f"p{number}")
        def body(n: int) -> int:
            w.bodies[f"p{number}"] += 1
            return number

    names = [f"p{number}" for number in range(250)]
    for number in range(250):
        declare(number)
    if joined:

        @w.flow.step(after=names)
        def join(n: int) -> str:
            w.bodies["join"] += 1
            return "joined"

    with Faulty(w.app) as h:
        run = h.start(w.flow, 5)
        result = h.result(run)
        assert result == ("joined" if joined else {name: number for number, name in enumerate(names)})
        assert set(w.bodies.values()) == {1}
        assert len(w.bodies) == 250 + joined

        async def arrived(group: int | None) -> object:
            item = await h.backend.table.get(join_key(run.id, "join" if joined else "@end", group)) or {}
            return item["arrived"]

        assert h.wait_for(arrived(None)) == frozenset(range(3))
        assert [h.wait_for(arrived(group)) for group in range(3)] == [
            frozenset(range(MEMBERS)),
            frozenset(range(MEMBERS)),
            frozenset(range(50)),
        ]


def test_a_pause_longer_than_the_queue_can_delay_is_kept_to_the_second() -> None:
    w, told = world(), Told()

    @w.flow.step(retry=Retry(attempts=2, initial=3600.0, max_delay=3600.0, jitter=False))
    def call(n: int) -> int:
        w.bodies["call"] += 1
        if w.bodies["call"] == 1:
            raise ConnectionError
        return n

    with Faulty(w.app) as h:
        assert h.queue.max_delay == 900.0
        h.gate.plan = told
        run = h.start(w.flow, 5)
        assert h.result(run) == 5
        record = h.steps(run)["call"]
        assert record.started is not None
        assert 3600 <= (record.started - record.failed_attempts[0].ended).total_seconds() <= 3601
        assert record.takeovers == 0
        assert sum(call.operation == "receive" for call in told.calls) == 2, "it waited in the timer table"
