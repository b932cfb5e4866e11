"""A retried run goes on where the last one ended: no effect happens twice, and no two retries compete."""

from __future__ import annotations

import asyncio

import pytest
from detent import (
    App,
    Context,
    RunStatus,
    Update,
    WrongState,
)
from detent.testing import Harness

from tests.scenarios.conftest import OpenHarness
from tests.support.shop import Order, open_shop


def test_a_retried_run_goes_on_from_the_failed_step(harness: OpenHarness) -> None:
    shop = open_shop(handler=True)
    h = harness(shop.app)
    h.fail("ship", ConnectionError("closed"), times=3)
    run = h.start(shop.orders, Order(id="a", cents=5))
    assert h.settle(run) is RunStatus.FAILED
    new = h.wait_for(h.client.aretry(run.id))
    assert h.result(new) == "sent: label-a 5"
    assert h.wait_for(h.client.aretry(run.id)).id == new.id
    assert shop.bodies["charge"] == 1
    assert h.settle(run) is RunStatus.FAILED  # a terminal status never changes
    with pytest.raises(WrongState, match="COMPLETED"):
        h.wait_for(h.client.aretry(new.id))


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
