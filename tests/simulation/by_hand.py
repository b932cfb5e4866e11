"""One delivery at a time: which message is driven, and at which call its worker dies. For regressions with a name."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from detent import App
from detent.testing import WorkerCrashed
from detent.testing.simulation.faults import Fault, Machine, PortCall, message_in
from detent.testing.simulation.world import Simulation
from detent_infra.ports import Received, Timing
from detent_infra.runs.lifecycle import Lifecycle
from detent_infra.runs.start import NewRun
from detent_infra.timers.tick import send_due_timers
from detent_state_machine.errors import Unavailable
from detent_state_machine.graph import START
from detent_state_machine.keys import data_key
from detent_state_machine.messages import Drive
from detent_state_machine.records import RunRecord, StepRecord

from tests.simulation.check import check_end
from tests.simulation.workloads import Drawn, build

VALUE = 7
PATIENCE = 600.0
"""Simulated seconds that a message may take to come."""
End: TypeAlias = Literal["acknowledged", "left", "died"]


@dataclass
class At:
    """A fault at a call, by what the trace says of it: `At("write step#b := COMPLETED", Fault.CRASH_AFTER)`."""

    text: str
    fault: Fault
    times: float = 1
    by: str = ""
    """Only by this worker."""


@dataclass
class Script:
    """A plan to which a test adds faults while the simulation runs."""

    faults: list[At] = field(default_factory=list[At])

    def __call__(self, call: PortCall) -> Fault | None:
        for at in self.faults:
            if at.times > 0 and at.by in ("", call.machine) and f"{call.operation} {call.what}".startswith(at.text):
                at.times -= 1
                return at.fault
        return None


class Hand:
    """Drives single deliveries of one run. Workers of this simulation do nothing by themselves until `finish`."""

    def __init__(self, simulation: Simulation, script: Script, app: App) -> None:
        self.simulation = simulation
        self.script = script
        self.run = ""
        self._app = app
        self._machines: dict[str, Machine] = {}

    # ---- what a test does ---------------------------------------------------------------------------------

    def plan(self, text: str, fault: Fault, *, times: float = 1, by: str = "") -> None:
        self.script.faults.append(At(text, fault, times, by))

    async def start(self) -> None:
        [workflow] = self._app.workflows
        self.run = await self.simulation.start(self._app, NewRun(json.dumps(VALUE)), workflow)

    async def take(self, path: str = START, *, dead: bool = False) -> Received:
        """The message that drives the path, as delivered now; waits until it is due. Other messages stay."""
        queue = self.simulation.queues[int(dead)]
        ends = self.now + PATIENCE
        while self.now < ends:
            others: list[Received] = []
            found: Received | None = None
            for message in await queue.receive(100, wait=0.0, visibility=self.simulation.timing.visibility):
                if found is None and path_of(message.body) == path:
                    found = message
                else:
                    others.append(message)
            for message in others:
                await queue.extend(message.receipt, 0.0)
            if found is not None:
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"no message for {path} came in {PATIENCE:g} s; there are {self.queued}")

    async def drive(self, *paths: str) -> None:
        """Takes and handles the message of each path in turn, each to its acknowledgement."""
        for path in paths:
            assert await self.handle(await self.take(path)) == "acknowledged"

    async def again(self, message: Received) -> Received:
        """The same message, delivered once more although it is still being worked on."""
        await self.simulation.queues[0].extend(message.receipt, 0.0)
        return await self.take(path_of(message.body))

    async def handle(self, message: Received, worker: str = "worker", *, dead: bool = False) -> End:
        """Drives a delivery to its end, by a worker of this name, as a worker process does."""
        machine = self.machine(worker)
        engine = self.simulation.engine_on(machine)
        queue = machine.backend.dead_letters if dead else machine.backend.queue
        try:
            if not await engine.handle(message, dead=dead):
                return "left"
            await queue.delete(message.receipt)
        except WorkerCrashed:
            return "died"
        except Unavailable:
            return "left"
        return "acknowledged"

    def begin(self, message: Received, worker: str) -> asyncio.Task[End]:
        """`handle`, without waiting for its end."""
        return asyncio.ensure_future(self.handle(message, worker))

    async def tick(self, by: str = "tick") -> int:
        """Sends the timers that are due, and says how many."""
        return (await send_due_timers(self.machine(by).backend)).sent

    def kill(self, worker: str) -> None:
        self._machines[worker].dead = True

    def client(self, name: str = "client") -> Lifecycle:
        return Lifecycle(self.machine(name).backend)

    # ---- what a test sees ---------------------------------------------------------------------------------

    @property
    def bodies(self) -> Counter[str]:
        """How often each body began, over all runs."""
        found: Counter[str] = Counter()
        for (_, path), times in self.simulation.invariants.bodies.items():
            found[path] += times
        return found

    @property
    def queued(self) -> list[str]:
        """Paths of all messages in the main queue: waiting, delayed or in flight."""
        return sorted(path_of(body) for body in self.simulation.queues[0].bodies())

    @property
    def record(self) -> RunRecord:
        return self.simulation.records(self.run)[0]

    @property
    def steps(self) -> dict[str, StepRecord]:
        return self.simulation.records(self.run)[1]

    def statuses(self) -> dict[str, str]:
        return {path: record.status.value for path, record in self.steps.items()}

    def effect(self, path: str) -> int:
        """How often what the step commits was applied."""
        item = self.simulation.store.items.get(data_key("effects", f"{self.run}/{path}")) or {}
        return int(str(item.get("times", 0)))

    @property
    def now(self) -> float:
        return self.simulation.loop.time()

    def machine(self, name: str) -> Machine:
        if name not in self._machines or self._machines[name].dead:
            self._machines[name] = Machine(name, self.simulation.gate, self.simulation.backend)
        return self._machines[name]


Act: TypeAlias = Callable[[Hand], Awaitable[None]]


def by_hand(
    what: tuple[Drawn, ...] | App,
    act: Act,
    *,
    max_hops: int = 3,
    timing: Timing | None = None,
    workers: int = 2,
    max_receives: int = 30,
) -> Hand:
    """Runs what the test does, then lets workers finish, and holds a drawn workflow's end to its oracle."""
    workload = build(what) if isinstance(what, tuple) else None
    app = workload.app if workload is not None else what
    assert isinstance(app, App)
    script = Script()
    simulation = Simulation(
        [app],
        1,
        plan=script,
        machines=0,
        max_hops=max_hops,
        max_receives=max_receives,
        skew=False,
        timing=timing or Timing(),
        stand_ins=True,
    )
    hand = Hand(simulation, script, app)

    async def whole() -> None:
        await act(hand)
        for _ in range(workers):
            simulation.boot()

    simulation.run(whole())
    if workload is not None:
        for run in dict.fromkeys(simulation.runs):
            check_end(simulation, workload, run, VALUE, may_be_cancelled=True)
    return hand


def path_of(body: str) -> str:
    message = message_in(body)
    return message.path if isinstance(message, Drive) else START


FOREVER = math.inf
