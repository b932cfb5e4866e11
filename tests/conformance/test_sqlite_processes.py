"""Several processes on one SQLite file: shared, killed, out of disk; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from detent_infra.ports import Backend, Conflict
from detent_infra.sqlite import sqlite_backend
from detent_state_machine.writes import Item, Key, PutItem, UpdateItem


@pytest.fixture
def backend(file: Path) -> Iterator[Backend]:
    with closing(sqlite_backend(file)) as backend:
        yield backend


spawn = multiprocessing.get_context("spawn")


def join_and_race(file: Path, n: int, processes: int) -> tuple[int, int]:
    """Races won, and how often this process's addition completed the set. Runs in a process of its own."""

    async def scenario() -> tuple[int, int]:
        await mine.table.write(UpdateItem(Key("meeting", "point"), add={"here": frozenset({n})}))
        while (await mine.table.get(Key("meeting", "point")) or {}).get("here") != frozenset(range(processes)):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        won = 0
        for round in range(20):
            try:
                await mine.table.write(PutItem(Key("race", str(round)), {"owner": n}))
                won += 1
            except Conflict:
                continue
        adds = [UpdateItem(Key("join", "set"), add={"in": frozenset({n * 10 + m}), "n": 1}) for m in range(10)]
        seen: list[Item | None] = await asyncio.gather(*map(mine.table.write, adds))
        return won, sum(item is not None and item["in"] == frozenset(range(processes * 10)) for item in seen)

    with closing(sqlite_backend(file)) as mine:
        return asyncio.run(scenario())


def test_processes_share_one_file_without_losing_or_doubling_a_write(file: Path) -> None:
    processes = 3
    with spawn.Pool(processes) as pool:  # all of them create the file
        results = pool.starmap(join_and_race, [(file, n, processes) for n in range(processes)], chunksize=1)
    assert sum(won for won, _ in results) == 20
    assert sum(completed for _, completed in results) == 1
    with closing(sqlite_backend(file)) as backend:
        joined = asyncio.run(backend.table.get(Key("join", "set")))
    assert joined == {"in": frozenset(range(processes * 10)), "n": processes * 10}


CHILD = """
import asyncio, sys
from detent_infra.sqlite import sqlite_backend
from detent_state_machine.writes import Key, PutItem
backend = sqlite_backend(sys.argv[1])
"""


def child(file: Path, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + program, str(file)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def test_a_message_from_another_process_is_noticed_soon(file: Path, backend: Backend) -> None:
    sender = "print('ready', flush=True)\nfor body in sys.stdin: asyncio.run(backend.queue.send([body.strip()]))"

    async def scenario(process: subprocess.Popen[str], body: str) -> float:
        assert process.stdin is not None
        waiting = asyncio.create_task(backend.queue.receive(1, wait=20, visibility=600))
        await asyncio.sleep(0.3)  # long enough to be idle
        asked = time.monotonic()
        process.stdin.write(f"{body}\n")
        process.stdin.flush()
        assert [message.body for message in await waiting] == [body]
        return time.monotonic() - asked

    with child(file, sender) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # A busy machine makes some of them late, and a slow look all.
        assert min(asyncio.run(scenario(process, f"from afar {number}")) for number in range(5)) < 1


def test_a_process_killed_at_any_moment_loses_nothing_it_acknowledged(file: Path) -> None:
    writer = """
async def chain(name):
    n = 0
    while True:
        await asyncio.gather(
            backend.table.transact([PutItem(Key(name, f"{n}a"), {"n": n}), PutItem(Key(name, f"{n}b"), {"n": n})]),
            backend.queue.send([f"{name}/{n}"]),
        )
        print(name, n, flush=True)
        n += 1

async def main():
    await asyncio.gather(*(chain(f"p{k}") for k in range(8)))

asyncio.run(main())
"""
    with child(file, writer) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(150)]
        process.send_signal(signal.SIGKILL)
        lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]

    async def scenario() -> None:
        acknowledged = {(name, int(n)) for name, n in (line.split() for line in lines)}
        received: set[str] = set()
        while found := await reopened.queue.receive(100, wait=0, visibility=60):
            received |= {message.body for message in found}
        assert {f"{name}/{n}" for name, n in acknowledged} <= received
        for name in (f"p{k}" for k in range(8)):
            page = await reopened.table.query(name, limit=100_000)
            stored = {key.sk for key, _ in page.items}
            whole = {n for n in range(len(stored)) if f"{n}a" in stored and f"{n}b" in stored}
            assert {n for chain, n in acknowledged if chain == name} <= whole
            assert len(stored) == 2 * len(whole), "half a transaction is stored"

    with closing(sqlite_backend(file)) as reopened:
        asyncio.run(scenario())


def test_a_disk_that_is_full_makes_writes_unavailable_and_stores_no_half(file: Path) -> None:
    program = """
import resource, signal
from detent_state_machine.errors import Unavailable

def room(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    room(300_000)
    stored, refused = [], []
    for n in range(0, 40, 4):
        results = await asyncio.gather(
            *(backend.table.write(PutItem(Key("p", f"{m:02}"), {"text": "x" * 20_000})) for m in range(n, n + 4)),
            return_exceptions=True,
        )
        for m, result in zip(range(n, n + 4), results):
            assert isinstance(result, (dict, Unavailable)), result
            (refused if isinstance(result, Unavailable) else stored).append(f"{m:02}")
    assert stored and refused, (stored, refused)
    assert [key.sk for key, _ in (await backend.table.query("p")).items] == stored
    room(resource.RLIM_INFINITY)
    for sk in refused:
        await backend.table.write(PutItem(Key("p", sk), {"text": "x" * 20_000}))
    print(len(stored), len(refused))

asyncio.run(main())
backend.close()
"""
    with child(file, program) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    stored, refused = map(int, said.split())
    assert stored + refused == 40
    with closing(sqlite_backend(file)) as backend:
        assert len(asyncio.run(backend.table.query("p")).items) == 40
