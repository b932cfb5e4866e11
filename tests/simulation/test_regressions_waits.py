"""Holes of waits, by the rules that close them: sleeps whose workers die, repeat themselves or come late.

See test_regressions_ownership.py.
"""

from __future__ import annotations

import asyncio

import pytest
from detent import RunStatus
from detent.testing import WorkerCrashed
from detent.testing.simulation.faults import Fault
from detent_infra.ports import Conflict
from detent_infra.runs.reaper import reap
from detent_infra.timers.later import send
from detent_state_machine import keys, timer_table
from detent_state_machine.decisions import later
from detent_state_machine.messages import Cancel, Drive, decode, encode
from detent_state_machine.step_path import StepPath

from tests.simulation.by_hand import Hand, by_hand
from tests.simulation.canonical import FAILS, SLEEP
from tests.simulation.workloads import Drawn

BEFORE, AFTER = Fault.CRASH_BEFORE, Fault.CRASH_AFTER
LONG = (Drawn("a"), Drawn("t", after=("a",), sleeps=100.0), Drawn("b", ("t",)))


# ---- 4: begin ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "fault"), [("write step#t := WAITING", AFTER), ("send", BEFORE)])
@pytest.mark.parametrize("hops", [0, 3])
def test_w4_who_dies_between_a_wait_and_its_message_leaves_a_message_that_sends_it(
    text: str, fault: Fault, hops: int
) -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        if not hops:
            await hand.drive("@start", "a")
        hand.plan(text, fault, by="owner")
        assert await hand.handle(await hand.take("@start" if hops else "t"), "owner") == "died"
        assert hand.statuses()["t"] == "WAITING"

    hand = by_hand(LONG, act, max_hops=hops)
    assert hand.bodies == {"a": 1, "b": 1}


def test_w4_two_deliveries_give_a_sleep_one_end() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        first = await hand.take("t")
        second = await hand.again(first)
        assert await hand.handle(first, "one") == "acknowledged"
        due = hand.steps["t"].due
        await asyncio.sleep(2.0)
        assert await hand.handle(second, "other") == "acknowledged"
        assert hand.steps["t"].due == due
        await hand.take("t")
        assert hand.now * 1000 + 1_767_225_600_000 >= due

    hand = by_hand(SLEEP, act, max_hops=0)
    assert hand.bodies == {"a": 1, "b": 1}


# ---- 6, 7: meet -------------------------------------------------------------------------------------------------


def test_w7_a_message_that_comes_too_early_is_sent_on() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        hand.simulation.purge()
        await hand.simulation.backend.queue.send([encode(Drive(hand.run, "t"))])
        await hand.drive("t")
        assert hand.statuses()["t"] == "WAITING"
        assert hand.queued == ["t"]

    assert by_hand(LONG, act).bodies == {"a": 1, "b": 1}


@pytest.mark.parametrize("fault", [BEFORE, AFTER])
def test_w6_who_dies_as_a_sleep_ends_leaves_the_message_that_ends_it(fault: Fault) -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        hand.plan("write step#t := COMPLETED", fault, by="owner")
        assert await hand.handle(await hand.take("t"), "owner") == "died"

    assert by_hand(SLEEP, act).bodies == {"a": 1, "b": 1}


def test_w6_a_second_delivery_finds_the_sleep_ended_and_walks() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        first = await hand.take("t")
        second = await hand.again(first)
        assert await hand.handle(first) == "acknowledged"
        assert await hand.handle(second, "other") == "acknowledged"

    assert by_hand(SLEEP, act).bodies == {"a": 1, "b": 1}


# ---- 13, 27: close, cancel --------------------------------------------------------------------------------------


def test_w13_a_run_that_is_cancelled_closes_its_sleep_long_before_it_is_due() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        await hand.client().cancel(hand.run)
        assert [type(decode(body)) for body in hand.simulation.queues[0].bodies()].count(Cancel) == 1
        assert await hand.handle(await hand.take("@start")) == "acknowledged"
        assert hand.statuses() == {"a": "COMPLETED", "t": "CANCELLED"}
        assert hand.now < 50

    assert by_hand(LONG, act).record.status is RunStatus.CANCELLED


def test_w27_a_cancel_whose_client_dies_before_it_writes_is_made_by_a_worker() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        hand.plan("write run := CANCELLED", BEFORE, by="client")
        with pytest.raises(WorkerCrashed):
            await hand.client().cancel(hand.run)
        assert hand.record.status.live
        assert await hand.handle(await hand.take("@start")) == "acknowledged"
        assert hand.record.status is RunStatus.CANCELLED

    assert by_hand(LONG, act).statuses()["t"] == "CANCELLED"


@pytest.mark.parametrize("fault", [BEFORE, AFTER])
def test_w13_who_dies_as_it_closes_a_sleep_of_a_failed_run_is_followed_by_another(fault: Fault) -> None:
    steps = (Drawn("u", sleeps=100.0), Drawn("a"), Drawn(**{**vars(FAILS), "name": "b", "parents": ("a",)}))

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "u", "a")
        hand.plan("write step#u := CANCELLED", fault, by="owner")
        assert await hand.handle(await hand.take("b"), "owner") == "died"
        assert hand.record.status is RunStatus.FAILED
        assert await hand.handle(await hand.take("b")) == "acknowledged"
        assert hand.statuses()["u"] == "CANCELLED"

    by_hand(steps, act, max_hops=0)


# ---- 29, 30: walk, reaper, dead letters -------------------------------------------------------------------------


def test_w29_a_walk_that_meets_a_sleep_sends_it_a_message_at_once() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#t := WAITING", AFTER, by="owner")
        assert await hand.handle(await hand.take(), "owner") == "died"
        assert await hand.handle(await hand.take()) == "acknowledged"
        before = hand.now
        await hand.drive("t")
        assert hand.now - before < 5

    by_hand(LONG, act)


def test_w30_the_reaper_wakes_a_sleep_whose_message_was_purged() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        hand.simulation.purge()
        await asyncio.sleep(2_000)
        await reap(hand.simulation.backend)
        assert hand.queued == ["@start", "t"]

    assert by_hand(LONG, act).bodies == {"a": 1, "b": 1}


@pytest.mark.parametrize("seconds", [0.0, 200.0])
def test_a_dead_letter_of_a_sleep_is_evaluated_in_place(seconds: float) -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        hand.simulation.purge()
        await asyncio.sleep(seconds)
        await hand.simulation.backend.dead_letters.send([encode(Drive(hand.run, "t"))])
        assert await hand.handle(await hand.take("t", dead=True), dead=True) == "acknowledged"
        assert hand.statuses()["t"] == ("COMPLETED" if seconds else "WAITING")
        assert hand.queued == (["b"] if seconds else ["t"]), "what follows runs from the main queue"
        assert hand.steps["t"].takeovers == 0

    assert by_hand(LONG, act).bodies == {"a": 1, "b": 1}


# ---- timers that the queue cannot hold --------------------------------------------------------------------------

HOURS = (Drawn("a"), Drawn("t", after=("a",), sleeps=7_000.0), Drawn("b", ("t",)))


def test_a_sleep_waits_in_the_table_until_it_is_due() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        assert hand.queued == []
        await asyncio.sleep(6_700)
        assert await hand.tick() == 1
        await hand.drive("t")
        assert 7_000 <= hand.now <= 7_002

    assert by_hand(HOURS, act).bodies == {"a": 1, "b": 1}


def test_w4_who_dies_between_a_wait_and_its_timer_leaves_a_message_that_puts_it() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#t := WAITING", AFTER, by="owner")
        assert await hand.handle(await hand.take("@start"), "owner") == "died"
        await hand.drive("@start", "t")
        assert hand.queued == []
        await asyncio.sleep(6_700)
        assert await hand.tick() == 1

    assert by_hand(HOURS, act).bodies == {"a": 1, "b": 1}


def test_t1_a_timer_that_is_put_while_a_tick_reads_its_bucket_is_sent_by_who_puts_it() -> None:
    async def act(hand: Hand) -> None:
        await first_timer(hand)
        await hand.start()
        await hand.drive("@start")
        message = Drive(hand.run, "t")
        forget_timers(hand)
        await asyncio.sleep(6_700)
        # A zombie was about to put the timer when it stood still, and a tick reads the bucket before it is there.
        hand.plan("write timers := done", BEFORE, by="tick")
        with pytest.raises(WorkerCrashed):
            await hand.tick()
        await put_timer(hand, message)
        assert hand.queued == ["t"], "the next tick may come when it is long due"

    assert by_hand(HOURS, act).bodies == {"a": 1, "b": 1}


def test_t2_two_who_put_the_first_timers_let_ticks_begin_once() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        began = hand.simulation.store.items[keys.TIMERS]
        await asyncio.sleep(600)
        with pytest.raises(Conflict):
            await hand.simulation.backend.table.write(timer_table.begin(hand.simulation.backend.clock()))
        assert hand.simulation.store.items[keys.TIMERS] == began

    assert by_hand(HOURS, act).bodies == {"a": 1, "b": 1}


def test_t3_a_tick_that_comes_late_turns_nothing_back() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        await asyncio.sleep(6_700)
        await hand.tick()
        far = hand.simulation.store.items[keys.TIMERS]
        done = timer_table.cursor_of(far).done
        for late in (
            timer_table.open_up_to(done),
            timer_table.all_sent(done),
            timer_table.sent_up_to(done, (3, "x")),
        ):
            with pytest.raises(Conflict):
                await hand.simulation.backend.table.write(late)
        assert hand.simulation.store.items[keys.TIMERS] == far

    assert by_hand(HOURS, act).bodies == {"a": 1, "b": 1}


async def first_timer(hand: Hand) -> None:
    """Somebody put a timer before, so that ticks have begun."""
    backend = hand.simulation.backend
    await backend.table.write(timer_table.begin(backend.clock()))


def forget_timers(hand: Hand) -> None:
    """As if who began the wait had died before its timer."""
    for key in [key for key in hand.simulation.store.items if key.pk.startswith(keys.TIMER_PARTITIONS)]:
        del hand.simulation.store.items[key]
        hand.simulation.store.sorted_keys[key.pk].remove(key.sk)


async def put_timer(hand: Hand, message: Drive) -> None:
    """As who handles this message, and decided long ago that the queue cannot hold it."""
    backend = hand.simulation.backend
    path = StepPath(message.path)
    due = hand.steps[path].due
    await send(backend, message.run_id, [later(path, due, due - 7_000_000)])
