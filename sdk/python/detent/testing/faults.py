"""Faults between a worker and its ports: every primitive call may be lost, late, doubled, or the last thing it did.

A `Machine` stands for one worker process. Its ports are the memory backend's, behind a gate that asks a plan what
happens to each call; the engine, the worker and the adapters' logic are the real ones.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar

from detent_infra.memory import MemoryQueue
from detent_infra.ports import Backend, Blobs, Conflict, LogLine, LogPage, Logs, Page, Queue, Received, Table
from detent_state_machine.errors import Unavailable
from detent_state_machine.writes import Delete, Item, Key, Put, Update, Write

from detent.testing.harness import WorkerCrashed

_T = TypeVar("_T")
Act: TypeAlias = "Callable[[Fault | None], Awaitable[_T]]"


class Fault(StrEnum):
    """What can happen to a call. `Rates` has a field for each."""

    CRASH_BEFORE = "crash_before"
    """The machine dies; the call never leaves it."""
    CRASH_AFTER = "crash_after"
    """The call is applied; the machine dies before it hears of it."""
    REPEATED = "repeated"
    """Applied, the reply is lost, and the client library repeats the call by itself."""
    UNKNOWN = "unknown"
    """Applied, the reply is lost, and the caller is told that the backend is unavailable."""
    REFUSED = "refused"
    """Not applied: throttled, unreachable."""
    SLOW = "slow"
    """Applied some seconds late."""
    PAUSE = "pause"
    """The machine stands still past its lease, then goes on as if nothing had happened (a zombie)."""
    DUPLICATE = "duplicate"
    """A received message is delivered to another worker at once; a sent one is sent twice."""
    DELAY = "delay"
    """A sent message arrives late, and so behind younger ones."""
    PARTIAL = "partial"
    """Of a batch, only the first messages are sent; the caller is told."""
    STALE_DELETE = "stale_delete"
    """A delete with an old receipt deletes all the same, as SQS allows."""


@dataclass(frozen=True, slots=True)
class Call:
    """A primitive call about to be made: the how-manieth of the simulation, by which machine, on what."""

    number: int
    machine: str
    operation: str
    what: str


class Plan(Protocol):
    """Decides what happens to each call."""

    def __call__(self, call: Call) -> Fault | None: ...


@dataclass(frozen=True)
class Rates:
    """How likely each fault is, per call it can happen to."""

    crash_before: float = 0.01
    crash_after: float = 0.01
    repeated: float = 0.02
    unknown: float = 0.01
    refused: float = 0.02
    slow: float = 0.02
    pause: float = 0.004
    duplicate: float = 0.05
    delay: float = 0.05
    partial: float = 0.02
    stale_delete: float = 0.3

    def scaled(self, factor: float) -> Rates:
        return Rates(**{item.name: min(0.5, getattr(self, item.name) * factor) for item in fields(self)})


_POSSIBLE: Mapping[str, tuple[Fault, ...]] = {
    "send": (Fault.DUPLICATE, Fault.DELAY, Fault.PARTIAL),
    "receive": (Fault.DUPLICATE,),
    "delete": (Fault.STALE_DELETE,),
}
_ANY = (
    Fault.CRASH_BEFORE,
    Fault.CRASH_AFTER,
    Fault.REPEATED,
    Fault.UNKNOWN,
    Fault.REFUSED,
    Fault.SLOW,
    Fault.PAUSE,
)


def possible(operation: str) -> tuple[Fault, ...]:
    """The faults that can happen to an operation."""
    return _ANY + _POSSIBLE.get(operation, ())


class RandomPlan:
    """Faults at random, by their rates, until `stop` is called."""

    def __init__(self, rng: random.Random, rates: Rates) -> None:
        self._rng = rng
        self._rates = rates
        self._on = True
        self.injected: list[tuple[Call, Fault]] = []

    def stop(self) -> None:
        self._on = False

    def __call__(self, call: Call) -> Fault | None:
        if not self._on:
            return None
        for fault in possible(call.operation):
            if self._rng.random() < getattr(self._rates, fault.value):
                self.injected.append((call, fault))
                return fault
        return None


@dataclass(frozen=True)
class FixedPlan:
    """These faults at these calls, and no others: to enumerate them, to replay and to shrink."""

    faults: Mapping[int, Fault]

    def __call__(self, call: Call) -> Fault | None:
        fault = self.faults.get(call.number)
        return fault if fault in possible(call.operation) else None


@dataclass
class Gate:
    """What all machines of a simulation share: the plan, the count of calls, the trace, and chance."""

    plan: Plan
    rng: random.Random
    latency: float = 0.02
    """Longest time of an ordinary call in seconds; drawn for each, so that machines interleave."""
    calls: int = 0
    trace: list[str] = field(default_factory=list[str])
    crashed: Callable[[Machine], None] | None = None
    """Told of each machine that dies."""
    applied: Callable[[], None] | None = None
    """Told after each call that was applied: the moment to check invariants."""

    async def pass_through(self, machine: Machine, operation: str, what: str, act: Act[_T]) -> _T:
        """Makes the call, or what the plan makes of it. `act` is told the fault, for those it plays itself."""
        await machine.may_go_on()
        await asyncio.sleep(self.rng.random() * self.latency)
        await machine.may_go_on()
        call = Call(self.calls, machine.name, operation, what)
        self.calls += 1
        fault = self.plan(call)
        self.note(machine, f"{operation} {what}" + (f"  [{fault}]" if fault else ""))
        match fault:
            case Fault.CRASH_BEFORE:
                self._crash(machine)
            case Fault.REFUSED:
                raise Unavailable("Throttled (simulated).")
            case Fault.SLOW:
                await asyncio.sleep(self.rng.uniform(1.0, 20.0))
            case Fault.PAUSE:
                machine.pause(self.rng.uniform(40.0, 120.0))
            case _:
                pass
        try:
            result = await act(fault)
            if self.applied is not None:
                self.applied()
            if fault is Fault.REPEATED and operation != "receive":
                result = await act(fault)
        except Conflict as conflict:
            self.note(machine, f"    conflict: {(conflict.item or {}).get('status', conflict.item)}")
            if fault is Fault.CRASH_AFTER:
                self._crash(machine)
            await machine.may_go_on()
            raise
        if fault is Fault.CRASH_AFTER:
            self._crash(machine)
        if fault is Fault.UNKNOWN:
            raise Unavailable("The reply was lost (simulated).")
        await machine.may_go_on()
        return result

    def note(self, machine: Machine, text: str) -> None:
        now = asyncio.get_running_loop().time()
        self.trace.append(f"{now:9.3f} {machine.name:<8} {text}")

    def _crash(self, machine: Machine) -> None:
        machine.dead = True
        self.note(machine, "dies")
        if self.crashed is not None:
            self.crashed(machine)
        raise WorkerCrashed


class Machine:
    """One worker process: alive, paused or dead, with a clock that is off by `skew` milliseconds."""

    def __init__(self, name: str, gate: Gate, backend: Backend, skew: int = 0) -> None:
        self.name = name
        self.gate = gate
        self.dead = False
        self._resumes = 0.0
        self.backend = replace(
            backend,
            table=FaultyTable(self, backend.table),
            queue=FaultyQueue(self, _visible(backend.queue)),
            dead_letters=FaultyQueue(self, _visible(backend.dead_letters)),
            blobs=FaultyBlobs(self, backend.blobs),
            logs=FaultyLogs(self, backend.logs),
            clock=lambda: backend.clock() + skew,
        )

    def pause(self, seconds: float) -> None:
        self._resumes = asyncio.get_running_loop().time() + seconds

    async def may_go_on(self) -> None:
        """Waits while the machine is paused; raises `WorkerCrashed` once it is dead."""
        left = self._resumes - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)
        if self.dead:
            raise WorkerCrashed


class VisibleQueue(MemoryQueue):
    """A memory queue that can be looked into."""

    def bodies(self) -> list[str]:
        """Of every message it holds: waiting, delayed or in flight."""
        return [message.body for message in self._messages.values()]

    def newest_receipt(self, receipt: str) -> str:
        """The receipt of the newest delivery of the message that this one is of."""
        message = self._messages.get(int(receipt.split("/")[0]))
        return message.receipt if message else receipt


class FaultyTable:
    def __init__(self, machine: Machine, table: Table) -> None:
        self._machine = machine
        self._table = table

    async def get(self, key: Key) -> Item | None:
        return await self._call("get", key.sk, lambda _: self._table.get(key))

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        return await self._call("get_many", ", ".join(key.sk for key in keys), lambda _: self._table.get_many(keys))

    async def write(self, write: Write) -> Item | None:
        return await self._call("write", describe(write), lambda _: self._table.write(write))

    async def transact(self, writes: Sequence[Write]) -> None:
        what = " + ".join(describe(write) for write in writes)
        await self._call("transact", what, lambda _: self._table.transact(writes))

    async def query(
        self,
        pk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        def act(_: Fault | None) -> Awaitable[Page]:
            return self._table.query(pk, start=start, end=end, forward=forward, limit=limit, after=after)

        return await self._call("query", pk, act)

    async def query_index(
        self,
        ipk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        def act(_: Fault | None) -> Awaitable[Page]:
            return self._table.query_index(ipk, start=start, end=end, forward=forward, limit=limit, after=after)

        return await self._call("query_index", ipk, act)

    async def _call(self, operation: str, what: str, act: Act[_T]) -> _T:
        return await self._machine.gate.pass_through(self._machine, operation, what, act)


class FaultyQueue:
    def __init__(self, machine: Machine, queue: VisibleQueue) -> None:
        self._machine = machine
        self._queue = queue
        self.max_delay = queue.max_delay

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        gate = self._machine.gate

        async def act(fault: Fault | None) -> None:
            if fault is Fault.PARTIAL:
                await self._queue.send(bodies[: len(bodies) // 2], delay=delay)
                raise Unavailable("Part of the batch was not sent (simulated).")
            late = gate.rng.uniform(1.0, 60.0) if fault is Fault.DELAY else 0.0
            twice = [*bodies, *bodies] if fault is Fault.DUPLICATE else bodies
            await self._queue.send(twice, delay=min(self.max_delay, delay + late))

        await self._call("send", ", ".join(bodies) + (f" +{delay:.1f}s" if delay else ""), act)

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Received]:
        await self._machine.may_go_on()
        received = await self._queue.receive(limit, wait=wait, visibility=visibility)
        if not received:
            return received

        async def act(fault: Fault | None) -> list[Received]:
            if fault is Fault.DUPLICATE:
                for message in received:
                    await self._queue.extend(message.receipt, self._machine.gate.rng.random() * 3)
            return received

        # A machine that dies here has taken the messages with it: they come back after their visibility.
        return await self._call("receive", ", ".join(f"{one.body} #{one.count}" for one in received), act)

    async def extend(self, receipt: str, visibility: float) -> None:
        await self._call("extend", f"{receipt} {visibility:g}s", lambda _: self._queue.extend(receipt, visibility))

    async def delete(self, receipt: str) -> None:
        async def act(fault: Fault | None) -> None:
            stale = fault is Fault.STALE_DELETE
            await self._queue.delete(self._queue.newest_receipt(receipt) if stale else receipt)

        await self._call("delete", receipt, act)

    async def _call(self, operation: str, what: str, act: Act[_T]) -> _T:
        return await self._machine.gate.pass_through(self._machine, operation, what, act)


class FaultyBlobs:
    def __init__(self, machine: Machine, blobs: Blobs) -> None:
        self._machine = machine
        self._blobs = blobs

    async def put(self, data: bytes) -> str:
        gate = self._machine.gate
        return await gate.pass_through(self._machine, "blob put", f"{len(data)} B", lambda _: self._blobs.put(data))

    async def get(self, ref: str) -> bytes:
        gate = self._machine.gate
        return await gate.pass_through(self._machine, "blob get", ref[:8], lambda _: self._blobs.get(ref))


class FaultyLogs:
    def __init__(self, machine: Machine, logs: Logs) -> None:
        self._machine = machine
        self._logs = logs

    async def append(self, lines: Sequence[LogLine]) -> None:
        gate = self._machine.gate
        await gate.pass_through(self._machine, "log", f"{len(lines)} lines", lambda _: self._logs.append(lines))

    async def read(
        self, run_id: str, *, pattern: str = "", since: int = 0, limit: int = 1000, after: str | None = None
    ) -> LogPage:
        return await self._logs.read(run_id, pattern=pattern, since=since, limit=limit, after=after)


def describe(write: Write) -> str:
    """A write in a few words, for the trace."""
    match write:
        case Put(key=key):
            return f"put {key.sk}"
        case Update(key=key, set=values, add=added):
            changed = values.get("status") or ", ".join((*values, *added))
            return f"{key.sk} := {changed}"
        case Delete(key=key):
            return f"delete {key.sk}"


def _visible(queue: Queue) -> VisibleQueue:
    assert isinstance(queue, VisibleQueue), "a simulation runs on its own memory backend"
    return queue
