"""The invariants can fail: each is shown the one thing that it forbids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from detent import App
from detent.testing.simulation.faults import Fault, Machine
from detent.testing.simulation.invariants import Invariants, ObservedTable, Violation
from detent.testing.simulation.world import Simulation
from detent_infra.memory import Store
from detent_state_machine import keys, run_transitions, transitions
from detent_state_machine.begin import begin
from detent_state_machine.decisions import Go, Here, Transition
from detent_state_machine.definition import StepDefinition
from detent_state_machine.graph import graph_of
from detent_state_machine.messages import Drive, Start, encode
from detent_state_machine.records import NULL, ErrorInfo, NoRecord, RunRecord, seen_of
from detent_state_machine.status import Delivery, RunStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.transitions import Change
from detent_state_machine.turn import Moment, Turn, Writer
from detent_state_machine.writes import DeleteItem, PutItem, UpdateItem, apply

from tests.simulation.by_hand import VALUE, Hand, by_hand
from tests.simulation.check import check_end
from tests.simulation.workloads import Drawn, build

A = StepPath("a")
RUN = "r1"
EXPIRES = 4_000_000_000


class World:
    """A table under observation, with one live run of a -> b."""

    def __init__(self) -> None:
        app = App("w", url="memory://")
        flow = app.workflow("w", input=int)
        a = flow.step(name="a")(lambda n: n)
        flow.step(name="b", after=[a])(lambda n: n)
        graph = graph_of(flow.definition)
        self.now = 1_000
        self.store = Store()
        self.invariants = Invariants(lambda _workflow, _version: graph, self.store.items.get, lambda: self.now)
        self.table = ObservedTable(self.store, self.invariants.on_write)
        self.run = RunRecord(RUN, "w", flow.definition.version, RunStatus.RUNNING, 1, NULL)
        self.write(PutItem(keys.run_key(RUN), self.run.to_item()))

    def write(self, write: Any) -> None:
        current = self.store.items.get(write.key)
        self.table._replace(write.key, current, apply(write, current))

    def complete(self, path: str, owner: str = "me") -> None:
        me = Writer(RUN, StepPath(path), owner, Turn.INLINE)
        self.write(transitions.complete(me, NoRecord(me.path), Moment(2, 3), started=1, output=NULL))


def test_1_a_terminal_step_run_never_changes() -> None:
    world = World()
    world.complete("a")
    world.write(UpdateItem(keys.step_key(RUN, A), None, {"expires": 99}))  # retention may move on
    with pytest.raises(Violation, match="1: step run 'a' of r1 went from COMPLETED to COMPLETED"):
        world.complete("a", "another")
    with pytest.raises(Violation, match="1: step run 'a' of r1 went from COMPLETED to RUNNING"):
        world.write(UpdateItem(keys.step_key(RUN, A), None, {"status": "RUNNING"}))
    with pytest.raises(Violation, match="1: "):
        world.write(DeleteItem(keys.step_key(RUN, A)))


def test_1_only_what_the_table_of_transitions_has_may_happen() -> None:
    world = World()
    me = Writer(RUN, A, "me", Turn.INLINE)
    world.write(transitions.skip(me, NoRecord(A), Moment(1, 2)))
    world = World()
    world.write(transitions.claim(me, NoRecord(A), Moment(1, EXPIRES, 30_001)))
    with pytest.raises(Violation, match="went from RUNNING to SKIPPED"):
        world.write(transitions.skip(me, NoRecord(A), Moment(1, 2)))


@pytest.mark.parametrize("to", ["RUNNING", "FAILED", "FAILING"])
def test_1_a_run_that_ended_stays_as_it_is(to: str) -> None:
    world = World()
    world.write(run_transitions.finish(world.run, Moment(1, 2)))
    with pytest.raises(Violation, match=f"1: run r1 went from COMPLETED to {to}"):
        world.write(UpdateItem(keys.run_key(RUN), None, {"status": to}))


def test_2_no_step_is_written_or_begun_before_its_parents_have_ended() -> None:
    world = World()
    with pytest.raises(Violation, match="2: 'b' of r1 is COMPLETED while its parent 'a' is None"):
        world.complete("b")
    step = world.invariants.graph_of("w", "").step("b")
    with pytest.raises(Violation, match="2: 'b' of r1 begins while its parent 'a' is None"):
        world.invariants.on_body(RUN, step, 0.0, slack=1.0)
    world.complete("a")
    world.invariants.on_body(RUN, step, 0.0, slack=1.0)


def test_3_and_8_an_acknowledged_run_is_stored_and_has_a_message_while_it_lives() -> None:
    world = World()
    invariants = world.invariants
    invariants.check_obligations(world.store, [])  # nobody was told of it yet
    invariants.started.add(RUN)
    invariants.check_obligations(world.store, [encode(Start(RUN))])
    invariants.check_obligations(world.store, ["no message of ours", encode(Drive(RUN, "a"))])
    with pytest.raises(Violation, match="3: live run r1 has no message"):
        invariants.check_obligations(world.store, [encode(Drive("another", "a"))])
    invariants.purged.add(RUN)
    invariants.check_obligations(world.store, [])
    world.write(run_transitions.finish(world.run, Moment(1, 2)))
    invariants.purged.clear()
    invariants.check_obligations(world.store, [])
    invariants.started.add("r2")
    with pytest.raises(Violation, match="8: run r2 was acknowledged and is not stored"):
        invariants.check_obligations(world.store, [])


def test_5_an_at_most_once_body_begins_once() -> None:
    invariants = World().invariants
    step = StepDefinition(name="a", delivery=Delivery.AT_MOST_ONCE)
    invariants.on_body(RUN, step, 0.0, slack=1.0)
    with pytest.raises(Violation, match="5: at_most_once body 'a' of r1 began 2 times"):
        invariants.on_body(RUN, step, 0.0, slack=1.0)


def test_7_no_body_begins_long_after_a_cancel_returned() -> None:
    invariants = World().invariants
    invariants.cancelled[RUN] = 100.0
    invariants.on_body(RUN, StepDefinition(name="a"), 105.0, slack=5.0)
    with pytest.raises(Violation, match=r"7: 'a' of r1 began 5.1 s after its cancel returned"):
        invariants.on_body(RUN, StepDefinition(name="a"), 105.1, slack=5.0)


def test_7_what_a_machine_waited_for_is_no_lateness_and_is_counted_once() -> None:
    simulation = Simulation([App("w", url="memory://")], 1)
    machine = Machine("m", simulation.gate, simulation.backend)
    simulation.loop.close()
    machine.held += [(100.0, 104.0), (90.0, 101.0), (103.0, 105.0), (110.0, 130.0)]
    assert machine.held_up(95.0, 120.0) == 10.0 + 10.0
    assert machine.held_up(105.0, 110.0) == 0.0


def at_work() -> World:
    """`a` is claimed by its owner until 31,000."""
    world = World()
    owner = Writer(RUN, A, "owner", Turn.AGAIN)
    world.write(transitions.claim(owner, NoRecord(A), Moment(1_000, EXPIRES, 31_000)))
    return world


OTHER = Writer(RUN, A, "other", Turn.AGAIN)
ERROR = ErrorInfo("E", "")
NOW = Moment(2, EXPIRES)


@pytest.mark.parametrize(
    "write",
    [
        transitions.complete(OTHER, NoRecord(A), NOW, started=1, output=NULL),
        transitions.retry(OTHER, NoRecord(A), NOW, started=1, due=3, error=ERROR),
        transitions.fail(OTHER, NoRecord(A), NOW, started=1, error=ERROR),
    ],
    ids=["complete", "retry", "fail"],
)
def test_9_nobody_but_its_owner_ends_an_attempt(write: UpdateItem) -> None:
    world = at_work()
    world.now = 10**9  # not even when its lease has run out
    with pytest.raises(Violation, match=r"9: [a-z]+ of 'a' of r1 by another than its owner"):
        world.write(write)
    at_work().complete("a", "owner")


def test_9_a_take_over_waits_until_the_lease_has_run_out() -> None:
    step = StepDefinition(name="a")
    for turn in (Turn.AGAIN, Turn.DEAD):
        early, late = at_work(), at_work()
        seen = seen_of(A, early.store.items[keys.step_key(RUN, A)])
        at = Moment(31_000, 1, 61_000)
        found = begin(step, replace(OTHER, turn=turn), seen, Go(lambda _: None), Here(True, 0), at)
        assert isinstance(found, Transition)
        early.now = 28_999  # a clock may be off by two seconds, and no more
        with pytest.raises(Violation, match=r"9: .* of 'a' of r1, 2\.0 s before its lease runs out"):
            early.write(found.write)
        late.now = 29_000
        late.write(found.write)


def test_a_violation_that_a_workers_write_makes_ends_the_simulation() -> None:
    """Raised where it happens, it would be one more error of the worker's, whose message comes back."""

    async def act(hand: Hand) -> None:
        await hand.start()
        await hand.drive("@start")
        table = hand.machine("rogue").backend.table
        await table.write(UpdateItem(keys.step_key(hand.run, A), None, {"status": "RUNNING", "lease": 0}))

    with pytest.raises(Violation, match=r"1: step run 'a' of .* went from COMPLETED to RUNNING"):
        by_hand((Drawn("a"), Drawn("b", ("a",))), act, max_hops=1)


def test_the_changes_that_were_made_are_counted_by_their_name_in_the_tables() -> None:
    world = World()
    me = Writer(RUN, A, "me", Turn.INLINE)
    world.write(transitions.heartbeat(me, NoRecord(A), Moment(2_000, EXPIRES, 32_000), started=1_000))
    world.write(transitions.heartbeat(me, NoRecord(A), Moment(7_000, EXPIRES, 37_000), started=1_000))
    world.complete("a")
    other = Writer(RUN, StepPath("b"), "me", Turn.AGAIN)
    world.write(transitions.claim(other, NoRecord(other.path), Moment(1, EXPIRES, 30_001)))
    world.write(run_transitions.finish(world.run, Moment(1, 2)))
    assert world.invariants.changes == {
        f"step run: {Change.HEARTBEAT}": 2,
        f"step run: {Change.COMPLETE}": 1,
        f"step run: {Change.CLAIM}": 1,
        "run: finish": 1,
    }


def test_6_a_run_in_which_one_step_is_excused_is_held_to_its_oracle_in_every_other() -> None:
    steps = (Drawn("a"), Drawn("once", delivery=Delivery.AT_MOST_ONCE))

    async def act(hand: Hand) -> None:
        await hand.start()
        hand.plan("write step#once := COMPLETED", Fault.CRASH_BEFORE)

    hand = by_hand(steps, act)
    assert hand.statuses() == {"a": "COMPLETED", "once": "FAILED"}
    assert not check_end(hand.simulation, build(steps), hand.run, VALUE), "it needed its excuse"
    items = hand.simulation.store.items
    key = keys.step_key(hand.run, A)
    sound = items[key]
    items[key] = {**sound, "output": '{"n":1}'}
    with pytest.raises(Violation, match=r"6: a of .* has the wrong output"):
        check_end(hand.simulation, build(steps), hand.run, VALUE)
    items[key] = {**sound, "status": "SKIPPED"}
    with pytest.raises(Violation, match=r"6: a of .* is SKIPPED, expected COMPLETED"):
        check_end(hand.simulation, build(steps), hand.run, VALUE)
    items[key] = sound
    items[keys.run_key(hand.run)] = {**items[keys.run_key(hand.run)], "status": "COMPLETED"}
    with pytest.raises(Violation, match=r"6: run .* ended COMPLETED, expected FAILED"):
        check_end(hand.simulation, build(steps), hand.run, VALUE)
