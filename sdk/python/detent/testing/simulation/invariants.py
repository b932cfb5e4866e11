"""What must hold after every event of a simulation. Numbers as in docs/internals/guarantees.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from detent_infra.memory import MemoryTable, Store
from detent_infra.ports import Clock, Timing
from detent_state_machine import keys, timer_table
from detent_state_machine.definition import StepDefinition
from detent_state_machine.events import look_back_from
from detent_state_machine.graph import Graph
from detent_state_machine.kinds import has_body
from detent_state_machine.messages import RunMessage, Wake
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.run_transitions import RUN_TABLE
from detent_state_machine.status import Delivery, RunStatus, StepStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.transitions import STEP_TABLE, Change
from detent_state_machine.writes import Item, Key

from detent.testing.simulation.faults import message_in

LATE = 250
"""Milliseconds from an attempt's start within which a first record is a claim; a heartbeat's comes a second later."""

MAX_SKEW = 2_000
"""Milliseconds that a machine's clock may be off, either way."""

CLOSERS = "retry-"
"""How the owner token of whoever closes a run's steps before it is retried begins."""

INTERRUPTIONS = ("Interrupted", "DeadLetter")
"""Errors of step runs that no worker ended."""


class Violation(AssertionError):
    """An invariant does not hold."""

    @property
    def invariant(self) -> str:
        """Its number, or what is wrong where it has none."""
        return str(self).split(":")[0]


class ObservedTable(MemoryTable):
    """A memory table that shows every applied write to an observer."""

    def __init__(self, store: Store, seen: Callable[[Key, Item | None, Item | None], None]) -> None:
        super().__init__(store)
        self._seen = seen

    def _replace(self, key: Key, current: Item | None, after: Item | None) -> None:
        super()._replace(key, current, after)
        self._seen(key, current, after)


@dataclass
class Invariants:
    """Follows the writes and the bodies of a simulation, and raises `Violation` at the first wrong one."""

    graph_of: Callable[[str, str], Graph]
    """The graph of a workflow's version."""
    table: Callable[[Key], Item | None]
    clock: Clock
    """The true time; machines may be off by `MAX_SKEW`."""
    is_dead: Callable[[str], bool] = lambda owner: False  # noqa: ARG005
    """Whether whoever made the owner token is known to be dead."""
    bodies: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """How often each body began, by run and path."""
    started: set[str] = field(default_factory=set[str])
    """Runs whose start was acknowledged."""
    cancelled: dict[str, float] = field(default_factory=dict[str, float])
    """When a cancel returned, in seconds of simulated time."""
    purged: set[str] = field(default_factory=set[str])
    """Live runs that lost messages to a purge: what drives them again is the reaper, not a message."""
    timers: dict[Key, str] = field(default_factory=dict[Key, str])
    """The timers that no tick has sent yet, with the run of each."""
    published: set[Key] = field(default_factory=set[Key])
    """Where events are stored whose publisher was told so."""
    changes: Counter[str] = field(default_factory=Counter[str])
    """How often each transition of a run and of a step run was made, by its name in the tables."""

    def on_write(self, key: Key, before: Item | None, after: Item | None) -> None:
        if key.pk.startswith(keys.TIMER_PARTITIONS) or key == keys.TIMERS:
            self._timers_changed(key, after)
        run_id = keys.run_id_of(key.pk)
        if not run_id:
            return
        if key.sk == keys.RUN:
            self._run_changed(run_id, before, after)
        elif key.sk.startswith(keys.STEP_PREFIX):
            self._step_changed(run_id, key.sk.removeprefix(keys.STEP_PREFIX), before, after)

    def on_body(self, run_id: str, step: StepDefinition, now: float, *, slack: float) -> None:
        """A body begins. `slack` is how late after a cancel one may: a heartbeat, plus what its machine waited for."""
        self.bodies[run_id, step.name] += 1
        if step.delivery is Delivery.AT_MOST_ONCE and self.bodies[run_id, step.name] > 1:
            raise Violation(
                f"5: at_most_once body {step.name!r} of {run_id} began {self.bodies[run_id, step.name]} times"
            )
        self._parents_ended(run_id, step, "begins")
        since = now - self.cancelled.get(run_id, now)
        if since > slack:
            raise Violation(f"7: {step.name!r} of {run_id} began {since:.1f} s after its cancel returned")

    def check_obligations(self, store: Store, messages: list[str]) -> None:
        """Every live run that was acknowledged has a message (queued, delayed or in flight), a timer that will send
        one, or waits, registered, for an event that nobody has published.
        """
        if not self.started:
            return
        decoded = list(map(message_in, messages))
        carried = {message.run_id for message in decoded if isinstance(message, RunMessage)}
        carried.update(self.timers.values())
        woken = {message.fact.pk for message in decoded if isinstance(message, Wake)}
        for run_id in self.started:
            item = store.items.get(keys.run_key(run_id))
            if item is None:
                raise Violation(f"8: run {run_id} was acknowledged and is not stored")
            if not RunStatus(str(item["status"])).live or run_id in carried or run_id in self.purged:
                continue
            records = records_of(store, run_id)[1].values()
            if not any(self._can_be_met(store, run_id, record, woken) for record in records):
                raise Violation(f"3: live run {run_id} has no message, no timer, and no wait that can be met")

    def _can_be_met(self, store: Store, run_id: str, record: StepRecord, woken: set[str]) -> bool:
        """Whether it waits, and hears of the next event; one that was published before is on its way."""
        if record.status is not StepStatus.WAITING or not record.awaits:
            return False
        registered = Key(record.awaits, keys.waiter_sort(run_id, record.path)) in store.items
        since = look_back_from(record.since)
        heard = any(key.pk == record.awaits and key.sk >= since for key in self.published)
        return record.awaits in woken or (registered and not heard)

    def left_live(self, store: Store) -> list[str]:
        """What ended runs have left behind that has not ended."""
        found: list[str] = []
        for key, item in store.items.items():
            run_id = keys.run_id_of(key.pk)
            run = store.items.get(keys.run_key(run_id)) if key.sk.startswith(keys.STEP_PREFIX) else None
            if run is None or run_id in self.purged or RunStatus(str(run["status"])).live:
                continue
            if not StepStatus(str(item["status"])).terminal:
                found.append(f"{key.sk.removeprefix(keys.STEP_PREFIX)!r} of {run_id}, {item['status']}")
        return found

    def _timers_changed(self, key: Key, after: Item | None) -> None:
        if key != keys.TIMERS:
            message = message_in(str(after["message"])) if after else None
            assert isinstance(message, RunMessage), "a timer holds a message of a run, and is not deleted"
            self.timers[key] = message.run_id
            self.changes["timer: put"] += 1
        cursor = self.table(keys.TIMERS)
        if cursor is not None:
            done = timer_table.cursor_of(cursor).done
            # A timer that is put behind it lives by the message of who puts it: that is not acknowledged yet.
            for sent in [each for each in self.timers if keys.timer_bucket(each) <= done]:
                del self.timers[sent]
                self.changes["timer: passed"] += 1

    def _run_changed(self, run_id: str, before: Item | None, after: Item | None) -> None:
        old = RunStatus(str(before["status"])) if before else None
        new = RunStatus(str(after["status"])) if after else None
        if old is None or new is old:
            return
        names = [name for name, (sources, target) in RUN_TABLE.items() if old in sources and new is target]
        if not names:
            raise Violation(f"1: run {run_id} went from {old} to {new}")
        self.changes[f"run: {names[0]}"] += 1

    def _step_changed(self, run_id: str, path: str, before: Item | None, after: Item | None) -> None:
        old = StepStatus(str(before["status"])) if before else None
        new = StepStatus(str(after["status"])) if after else None
        if old is not None and old.terminal and new is old and _kept(before) == _kept(after):
            return  # Its expiry was moved on.
        graph = self._graph(run_id)
        waits = graph is not None and not has_body(graph.step(path))
        change = _change(before or {}, after or {}, old, new, waits=waits)
        if change is None:
            raise Violation(f"1: step run {path!r} of {run_id} went from {old} to {new}")
        if old is StepStatus.RUNNING:
            self._may_write(run_id, path, before or {}, after or {}, change)
        if change is Change.MEET and old is not None and "fact" not in (after or {}):
            self._may_end(run_id, path, before or {})
        self.changes[f"step run: {change}"] += 1
        if graph is None:
            # A retry carries ended steps over before it puts the new run.
            if new not in (StepStatus.COMPLETED, StepStatus.SKIPPED):
                raise Violation(f"8: {path!r} of {run_id} is {new}, and the run is not stored")
        elif new in (StepStatus.RUNNING, StepStatus.COMPLETED, StepStatus.SKIPPED):
            self._parents_ended(run_id, graph.step(path), f"is {new}")

    def _may_write(self, run_id: str, path: str, before: Item, after: Item, change: Change) -> None:
        """Of a step run that is at work."""
        if after.get("owner") == before.get("owner") or change is Change.CLOSE:
            return
        if change not in (Change.TAKE_OVER, Change.INTERRUPT, Change.REVIVE, Change.GIVE_UP):
            raise Violation(f"9: {change} of {path!r} of {run_id} by another than its owner")
        left = int(str(before["lease"])) - self.clock()
        if left > MAX_SKEW and not self.is_dead(str(before["owner"])):
            raise Violation(f"9: {change} of {path!r} of {run_id}, {left / 1000:.1f} s before its lease runs out")

    def _may_end(self, run_id: str, path: str, before: Item) -> None:
        """Of a wait."""
        early = int(str(before["due"])) - self.clock()
        if early > MAX_SKEW:
            raise Violation(f"11: the wait {path!r} of {run_id} ended {early / 1000:.1f} s before it was due")

    def _parents_ended(self, run_id: str, step: StepDefinition, what: str) -> None:
        for parent in step.parents:
            item = self.table(keys.step_key(run_id, StepPath(parent.step)))
            status = StepStatus(str(item["status"])) if item else None
            allowed = {StepStatus.COMPLETED, StepStatus.SKIPPED}
            if status not in allowed:
                raise Violation(f"2: {step.name!r} of {run_id} {what} while its parent {parent.step!r} is {status}")

    def _graph(self, run_id: str) -> Graph | None:
        item = self.table(keys.run_key(run_id))
        return None if item is None else self.graph_of(str(item["workflow"]), str(item["version"]))


def records_of(store: Store, run_id: str) -> tuple[RunRecord, dict[str, StepRecord]]:
    """Everything stored of a run."""
    run = RunRecord.from_item(run_id, store.items[keys.run_key(run_id)])
    found: dict[str, StepRecord] = {}
    for sk in store.sorted_keys.get(keys.run_partition(run_id), []):
        if sk.startswith(keys.STEP_PREFIX):
            path = StepPath(sk.removeprefix(keys.STEP_PREFIX))
            found[path] = StepRecord.from_item(path, store.items[Key(keys.run_partition(run_id), sk)])
    return run, found


def _kept(item: Item | None) -> Mapping[str, object]:
    """What of a terminal record never changes; its expiry may be moved on."""
    return {name: value for name, value in (item or {}).items() if name != "expires"}


WAIT_CHANGES = frozenset({Change.WAIT, Change.MEET, Change.REFUSE, Change.INTERRUPT, Change.CLOSE, Change.SKIP})
"""What can happen to a step run without a body."""


def _change(before: Item, after: Item, old: StepStatus | None, new: StepStatus | None, *, waits: bool) -> Change | None:
    """The transition that a write made; None if the table has none for a step of its kind: `waits`, or has a body."""
    of_its_kind = WAIT_CHANGES if waits else frozenset(Change) - {Change.WAIT, Change.MEET, Change.REFUSE}
    rows = [(change, row) for change, row in STEP_TABLE.items() if change in of_its_kind]
    found = [change for change, row in rows if old in row.sources and new is row.target]
    match found:
        case [Change.CLAIM, Change.HEARTBEAT]:
            return Change.CLAIM if _age(after) < LATE else Change.HEARTBEAT
        case [Change.TAKE_OVER, Change.HEARTBEAT]:
            return Change.HEARTBEAT if before.get("owner") == after.get("owner") else Change.TAKE_OVER
        case [Change.RETRY, Change.REVIVE, *_]:
            if before.get("takeovers", 0) != after.get("takeovers", 0):
                return Change.REVIVE
            return Change.RELEASE if before.get("errors", 0) == after.get("errors", 0) else Change.RETRY
        case [*_, Change.CLOSE, Change.GIVE_UP]:
            if before.get("owner") == after.get("owner"):
                return Change.CANCEL
            return Change.CLOSE if str(after["owner"]).startswith(CLOSERS) else Change.GIVE_UP
        case [Change.FAIL, Change.INTERRUPT]:
            error = str(after["error"])
            return Change.INTERRUPT if any(f'"type":"{name}"' in error for name in INTERRUPTIONS) else Change.FAIL
        case []:
            return None
        case [only]:
            return only
        case _:
            raise NotImplementedError(f"what tells {found} apart?")


def _age(after: Item) -> int:
    """Milliseconds from the attempt's start to this write, as the lease tells."""
    return int(str(after["lease"])) - int(str(after["started"])) - int(Timing().lease * 1000)
