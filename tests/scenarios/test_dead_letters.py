"""What comes back from the dead letters: a sound step begins again, a worn one fails, the rest disturbs nobody."""

from __future__ import annotations

import asyncio

import pytest
from detent import (
    App,
    Failure,
    RunHandle,
    RunStatus,
)
from detent.testing import Harness
from detent_infra.engine import Engine
from detent_infra.memory import memory_backend
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.start import NewRun
from detent_infra.worker import Worker
from detent_state_machine.messages import Drive, encode

from tests.scenarios.conftest import OpenHarness
from tests.support.shop import Order, open_shop
from tests.support.waiting import until_in


def bury(h: Harness, run: RunHandle[str], step: str) -> None:
    """The run's only message becomes a dead letter about this step."""
    [message] = h.wait_for(h.backend.queue.receive(10, wait=15.0, visibility=60.0))
    h.wait_for(h.backend.queue.delete(message.receipt))
    h.wait_for(h.backend.dead_letters.send([encode(Drive(run.id, step))]))


@pytest.mark.over_the_wire
def test_a_dead_letter_of_a_sound_step_begins_it_again_and_the_run_completes(harness: OpenHarness) -> None:
    shop = open_shop(handler=True)
    h = harness(shop.app)
    h.stop_worker()
    run = h.start(shop.orders, Order(id="a", cents=5))
    bury(h, run, "reserve")
    h.start_worker()
    assert h.settle(run) is RunStatus.COMPLETED
    assert h.steps(run)["reserve"].takeovers == 1
    assert [past.error.partition(":")[0] for past in h.steps(run)["reserve"].failed_attempts] == ["DeadLetter"]
    assert (shop.bodies["reserve"], shop.bodies["release"]) == (1, 0)


def test_a_dead_letter_of_a_step_without_take_overs_fails_it_with_the_reason_and_the_run_with_it(
    harness: OpenHarness,
) -> None:
    app = App("fragile", url="memory://")
    flow = app.workflow("fragile", input=int, output=str)
    handled: list[str] = []

    @flow.step(takeovers=0)
    def once(n: int) -> str:
        raise AssertionError("no body runs behind a dead letter")

    @flow.on_failure
    def release(n: int, why: Failure) -> None:
        handled.append(why.error.type)

    h = harness(app)
    h.stop_worker()
    run = h.start(flow, 1)
    bury(h, run, "once")
    h.start_worker()
    assert h.settle(run) is RunStatus.FAILED
    error = h.steps(run)["once"].error
    assert error is not None
    assert error.type == "DeadLetter"
    assert handled == ["DeadLetter"]


def test_what_is_no_message_of_ours_ends_in_the_dead_letters_and_disturbs_nobody(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    bodies = ["not json", "[]", '{"v":1,"kind":"dance"}', encode(Drive("no-such-run", "x"))]
    h.wait_for(h.backend.dead_letters.send(bodies))
    assert h.run(shop.orders, Order(id="a", cents=5)) == "sent: label-a 5"
    until_in(h, lambda: h.wait_for(h.backend.dead_letters.receive(10, wait=0.0, visibility=0.0)) == [])


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
