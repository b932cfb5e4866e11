"""The holes of the protocol's first design: who owns the work behind a record, and who may write it.

H1 to H17 and R1 to R9 are the names of the review that found them, each closed by a rule of the engine. Nowhere here,
because the kernel has no such thing yet: H5, R2 and R3 (child runs), H6, H7 and R7 (waits), H15 (fan-out over a list),
R1 (timers), R6 (goto).
Every test drives single deliveries and says at which call a worker dies; then two workers finish what is left, and
the run is held to the oracle. `tests/simulation/mutants.py` proves which rule each of them guards.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from detent import App, Retry, RunStatus, StepStatus
from detent.testing.simulation.faults import Fault
from detent_state_machine.messages import Drive, Start, encode
from detent_state_machine.status import Delivery

from tests.simulation.by_hand import FOREVER, Hand, by_hand
from tests.simulation.canonical import LONG, ONE_RETRY, chain
from tests.simulation.workloads import Drawn

ABC = ("a", "b", "c")
ONCE = Drawn("", delivery=Delivery.AT_MOST_ONCE)
EXACTLY = Drawn("", delivery=Delivery.EXACTLY_ONCE)
BEFORE, AFTER = Fault.CRASH_BEFORE, Fault.CRASH_AFTER


# ---- H1, H2: who owns the work behind a record --------------------------------------------------------------------


def test_h1_a_redelivered_head_message_does_not_lose_an_inline_child_that_runs() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        owner = hand.begin(head, "owner")
        await asyncio.sleep(3.0)
        assert hand.statuses() == {"a": "COMPLETED", "b": "RUNNING"}
        assert hand.steps["b"].inline
        assert await hand.handle(await hand.again(head), "walker") == "acknowledged"
        assert hand.queued == ["b"], "a message of its own, before the head's is deleted"
        hand.kill("owner")
        assert await owner == "died"

    hand = by_hand(chain(*ABC, b=LONG), act)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.bodies == {"a": 1, "b": 2, "c": 1}


def test_h1_a_redelivered_head_message_does_not_lose_an_inline_child_that_waits_for_its_retry() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan('send {"v":1,"kind":"drive"', BEFORE, by="owner")
        head = await hand.take()
        assert await hand.handle(head, "owner") == "died"
        assert hand.statuses()["b"] == "RETRYING"
        assert await hand.handle(await hand.again(head), "walker") == "acknowledged"
        assert hand.queued == ["b"]

    hand = by_hand(chain(*ABC, b=ONE_RETRY), act)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.bodies["b"] == 2


@pytest.mark.parametrize("kind", [ONCE, EXACTLY], ids=["at most once", "exactly once"])
def test_h1_a_redelivered_head_message_does_not_lose_a_child_claimed_inline(kind: Drawn) -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#b := RUNNING", AFTER, by="owner")
        head = await hand.take()
        assert await hand.handle(head, "owner") == "died"
        assert await hand.handle(await hand.again(head), "walker") == "acknowledged"
        assert hand.queued == ["b"]

    hand = by_hand(chain(*ABC, b=kind), act)
    if kind is ONCE:
        assert (hand.record.status, hand.bodies["b"]) == (RunStatus.FAILED, 0)
        assert "Interrupted" in str(hand.steps["b"].error)
    else:
        assert (hand.record.status, hand.bodies["b"]) == (RunStatus.COMPLETED, 1)


@pytest.mark.parametrize("last", [*ABC])
def test_h2_a_walk_goes_through_what_an_inline_chain_committed_to_the_first_step_without_a_record(last: str) -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan(f"write step#{last} := COMPLETED", AFTER, by="owner")
        head = await hand.take()
        assert await hand.handle(head, "owner") == "died"
        assert await hand.handle(await hand.again(head), "walker") == "acknowledged"
        assert hand.queued == ["abcd"["abcd".index(last) + 1]]

    hand = by_hand(chain("a", "b", "c", "d"), act, max_hops=10)
    assert hand.record.status is RunStatus.COMPLETED
    assert set(hand.bodies.values()) == {1}


def test_h2_a_walk_does_not_pass_a_step_that_has_not_ended() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        owner = hand.begin(head, "owner")
        await asyncio.sleep(3.0)
        assert await hand.handle(await hand.again(head), "walker") == "acknowledged"
        assert hand.queued == ["b"], "and none for c, which comes after b"
        assert await owner == "acknowledged"

    hand = by_hand(chain(*ABC, b=LONG), act)
    assert hand.bodies == {"a": 1, "b": 1, "c": 1}


def test_h2_a_walk_looks_at_every_branch_of_a_fork() -> None:
    forked = (Drawn("a"), Drawn("b", ("a",)), Drawn("c", ("b",)), Drawn("x", ("a",)), Drawn("y", ("x",)))

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#a := COMPLETED", AFTER, by="owner")
        head = await hand.take()
        assert await hand.handle(head, "owner") == "died"
        assert await hand.handle(await hand.again(head), "walker") == "acknowledged"
        assert hand.queued == ["b", "x"]

    assert by_hand(forked, act).record.status is RunStatus.COMPLETED


def test_a_walk_stops_where_another_message_owns_the_work() -> None:
    """So that a late duplicate does not cascade down a run."""

    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        assert await hand.handle(head) == "acknowledged"  # a, inline; b has a message of its own
        assert await hand.handle(await hand.take("b")) == "acknowledged"
        assert hand.statuses() == {"a": "COMPLETED", "b": "COMPLETED", "c": "COMPLETED"}
        assert hand.queued == ["d"]
        await hand.simulation.backend.queue.send([encode(Start(hand.run))])
        before = len(hand.simulation.gate.trace)
        assert await hand.handle(await hand.take()) == "acknowledged"
        assert hand.queued == ["d"]
        reads = [line for line in hand.simulation.gate.trace[before:] if "get_many" in line]
        assert len(reads) == 2, "a, then b, which was claimed from its own message"

    assert by_hand(chain("a", "b", "c", "d"), act, max_hops=1).record.status is RunStatus.COMPLETED


def test_the_tempting_fix_anyone_may_walk_through_what_was_never_claimed() -> None:
    """A chain whose message a walker deleted commits two steps and dies: the message of the first one must pass the
    second one too, although another chain wrote it.
    """

    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        owner = hand.begin(head, "owner")
        await asyncio.sleep(0.3)  # in the body of a, which has no record yet
        assert await hand.handle(await hand.again(head), "walker") == "acknowledged"
        assert hand.queued == ["a"]
        hand.plan("write step#b := COMPLETED", AFTER, by="owner")
        assert await owner == "died"
        assert await hand.handle(await hand.take("a"), "late") == "acknowledged"
        assert hand.queued == ["c"]

    hand = by_hand(chain(*ABC, a=Drawn("", seconds=0.8)), act)
    assert hand.bodies == {"a": 1, "b": 1, "c": 1}


# ---- the fence, and what is not deleted ---------------------------------------------------------------------------


def test_a_zombie_commits_nothing_and_deletes_nothing() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        zombie = hand.begin(await hand.take("b"), "zombie")
        await asyncio.sleep(1.5)  # after a heartbeat
        hand.machine("zombie").pause(34.0)
        await asyncio.sleep(33.0)
        heir = hand.begin(await hand.take("b"), "heir")
        assert await zombie == "left", "its body has ended, and its commit is refused"
        assert (hand.statuses()["b"], hand.steps["b"].takeovers) == ("RUNNING", 1)
        assert hand.queued == ["b"], "and the heir's delivery is still there"
        assert await heir == "acknowledged"

    hand = by_hand(chain(*ABC, b=Drawn("", seconds=2.0, delivery=Delivery.EXACTLY_ONCE)), act, max_hops=0)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.bodies["b"] == 2


def test_a_worker_that_lost_its_lease_learns_of_it_at_its_next_heartbeat_and_stops() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan("extend", Fault.PAUSE, by="zombie")
        slow = hand.begin(await hand.take("b"), "zombie")
        await asyncio.sleep(35.0)
        heir = hand.begin(await hand.take("b"), "heir")
        assert await slow == "left"
        assert hand.steps["b"].status is StepStatus.RUNNING, "it stopped in the middle of its body"
        assert await heir == "acknowledged"

    hand = by_hand(chain(*ABC, b=Drawn("", seconds=300.0, timeout=900.0)), act, max_hops=0)
    assert hand.bodies["b"] == 2


def test_a_retry_is_not_claimed_before_it_is_due() -> None:
    step = Drawn("", errors=1, retry=Retry(attempts=2, initial=20.0, jitter=False))

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        await hand.simulation.backend.queue.send([encode(Drive(hand.run, "b"))])
        early = await hand.take("b")
        assert await hand.handle(early) == "acknowledged"
        assert (hand.statuses()["b"], hand.queued) == ("RETRYING", ["b", "b"])
        await hand.drive("b")
        assert hand.now > 20.0

    hand = by_hand(chain(*ABC, b=step), act)
    assert (hand.record.status, hand.bodies["b"]) == (RunStatus.COMPLETED, 2)


def test_a_take_over_is_refused_by_a_heartbeat_that_came_first() -> None:
    """The heir has seen an expired lease; before it writes, the owner comes back to life and renews it."""

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan("write step#b := RUNNING", Fault.UNKNOWN, by="owner", times=0)
        owner = hand.begin(await hand.take("b"), "owner")
        await asyncio.sleep(3.0)
        beats = hand.simulation.invariants.changes["step run: heartbeat"]
        assert beats == 1
        machine = hand.machine("owner")
        machine.pause(29.5)
        await asyncio.sleep(27.9)
        hand.simulation.rng.seed(2)  # the slow write lands after the owner's return, in the lease that it renews
        heir = hand.begin(await hand.take("b"), "heir")
        hand.plan("write step#b := RUNNING", Fault.SLOW, by="heir")
        assert await heir == "acknowledged"
        assert await owner == "acknowledged"
        assert hand.steps["b"].takeovers == 0

    hand = by_hand(chain(*ABC, b=replace(EXACTLY, seconds=60.0, timeout=300.0)), act, max_hops=0)
    assert hand.bodies["b"] == 1


def test_an_effect_is_applied_with_its_step_or_not_at_all() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("transact step#b := COMPLETED", AFTER, by="owner")
        hand.plan("transact", AFTER, by="owner")
        assert await hand.handle(await hand.take(), "owner") == "died"
        assert hand.effect("b") == int(hand.statuses()["b"] == "COMPLETED") == 1

    hand = by_hand(chain(*ABC, b=EXACTLY), act)
    assert hand.record.status is RunStatus.COMPLETED


def test_a_retried_run_and_its_old_one_do_not_both_apply_an_effect() -> None:
    """The worker of a cancelled run commits after the run was retried."""

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("transact step#b := COMPLETED", Fault.SLOW, by="late")
        late = hand.begin(await hand.take(), "late")
        await asyncio.sleep(0.5)
        assert hand.statuses()["b"] == "RUNNING"
        await hand.client().cancel(hand.run)
        hand.simulation.boot()
        again = await hand.simulation.retry(hand.run)
        assert again is not None
        await hand.simulation.ended(again)
        assert hand.effect("b") == 1
        await late
        assert hand.effect("b") == 1

    by_hand(chain(*ABC, b=EXACTLY), act)


def test_r5_what_follows_a_step_sees_the_committed_output_not_the_one_of_a_loser() -> None:
    app = App("r5", url="memory://")
    flow = app.workflow("r5", input=int)
    tries: list[int] = []

    @flow.step
    async def think(n: int) -> int:
        tries.append(n)
        mine = len(tries)
        await asyncio.sleep(2.0)
        return mine

    @flow.step
    def act_on(thought: int = think.output) -> int:
        return thought

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("extend", Fault.PAUSE, by="zombie")
        slow = hand.begin(await hand.take(), "zombie")
        await asyncio.sleep(32.0)
        assert await hand.handle(await hand.take(), "walker") == "acknowledged"
        assert await hand.handle(await hand.take("think"), "heir") == "acknowledged"
        assert await slow == "left"

    hand = by_hand(app, act)
    assert len(tries) == 2
    outputs = {path: step.output.text for path, step in hand.steps.items() if step.output}
    assert outputs == {"think": "2", "act_on": "2"}


def test_nothing_is_acknowledged_before_what_follows_is_sent() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan('send {"v":1,"kind":"drive"', Fault.REFUSED, times=FOREVER, by="owner")
        head = await hand.take()
        assert await hand.handle(head, "owner") == "left"
        assert hand.queued == ["@start"]

    hand = by_hand((Drawn("a"), Drawn("b", ("a",)), Drawn("c", ("a",))), act)
    assert hand.bodies == {"a": 1, "b": 1, "c": 1}
