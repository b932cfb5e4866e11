"""The holes of the protocol's first design: failures, ends, poison, cancels and purges.

See test_regressions_ownership.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from detent import Retry, RunStatus, StepStatus
from detent.testing.simulation.faults import Fault
from detent_infra.ports import Timing
from detent_infra.runs.reaper import reap
from detent_state_machine.messages import Drive, Start, encode
from detent_state_machine.status import Delivery

from tests.simulation.by_hand import FOREVER, Hand, by_hand
from tests.simulation.canonical import CANONICAL, FAILS, LONG, Canonical, chain
from tests.simulation.workloads import Drawn

ABC = ("a", "b", "c")
ONCE = Drawn("", delivery=Delivery.AT_MOST_ONCE)
EXACTLY = Drawn("", delivery=Delivery.EXACTLY_ONCE)
BEFORE, AFTER = Fault.CRASH_BEFORE, Fault.CRASH_AFTER


# ---- H3, H4: failure handlers and several ends --------------------------------------------------------------------


@pytest.mark.parametrize(("text", "fault"), [("write run := FAILING", AFTER), ("write step#b := FAILED", AFTER)])
def test_h3_a_failure_handler_runs_though_its_worker_died_as_the_run_began_to_fail(text: str, fault: Fault) -> None:
    steps = (*chain("a", "b", b=FAILS), Drawn("h", scope="on_failure"), Drawn("i", ("h",), scope="on_failure"))

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan(text, fault, by="owner")
        assert await hand.handle(await hand.take(), "owner") == "died"

    hand = by_hand(steps, act)
    assert hand.record.status is RunStatus.FAILED
    assert (hand.bodies["h"], hand.bodies["i"]) == (1, 1)


def test_h3_in_a_failing_run_nothing_but_handlers_starts() -> None:
    steps = (Drawn("a"), replace(FAILS, name="b", parents=("a",)), Drawn("c", ("a",)), Drawn("h", scope="on_failure"))

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write run := FAILING", AFTER, by="owner")
        assert await hand.handle(await hand.take(), "owner") == "died"
        assert hand.record.status is RunStatus.FAILING
        assert await hand.handle(await hand.take("c")) == "acknowledged"
        assert hand.statuses().get("c", "CANCELLED") == "CANCELLED"

    hand = by_hand(steps, act)
    assert (hand.bodies["c"], hand.bodies["h"]) == (0, 1)


def test_h4_a_run_with_several_last_steps_does_not_end_with_the_first_of_them() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        assert await hand.handle(await hand.take()) == "acknowledged"
        assert hand.statuses() == {"a": "COMPLETED", "b": "COMPLETED"}
        assert hand.record.status is RunStatus.RUNNING
        assert hand.queued == ["c"]

    hand = by_hand((Drawn("a"), Drawn("b", ("a",)), Drawn("c", ("a",))), act)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.bodies == {"a": 1, "b": 1, "c": 1}


# ---- H8, H9, H10: dead letters, poison, take-overs ----------------------------------------------------------------


def test_h8_a_dead_letter_under_a_live_lease_is_handed_back_to_the_main_queue() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        own = await hand.take("b")
        owner = hand.begin(own, "owner")
        await asyncio.sleep(0.3)
        assert hand.statuses()["b"] == "RUNNING"
        # The owner's own message may be the one that became a dead letter.
        await hand.simulation.queues[0].delete(own.receipt)
        await hand.simulation.backend.dead_letters.send([encode(Drive(hand.run, "b"))])
        assert await hand.handle(await hand.take("b", dead=True), "undertaker", dead=True) == "acknowledged"
        assert hand.queued == ["b"]
        hand.kill("owner")
        assert await owner == "died"

    hand = by_hand(chain(*ABC, b=replace(EXACTLY, seconds=0.9)), act, max_hops=0)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.bodies["b"] == 2


def test_h8_a_dead_letter_of_an_ended_step_walks_and_what_follows_it_is_not_dead() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        head = await hand.take()
        hand.plan("write step#a := COMPLETED", AFTER, by="owner")
        assert await hand.handle(head, "owner") == "died"
        await hand.simulation.queues[0].delete((await hand.again(head)).receipt)
        await hand.simulation.backend.dead_letters.send([encode(Start(hand.run, fresh=True))])
        hand.simulation.invariants.purged.add(hand.run)
        assert await hand.handle(await hand.take(dead=True), dead=True) == "acknowledged"
        assert hand.queued == ["b"]
        assert hand.bodies["b"] == 0

    hand = by_hand(chain(*ABC), act)
    assert hand.record.status is RunStatus.COMPLETED


def test_h8_what_follows_a_dead_letter_is_not_dead_it_is_sent_and_runs_elsewhere() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")  # a, inline; b gets a message
        own = await hand.take("b")
        hand.simulation.invariants.purged.add(hand.run)  # the queue itself moves it over
        await hand.simulation.queues[0].delete(own.receipt)
        await hand.simulation.backend.dead_letters.send([encode(Drive(hand.run, "b"))])
        assert await hand.handle(await hand.take("b", dead=True), dead=True) == "acknowledged"
        assert "DeadLetter" in str(hand.steps["b"].error)
        assert (hand.queued, hand.bodies) == (["h"], {"a": 1})
        assert "h" not in hand.steps

    steps = (*chain(*ABC, b=Drawn("", takeovers=0)), Drawn("h", scope="on_failure"))
    hand = by_hand(steps, act, max_hops=1)
    assert (hand.record.status, hand.bodies) == (RunStatus.FAILED, {"a": 1, "h": 1})


async def buried(hand: Hand, path: str, worker: str = "undertaker") -> str:
    """The path's message becomes a dead letter, as the queue itself makes it one, and is handled."""
    own = await hand.take(path)
    hand.simulation.invariants.purged.add(hand.run)  # no longer in the main queue, for a moment
    await hand.simulation.queues[0].delete(own.receipt)
    await hand.simulation.queues[1].send([own.body])
    hand.simulation.invariants.purged.discard(hand.run)
    return await hand.handle(await hand.take(path, dead=True), worker, dead=True)


@pytest.mark.parametrize("kind", [Drawn(""), EXACTLY, ONCE], ids=["at least once", "exactly once", "at most once"])
def test_a_dead_letter_of_a_step_that_has_not_begun_lets_it_begin_with_a_new_message(kind: Drawn) -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        assert await buried(hand, "b") == "acknowledged"
        assert (hand.statuses()["b"], hand.steps["b"].takeovers, hand.queued) == ("RETRYING", 1, ["b"])
        assert hand.bodies == {"a": 1}, "no body runs behind a dead letter"

    hand = by_hand(chain(*ABC, b=kind), act, max_hops=0)
    assert (hand.record.status, hand.bodies) == (RunStatus.COMPLETED, {"a": 1, "b": 1, "c": 1})
    assert (hand.steps["b"].takeovers, hand.steps["b"].errors) == (1, 0)


def test_a_dead_letter_of_a_step_whose_worker_died_lets_it_begin_again() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan("write step#b := RUNNING", AFTER, by="owner")
        assert await hand.handle(await hand.take("b"), "owner") == "died"
        await asyncio.sleep(40.0)
        assert await buried(hand, "b") == "acknowledged"
        assert (hand.statuses()["b"], hand.steps["b"].inline, hand.queued) == ("RETRYING", False, ["b"])

    hand = by_hand(chain(*ABC, b=EXACTLY), act, max_hops=0)
    assert (hand.record.status, hand.bodies["b"], hand.steps["b"].takeovers) == (RunStatus.COMPLETED, 1, 1)


def test_a_dead_letter_whose_worker_dies_before_it_sends_the_new_message_comes_back() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan("write step#b := RETRYING", AFTER, by="undertaker")
        assert await buried(hand, "b") == "died"
        assert (hand.statuses()["b"], hand.queued) == ("RETRYING", [])

    hand = by_hand(chain(*ABC), act, max_hops=0)
    assert (hand.record.status, hand.bodies["b"], hand.steps["b"].takeovers) == (RunStatus.COMPLETED, 1, 2)


def test_a_dead_letter_whose_write_was_not_answered_sends_the_new_message() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan("write step#b := RETRYING", Fault.UNKNOWN, by="undertaker")
        assert await buried(hand, "b") == "acknowledged"
        assert (hand.steps["b"].takeovers, hand.queued) == (1, ["b"])

    assert by_hand(chain(*ABC), act, max_hops=0).record.status is RunStatus.COMPLETED


def test_an_owner_that_comes_back_before_its_dead_letter_is_handled_keeps_its_result() -> None:
    """The undertaker has seen an expired lease; before it writes, the owner wakes and commits."""

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        own = await hand.take("b")
        owner = hand.begin(own, "owner")
        await asyncio.sleep(1.5)  # after a heartbeat
        hand.machine("owner").pause(34.0)
        await asyncio.sleep(33.0)
        hand.plan("write step#b := RETRYING", Fault.SLOW, by="undertaker")
        assert await buried(hand, "b") == "acknowledged"
        assert hand.statuses()["b"] == "COMPLETED"
        assert await owner == "acknowledged"

    hand = by_hand(chain(*ABC, b=replace(EXACTLY, seconds=3.0)), act, max_hops=0)
    assert (hand.record.status, hand.bodies["b"], hand.steps["b"].takeovers) == (RunStatus.COMPLETED, 1, 0)


def test_an_owner_that_comes_back_after_its_dead_letter_was_handled_commits_nothing() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        owner = hand.begin(await hand.take("b"), "owner")
        await asyncio.sleep(1.5)
        hand.machine("owner").pause(36.0)
        await asyncio.sleep(33.0)
        assert await buried(hand, "b") == "acknowledged"
        assert await owner == "left"
        assert (hand.statuses()["b"], hand.queued) == ("RETRYING", ["b"])

    hand = by_hand(chain(*ABC, b=replace(EXACTLY, seconds=3.0)), act, max_hops=0)
    assert (hand.record.status, hand.bodies["b"]) == (RunStatus.COMPLETED, 2)


@pytest.mark.parametrize(("dies", "bodies"), [("write step#b := RUNNING", 0), ("write step#b := COMPLETED", 1)])
def test_a_dead_letter_of_an_at_most_once_step_that_was_claimed_ends_it(dies: str, bodies: int) -> None:
    """Whether its body has begun or not: nobody can know that."""

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        hand.plan(dies, BEFORE if bodies else AFTER, by="owner")
        assert await hand.handle(await hand.take("b"), "owner") == "died"
        await asyncio.sleep(40.0)
        assert await buried(hand, "b") == "acknowledged"

    hand = by_hand(chain(*ABC, b=ONCE), act, max_hops=0)
    assert (hand.record.status, hand.bodies["b"]) == (RunStatus.FAILED, bodies)
    assert "DeadLetter" in str(hand.steps["b"].error)


def test_a_worker_that_claims_an_at_most_once_step_behind_its_dead_letter_is_refused() -> None:
    """Both saw no record. The step begins once all the same, on the message that the dead letter was answered with."""

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a")
        await hand.simulation.backend.dead_letters.send([encode(Drive(hand.run, "b"))])
        hand.plan("write step#b := RUNNING", Fault.SLOW, by="late")
        late = hand.begin(await hand.take("b"), "late")
        assert await hand.handle(await hand.take("b", dead=True), "undertaker", dead=True) == "acknowledged"
        assert (hand.statuses()["b"], hand.steps["b"].takeovers) == ("RETRYING", 1)
        await late

    hand = by_hand(chain(*ABC, b=ONCE), act, max_hops=0)
    assert (hand.record.status, hand.bodies["b"]) == (RunStatus.COMPLETED, 1)


@pytest.mark.parametrize("takeovers", [0, 1, 3])
def test_a_message_that_no_worker_can_handle_ends_its_step_when_the_take_overs_are_used_up(takeovers: int) -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#b := RUNNING", Fault.REFUSED, times=FOREVER)  # whoever tries, however often

    hand = by_hand(chain(*ABC, b=replace(EXACTLY, takeovers=takeovers)), act, max_hops=0, max_receives=3)
    assert (hand.record.status, hand.bodies) == (RunStatus.FAILED, {"a": 1})
    assert hand.steps["b"].takeovers == takeovers
    assert "DeadLetter" in str(hand.steps["b"].error)
    assert hand.now < 600.0 * (takeovers + 1)


def test_a_step_beside_one_that_kills_its_workers_is_not_failed_with_it() -> None:
    """What a batch of SQS does to a sound step: its worker dies again and again, and it is not to blame."""
    steps = (Drawn("a"), replace(EXACTLY, name="b", takeovers=5), replace(EXACTLY, name="sound", takeovers=5))

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#sound := RUNNING", BEFORE, times=9)

    hand = by_hand(steps, act, max_hops=0, max_receives=3)
    assert hand.record.status is RunStatus.COMPLETED
    assert hand.steps["sound"].takeovers == 3


@pytest.mark.parametrize("lease", [30.0, 60.0], ids=["lease as long as visibility", "lease longer"])
@pytest.mark.parametrize("kind", [Drawn(""), EXACTLY], ids=["inline", "claimed"])
def test_h9_a_body_that_kills_every_worker_ends_its_run(kind: Drawn, lease: float) -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        text = "transact step#b := COMPLETED" if kind is EXACTLY else "write step#b := COMPLETED"
        hand.plan(text, BEFORE, times=FOREVER)

    hand = by_hand(chain(*ABC, b=replace(kind, takeovers=3)), act, timing=Timing(lease=lease, visibility=30.0))
    assert hand.record.status is RunStatus.FAILED
    assert hand.steps["b"].takeovers == 3
    assert "Interrupted" in str(hand.steps["b"].error)
    assert 4 <= hand.bodies["b"] <= 6, "a claim and three take-overs, and before them perhaps two that did not claim"


def test_h10_a_worker_that_dies_does_not_use_up_an_attempt() -> None:
    step = Drawn("", errors=1, retry=Retry(attempts=2, initial=0.5), delivery=Delivery.EXACTLY_ONCE)

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#b := RUNNING", AFTER)
        assert await hand.handle(await hand.take(), "owner") == "died"

    hand = by_hand(chain(*ABC, b=step), act)
    assert hand.record.status is RunStatus.COMPLETED
    assert (hand.steps["b"].takeovers, hand.steps["b"].errors) == (1, 1)


# ---- H13, H14: cancel and purge -----------------------------------------------------------------------------------


def test_h13_a_cancel_reaches_a_chain_of_steps_too_short_for_a_heartbeat() -> None:
    steps = chain(*(f"s{n}" for n in range(12)), **{f"s{n}": Drawn("", seconds=0.9) for n in range(12)})

    async def act(hand: Hand) -> None:
        await hand.start()
        working = hand.begin(await hand.take(), "owner")
        await asyncio.sleep(0.5)
        await hand.client().cancel(hand.run)
        assert await working == "acknowledged"

    hand = by_hand(steps, act, max_hops=20)
    assert hand.record.status is RunStatus.CANCELLED
    heartbeat = Timing().heartbeat
    assert len(hand.bodies) <= heartbeat / 0.9 + 1, "none began later than a heartbeat, plus the step in progress"


def test_h13_a_cancel_stops_the_step_in_progress_at_its_next_heartbeat() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        working = hand.begin(await hand.take(), "owner")
        await asyncio.sleep(2.0)
        await hand.client().cancel(hand.run)
        assert await working == "acknowledged"

    hand = by_hand(chain("a", "b", a=LONG), act)
    assert {path: step.status for path, step in hand.steps.items()} == {"a": StepStatus.CANCELLED}
    assert hand.bodies == {"a": 1}


SURVIVORS = [one for one in CANONICAL if one.script.__name__ == "once"]


@pytest.mark.parametrize("canonical", SURVIVORS, ids=lambda one: one.name)
def test_h14_after_a_purge_of_the_queue_the_reaper_finds_every_step_that_nobody_drives(canonical: Canonical) -> None:
    moments = (0.01, 0.05, 0.1, 0.5, 2.5)

    def purged(moment: float) -> Callable[[Hand], Awaitable[None]]:
        async def act(hand: Hand) -> None:
            await hand.start()
            hand.simulation.boot()
            await asyncio.sleep(moment)
            hand.simulation.deploy(graceful=False)
            hand.simulation.purge()

        return act

    for moment in moments:
        hand = by_hand(canonical.steps, purged(moment), max_hops=canonical.max_hops)
        assert not hand.record.status.live


def test_h14_the_reaper_sends_for_a_claimed_step_in_the_middle() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start", "a", "b")
        assert hand.queued == ["c"]
        hand.simulation.purge()
        await asyncio.sleep(1000.0)
        report = await reap(hand.simulation.backend)
        assert (report.stalled, hand.queued) == (1, ["@start", "b"]), "b ended, and c has no record"

    hand = by_hand(chain(*ABC), act, max_hops=0)
    assert hand.bodies == {"a": 1, "b": 1, "c": 1}


# ---- R4, R8, R9 ---------------------------------------------------------------------------------------------------


def test_r4_a_failure_handler_of_a_good_run_costs_nothing_and_leaves_no_record() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()

    steps = (*chain("a", "b"), Drawn("h", scope="on_failure"), Drawn("i", ("h",), scope="on_failure"))
    hand = by_hand(steps, act)
    assert hand.record.status is RunStatus.COMPLETED
    assert set(hand.steps) == {"a", "b"}


def test_r8_a_batch_that_was_sent_in_part_is_not_acknowledged() -> None:
    roots = tuple(Drawn(f"r{n}") for n in range(5))

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan('send {"v":1,"kind":"drive"', Fault.PARTIAL, by="owner")
        head = await hand.take()
        assert await hand.handle(head, "owner") == "left"
        assert hand.queued == ["@start", "r1", "r2"]

    hand = by_hand((*roots, Drawn("j", tuple(step.name for step in roots))), act)
    assert hand.record.status is RunStatus.COMPLETED
    assert set(hand.bodies) == {"r0", "r1", "r2", "r3", "r4", "j"}


def test_r9_a_crash_in_a_short_step_is_made_good_within_a_visibility_and_a_lease() -> None:
    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#b := COMPLETED", BEFORE)

    hand = by_hand(chain(*ABC), act)
    assert hand.now < Timing().visibility + 10
