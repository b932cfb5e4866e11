"""Crashes, duplicates, poison and lost messages, on every backend."""

from __future__ import annotations

import asyncio

import pytest
from detent import App, Failure, RunFailed, RunHandle, RunStatus, StepStatus
from detent.testing import Harness
from detent_infra.ports import Timing
from detent_infra.runs.reaper import reap
from detent_state_machine.keys import run_key
from detent_state_machine.messages import Drive, Message, Start, encode
from detent_state_machine.writes import Update

from tests.scenarios.conftest import OpenHarness
from tests.scenarios.shop import Order, open_shop
from tests.scenarios.waiting import until, until_step


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


def test_the_reaper_revives_a_run_whose_messages_were_lost(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    h.stop_worker()
    run = h.start(shop.orders, Order(id="a", cents=5))
    [lost] = h.wait_for(h.backend.queue.receive(10, wait=15.0, visibility=30.0))
    h.wait_for(h.backend.queue.delete(lost.receipt))
    age(h, run.id, h.backend.timing.reap_after + 60)
    report = h.wait_for(reap(h.backend))
    assert (report.looked, report.stalled, report.sent) == (1, 1, 1)
    h.start_worker()
    assert h.result(run) == "sent: label-a 5"


def test_the_reaper_leaves_young_and_ended_runs_alone(harness: OpenHarness) -> None:
    shop = open_shop()
    h = harness(shop.app)
    done = h.start(shop.orders, Order(id="a", cents=5))
    h.result(done)
    h.stop_worker()
    h.start(shop.orders, Order(id="b", cents=5))
    report = h.wait_for(reap(h.backend))
    assert (report.looked, report.sent) == (0, 0)


def age(h: Harness, run_id: str, seconds: float) -> None:
    """Makes a live run look older than it is."""
    run = h.wait_for(h.client.lifecycle.get(run_id))
    created = run.created - int(seconds * 1000)
    item = h.wait_for(h.backend.table.get(run_key(run_id))) or {}
    isk = str(item["isk"]).replace(f"{run.created:015d}", f"{created:015d}")
    h.wait_for(h.backend.table.write(Update(run_key(run_id), None, {"created": created, "isk": isk})))


def test_a_message_for_a_step_this_code_does_not_have_waits_for_code_that_does() -> None:
    old, new = App(url="memory://"), App(url="memory://")
    for app, steps in ((old, 1), (new, 2)):
        flow = app.workflow("w", input=int)

        @flow.step
        def one(n: int) -> int:
            return n

        if steps == 2:

            @flow.step
            def two(n: int = one.output) -> int:
                return n + 1

    from detent_infra.memory import memory_backend

    backend = memory_backend(timing=Timing(lease=0.5, visibility=0.5, heartbeat=0.1, first_heartbeat=0.1))
    with Harness(old, backend=backend) as before:
        flow2 = new.workflows["w"]
        run = before.start(flow2, 1)  # started by new code, driven by old code
        until_step(before, run, "one", StepStatus.COMPLETED)
        assert "two" not in before.steps(run)
        before.stop_worker()
        with Harness(new, backend=backend) as after:
            assert after.result(run) == 2


def test_a_run_in_flight_follows_the_definition_it_was_started_with() -> None:
    from detent_infra.memory import memory_backend

    backend = memory_backend()
    old, new = App(url="memory://"), App(url="memory://")
    flow = old.workflow("w", input=int)

    @flow.step
    def one(n: int) -> int:
        return n

    changed = new.workflow("w", input=int)

    @changed.step(name="one")
    def one_now(n: int) -> int:
        return n

    @changed.step
    def two(n: int = one_now.output) -> int:
        return n + 1

    with Harness(old, backend=backend) as before:
        before.stop_worker()
        run = before.start(flow, 1)
        with Harness(new, backend=backend) as after:
            assert after.result(run) == 1
            assert set(after.steps(run)) == {"one"}
            assert after.result(after.start(changed, 1)) == 2


def bury(h: Harness, run: RunHandle[str], step: str) -> None:
    """The run's only message becomes a dead letter about this step."""
    [message] = h.wait_for(h.backend.queue.receive(10, wait=15.0, visibility=60.0))
    h.wait_for(h.backend.queue.delete(message.receipt))
    h.wait_for(h.backend.dead_letters.send([encode(Drive(run.id, step))]))


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
    until(h, lambda: h.wait_for(h.backend.dead_letters.receive(10, wait=0.0, visibility=0.0)) == [])
