"""Clients in threads and in processes, all at the same time. What they are told is on record when they are killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from detent_infra.ports import Backend
from detent_infra.sqlite import sqlite_backend

if TYPE_CHECKING:
    from detent_infra.aws import Resources

PATIENCE = 60.0
"""Seconds after which a process that does nothing has hung."""
spawn = multiprocessing.get_context("spawn")

Emit: TypeAlias = Callable[[str], object]
"""Keeps a line of the record, at once."""


NOBODY: Mapping[str, int] = {}


class Client(Protocol):
    """What one thread or process does. Can be sent to another process."""

    @property
    def name(self) -> str: ...
    async def play(self, backend: Backend, emit: Emit) -> None: ...


class Place(Protocol):
    """Where a process finds the backend. Can be sent to another process."""

    def open(self) -> Backend: ...


@dataclass(frozen=True)
class SqlitePlace:
    file: Path

    def open(self) -> Backend:
        return sqlite_backend(self.file)


@dataclass(frozen=True)
class ServicePlace:
    resources: Resources
    endpoint: str

    def open(self) -> Backend:
        from tests.support.service_stack import open_stack

        return open_stack(self.resources, self.endpoint)


def in_threads(backend: Backend, clients: Sequence[Client]) -> list[str]:
    """The lines that clients record, each in a thread with an event loop of its own."""
    lines: list[str] = []
    ready = threading.Barrier(len(clients))

    def thread(client: Client) -> None:
        def emit(line: str) -> None:
            lines.append(line + "\n")
            time.sleep(0)  # the others' turn: else one is done before the next has begun, and nothing overlaps

        ready.wait(PATIENCE)
        asyncio.run(client.play(backend, emit))

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(thread, clients))
    return lines


def in_processes(
    place: Place, clients: Sequence[Client], folder: Path, *, kill: Mapping[str, int] = NOBODY
) -> list[str]:
    """The lines that clients record, each in a process. The last line of a killed one may be torn.

    `kill` names clients that are killed, each once it has recorded so many lines.
    """
    ready = spawn.Barrier(len(clients))
    records = [folder / f"{client.name}.record" for client in clients]
    processes = [
        spawn.Process(target=_process, args=(place, client, record, ready))
        for client, record in zip(clients, records, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        started = zip(clients, processes, records, strict=True)
        _kill(
            [_Victim(process, record, kill[client.name]) for client, process, record in started if client.name in kill]
        )
        for process in processes:
            process.join(PATIENCE)
    finally:
        for process in processes:
            process.kill()
            process.join()
    for process, client in zip(processes, clients, strict=True):
        assert process.exitcode == (-signal.SIGKILL if client.name in kill else 0), client.name
    return [line for record in records for line in record.read_text().splitlines(keepends=True)]


def _process(place: Place, client: Client, record: Path, ready: threading.Barrier) -> None:
    file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with closing(place.open()) as backend:
        ready.wait(PATIENCE)
        # Written at once, line by line: a kill takes nothing with it that was answered.
        asyncio.run(client.play(backend, lambda line: os.write(file, f"{line}\n".encode())))


@dataclass(frozen=True)
class _Victim:
    process: SpawnProcess
    record: Path
    lines: int

    @property
    def due(self) -> bool:
        return self.record.exists() and self.record.read_bytes().count(b"\n") >= self.lines


def _kill(victims: list[_Victim]) -> None:
    """Each once it has recorded so many lines: all are watched, so that none ends while another is slow."""
    until = time.monotonic() + PATIENCE
    while victims:
        assert time.monotonic() < until, f"they stay short: {[victim.record.name for victim in victims]}"
        for victim in list(victims):
            ended = not victim.process.is_alive()
            if victim.due:
                victim.process.kill()
                victims.remove(victim)
            else:
                assert not ended, f"{victim.record.name} has no {victim.lines} lines, and its process has ended"
        time.sleep(0.002)
