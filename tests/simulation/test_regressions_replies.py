"""The holes of the protocol's first design: lost replies, duplicates, stale reads, lost payloads.

See test_regressions_ownership.py.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace

import pytest
from detent import Retry, RunStatus
from detent.testing.simulation.faults import Fault
from detent.testing.simulation.world import Simulation
from detent_infra.ports import Timing
from detent_infra.runs.start import NewRun
from detent_state_machine.messages import Start, encode
from detent_state_machine.status import Delivery

from tests.simulation.by_hand import FOREVER, VALUE, Hand, by_hand
from tests.simulation.canonical import CANONICAL, FAILS, ONE_RETRY, Canonical, Done, chain
from tests.simulation.enumerate import perform
from tests.simulation.workloads import FOREVER as ALWAYS
from tests.simulation.workloads import Drawn, Workload

ABC = ("a", "b", "c")
ONCE = Drawn("", delivery=Delivery.AT_MOST_ONCE)
EXACTLY = Drawn("", delivery=Delivery.EXACTLY_ONCE)
BEFORE, AFTER = Fault.CRASH_BEFORE, Fault.CRASH_AFTER


# ---- H11, H12: replies that are lost ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.REPEATED, Fault.UNKNOWN, AFTER])
def test_h11_a_start_that_was_stored_but_not_sent_is_sent_by_the_next_try(fault: Fault) -> None:
    async def act(hand: Hand) -> None:
        hand.plan("write put run", fault)
        await hand.start()
        assert hand.queued == ["@start"]

    assert by_hand(chain(*ABC), act).record.status is RunStatus.COMPLETED


def test_h11_a_second_start_with_one_key_sends_what_the_first_one_could_not() -> None:
    async def act(hand: Hand) -> None:
        hand.plan('send {"v":1,"kind":"start"', BEFORE, by="dying")
        [app] = hand.simulation.apps
        definition = app.workflows["drawn"].definition
        new = NewRun(json.dumps(VALUE), key="order-17")
        starting = asyncio.ensure_future(hand.client("dying").start(definition, new))
        await asyncio.wait({starting})
        assert hand.queued == []
        hand.run = await hand.simulation.start(app, new, "drawn")
        assert hand.queued == ["@start"]

    assert by_hand(chain(*ABC), act).record.status is RunStatus.COMPLETED


@pytest.mark.parametrize("fault", [Fault.REPEATED, Fault.UNKNOWN])
@pytest.mark.parametrize("text", ["write step#b := RUNNING", "write step#b := COMPLETED"])
def test_h12_a_writer_whose_reply_was_lost_knows_its_own_write(text: str, fault: Fault) -> None:
    """Otherwise an at_most_once step is called interrupted, and its body never ran."""

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan(text, fault)
        assert await hand.handle(await hand.take()) == "acknowledged"
        assert hand.statuses()["b"] == "COMPLETED"

    hand = by_hand(chain(*ABC, b=ONCE), act)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.bodies["b"] == 1
    assert hand.now < 10, "and does not wait for a lease"


@pytest.mark.parametrize("status", ["RETRYING", "FAILED"])
def test_h12_so_does_one_that_wrote_an_error(status: str) -> None:
    step = ONE_RETRY if status == "RETRYING" else FAILS

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan(f"write step#b := {status}", Fault.REPEATED)
        assert await hand.handle(await hand.take()) == "acknowledged"
        assert hand.steps["b"].errors == 1

    hand = by_hand(chain(*ABC, b=step), act)
    assert hand.now < 10


# ---- H16, H17: duplicates and stale reads -------------------------------------------------------------------------


def test_h16_a_duplicate_of_a_chains_message_runs_no_body_while_its_owner_lives() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        owner = hand.begin(head, "owner")
        await asyncio.sleep(0.4)
        assert await hand.handle(await hand.again(head), "second") == "acknowledged"
        assert hand.bodies == {"a": 1}
        assert await owner == "acknowledged"

    hand = by_hand(chain(*ABC, a=Drawn("", seconds=0.9), b=Drawn("", seconds=0.9)), act)
    assert set(hand.bodies.values()) == {1}


def test_h16_a_start_sent_again_walks_and_runs_nothing() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.simulation.backend.queue.send([encode(Start(hand.run))])
        await hand.simulation.queues[0].delete((await hand.take()).receipt)  # the fresh one
        before = hand.now
        assert await hand.handle(await hand.take()) == "acknowledged"
        assert hand.bodies == {}
        await hand.take("a")
        assert hand.now - before >= 2 * Timing().first_heartbeat, "late enough for an owner in its first second"

    assert by_hand(chain(*ABC), act, workers=2).record.status is RunStatus.COMPLETED


def test_h16_an_arrival_that_is_repeated_does_not_stand_for_another_one() -> None:
    steps = (Drawn("a"), Drawn("b"), Drawn("j", ("a", "b"), delivery=Delivery.EXACTLY_ONCE))

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write join##j", Fault.REPEATED, times=FOREVER)
        await hand.drive("@start")
        assert hand.statuses() == {"a": "COMPLETED"}
        await hand.drive("b")
        assert hand.statuses() == {"a": "COMPLETED", "b": "COMPLETED", "j": "COMPLETED"}

    hand = by_hand(steps, act)
    assert hand.bodies == {"a": 1, "b": 1, "j": 1}


@pytest.mark.parametrize("canonical", CANONICAL, ids=lambda one: one.name)
def test_h17_nothing_is_decided_on_the_index_which_may_lag(canonical: Canonical) -> None:
    """Every workflow ends as it must though the index never answers. Table reads are strongly consistent (the ports say
    so, tests/unit/test_aws_table.py holds the adapter to it).
    """

    async def without_index(simulation: Simulation, workload: Workload) -> Done:
        simulation.outage("query_index", math.inf)
        return await canonical.script(simulation, workload)

    perform(replace(canonical, script=without_index), {})


# ---- a payload that is gone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("needs", ["the body", "the condition"])
def test_a_step_whose_payload_is_gone_fails_with_an_error_that_names_it(needs: str) -> None:
    large = Drawn("a", large=True)
    after = Drawn("b", ("a",)) if needs == "the body" else Drawn("b", after=("a",), when_output="a")

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan("blob get", Fault.MISSING)
        assert await hand.handle(await hand.take("b")) == "acknowledged"

    hand = by_hand((large, after, Drawn("h", scope="on_failure")), act, max_hops=0)
    error = hand.steps["b"].error
    assert hand.record.status is RunStatus.FAILED
    assert error is not None
    assert (error.type, "is missing from the blob store" in error.message) == ("CorruptRecord", True)
    assert hand.bodies == {"a": 1, "h": 1}


def test_a_payload_that_is_gone_fails_its_step_though_a_worker_had_claimed_it_and_died() -> None:
    """The condition could be evaluated then, and cannot now: whoever comes next takes over before it ends the step."""
    condition = Drawn("b", after=("a",), when_output="a", delivery=Delivery.EXACTLY_ONCE)

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan("write step#b := RUNNING", Fault.CRASH_AFTER)
        assert await hand.handle(await hand.take("b")) == "died"
        hand.plan("blob get", Fault.MISSING)
        assert await hand.handle(await hand.take("b")) == "acknowledged"

    hand = by_hand((Drawn("a", large=True), condition), act, max_hops=0)
    assert hand.record.status is RunStatus.FAILED
    assert "CorruptRecord" in str(hand.steps["b"].error)
    assert (hand.bodies, hand.steps["b"].takeovers) == ({"a": 1}, 1)


def test_a_payload_that_could_not_be_read_is_read_by_the_next_delivery() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan("blob get", Fault.REFUSED, times=2)
        assert await hand.handle(await hand.take("b")) == "left"

    hand = by_hand((Drawn("a", large=True), Drawn("b", ("a",))), act, max_hops=0)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.bodies == {"a": 1, "b": 1}


def test_a_step_that_always_fails_is_tried_as_often_as_its_policy_says_and_no_more() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()

    hand = by_hand((Drawn("a", errors=ALWAYS, retry=Retry(attempts=4, initial=0.5)),), act)
    assert (hand.bodies["a"], hand.steps["a"].errors) == (4, 4)
