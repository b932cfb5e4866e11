"""Times the embedded backend: one worker on one SQLite file, `synchronous=FULL`, as it comes."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, time_ns
from typing import Any

from detent import App, Client, RunHandle, Workflow
from detent_infra.engine import Engine
from detent_infra.ports import Backend
from detent_infra.sqlite import sqlite_backend
from detent_infra.worker import Worker

from bench.counting import counted
from bench.workflows import Probe, Small, chain, fan_out

CHAIN = 10
WIDTH = 100
CONCURRENCY = 100
"""Messages driven at once: a worker's default."""
PATIENCE = 30.0


@dataclass
class Stand:
    """An app on a new file, a client of it, and a worker that has not begun."""

    app: App
    backend: Backend
    path: Path

    @property
    def client(self) -> Client:
        return Client(self.app.url, backend=lambda: self.backend)

    def worker(self) -> Worker:
        return Worker(Engine(self.backend, self.app.executor), concurrency=CONCURRENCY)

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[Worker]:
        """A worker that works meanwhile, in this process."""
        stop, worker = asyncio.Event(), self.worker()
        working = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await working


async def throughput(directory: Path, runs: int, *, sync: bool = False) -> dict[str, float]:
    """Many runs of a chain of 10 at once: steps per second, from the worker's start to the last run's end."""
    with _stand(directory) as stand:
        workflow, client = chain(stand.app, CHAIN, sync=sync), stand.client
        began = perf_counter()
        handles = await client.astart_many(workflow, [{"n": 0}] * runs)
        starting = perf_counter() - began
        began, busy = perf_counter(), process_time()
        async with stand.working() as worker:
            while worker.handled < runs:  # noqa: ASYNC110 - nobody but a bench waits for a worker's count
                await asyncio.sleep(0.005)
            took, busy = perf_counter() - began, process_time() - busy
            await _check(handles)
    steps = runs * CHAIN
    return {"steps_per_s": steps / took, "cpu_us_per_step": busy / steps * 1e6, "starts_per_s": runs / starting}


async def latency(directory: Path, runs: int, *, sync: bool = False) -> dict[str, float]:
    """One run of a chain of 10 at a time, in milliseconds.

    `step_ms` is from one body's first line to the next body's, `first_line_ms` from the client's call, in the
    worker's own process, to the first body's first line.
    """
    probe = Probe()
    with _stand(directory) as stand:
        workflow, client = chain(stand.app, CHAIN, sync=sync, probe=probe), stand.client
        called: list[int] = []
        async with stand.working():
            for _ in range(runs + 1):
                called.append(time_ns())
                await _run(client, workflow)
    rows = [probe.began[f"s{number}"][1:] for number in range(CHAIN)]
    steps = [ms for earlier, later in itertools.pairwise(rows) for ms in _between(earlier, later)]
    return {
        "step_ms": median(steps),
        "step_ms_p95": _p95(steps),
        "first_line_ms": median(_between(called[1:], rows[0])),
    }


async def from_another_process(directory: Path, runs: int, *, pause: float) -> dict[str, float]:
    """Milliseconds from a client's call in a second process to the first body's first line; `pause` seconds apart."""
    probe = Probe()
    with _stand(directory) as stand:
        chain(stand.app, 1, probe=probe)
        async with stand.working():
            command = ("-m", "bench.client", stand.app.url, "chain", str(runs), str(pause))
            client = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
            printed, _ = await client.communicate()
            called = [int(line) for line in printed.split()]
            async with asyncio.timeout(PATIENCE):
                while len(probe.began.get("s0", [])) < runs:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
    taken = _between(called, probe.began["s0"])[1:]
    return {"first_line_ms": median(taken), "first_line_ms_p95": _p95(taken)}


async def fan(directory: Path, runs: int) -> dict[str, float]:
    """100 parallel steps between a root and a join: milliseconds from the root's first line to the join's."""
    probe = Probe()
    with _stand(directory) as stand:
        stand.backend, counts = counted(stand.backend)
        workflow, client = fan_out(stand.app, WIDTH, probe=probe), stand.client
        async with stand.working():
            await _run(client, workflow)
            counts.clear()
            for _ in range(runs):
                await _run(client, workflow)
    took = _between(probe.began["root"], probe.began["join"])[1:]
    return {"fan_out_ms": median(took), "writes_per_child": len(counts.written) / runs / WIDTH}


async def idle(directory: Path, seconds: float) -> dict[str, float]:
    """CPU seconds that a process with an idle worker uses in a minute."""
    with _stand(directory) as stand:
        workflow, client = chain(stand.app, 1), stand.client
        async with stand.working():
            await _run(client, workflow)
            await asyncio.sleep(1.0)
            busy = process_time()
            await asyncio.sleep(seconds)
            return {"cpu_s_per_minute": (process_time() - busy) * 60 / seconds}


@contextmanager
def _stand(directory: Path) -> Generator[Stand]:
    with TemporaryDirectory(dir=directory) as name:
        path = Path(name) / "detent.db"
        backend = sqlite_backend(path)
        try:
            yield Stand(App("bench", url=f"sqlite:///{path}"), backend, path)
        finally:
            backend.close()


async def _run(client: Client, workflow: Workflow[Small, Any]) -> None:
    handle = await client.astart(workflow, {"n": 0})
    await handle.aresult(PATIENCE)
    await asyncio.sleep(0.01)


async def _check(handles: Sequence[RunHandle[Any]]) -> None:
    """Every run has completed with the chain's length as its result: what was fast was also done."""
    for handle in handles:
        result = await handle.aresult(PATIENCE)
        assert result == {"n": CHAIN}, f"{handle} returned {result}"


def _between(earlier: Sequence[int], later: Sequence[int]) -> list[float]:
    """Milliseconds, pairwise."""
    return [(two - one) / 1e6 for one, two in zip(earlier, later, strict=True)]


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]
