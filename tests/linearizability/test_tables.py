"""Every adapter's table, under many clients, does one thing at a time: checked on what the clients recorded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from detent_infra.memory import memory_backend
from detent_infra.ports import Conflict, Table
from detent_state_machine.writes import Item, Key, PutItem, Write, apply, holds

from tests.linearizability.checker import Verdict
from tests.linearizability.clients import ServicePlace, SqlitePlace, in_processes, in_threads
from tests.linearizability.history import Call, Done, Refused, Together, Unknown, check_table
from tests.linearizability.workload import Workload, read_record, run
from tests.support.aws_stack import moto_backend
from tests.support.server import Server
from tests.support.service_stack import service_stack


def workloads(processes: int, tasks: int, requests: int, *, seed: int = 1) -> list[Workload]:
    return [Workload(f"p{n}", tasks, requests, seed) for n in range(processes)]


def assert_linearizable(record: Iterable[Call], *, killed: bool | None = False) -> None:
    """`killed`: whether some calls got no answer; None if that may be or not."""
    calls = sorted(record, key=lambda call: call.invoked)
    verdict = check_table(calls)
    assert verdict.linearizable, explanation(verdict)
    pairs = list(pairwise(calls))
    overlapping = sum(one.returned is None or other.invoked < one.returned for one, other in pairs)
    assert overlapping > len(pairs) / 20, "calls that never overlap prove nothing"
    said = Counter(type(call.outcome) for call in calls)
    assert said[Done] > len(calls) / 4
    assert said[Refused] > len(calls) / 20
    assert killed is None or (said[Unknown] > 0) == killed
    assert any(isinstance(call.request, Together) and isinstance(call.outcome, Done) for call in calls)


def explanation(verdict: Verdict[Call]) -> str:
    tail = "\n  ".join(map(str, verdict.order[-6:]))
    return f"after\n  {tail}\nnone of these can follow:\n  " + "\n  ".join(map(str, verdict.stuck))


def test_memory_under_threads() -> None:
    loads = workloads(6, 2, 200)
    assert_linearizable(read_record(loads, in_threads(memory_backend(), loads)))


def test_moto_behind_its_lock_under_threads() -> None:
    loads = workloads(4, 2, 25)
    with moto_backend() as backend:
        lines = in_threads(backend, loads)
    assert_linearizable(read_record(loads, lines))


def test_sqlite_under_processes(tmp_path: Path) -> None:
    loads = workloads(3, 3, 120)
    assert_linearizable(read_record(loads, in_processes(SqlitePlace(tmp_path / "detent.db"), loads, tmp_path)))


@pytest.mark.parametrize("seed", [1, 2])
def test_sqlite_under_processes_that_are_killed(tmp_path: Path, seed: int) -> None:
    """What a killed process was told is stored; what it was not told is stored whole or not at all."""
    loads = workloads(4, 2, 150, seed=seed)
    kill = dict.fromkeys(("p0", "p1", "p2"), 100 + 40 * seed)
    lines = in_processes(SqlitePlace(tmp_path / "detent.db"), loads, tmp_path, kill=kill)
    assert_linearizable(read_record(loads, lines), killed=True)


@pytest.mark.service
def test_a_server_over_the_wire_under_processes(service: Server, tmp_path: Path) -> None:
    loads = workloads(3, 3, 60)
    with service_stack(service) as resources:
        lines = in_processes(ServicePlace(resources, service.endpoint), loads, tmp_path)
    assert_linearizable(read_record(loads, lines), killed=None)  # a server may be too slow to answer


@pytest.mark.service
def test_a_server_over_the_wire_under_processes_that_are_killed(service: Server, tmp_path: Path) -> None:
    loads = workloads(3, 2, 80, seed=3)
    with service_stack(service) as resources:
        lines = in_processes(ServicePlace(resources, service.endpoint), loads, tmp_path, kill={"p0": 100})
    assert_linearizable(read_record(loads, lines), killed=True)


# ---- tables with a hole: each must be found out -------------------------------------------------------------------


class Holed:
    """A table in memory that lets others in while it works. Each of its subclasses gets one thing wrong."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self.lock = asyncio.Lock()

    async def get(self, key: Key) -> Item | None:
        await asyncio.sleep(0)
        return self.items.get(key)

    async def write(self, write: Write) -> Item | None:
        async with self.lock:
            current = await self.get(write.key)
            if not holds(write.expect, current):
                raise Conflict(current)
            return self.store(write, current)

    async def transact(self, writes: Sequence[Write]) -> None:
        async with self.lock:
            current = [await self.get(write.key) for write in writes]
            for index, (write, item) in enumerate(zip(writes, current, strict=True)):
                if not holds(write.expect, item):
                    raise Conflict(item, index=index)
            for write, item in zip(writes, current, strict=True):
                self.store(write, item)

    def store(self, write: Write, current: Item | None) -> Item | None:
        after = apply(write, current)
        if after is None:
            self.items.pop(write.key, None)
        else:
            self.items[write.key] = after
        return after


class ChecksWithoutALock(Holed):
    async def write(self, write: Write) -> Item | None:
        current = self.items.get(write.key)
        await asyncio.sleep(0)
        if not holds(write.expect, current):
            raise Conflict(current)
        return self.store(write, current)


class ShowsHalfATransaction(Holed):
    async def transact(self, writes: Sequence[Write]) -> None:
        async with self.lock:
            for index, write in enumerate(writes):
                if not holds(write.expect, self.items.get(write.key)):
                    raise Conflict(self.items.get(write.key), index=index)
            for write in writes:
                self.store(write, self.items.get(write.key))
                await asyncio.sleep(0.001)


class KeepsTheBeginningOfARefusedTransaction(Holed):
    async def transact(self, writes: Sequence[Write]) -> None:
        async with self.lock:
            for index, write in enumerate(writes):
                current = self.items.get(write.key)
                if not holds(write.expect, current):
                    raise Conflict(current, index=index)
                self.store(write, current)


class RollsOthersBack(Holed):
    """What moto does without the lock: a refused transaction restores a copy of the whole table."""

    async def transact(self, writes: Sequence[Write]) -> None:
        copy = dict(self.items)
        for index, write in enumerate(writes):
            current = await self.get(write.key)
            if not holds(write.expect, current):
                self.items = copy
                raise Conflict(current, index=index)
        for write in writes:
            self.store(write, self.items.get(write.key))


class ReadsFromAReplica(Holed):
    def __init__(self) -> None:
        super().__init__()
        self.replica: dict[Key, Item] = {}

    async def get(self, key: Key) -> Item | None:
        found = self.replica.get(key)
        await asyncio.sleep(0)
        self.replica = dict(self.items)
        return found

    async def write(self, write: Write) -> Item | None:
        current = self.items.get(write.key)
        if not holds(write.expect, current):
            raise Conflict(current)
        return self.store(write, current)


class AcknowledgesBeforeItStores(Holed):
    async def write(self, write: Write) -> Item | None:
        current = self.items.get(write.key)
        if not holds(write.expect, current):
            raise Conflict(current)
        asyncio.get_running_loop().call_soon(self.store, write, current)
        return apply(write, current)


class ShowsAnOldItemInItsRefusal(Holed):
    async def write(self, write: Write) -> Item | None:
        before = self.items.get(write.key)
        await asyncio.sleep(0)
        async with self.lock:
            current = self.items.get(write.key)
            if not holds(write.expect, current):
                raise Conflict(before)
            return self.store(write, current)


def play(table: Table) -> list[Call]:
    lines: list[str] = []
    load = Workload("p0", tasks=8, requests=150, seed=1)
    asyncio.run(run(table, load, lambda line: lines.append(line + "\n")))
    return list(read_record([load], lines))


def test_a_table_without_a_hole_passes() -> None:
    assert_linearizable(play(Holed()))  # type: ignore[arg-type]  # a table without queries


@pytest.mark.parametrize("hole", Holed.__subclasses__(), ids=lambda hole: hole.__name__)
def test_a_table_with_a_hole_is_found_out(hole: type[Holed]) -> None:
    assert not check_table(play(hole())).linearizable  # type: ignore[arg-type]


def test_the_explanation_names_the_calls_that_do_not_fit() -> None:
    said = explanation(check_table(play(ChecksWithoutALock())))  # type: ignore[arg-type]
    assert "none of these can follow" in said
    assert PutItem.__name__ in said or "Update" in said
