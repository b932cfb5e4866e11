"""One seed's world: a store, queues, machines that run the real engine, and the faults between them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from detent_infra.engine import Engine
from detent_infra.events.publish import NewEvent, publish
from detent_infra.ids import keyed_id
from detent_infra.memory import MemoryBlobs, MemoryLogs, Store, memory_backend
from detent_infra.ports import Timing
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.reaper import reap
from detent_infra.runs.start import NewRun
from detent_infra.sources.embedded import EmbeddedSource
from detent_infra.virtual_time import VirtualLoop
from detent_infra.worker import Worker
from detent_state_machine.errors import DetentError, Unavailable, WrongState
from detent_state_machine.events import StoredEvent
from detent_state_machine.graph import Graph
from detent_state_machine.keys import RUN, run_id_of, run_key
from detent_state_machine.records import RunRecord, StepRecord
from detent_state_machine.status import RunStatus
from detent_state_machine.writes import Item, Key

from detent.app import App
from detent.testing.harness import WorkerCrashed, on_the_spot
from detent.testing.simulation.faults import MAX_CALLS, Gate, Machine, Plan, RandomPlan, Rates, VisibleQueue
from detent.testing.simulation.invariants import MAX_SKEW, Invariants, ObservedTable, Violation, records_of
from detent.testing.simulation.invocations import Invocations
from detent.testing.simulation.watched import ObservedExecutor

_T = TypeVar("_T")

FAULTY_SECONDS = 200.0
"""How long faults are injected, in simulated seconds. After that the runs must end."""
END_SECONDS = 20_000.0
"""A run that is live after this is stuck."""
DRAIN_SECONDS = 5_000.0
"""A message that is not acknowledged this long after the last run's end never will be."""


@dataclass
class Simulation:
    """One seed's world: a store, queues, machines, and the faults between them."""

    apps: Sequence[App]
    """The code that is deployed; more than one: later ones are deployed in the middle."""
    seed: int
    plan: Plan | None = None
    """Which faults; by default at random with `rates`."""
    rates: Rates = Rates()
    machines: int = 3
    """Worker processes."""
    invocations: int = 0
    """Machines that handle messages as functions on Lambda do, beside the worker processes. Bodies must be done within
    25 simulated seconds: half of the shortest invocation, and slow calls before it."""
    max_receives: int = 30
    """Deliveries after which a message is a dead letter."""
    max_hops: int = 3
    """Low on purpose: inline chains and messages alternate."""
    max_delay: float = 900.0
    """Seconds that the queue delays a message at most: as SQS does."""
    skew: bool = True
    stand_ins: bool = False
    """A machine that stands still is replaced at once, as a platform does that finds it unhealthy."""
    known_deaths: bool = False
    """A machine's death becomes known, as that of a worker on SQLite does: at once or late, never early."""
    deadly: Mapping[str, float] = field(default_factory=dict[str, float])
    """Steps whose bodies kill their process, after so many seconds."""
    timing: Timing = Timing()
    store: Store = field(default_factory=Store)
    runs: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        for app in self.apps:
            app.definitions()  # What is wrong with a workflow is said before anything is opened.
        self.rng = random.Random(self.seed)  # noqa: S311 - a seed replays it
        self.loop = VirtualLoop()
        numbers = itertools.count(1)
        ids = memory_backend(clock=self.loop.wall_clock, ids=lambda: f"id{next(numbers):024d}", timing=self.timing)
        self.invariants = Invariants(self._graph, self.store.items.get, self.loop.wall_clock)
        dead = VisibleQueue(self.loop.wall_clock)
        self.sources: dict[str, EmbeddedSource] = {}
        self.queues = (VisibleQueue(self.loop.wall_clock, dead=dead, max_receives=self.max_receives), dead)
        self.queues[0].max_delay = self.max_delay
        self.backend = replace(
            ids,
            table=ObservedTable(self.store, self._written),
            queue=self.queues[0],
            dead_letters=dead,
            blobs=MemoryBlobs(self.store),
            logs=MemoryLogs(self.store),
            source=self._source,
        )
        # Chance of its own: the same faults by number (`FixedPlan`) replay the very same simulation.
        chosen = self.plan or RandomPlan(random.Random(f"faults of {self.seed}"), self.rates)  # noqa: S311
        self.gate = Gate(chosen, self.rng, crashed=self._crashed, applied=self._check, paused=self._paused)
        self.gate.deaths_are_known = self.known_deaths
        self.invariants.is_dead = self.gate.is_known_dead
        self.violation: Violation | None = None
        self._names = itertools.count(1)
        self._at_work: dict[Machine, _AtWork] = {}
        self._graphs: dict[tuple[str, str], Graph] = {}
        self._deployed = 0
        for app in self.apps:
            engine = Engine(self.backend, app.executor)
            for definition in app.definitions().values():
                self._graphs[definition.name, definition.version] = engine.definitions.cache(definition)

    # ---- what a test does ---------------------------------------------------------------------------------

    def run(self, scenario: Coroutine[Any, Any, _T]) -> _T:
        """Drives the simulation until the scenario is done and every run has ended. Raises `Violation`."""
        log = logging.getLogger("detent")
        log.disabled, was = True, log.disabled
        self.loop.set_exception_handler(_ignore)
        try:
            return self.loop.run_until_complete(self._whole(scenario))
        finally:
            self._close()
            log.disabled = was

    async def start(self, app: App, new: NewRun, workflow: str) -> str:
        """Starts a run as a client does that tries again until it is told that it worked."""
        definition = app.workflows[workflow].definition
        key = new.key or f"run-{len(self.runs)}"
        self.runs.append("")
        index = len(self.runs) - 1

        async def call(lifecycle: Lifecycle) -> str:
            return await lifecycle.start(definition, replace(new, key=key))

        run_id: str = await self.as_client(call)
        self.runs[index] = run_id
        self.invariants.started.add(run_id)
        return run_id

    async def send(self, queue: str, body: str, workflow: str, *, id: str) -> str:
        """Sends a message that starts a run of the workflow, as a sender does that tries again until it is told that
        it worked; returns the run's id once the message was acknowledged: until then it is what the run lives by.
        """
        self.runs.append("")
        index = len(self.runs) - 1
        await self.send_again(queue, body, id=id)
        while any(f'"id":"{id}"' in body for body in self._bodies_of(queue)):  # noqa: ASYNC110 - a queue tells nobody
            await asyncio.sleep(0.1)
        run_id = keyed_id(workflow, f"{queue}/{id}")
        if run_key(run_id) not in self.store.items:
            raise Violation(f"8: message {id} was acknowledged and started nothing")
        self.runs[index] = run_id
        self.invariants.started.add(run_id)
        return run_id

    async def send_again(self, queue: str, body: str, *, id: str) -> None:
        """Sends a message, perhaps one that was sent before: it starts nothing twice."""

        async def call(lifecycle: Lifecycle) -> None:
            await lifecycle.backend.source(queue).send(body, id=id)

        await self.as_client(call)

    def _source(self, name: str) -> EmbeddedSource:
        if name not in self.sources:
            dead = VisibleQueue(self.loop.wall_clock)
            queue = VisibleQueue(self.loop.wall_clock, dead=dead, max_receives=30)
            self.sources[name] = EmbeddedSource(name, queue, dead, self.loop.wall_clock, self.backend.ids)
        return self.sources[name]

    async def publish(self, new: NewEvent, *, once: bool = False) -> None:
        """Publishes an event, as a publisher does that tries again until it is told that it worked; or as one that
        tries `once`, and may die on the way and never come back.
        """

        async def call(lifecycle: Lifecycle) -> StoredEvent:
            return await publish(lifecycle.backend, new)

        machine = Machine(f"publisher{next(self._names)}", self.gate, self.backend)
        with suppress(*((WorkerCrashed, Unavailable) if once else ())):
            event = await (call(Lifecycle(machine.backend)) if once else self.as_client(call))
            self.invariants.published.add(event.stored_at)

    async def cancel(self, run_id: str) -> None:
        """Cancels a run, if it is still live."""

        async def call(lifecycle: Lifecycle) -> None:
            await lifecycle.cancel(run_id)

        with suppress(DetentError):
            await self.as_client(call)
            self.invariants.cancelled[run_id] = self.loop.time()

    async def retry(self, run_id: str) -> str | None:
        """Retries an ended run; the new run's id, or None for one that completed."""

        async def call(lifecycle: Lifecycle) -> str:
            return await lifecycle.retry(run_id)

        while True:
            try:
                again: str = await self.as_client(call)
            except WrongState:
                if not self._unfinished(run_id):
                    return None
                await asyncio.sleep(5.0)
            else:
                break
        if again not in self.runs:
            self.runs.append(again)
        self.invariants.started.add(again)
        return again

    def _unfinished(self, run_id: str) -> bool:
        record, steps = self.records(run_id)
        return record.status is not RunStatus.COMPLETED and not all(step.status.terminal for step in steps.values())

    async def ended(self, run_id: str) -> None:
        """Waits for the run's end."""
        while self._live(run_key(run_id)):  # noqa: ASYNC110 - the status lives in a table
            await asyncio.sleep(1.0)

    async def as_client(self, call: Any) -> Any:
        """Makes a client's call with faults between, again and again until it is answered."""
        while True:
            machine = Machine(f"client{next(self._names)}", self.gate, self.backend)
            try:
                return await call(Lifecycle(machine.backend))
            except (WorkerCrashed, Unavailable):
                await asyncio.sleep(self.rng.random() * 5)

    def deploy(self, *, graceful: bool = True) -> None:
        """The next app replaces the current one: every machine is stopped, or killed, and a new one comes."""
        self._deployed = min(self._deployed + 1, len(self.apps) - 1)
        for machine in list(self._at_work):
            if graceful:
                old = self._at_work.pop(machine)
                old.stop.set()
                self.boot(invoked=old.invoked)
            else:
                machine.dead = True
                self._crashed(machine)

    async def reap(self) -> None:
        """One visit of the reaper, by a machine of its own."""
        machine = Machine(f"reaper{next(self._names)}", self.gate, self.backend)
        with suppress(WorkerCrashed, Unavailable):
            await reap(machine.backend)

    def purge(self) -> None:
        """Empties the queues, as an operator may. What was live is driven again by the reaper, some time later."""
        self.gate.note_event("PURGE")
        for queue in self.queues:
            queue.purge()
        live = [key for key in self.store.items if key.sk == RUN and self._live(key)]
        self.invariants.purged.update(run_id_of(key.pk) for key in live)

    def outage(self, operation: str, seconds: float) -> None:
        """Every call of this operation is refused for so long. Only the reaper uses `query_index`."""
        self.gate.note_event(f"OUTAGE of {operation} for {seconds:.0f} s")
        self.gate.down[operation] = self.loop.time() + seconds

    def records(self, run_id: str) -> tuple[RunRecord, dict[str, StepRecord]]:
        return records_of(self.store, run_id)

    # ---- the world ----------------------------------------------------------------------------------------

    async def _whole(self, scenario: Coroutine[Any, Any, _T]) -> _T:
        for number in range(self.machines + self.invocations):
            self.boot(invoked=number >= self.machines)
        task = asyncio.ensure_future(scenario)
        await self._until(task.done, FAULTY_SECONDS * 5)
        await self._until(lambda: self._all_ended() or self.loop.time() > FAULTY_SECONDS, FAULTY_SECONDS)
        if isinstance(self.gate.plan, RandomPlan):
            self.gate.plan.stop()
        await self._until(task.done, END_SECONDS)
        if task.done() and (error := task.exception()) is not None:
            raise error
        await self._until(self._all_ended, END_SECONDS)
        if not self._all_ended():
            stuck = next((run for run in self.runs if run and self._live(run_key(run))), None)
            if stuck is None:
                raise Violation("8: a run that was to be started never was")
            statuses = {path: record.status.value for path, record in self.records(stuck)[1].items()}
            raise Violation(f"3: run {stuck} is stuck: {statuses}")
        await self._until(lambda: not any(map(len, self._every_queue())), DRAIN_SECONDS)
        for body in itertools.chain.from_iterable(queue.bodies() for queue in self._every_queue()):
            raise Violation(f"4: every run has ended, and a message is still delivered: {body}")
        await self._until(lambda: not self.invariants.left_live(self.store), DRAIN_SECONDS)
        for left in self.invariants.left_live(self.store):
            raise Violation(f"10: an ended run has left {left}")
        self._check_closed()
        if not task.done():
            raise Violation("the scenario waits for something that never comes")
        return task.result()

    def _check_closed(self) -> None:
        """Every run has ended: none waits any more."""
        for run in set(self.runs) - self.invariants.purged:
            if waiting := [path for path, record in self.records(run)[1].items() if record.status.waits]:
                raise Violation(f"12: run {run} has ended, and its waits are open: {waiting}")

    def _bodies_of(self, queue: str) -> list[str]:
        found = self.sources[queue].queue
        return found.bodies() if isinstance(found, VisibleQueue) else []

    def _every_queue(self) -> list[VisibleQueue]:
        of_users = [queue for source in self.sources.values() for queue in (source.queue, source.dead)]
        return [*self.queues, *(queue for queue in of_users if isinstance(queue, VisibleQueue))]

    async def _until(self, condition: Any, limit: float) -> None:
        ends = self.loop.time() + limit
        while not condition() and self.loop.time() < ends:
            if self.violation is not None:
                raise self.violation
            await asyncio.sleep(1.0)
        if self.violation is not None:
            raise self.violation

    def _all_ended(self) -> bool:
        return all(run and not self._live(run_key(run)) for run in self.runs)

    def _live(self, key: Key) -> bool:
        return RunStatus(str(self.store.items[key]["status"])).live

    def boot(self, *, invoked: bool = False) -> None:
        """A new machine: a worker process, or one that is invoked."""
        skew = self.rng.randint(-MAX_SKEW, MAX_SKEW) if self.skew else 0
        machine = Machine(f"{'lambda' if invoked else 'worker'}{next(self._names)}", self.gate, self.backend, skew)
        engine = self.engine_on(machine)
        worker: Worker | Invocations
        if invoked:
            worker = Invocations(machine, engine, self.rng.random)
        else:
            subscriptions = self.apps[self._deployed].subscriptions
            worker = Worker(engine, subscriptions=subscriptions, grace=0.0, jitter=self.rng.random)
        stop = asyncio.Event()
        self._at_work[machine] = _AtWork(asyncio.ensure_future(self._life(worker, stop)), stop, invoked)

    def engine_on(self, machine: Machine) -> Engine:
        """The engine of the deployed code on a machine."""
        app = self.apps[self._deployed]
        bodies = app.executor.with_sync(on_the_spot)
        executor = ObservedExecutor(bodies, machine, self.invariants, self.report, self.deadly)
        return Engine(machine.backend, executor, max_hops=self.max_hops, jitter=self.rng.random)

    async def _life(self, worker: Worker | Invocations, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await worker.run(stop)
            except Unavailable:  # It could not even register its workflows: started again by whoever runs it.
                await asyncio.sleep(1.0)
            except WorkerCrashed:
                return

    def _crashed(self, machine: Machine) -> None:
        old = self._at_work.pop(machine, None)
        if old is not None:
            old.life.cancel()
            self.loop.call_later(self.rng.uniform(0.1, 10.0), lambda: self.boot(invoked=old.invoked))

    def _paused(self, machine: Machine) -> None:
        if self.stand_ins and machine in self._at_work:
            self.boot(invoked=self._at_work[machine].invoked)

    def _check(self) -> None:
        try:
            if self.gate.calls >= MAX_CALLS:
                raise Violation(f"3: no end after {MAX_CALLS:,} calls")
            messages = [body for queue in self.queues for body in queue.bodies()]
            self.invariants.check_obligations(self.store, messages)
        except Violation as violation:
            self.report(violation)

    def _written(self, key: Key, before: Item | None, after: Item | None) -> None:
        try:
            self.invariants.on_write(key, before, after)
        except Violation as violation:
            self.report(violation)  # Raised here, it would be an error of the worker's, which tries again.

    def report(self, violation: Violation) -> None:
        """Keeps the first violation; the simulation ends with it."""
        if self.violation is None:
            self.violation = violation

    def _graph(self, workflow: str, version: str) -> Graph:
        return self._graphs[workflow, version]

    def _close(self) -> None:
        for _ in range(3):
            pending = asyncio.all_tasks(self.loop)
            for task in pending:
                task.cancel()
            if pending:
                self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class _AtWork(NamedTuple):
    """A machine's life, what tells it to stop, and of which kind the next one is."""

    life: asyncio.Task[None]
    stop: asyncio.Event
    invoked: bool


def _ignore(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    """Crashed workers leave tasks with errors that nobody asks for."""
