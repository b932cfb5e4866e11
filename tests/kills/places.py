"""Where the runs live, and the processes that work there and can be killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from tests.kills.ledger import VARIABLE, Ledger
from tests.support.deployed import Deployed, deploy
from tests.support.fresh_names import fresh
from tests.support.server import ministack
from tests.support.service_stack import CREDENTIALS, credentials

APP = "tests.kills.app:app"
ROOT = Path(__file__).parents[2]
VISIBILITY = 30
"""Seconds after which SQS delivers the message of a killed function again, as if it had had a heartbeat."""


@dataclass(frozen=True)
class Settings:
    """How many workers; the rest is about functions on ministack."""

    workers: int
    visibility: int = VISIBILITY
    even_starting: bool = False
    """Processes that start are killed, too."""
    max_receives: int = 10
    """Deliveries after which a message is a dead letter."""


DRAIN = {"sqlite": 90.0, "ministack": 240.0}
"""Seconds in which every run must end once nobody is killed any more: several leases, of 10 s and of 30 s."""


class Place(Protocol):
    """A backend at work. `url` is for clients."""

    url: str

    def kill_one(self, rng: random.Random) -> bool:
        """Kills one worker, whatever it does, and sees to it that another one takes its place."""
        ...


@dataclass
class SqlitePlace:
    """Worker processes on one file: `detent worker`, as users start it."""

    url: str
    environment: Mapping[str, str]
    log: IO[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    def start_one(self) -> None:
        self.workers.append(python(["-m", "detent.cli", "worker", "--app", APP], self.environment, self.log))

    def kill_one(self, rng: random.Random) -> bool:
        victim = self.workers.pop(rng.randrange(len(self.workers)))
        kill(victim)
        self.start_one()
        return True


@dataclass
class MinistackPlace:
    """Functions of the deployed template. The server starts new ones by itself.

    Unless `even_starting`, only a process that has run a body is killed: ministack answers the death of one that is
    still starting by ending all of the function's processes, which AWS does not do. Every other kill is aimed at a body
    that is under way.
    """

    url: str
    stack: Deployed
    ledger: Ledger
    even_starting: bool

    def kill_one(self, rng: random.Random) -> bool:
        at_work = self.ledger.read().at_work
        there = self.stack.function_processes("Worker")
        ready = there if self.even_starting else [pid for pid in there if pid in at_work]
        busy = [pid for pid in ready if at_work[pid] > 0]
        victims = busy if busy and rng.random() < 0.5 else ready
        if not victims:
            return False
        try:
            os.kill(rng.choice(victims), signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            return False
        return True


@contextmanager
def sqlite(folder: Path, ledger: Path, settings: Settings) -> Iterator[Place]:
    url = f"sqlite:///{folder / 'detent.db'}"
    environment = {VARIABLE: str(ledger), "DETENT_URL": url}
    with (folder / "workers.log").open("wb") as log:
        place = SqlitePlace(url, environment, log)
        try:
            for _ in range(settings.workers):
                place.start_one()
            yield place
        finally:
            for worker in place.workers:
                kill(worker)


@contextmanager
def on_ministack(folder: Path, ledger: Path, settings: Settings) -> Iterator[Place]:
    with ministack(folder) as server, credentials():
        stack = deploy(
            server,
            fresh("kills"),
            app=APP,
            concurrency=settings.workers,
            visibility=settings.visibility,
            max_receives=settings.max_receives,
            environment={VARIABLE: str(ledger), "DETENT_URL": "memory://"},
        )
        yield MinistackPlace(stack.url, stack, Ledger(ledger), settings.even_starting)


PLACES = {"sqlite": sqlite, "ministack": on_ministack}


def python(arguments: list[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A Python program of this checkout, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
