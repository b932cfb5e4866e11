"""Machines of the simulation that are functions: what an invocation's end cuts off comes back, and is done."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from detent import RunStatus
from detent.testing.simulation.faults import Fault
from detent.testing.simulation.invocations import LONGEST, SHORTEST
from detent_state_machine.status import Delivery

from tests.simulation.by_hand import FOREVER, Hand, by_hand
from tests.simulation.canonical import chain
from tests.simulation.workloads import Drawn

HANGS = Drawn("", hangs=1, timeout=300.0)
"""Its first attempt would take longer than any invocation."""


def after(hand: Hand, text: str) -> float:
    """When the trace first says so, in simulated seconds; never, if it does not."""
    return next((float(line.split()[0]) for line in hand.simulation.gate.trace if text in line), FOREVER)


async def invoked(hand: Hand) -> None:
    """One function, and nothing else, until its first invocation is over."""
    hand.simulation.boot(invoked=True)
    await hand.start()
    await asyncio.sleep(LONGEST)


def test_a_body_that_outlasts_its_invocation_is_cut_off_before_its_timeout_and_tried_again() -> None:
    hand = by_hand(chain("a", "b", a=HANGS), invoked, workers=0)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.bodies == {"a": 2, "b": 1}
    assert hand.steps["a"].errors == 1
    assert SHORTEST - 5 < after(hand, "step#a := RETRYING") < LONGEST


def test_what_is_unfinished_when_the_invocation_ends_is_given_up_and_done_later() -> None:
    async def act(hand: Hand) -> None:
        hand.plan("write step#a := RETRYING", Fault.SLOW)
        await invoked(hand)

    hand = by_hand(chain("a", "b", a=HANGS), act, workers=0)
    assert hand.record.status is RunStatus.COMPLETED
    assert SHORTEST - 5 < after(hand, "gives up") < LONGEST
    assert hand.bodies["b"] == 1


def test_an_invocation_that_stands_still_when_its_time_is_up_is_ended_by_its_platform() -> None:
    """Of an `at_most_once` step, whose worker is so lost: another invocation finds it, and does not begin it again."""

    async def act(hand: Hand) -> None:
        hand.plan("write step#a := RUNNING", Fault.PAUSE, times=6)
        await invoked(hand)

    step = replace(HANGS, hangs=0, seconds=300.0, delivery=Delivery.AT_MOST_ONCE)
    hand = by_hand(chain("a", "b", a=step), act, workers=0)
    assert SHORTEST - 5 < after(hand, "dies") < LONGEST
    assert hand.record.status is RunStatus.FAILED
    assert "Interrupted" in str(hand.steps["a"].error)
    assert hand.bodies == {"a": 1}


def test_a_step_that_may_not_fit_into_the_rest_of_an_invocation_gets_a_message_of_its_own() -> None:
    steps = chain("a", "b", "c", b=Drawn("", timeout=300.0), c=Drawn("", timeout=10.0))
    hand = by_hand(steps, invoked, workers=0)
    assert hand.record.status is RunStatus.COMPLETED
    assert not hand.steps["b"].inline
    assert hand.steps["c"].inline
