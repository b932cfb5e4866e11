"""Workflows with a memory, and a harness whose worker reaches its backend through faults."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from detent import App, Client, Context, Failure, Retry, Update, Workflow
from detent.testing import Harness
from detent.testing.simulation.faults import Fault, Gate, Machine, Plan, PortCall, VisibleQueue
from detent_infra.engine.loop import MAX_HOPS, Engine
from detent_infra.ports import Backend, Received
from detent_state_machine.writes import Item

AnyWorkflow = Workflow[Any, Any]


@dataclass
class World:
    """A workflow and what its bodies did."""

    flow: AnyWorkflow
    bodies: Counter[str] = field(default_factory=Counter[str])

    @property
    def app(self) -> App:
        return self.flow.app


def world(name: str = "w") -> World:
    return World(App(url="memory://").workflow(name, input=int))


def no_faults(call: PortCall) -> Fault | None:
    return None


class Faulty(Harness):
    """A harness whose worker, not whose client, reaches its backend through faults."""

    def __init__(self, app: App, *, max_hops: int = MAX_HOPS) -> None:
        super().__init__(app)
        self.dead = VisibleQueue(self.backend.clock)
        self.queue = VisibleQueue(self.backend.clock, dead=self.dead)
        self.backend = replace(self.backend, queue=self.queue, dead_letters=self.dead)
        self._rhythm = replace(self._rhythm, reap=60.0)  # its queue needs the tick of the timers
        self.gate = Gate(no_faults, random.Random(0), latency=0.0)
        self.machine = Machine("worker", self.gate, self.backend)
        self._engine = self.engine(self.machine.backend, max_hops)

    def engine(self, backend: Backend, max_hops: int = MAX_HOPS) -> Engine:
        """Another worker's engine, over a backend of its choice."""
        return Engine(backend, self._faults, max_hops=max_hops, jitter=lambda: 0.5)

    async def next_message(self) -> Received:
        """As a worker receives it: the next one that is due, however long it takes."""
        [message] = await self.queue.receive(1, wait=1000.0, visibility=self.backend.timing.visibility)
        return message

    def value(self, collection: str, key: str) -> Item:
        return self.wait_for(self.client.aread(collection, key)) or {}


@dataclass
class Told:
    """A plan that counts, and tells whether its fault has happened."""

    at: int = -1
    fault: Fault | None = None
    calls: list[PortCall] = field(default_factory=list[PortCall])

    def __call__(self, call: PortCall) -> Fault | None:
        if call.operation.startswith("query"):  # the reaper, which comes at times of its own
            return None
        self.calls.append(call)
        return self.fault if len(self.calls) - 1 == self.at else None


def chain(length: int, *, when: Any = None) -> World:
    w = world()

    def declare(number: int, before: list[str], condition: Any) -> None:
        def body(n: int) -> int:
            w.bodies[f"s{number}"] += 1
            return number

        w.flow.step(name=f"s{number}", after=before, when=condition)(body)

    for number in range(length):
        declare(number, [f"s{number - 1}"] if number else [], when and when(w.flow))
    return w


def client_of(h: Faulty, plan: Plan) -> Client:
    """A client that reaches the harness's backend through faults of its own."""
    backend = Machine("client", Gate(plan, random.Random(0), latency=0.0), h.backend).backend
    return Client("memory://", backend=lambda: backend)


def failing() -> World:
    """A step fails for good while another one works; two handlers follow."""
    w = world()
    flow, bodies = w.flow, w.bodies

    @flow.step
    def first(n: int) -> int:
        bodies["first"] += 1
        return n

    @flow.step(retry=Retry(attempts=1), delivery="exactly_once")
    def boom(n: int = first.output) -> int:
        bodies["boom"] += 1
        raise ValueError("no")

    @flow.step(timeout=600)
    async def beside(n: int = first.output) -> int:
        bodies["beside"] += 1
        await asyncio.sleep(500)
        return n

    @flow.step(after=[boom, beside])
    def never(n: int) -> int:
        bodies["never"] += 1
        return n

    @flow.on_failure(delivery="exactly_once")
    def undo(why: Failure, ctx: Context, done: int | None = first.output) -> str:
        bodies["undo"] += 1
        ctx.commit(Update("ledger", "total", add={"count": 1}))
        return f"{why.step} {done}"

    @flow.on_failure
    def sorry(undone: str = undo.output) -> str:
        bodies["sorry"] += 1
        return f"sorry for {undone}"

    return w
