"""Real worker processes on one SQLite file, killed with SIGKILL wherever they are, and what is left in the end."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from detent import Client, RunInfo, RunStatus

from tests.e2e.ledger_app import open_backend
from tests.support.waiting import until

PROGRAM = Path(__file__).with_name("ledger_app.py")
RUNS = 150
"""Of each of the two workflows."""
PATIENCE = 120.0
"""Seconds after which a run that has not ended counts as lost."""

pytestmark = pytest.mark.slow


@dataclass
class Place:
    """A database, a ledger of what bodies did, and the processes that work there."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])
    log: IO[bytes] | None = None

    def __post_init__(self) -> None:
        self.database = self.folder / "detent.db"
        self.ledger = self.folder / "ledger.txt"
        self.client = Client(f"sqlite:///{self.database}", backend=lambda: open_backend(self.database))

    def run(self, verb: str, *more: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PROGRAM), verb, str(self.database), str(self.ledger), *map(str, more)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log)
        self.processes.append(process)
        return process

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []

    def runs(self, workflow: str) -> list[RunInfo]:
        return self.client.runs(workflow, limit=10_000)

    def live(self) -> int:
        return len(self.client.runs(statuses=[RunStatus.RUNNING, RunStatus.FAILING], limit=10_000))

    def wait_for_the_end(self) -> None:
        ends = time.monotonic() + PATIENCE
        while (live := self.live()) and time.monotonic() < ends:
            time.sleep(0.1)
        assert live == 0, f"{live} runs never ended"

    def messages(self) -> int:
        with closing(sqlite3.connect(self.database)) as database:
            return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])

    def wait_for_an_empty_queue(self) -> None:
        """A worker killed between its last write and the ack leaves a message, which comes again when it is visible."""
        ends = time.monotonic() + PATIENCE
        while (left := self.messages()) and time.monotonic() < ends:
            time.sleep(0.1)
        assert left == 0, f"{left} messages were never deleted"


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    with (folder / "workers.log").open("wb") as log:
        made = Place(folder, log=log)
        try:
            yield made
        finally:
            for process in made.processes:
                process.kill()
                process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    # One that was started a moment ago may not have got as far as its signal handlers.
    assert process.wait(timeout=PATIENCE) in (0, -signal.SIGTERM)


def start(here: Place, count: int) -> None:
    assert here.run("start", count).wait(timeout=PATIENCE) == 0


@dataclass
class Tally:
    """What became of one kind of step over all runs."""

    begun: Counter[str] = field(default_factory=Counter[str])
    done: Counter[str] = field(default_factory=Counter[str])


def tallies(here: Place) -> dict[str, Tally]:
    found: dict[str, Tally] = defaultdict(Tally)
    for path, run, what in here.lines():
        tally = found[path]
        (tally.begun if what == "begun" else tally.done)[run] += 1
    return found


def show(found: dict[str, Tally], runs: dict[str, int]) -> None:
    """started: bodies begun; finished: bodies that came to their end; lost: runs without one; duplicated: with two."""
    print(f"\n{'step':<16}{'runs':>6}{'started':>9}{'finished':>10}{'lost':>6}{'duplicated':>12}")
    for path, tally in sorted(found.items()):
        lost = runs[path] - len(tally.done)
        twice = sum(count > 1 for count in tally.begun.values())
        print(f"{path:<16}{runs[path]:>6}{tally.begun.total():>9}{tally.done.total():>10}{lost:>6}{twice:>12}")


def test_workers_that_are_killed_at_random_lose_no_run_and_repeat_no_effect(tmp_path: Path) -> None:
    rng = random.Random(20260101)
    with place(tmp_path) as here:
        start(here, RUNS)
        workers = [here.run("work") for _ in range(3)]
        kills = 0
        ends = time.monotonic() + 20
        while here.live() and time.monotonic() < ends:
            time.sleep(rng.uniform(0.1, 0.6))
            victim = rng.randrange(3)
            if len(here.lines()) > 10:  # work is under way
                kill(workers[victim])
                kills += 1
                workers[victim] = here.run("work")
        here.wait_for_the_end()
        here.wait_for_an_empty_queue()
        for worker in workers:
            stop(worker)

        found = tallies(here)
        orders, mails = here.runs("orders"), here.runs("mails")
        show(found, dict.fromkeys(found, RUNS))
        print(f"{kills} workers killed")

        assert kills >= 5
        assert any(tally.begun.total() > tally.done.total() for tally in found.values()), "no kill hit a body"
        assert [run.status for run in orders] == [RunStatus.COMPLETED] * RUNS
        for path in ("at_least_once", "exactly_once", "beside", "joined"):
            assert found[path].done.keys() == {run.run_id for run in orders}
        effects = [here.client.read("effects", run.run_id) or {} for run in orders]
        assert [effect.get("count") for effect in effects] == [1] * RUNS
        assert sum(int(str(effect["amount"])) for effect in effects) == sum(range(RUNS))
        assert sorted(here.client.handle(run.run_id).result() for run in orders) == [2 * n for n in range(RUNS)]

        assert max(found["at_most_once"].begun.values()) == 1
        assert {run.status for run in mails} <= {RunStatus.COMPLETED, RunStatus.FAILED}
        assert found["at_most_once"].done.keys() >= {r.run_id for r in mails if r.status is RunStatus.COMPLETED}
        failed = [here.client.get(run.run_id) for run in mails if run.status is RunStatus.FAILED]
        assert all(run.error is not None and run.error.type == "Interrupted" for run in failed)
        assert len(mails) == RUNS
    with closing(sqlite3.connect(tmp_path / "detent.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_second_worker_finishes_every_run_of_one_that_was_killed(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        start(here, 80)
        first = here.run("work")
        until(lambda: len(here.lines()) >= 15, every=0.005)
        kill(first)
        left = here.live()
        assert left > 0, "killed too late to show anything"
        second = here.run("work")
        here.wait_for_the_end()
        stop(second)
        orders = here.runs("orders")
        assert [run.status for run in orders] == [RunStatus.COMPLETED] * 80
        assert [here.client.read("effects", run.run_id) for run in orders] == [
            {"count": 1, "amount": here.client.handle(run.run_id).result() // 2} for run in orders
        ]
        assert max(tallies(here)["at_most_once"].begun.values()) == 1


def test_a_starter_that_is_killed_and_run_again_starts_each_run_once(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        for wait in (0.0, 0.02, 0.05):
            starter = here.run("start", 100)
            ends = time.monotonic() + 20
            already = len(here.runs("mails")) if here.database.exists() else 0
            while time.monotonic() < ends and starter.poll() is None and len(here.runs("orders")) <= already + 25:
                time.sleep(wait)
            starter.kill()
            starter.wait()
        start(here, 100)
        assert len(here.runs("orders")) == 100
        assert len(here.runs("mails")) == 100
        worker = here.run("work")
        here.wait_for_the_end()
        stop(worker)
        assert {run.status for run in (*here.runs("orders"), *here.runs("mails"))} == {RunStatus.COMPLETED}
        assert set(tallies(here)["exactly_once"].done.values()) == {1}
