"""A run that has ended, or fails, leaves nothing live: what a dead worker was at, and what was to be tried again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from detent import RunStatus
from detent.testing.simulation.faults import Fault
from detent_state_machine.status import Delivery

from tests.simulation.by_hand import Hand, by_hand
from tests.simulation.canonical import FAILS, LONG, ONE_RETRY, chain
from tests.simulation.workloads import Drawn

ABC = ("a", "b", "c")
ONCE = Drawn("", delivery=Delivery.AT_MOST_ONCE)


def test_what_an_ended_run_left_at_work_ends_when_its_message_comes_back() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        owner = hand.begin(head, "owner")
        await asyncio.sleep(3.0)
        assert (hand.statuses()["a"], hand.statuses()["b"]) == ("COMPLETED", "RUNNING")
        hand.kill("owner")
        assert await owner == "died"
        await hand.client().cancel(hand.run)
        assert await hand.handle(await hand.again(head)) == "acknowledged"
        assert hand.queued == ["b"], "its owner may be alive: a copy comes when the lease is over"
        assert await hand.handle(await hand.take("b")) == "acknowledged"
        assert hand.statuses() == {"a": "COMPLETED", "b": "CANCELLED"}
        assert hand.queued == []

    assert by_hand(chain(*ABC, b=LONG), act).bodies == {"a": 1, "b": 1}


def test_what_an_ended_run_was_to_try_again_is_given_up_at_its_time() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        assert hand.statuses() == {"a": "RETRYING"}
        await hand.client().cancel(hand.run)
        await hand.drive("a")
        assert hand.statuses() == {"a": "CANCELLED"}

    by_hand(chain(*ABC, a=ONE_RETRY), act)


def test_in_a_failing_run_what_a_dead_worker_left_ends_too() -> None:
    steps = (replace(LONG, name="a"), replace(FAILS, name="b"), replace(LONG, name="h", scope="on_failure"))

    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        owner = hand.begin(head, "owner")
        await asyncio.sleep(3.0)
        assert hand.statuses() == {"a": "RUNNING"}
        hand.kill("owner")
        assert await owner == "died"
        handler = hand.begin(await hand.take("b"), "handler")
        await asyncio.sleep(1.0)
        assert hand.record.status is RunStatus.FAILING
        assert await hand.handle(await hand.again(head)) == "acknowledged"
        assert await handler == "acknowledged"

    hand = by_hand(steps, act)
    assert (hand.record.status, hand.statuses()["a"]) == (RunStatus.FAILED, "CANCELLED")


def test_what_the_handlers_of_a_cancelled_run_left_ends_too() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        owner = hand.begin(head, "owner")
        await asyncio.sleep(3.0)
        assert hand.statuses() == {"a": "FAILED", "h": "RUNNING"}
        hand.kill("owner")
        assert await owner == "died"
        await hand.client().cancel(hand.run)
        assert await hand.handle(await hand.again(head)) == "acknowledged"
        assert await hand.handle(await hand.take("h")) == "acknowledged"
        assert hand.statuses() == {"a": "FAILED", "h": "CANCELLED"}
        assert hand.queued == []

    by_hand((replace(FAILS, name="a"), replace(LONG, name="h", scope="on_failure")), act)


def test_an_owner_that_lives_ends_its_step_itself_when_its_run_has_ended() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        own = await hand.take("b")
        owner = hand.begin(own, "owner")
        await asyncio.sleep(2.0)
        await hand.client().cancel(hand.run)
        assert await hand.handle(await hand.again(own), "other") == "acknowledged"
        assert hand.statuses()["b"] == "RUNNING"
        assert await owner == "acknowledged"
        assert hand.statuses()["b"] == "CANCELLED"

    by_hand(chain(*ABC, b=LONG), act, max_hops=0)


def test_a_worker_that_was_paused_over_its_runs_end_begins_nothing_that_nobody_ends() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        own = await hand.take("a")
        hand.plan("get run", Fault.PAUSE, by="owner")
        owner = hand.begin(own, "owner")
        await asyncio.sleep(0.3)
        await hand.client().cancel(hand.run)
        assert await hand.handle(await hand.again(own), "other") == "acknowledged"
        assert hand.statuses() == {"a": "CANCELLED"}
        await owner
        assert hand.statuses() == {"a": "CANCELLED"}

    assert by_hand((replace(ONCE, name="a"),), act, max_hops=0).bodies == {}
