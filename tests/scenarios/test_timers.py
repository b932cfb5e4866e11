"""Waits that are longer than the queue delays a message: the timer table, and the tick that sends what is due in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self

import pytest
from detent import App, RunHandle, RunStatus, StepInfo, StepStatus
from detent.testing import Harness, WorkerCrashed
from detent.testing.simulation.faults import Fault, Machine, PortCall
from detent_infra.memory import memory_backend
from detent_infra.ports import Backend, MessageQueue
from detent_infra.timers.later import send
from detent_infra.timers.tick import PAGE, send_due_timers
from detent_state_machine import keys, timer_table
from detent_state_machine.decisions import later
from detent_state_machine.messages import Drive, decode
from detent_state_machine.step_path import StepPath
from detent_state_machine.timer_table import AHEAD, MINUTE
from detent_state_machine.writes import Key, PutItem

from bench.counting import CountingQueue, Counts, counted
from tests.scenarios.faulty import AnyWorkflow, Faulty

HOUR = timedelta(hours=1)
TWO_SECONDS = timedelta(seconds=2)


class Sleepers:
    """Runs that sleep, on a queue that delays a message for 15 minutes at most, as SQS does."""

    def __init__(self, sleeps: timedelta) -> None:
        self.app = App(url="memory://")
        self.flow: AnyWorkflow = self.app.workflow("sleeper", input=int)
        pause = self.flow.sleep("pause", sleeps)

        @self.flow.step(after=[pause])
        def wake(n: int) -> int:
            return n

        self.harness = Faulty(self.app)

    def __enter__(self) -> Self:
        self.harness.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.harness.__exit__(None, None, None)

    def begin(self) -> RunHandle[Any]:
        run = self.harness.start(self.flow, 1)
        self.harness.advance(1)
        assert self.pause(run).status is StepStatus.WAITING
        return run

    def pause(self, run: RunHandle[Any]) -> StepInfo:
        return self.harness.steps(run)["pause"]

    def late(self, run: RunHandle[Any]) -> timedelta:
        """By how much the sleep ended after it was due."""
        ended = self.pause(run).ended
        assert ended is not None
        return ended - datetime.fromisoformat(self.harness.output_of(run, "pause"))

    def due(self, run: RunHandle[Any]) -> int:
        """When its sleep is due, in milliseconds since the epoch."""
        item = self.harness.wait_for(self.harness.backend.table.get(keys.step_key(run.id, StepPath("pause")))) or {}
        return int(str(item["due"]))

    def queued(self) -> list[str]:
        """Paths of the messages that the queue holds, delayed or not."""
        found = [decode(body) for body in self.harness.queue.bodies()]
        return [message.path for message in found if isinstance(message, Drive)]

    def tick(self, backend: Backend | None = None, *, until: int | None = None) -> int:
        return self.harness.wait_for(send_due_timers(backend or self.harness.backend, until=until)).sent

    def machine(self, fault: Fault, at: str) -> Machine:
        """One that meets a fault at its first call whose trace begins so."""
        met: list[PortCall] = []

        def plan(call: PortCall) -> Fault | None:
            if not met and call.machine == "tick" and f"{call.operation} {call.what}".startswith(at):
                met.append(call)
                return fault
            return None

        self.harness.gate.plan = plan
        return Machine("tick", self.harness.gate, self.harness.backend)


# ---- where a message for later waits ----------------------------------------------------------------------------


def test_a_long_sleep_waits_in_the_table_and_costs_the_queue_nothing() -> None:
    with Sleepers(10 * HOUR) as s:
        run = s.begin()
        assert s.queued() == []
        s.harness.advance(9 * HOUR)
        assert s.queued() == []
        assert s.harness.result(run) == 1
        assert s.late(run) < TWO_SECONDS


def test_a_sleep_that_the_queue_can_hold_is_never_in_the_table() -> None:
    with Sleepers(timedelta(minutes=14)) as s:
        run = s.begin()
        assert s.queued() == ["pause"]
        assert not any(key.pk.startswith("timers") for key in _keys(s.harness))
        assert s.harness.result(run) == 1


def test_a_queue_that_holds_a_message_for_a_year_needs_neither_table_nor_tick() -> None:
    app = App(url="memory://")
    flow = app.workflow("sleeper", input=int)
    flow.sleep("pause", timedelta(days=300))
    backend, counts = counted(memory_backend())
    asyncio.run(send_due_timers(backend))
    assert counts.read == counts.written == []
    with Harness(app) as h:
        run = h.start(flow, 1)
        assert h.settle(run) is RunStatus.COMPLETED
        assert h.wait_for(h.backend.table.get(keys.TIMERS)) is None


def test_any_message_for_much_later_waits_in_the_table() -> None:
    with Sleepers(HOUR) as s:
        sends = [later(StepPath("wake"), s.harness.backend.clock() + 5 * 3_600_000, s.harness.backend.clock())]
        s.harness.wait_for(send(s.harness.backend, "r", sends))
        assert s.queued() == []


def test_who_registers_again_writes_the_same_timer() -> None:
    with Sleepers(10 * HOUR) as s:
        run = s.begin()
        due = s.due(run)
        for _ in range(3):
            now = s.harness.backend.clock()
            s.harness.wait_for(send(s.harness.backend, run.id, [later(StepPath("pause"), due, now)]))
            s.harness.advance(60)
        assert sum(key.pk.startswith(keys.TIMER_PARTITIONS) for key in _keys(s.harness)) == 1


# ---- on time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [901, 959.4, 1_000, 3_599.9, 86_400])
def test_a_sleep_of_any_length_ends_within_two_seconds_of_its_time(seconds: float) -> None:
    with Sleepers(timedelta(seconds=seconds)) as s:
        run = s.begin()
        assert s.harness.result(run) == 1
        assert timedelta(0) <= s.late(run) < TWO_SECONDS


@pytest.mark.parametrize("missed", [1, 4])
def test_ticks_that_are_missed_make_nobody_late_as_they_send_five_minutes_ahead(missed: int) -> None:
    with Sleepers(timedelta(minutes=20)) as s:
        run = s.begin()
        s.harness.advance(timedelta(minutes=14))
        s.harness.gate.down["query"] = s.harness._loop.time() + missed * 60
        assert s.harness.result(run) == 1
        assert s.late(run) < TWO_SECONDS


def test_a_tick_that_was_down_for_an_hour_catches_up_at_once() -> None:
    with Sleepers(timedelta(minutes=20)) as s:
        runs = [s.begin() for _ in range(3)]
        s.harness.stop_worker()
        s.harness.advance(HOUR)
        assert s.tick() == 3
        s.harness.start_worker()
        assert [s.harness.result(run) for run in runs] == [1, 1, 1]
        assert timedelta(minutes=39) < max(map(s.late, runs)) < timedelta(minutes=42)


# ---- ticks that die, meet, or come to an end --------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
@pytest.mark.parametrize("at", ["write timers := opened", "query timers#", "send", "write timers := done"])
def test_a_tick_that_dies_anywhere_leaves_the_timer_to_the_next(fault: Fault, at: str) -> None:
    with Sleepers(timedelta(minutes=20)) as s:
        run = s.begin()
        s.harness.stop_worker()
        s.harness.advance(timedelta(minutes=16))
        with pytest.raises(WorkerCrashed):
            s.tick(s.machine(fault, at).backend)
        s.tick()
        assert set(s.queued()) == {"pause"}
        s.harness.start_worker()
        assert s.harness.result(run) == 1
        assert s.late(run) < TWO_SECONDS


def test_two_ticks_at_once_send_every_timer() -> None:
    with Sleepers(timedelta(minutes=20)) as s:
        runs = [s.begin() for _ in range(5)]
        s.harness.stop_worker()
        s.harness.advance(timedelta(minutes=16))

        async def both() -> None:
            await asyncio.gather(send_due_timers(s.harness.backend), send_due_timers(s.harness.backend))

        s.harness.wait_for(both())
        assert 5 <= len(s.queued()) <= 10
        assert s.tick() == 0
        s.harness.start_worker()
        assert [s.harness.result(run) for run in runs] == [1] * 5


def test_a_tick_that_runs_out_of_time_says_so_and_the_next_one_goes_on() -> None:
    backend = _short_queue()
    now = backend.clock()
    asyncio.run(_put(backend, [now + 20 * MINUTE] * (2 * PAGE + 10), now))
    later_on, counts = counted(replace(backend, clock=_Steps(now + 30 * MINUTE)))
    first = asyncio.run(send_due_timers(later_on, until=now + 30 * MINUTE + AHEAD * keys.SHARDS * 6))
    assert not first.complete
    total = first.sent
    while not (tick := asyncio.run(send_due_timers(later_on))).complete or tick.sent:
        total += tick.sent
    assert 2 * PAGE + 10 <= total + tick.sent <= 3 * PAGE + 10
    assert counts.sent == total


def test_a_tick_that_dies_in_a_full_minute_goes_on_where_it_was() -> None:
    backend = _short_queue()
    now = backend.clock()
    asyncio.run(_put(backend, [now + 20 * MINUTE] * (3 * PAGE), now, run="r"))
    dies, counts = counted(replace(backend, clock=lambda: now + 30 * MINUTE))
    dies = replace(dies, queue=_Dies(dies.queue, counts, after=2 * PAGE))
    with pytest.raises(WorkerCrashed):
        asyncio.run(send_due_timers(dies))
    counts.clear()
    again = replace(backend, clock=lambda: now + 30 * MINUTE)
    assert asyncio.run(send_due_timers(again)).sent <= PAGE + 1


# ---- who puts a timer while ticks go by -------------------------------------------------------------------------


def test_who_puts_a_timer_behind_the_tick_sends_its_message_too() -> None:
    with Sleepers(timedelta(minutes=20)) as s:
        run = s.begin()
        due = s.due(run)
        s.harness.stop_worker()
        s.harness.wait_for(s.harness.backend.table.write(PutItem(keys.TIMERS, _cursor(due), expect=None)))
        now = s.harness.backend.clock()
        s.harness.wait_for(send(s.harness.backend, run.id, [later(StepPath("pause"), due, now)]))
        assert s.queued() == ["pause"]


def test_a_tick_whose_clock_is_far_ahead_makes_waits_cost_more_and_nobody_late() -> None:
    with Sleepers(2 * HOUR) as s:
        s.begin()
        ahead = replace(s.harness.backend, clock=lambda: s.harness.backend.clock() + 10 * 3_600_000)
        s.harness.wait_for(send_due_timers(ahead))
        run = s.begin()
        assert s.harness.result(run) == 1
        assert s.late(run) < TWO_SECONDS


# ---- what it costs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pending", [10, 20_000])
def test_a_tick_reads_what_is_due_whatever_is_pending(pending: int) -> None:
    assert _counts_of_a_tick(pending, due=3) == _counts_of_a_tick(0, due=3)


def test_a_tick_without_due_timers_reads_its_cursor_and_the_minute_and_writes_twice() -> None:
    counts = _counts_of_a_tick(100, due=0)
    assert (len(counts.read), counts.queries, len(counts.written), counts.sent) == (1, keys.SHARDS, 2, 0)


def test_a_tick_where_nobody_ever_put_a_timer_reads_one_item() -> None:
    backend, counts = counted(_short_queue())
    asyncio.run(send_due_timers(backend))
    assert (len(counts.read), counts.queries, len(counts.written)) == (1, 0, 0)


def _counts_of_a_tick(pending: int, *, due: int) -> Counts:
    """Of the second of two ticks, a minute apart: `due` timers are due between."""
    backend = _short_queue()
    now = backend.clock() // MINUTE * MINUTE
    times = [now + (21 + AHEAD) * MINUTE + n for n in range(due)]
    far = [now + 86_400_000 + n * MINUTE for n in range(pending)]
    asyncio.run(_put(backend, [*times, *far], now))
    asyncio.run(send_due_timers(replace(backend, clock=lambda: now + 20 * MINUTE)))
    later_on, counts = counted(replace(backend, clock=lambda: now + 21 * MINUTE))
    asyncio.run(send_due_timers(later_on))
    return counts


async def _put(backend: Backend, dues: Sequence[int], now: int, run: str = "") -> None:
    await backend.table.write(timer_table.begin(now))
    for number, due in enumerate(dues):
        await backend.table.write(timer_table.put(Drive(run or f"r{number}", StepPath(f"p{number}")), due))


def _short_queue() -> Backend:
    backend = memory_backend()
    backend.queue.max_delay = 900.0
    return backend


def _cursor(time: int) -> dict[str, int]:
    return {"opened": time // MINUTE, "done": time // MINUTE}


def _keys(h: Faulty) -> list[Key]:
    return list(h.backend.table._store.items)  # type: ignore[attr-defined]


class _Steps:
    """A clock that goes on by a millisecond each time somebody looks."""

    def __init__(self, time: int) -> None:
        self._time = time

    def __call__(self) -> int:
        self._time += 1
        return self._time


class _Dies(CountingQueue):
    """A queue whose sender dies once it has taken so many messages."""

    def __init__(self, queue: MessageQueue, counts: Counts, *, after: int) -> None:
        super().__init__(queue, counts)
        self._left = after

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        self._left -= len(bodies)
        if self._left < 0:
            raise WorkerCrashed
        await super().send(bodies, delay=delay)
