"""Faults between a worker and its ports: every primitive call may be lost, late, doubled, or the last thing it did.

A `Machine` stands for one worker process, or for one environment of a function. Its ports are the memory backend's,
behind a gate that asks a plan what happens to each call. The engine, the worker, the reaper and clients are the real
ones; the adapters of SQLite and AWS are not here, and have suites of their own. Of functions, `Invocations` repeats
what they do around the engine.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Never, TypeAlias, TypeVar

from detent_infra.memory import MemoryQueue
from detent_infra.ports import Backend, Blobs, Conflict, LogLine, LogPage, LogQuery, Logs, MessageQueue, Received, Table
from detent_infra.relay import RelayedTable, TableCall
from detent_infra.sources.embedded import EmbeddedSource
from detent_infra.unanswered import PAUSES
from detent_state_machine.errors import CorruptRecord, Unavailable
from detent_state_machine.messages import Message, decode
from detent_state_machine.writes import DeleteItem, PutItem, UpdateItem, Write

from detent.testing.harness import WorkerCrashed
from detent.testing.simulation.plans import Fault, FixedPlan, Plan, PortCall, RandomPlan, Rates, possible

__all__ = [
    "Fault",
    "FixedPlan",
    "Gate",
    "MAX_CALLS",
    "Machine",
    "Plan",
    "PortCall",
    "RandomPlan",
    "Rates",
    "VisibleQueue",
    "describe",
    "message_in",
    "possible",
]

_T = TypeVar("_T")
Act: TypeAlias = "Callable[[Fault | None], Awaitable[_T]]"

MAX_CALLS = 200_000
"""Calls of one simulation. More is a livelock: every machine is stopped, so that time goes on and it is noticed."""


@dataclass
class Gate:
    """What all machines of a simulation share: the plan, the count of calls, the trace, and chance."""

    plan: Plan
    rng: random.Random
    latency: float = 0.02
    """Longest time of an ordinary call in seconds; drawn for each, so that machines interleave."""
    calls: int = 0
    trace: list[str] = field(default_factory=list[str])
    down: dict[str, float] = field(default_factory=dict[str, float])
    """Operations that are refused to everybody, each until this time of the loop."""
    lost_blobs: set[str] = field(default_factory=set[str])
    crashed: Callable[[Machine], None] | None = None
    """Told of each machine that dies."""
    paused: Callable[[Machine], None] | None = None
    """Told of each machine that stands still."""
    deaths_are_known: bool = False
    """Whether a machine's death becomes known, as on SQLite: at once, late or never, but never early."""
    known_dead: dict[str, float] = field(default_factory=dict[str, float])
    """From when on each dead machine is known to be dead, in seconds of the loop."""
    holders: dict[tuple[int, str], str] = field(default_factory=dict[tuple[int, str], str])
    """Which machine received a message, by queue and receipt."""
    orphans: set[tuple[int, str]] = field(default_factory=set[tuple[int, str]])
    """Receipts of machines that were known to be dead when the message was made visible again."""
    applied: Callable[[], None] | None = None
    """Told after each call that was applied: the moment to check invariants."""

    async def pass_through(self, machine: Machine, operation: str, what: str, act: Act[_T]) -> _T:
        """Makes the call, or what the plan makes of it. `act` is told the fault, for those it plays itself."""
        time = asyncio.get_running_loop().time
        began = time()
        try:
            return await self._pass_through(machine, operation, what, act)
        except Unavailable:
            machine.held.append((time(), time() + PAUSES.longest))  # The engine tries a claim again so much later.
            raise
        finally:
            machine.held.append((began, time()))

    async def _pass_through(self, machine: Machine, operation: str, what: str, act: Act[_T]) -> _T:
        await machine.may_go_on()
        await asyncio.sleep(self.rng.random() * self.latency)
        await machine.may_go_on()
        if self.calls >= MAX_CALLS:
            await asyncio.Event().wait()
        call = PortCall(self.calls, machine.name, operation, what)
        self.calls += 1
        fault = self.plan(call)
        self.note(machine, f"{operation} {what}" + (f"  [{fault}]" if fault else ""))
        await self._before(machine, operation, fault)
        if self.deaths_are_known:
            await machine.may_go_on()  # a process that has ended writes nothing more, however slow its call was
        try:
            result = await act(fault)
            if self.applied is not None:
                self.applied()
            if fault is Fault.REPEATED and operation != "receive":
                result = await act(fault)
        except Conflict as conflict:
            self.note(machine, f"    conflict: {(conflict.item or {}).get('status', conflict.item)}")
            if fault is Fault.CRASH_AFTER:
                self.crash(machine)
            await machine.may_go_on()
            raise
        if fault is Fault.CRASH_AFTER:
            self.crash(machine)
        if fault is Fault.UNKNOWN:
            raise Unavailable("The reply was lost (simulated).")
        await machine.may_go_on()
        return result

    async def _before(self, machine: Machine, operation: str, fault: Fault | None) -> None:
        now = asyncio.get_running_loop().time()
        match fault:
            case Fault.CRASH_BEFORE:
                self.crash(machine)
            case Fault.REFUSED:
                raise Unavailable("Throttled (simulated).")
            case Fault.SLOW:
                await asyncio.sleep(self.rng.uniform(1.0, 20.0))
            case Fault.PAUSE:
                machine.pause(self.rng.uniform(40.0, 120.0))
                if self.paused is not None:
                    self.paused(machine)
            case Fault.OUTAGE:
                self.down[operation] = now + self.rng.uniform(5.0, 60.0)
            case _:
                pass
        if self.down.get(operation, 0.0) > now:
            raise Unavailable(f"No {operation} is answered at the moment (simulated).")

    def is_known_dead(self, owner: str) -> bool:
        """Whether the machine that made the owner token is known to be dead."""
        since = self.known_dead.get(owner.partition(".")[0])
        return since is not None and since <= asyncio.get_running_loop().time()

    def note(self, machine: Machine, text: str) -> None:
        now = asyncio.get_running_loop().time()
        self.trace.append(f"{now:9.3f} {machine.name:<8} {text}")

    def note_event(self, text: str) -> None:
        """Something that no machine did."""
        self.trace.append(f"{asyncio.get_running_loop().time():9.3f} {text}")

    def crash(self, machine: Machine) -> Never:
        """The machine dies. Raises `WorkerCrashed`."""
        machine.dead = True
        self.note(machine, "dies")
        if self.deaths_are_known:
            now = asyncio.get_running_loop().time()
            self.known_dead.setdefault(machine.name, now + self.rng.choice((0.0, 0.0, self.rng.uniform(0.0, 20.0))))
        if self.crashed is not None:
            self.crashed(machine)
        raise WorkerCrashed


class Machine:
    """One worker process: alive, paused or dead, with a clock that is off by `skew` milliseconds."""

    def __init__(self, name: str, gate: Gate, backend: Backend, skew: int = 0) -> None:
        self.name = name
        self.gate = gate
        self.dead = False
        self.held: list[tuple[float, float]] = []
        """When it waited, from and to, in seconds of the loop: its calls, the pauses between tries, its standstills."""
        self._resumes = 0.0
        self._sources = backend.source
        self.backend = replace(
            backend,
            table=FaultyTable(self, backend.table),
            queue=FaultyQueue(self, _visible(backend.queue)),
            dead_letters=FaultyQueue(self, _visible(backend.dead_letters)),
            blobs=FaultyBlobs(self, backend.blobs),
            logs=FaultyLogs(self, backend.logs),
            clock=lambda: backend.clock() + skew,
            source=self._source,
        )
        if gate.deaths_are_known:
            self.backend = replace(
                self.backend, new_owner=lambda: f"{name}.{backend.ids()}", is_dead=gate.is_known_dead
            )

    def _source(self, name: str) -> EmbeddedSource:
        source = self._sources(name)
        assert isinstance(source, EmbeddedSource), "a simulation runs on its own memory backend"
        queue, dead = (FaultyQueue(self, _visible(queue), of_users=True) for queue in (source.queue, source.dead))
        return replace(source, queue=queue, dead=dead)

    def pause(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self._resumes = now + seconds
        self.held.append((now, self._resumes))

    def held_up(self, since: float, until: float) -> float:
        """Seconds of this time in which at least one of its calls was under way, or it stood still."""
        total, seen = 0.0, since
        for began, ended in sorted(self.held):
            total += max(0.0, min(ended, until) - max(began, seen))
            seen = max(seen, ended)
        return total

    @property
    def stands_still(self) -> bool:
        return self._resumes > asyncio.get_running_loop().time()

    def die(self) -> Never:
        """Raises `WorkerCrashed`."""
        self.gate.crash(self)

    async def may_go_on(self) -> None:
        """Waits while the machine is paused; raises `WorkerCrashed` once it is dead."""
        left = self._resumes - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)
        if self.dead:
            raise WorkerCrashed


class VisibleQueue(MemoryQueue):
    """A memory queue that can be looked into, and purged. It delays a message no longer than SQS does."""

    max_delay = 900.0

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        await super().send(bodies, delay=delay)
        self.sent.update(type(message_in(body)) for body in bodies)

    @cached_property
    def sent(self) -> Counter[type[Message | None]]:
        """How many messages of each kind were ever sent; None for what is not a message."""
        return Counter()

    def purge(self) -> None:
        """Every message is gone, those in flight too."""
        self._messages.clear()

    def bodies(self) -> list[str]:
        """Of every message it holds: waiting, delayed or in flight."""
        return [message.body for message in self._messages.values()]

    def newest_receipt(self, receipt: str) -> str:
        """The receipt of the newest delivery of the message that this one is of."""
        message = self._messages.get(int(receipt.split("/")[0]))
        return message.receipt if message else receipt


class FaultyTable(RelayedTable):
    def __init__(self, machine: Machine, table: Table) -> None:
        super().__init__(table)
        self._machine = machine

    async def relay(self, call: TableCall, act: Callable[[], Awaitable[_T]]) -> _T:
        what = ", ".join(key.sk for key in call.keys) or " + ".join(map(describe, call.writes)) or call.partition
        return await self._machine.gate.pass_through(self._machine, call.operation, what, lambda _: act())


class FaultyQueue:
    def __init__(self, machine: Machine, queue: VisibleQueue, *, of_users: bool = False) -> None:
        self._machine = machine
        self._queue = queue
        self._tells_deaths = machine.gate.deaths_are_known and not of_users
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
        await self._free_messages_of_the_dead()
        received = [self._held(one) for one in await self._queue.receive(limit, wait=wait, visibility=visibility)]
        if not received:
            return received

        async def act(fault: Fault | None) -> list[Received]:
            if fault is Fault.DUPLICATE:
                for message in received:
                    await self._queue.extend(message.receipt, self._machine.gate.rng.random() * 3)
            return received

        # A machine that dies here has taken the messages with it: they come back after their visibility.
        return await self._call("receive", ", ".join(f"{one.body} #{one.count}" for one in received), act)

    async def _free_messages_of_the_dead(self) -> None:
        gate, mine = self._machine.gate, id(self._queue)
        for (queue, receipt), holder in list(gate.holders.items()):
            if queue == mine and gate.is_known_dead(holder):
                del gate.holders[queue, receipt]
                if self._queue.newest_receipt(receipt) == receipt:
                    gate.orphans.add((mine, receipt))
                    await self._queue.extend(receipt, 0)

    def _held(self, message: Received) -> Received:
        gate, mine = self._machine.gate, id(self._queue)
        if not self._tells_deaths:
            return message
        gate.holders[mine, message.receipt] = self._machine.name
        number = message.receipt.partition("/")[0]
        return replace(message, orphaned=(mine, f"{number}/{message.count - 1}") in gate.orphans)

    async def extend(self, receipt: str, visibility: float) -> None:
        await self._call("extend", f"{receipt} {visibility:g}s", lambda _: self._queue.extend(receipt, visibility))

    async def extend_many(self, receipts: Sequence[str], visibility: float) -> None:
        async def act(fault: Fault | None) -> None:
            some = receipts[: len(receipts) // 2] if fault is Fault.PARTIAL else receipts
            await self._queue.extend_many(some, visibility)
            if fault is Fault.PARTIAL:
                raise Unavailable("Part of the batch was not changed (simulated).")

        await self._call("extend many", f"{', '.join(receipts)} {visibility:g}s", act)

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
        ref = await gate.pass_through(self._machine, "blob put", f"{len(data)} B", lambda _: self._blobs.put(data))
        gate.lost_blobs.discard(ref)
        return ref

    async def get(self, ref: str) -> bytes:
        gate = self._machine.gate

        async def act(fault: Fault | None) -> bytes:
            if fault is Fault.MISSING:
                gate.lost_blobs.add(ref)
            if ref in gate.lost_blobs:
                raise CorruptRecord(f"The payload {ref!r} is missing from the blob store (simulated).")
            return await self._blobs.get(ref)

        return await gate.pass_through(self._machine, "blob get", ref[:8], act)


class FaultyLogs:
    def __init__(self, machine: Machine, logs: Logs) -> None:
        self.settles = logs.settles
        self._machine = machine
        self._logs = logs

    async def append(self, lines: Sequence[LogLine]) -> None:
        gate = self._machine.gate
        await gate.pass_through(self._machine, "log", f"{len(lines)} lines", lambda _: self._logs.append(lines))

    async def read(self, query: LogQuery, *, limit: int = 1000, after: str | None = None) -> LogPage:
        return await self._logs.read(query, limit=limit, after=after)

    def follow(self, query: LogQuery, over: asyncio.Event) -> AsyncGenerator[LogPage, None]:
        return self._logs.follow(query, over)


def describe(write: Write) -> str:
    """A write in a few words, for the trace."""
    match write:
        case PutItem(key=key):
            return f"put {key.sk}"
        case UpdateItem(key=key, set=values, add=added):
            changed = values.get("status") or ", ".join((*values, *added))
            return f"{key.sk} := {changed}"
        case DeleteItem(key=key):
            return f"delete {key.sk}"


@lru_cache(maxsize=10_000)
def message_in(body: str) -> Message | None:
    """The message in a queue's body; None if it is none."""
    try:
        return decode(body)
    except CorruptRecord:
        return None


def _visible(queue: MessageQueue) -> VisibleQueue:
    assert isinstance(queue, VisibleQueue), "a simulation runs on its own memory backend"
    return queue
