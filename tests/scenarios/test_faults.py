"""Workers that die, bodies that kill them, and duplicates of messages, on every backend."""

from __future__ import annotations

import asyncio

import pytest
from detent import App, RunFailed, RunStatus, StepStatus
from detent_state_machine.messages import Drive, Message, Start, encode

from tests.scenarios.conftest import OpenHarness
from tests.support.shop import Order, open_shop


@pytest.mark.short_leases
@pytest.mark.parametrize("step", ["reserve", "charge", "label", "ship"])
def test_a_worker_that_dies_in_a_body_is_replaced(harness: OpenHarness, step: str) -> None:
    shop = open_shop()
    h = harness(shop.app)
    h.crash(step)
    run = h.start(shop.orders, Order(id="a", cents=5))
    assert h.result(run) == "sent: label-a 5"
    assert shop.bodies == {"reserve": 1, "charge": 1, "label": 1, "ship": 1, "notify": 1}


@pytest.mark.short_leases
def test_a_body_that_kills_every_worker_fails_instead_of_looping(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("poison", input=int)

    @flow.step
    def first(n: int) -> int:
        return n

    @flow.step(takeovers=1)
    def poison(n: int = first.output) -> int:
        return n

    h = harness(app)
    h.crash("poison", times=50)
    run = h.start(flow, 1)
    with pytest.raises(RunFailed, match="2 workers in a row"):
        h.result(run)
    record = h.steps(run)["poison"]
    assert (record.status, record.takeovers, record.attempt) == (StepStatus.FAILED, 1, 2)


@pytest.mark.short_leases
def test_take_overs_do_not_eat_the_retry_budget(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    h.fail("ship", ConnectionError(), times=1)
    h.crash("ship", times=1)
    h.fail("ship", ConnectionError(), times=1)
    run = h.start(shop.orders, Order(id="a", cents=5))
    assert h.result(run) == "sent: label-a 5"
    assert (h.steps(run)["ship"].errors, h.steps(run)["ship"].takeovers) == (2, 1)


@pytest.mark.over_the_wire
@pytest.mark.short_leases
def test_an_at_most_once_body_is_never_run_again(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    h.crash("notify")
    run = h.start(shop.orders, Order(id="a", cents=5))
    with pytest.raises(RunFailed, match="at_most_once"):
        h.result(run)
    assert shop.bodies["notify"] == 0
    assert h.steps(run)["notify"].error is not None


@pytest.mark.over_the_wire
def test_duplicates_of_every_message_change_nothing(harness: OpenHarness) -> None:
    shop = open_shop(handler=True)
    h = harness(shop.app)
    run = h.start(shop.orders, Order(id="a", cents=5))
    every: list[Message] = [Start(run.id), Start(run.id, fresh=True)]
    h.result(run)
    every += [Drive(run.id, name) for name in ("reserve", "charge", "label", "ship", "notify", "release")]
    before = (dict(shop.bodies), h.steps(run))
    h.wait_for(h.backend.queue.send([encode(message) for message in every]))
    h.advance(1.0)
    assert (dict(shop.bodies), h.steps(run)) == before


@pytest.mark.short_leases
def test_a_duplicate_in_the_middle_of_a_run_runs_no_claimed_body_twice(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)
    bodies: list[str] = []

    @flow.step(delivery="exactly_once")
    async def slow(n: int) -> int:
        bodies.append("slow")
        await asyncio.sleep(0.8)
        return n

    @flow.step
    def after(n: int = slow.output) -> int:
        bodies.append("after")
        return n

    h = harness(app)
    run = h.start(flow, 1)
    h.advance(0.3)
    h.wait_for(h.backend.queue.send([encode(Drive(run.id, "slow")), encode(Start(run.id))]))
    assert h.result(run) == 1
    h.advance(4.5)  # the copies come back and find everything done
    assert bodies == ["slow", "after"]


@pytest.mark.short_leases
def test_a_long_body_keeps_its_lease_and_is_run_once(harness: OpenHarness) -> None:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)
    bodies: list[int] = []

    @flow.step
    async def long(n: int) -> int:
        bodies.append(n)
        await asyncio.sleep(5.0 if h.backend.url != "memory://" else 50.0)
        return n

    h = harness(app)
    assert h.run(flow, 3) == 3
    assert bodies == [3]


def test_two_failing_steps_give_one_cause_and_one_handling(harness: OpenHarness) -> None:
    shop = open_shop(handler=True)
    h = harness(shop.app)
    h.fail("charge", ValueError("one"), times=3)
    h.fail("label", ValueError("two"), times=3)
    run = h.start(shop.orders, Order(id="a", cents=5))
    assert h.settle(run) is RunStatus.FAILED
    assert shop.bodies["release"] == 1
    assert shop.failure is not None
    assert shop.failure.step == h.wait_for(h.client.aget(run.id)).failed_step
