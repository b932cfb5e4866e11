"""A disk that is full and a database that is locked, as runs see it: a typed error, and no run that is half there."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from detent import App, Context, Unavailable, Update, Workflow
from detent.testing import Harness
from detent_infra.ports import Timing
from detent_infra.sqlite import sqlite_backend

FAST = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=1.0, visibility=1.0)
RUNS = 40
INPUT = "x" * 5000


def counting() -> Workflow[str, int]:
    flow = App("counting", url="memory://").workflow("count", input=str, output=int)

    @flow.step
    async def measure(text: str) -> int:
        await asyncio.sleep(0.3)
        return len(text)

    @flow.step(delivery="exactly_once")
    def book(length: int = measure.output, *, ctx: Context) -> int:
        ctx.commit(Update("books", ctx.run_id, add={"times": 1}))
        return length

    return flow


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is waited for a moment only."""
    monkeypatch.setattr("detent_infra.sqlite.session.LOCK_LIMIT", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_start_on_a_locked_database_is_refused_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    file, flow = tmp_path / "detent.db", counting()
    with Harness(flow.app, backend=sqlite_backend(file, timing=FAST)) as harness:
        harness.run(flow, "before", within=30)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="try again"):
                harness.start(flow, INPUT, key="a")
        assert [run.key for run in harness.wait_for(harness.client.aruns())] == [None]
        run = harness.start(flow, INPUT, key="a")
        assert harness.result(run, within=30) == len(INPUT)


@pytest.mark.usefixtures("impatient")
def test_a_run_goes_on_after_a_lock_that_outlasted_its_workers_patience(tmp_path: Path) -> None:
    file, flow = tmp_path / "detent.db", counting()
    with Harness(flow.app, backend=sqlite_backend(file, timing=FAST)) as harness:
        run = harness.start(flow, INPUT)
        harness.advance(0.1)  # its first body is under way
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            harness.advance(0.6)
        assert harness.result(run, within=30) == len(INPUT)
        assert harness.wait_for(harness.client.aread("books", run.id)) == {"times": 1}


def test_runs_started_on_a_full_disk_are_whole_or_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(tmp_path / "detent.db")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    stored, refused = map(int, done.stdout.split())
    assert stored + refused == RUNS
    assert stored > 0
    assert refused > 0


def fill(file: Path) -> None:
    """In a process of its own, whose files may not grow beyond a limit: SQLite takes that for a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    flow = counting()
    stored: set[str] = set()
    with Harness(flow.app, backend=sqlite_backend(file, timing=FAST)) as harness:
        harness.stop_worker()
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        for n in range(RUNS):
            try:
                stored.add(harness.start(flow, INPUT, key=str(n)).id)
            except Unavailable:
                continue
        assert {run.run_id for run in harness.wait_for(harness.client.aruns(limit=100))} >= stored
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        harness.start_worker()
        runs = [harness.start(flow, INPUT, key=str(n)) for n in range(RUNS)]  # as a client does that was refused
        assert [harness.result(run, within=60) for run in runs] == [len(INPUT)] * RUNS
        books = [harness.wait_for(harness.client.aread("books", run.id)) for run in runs]
        assert books == [{"times": 1}] * RUNS
        assert len(harness.wait_for(harness.client.aruns(limit=100))) == RUNS
    print(len(stored), RUNS - len(stored))


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
