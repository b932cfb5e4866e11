"""A worker's death is known at once: what it held is delivered again, and its owner tokens are known as a dead one's.

It may be known late, and never early.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from detent_infra.ports import Backend, Received
from detent_infra.sqlite import sqlite_backend

from tests.support.waiting import until

HOUR = 3600.0
"""Seconds for which a message is hidden here: nothing comes back because its time is over."""
PATIENCE = 60.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "detent.db"


@pytest.fixture
def backend(file: Path) -> Iterator[Backend]:
    with closing(sqlite_backend(file)) as opened:
        yield opened


def take(backend: Backend, *, wait: float = PATIENCE, limit: int = 10) -> list[Received]:
    return asyncio.run(backend.queue.receive(limit, wait=wait, visibility=HOUR))


@contextmanager
def worker(file: Path, *, forks: bool = False) -> Iterator[tuple[int, str]]:
    """Another process that has received a message and is at it: its number, and an owner token of its."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest's own would raise, and go on with the tests here
            backend = sqlite_backend(file)
            assert len(take(backend, limit=1)) == 1
            if not forks or os.fork():
                os.write(writing, backend.new_owner().encode())
            os.close(writing)
            signal.alarm(int(PATIENCE))
            signal.pause()
        finally:
            os._exit(0)
    os.close(writing)
    try:
        token = os.read(reading, 100).decode()
        assert token
        yield child, token
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


def test_what_a_killed_worker_held_is_delivered_at_once_to_a_new_one(file: Path, backend: Backend) -> None:
    asyncio.run(backend.queue.send(["work", "more"]))
    with worker(file) as (child, token):
        assert not backend.is_dead(token)
        assert len(take(backend, wait=0)) == 1
        assert take(backend, wait=0.3) == []
        kill(child)
        assert backend.is_dead(token)
        with closing(sqlite_backend(file)) as new:
            assert new.is_dead(token)
            [message] = take(new)
        assert (message.body, message.count) == ("work", 2)
        assert asyncio.run(redelivered_by(backend, message)) == []


async def redelivered_by(backend: Backend, message: Received) -> list[Received]:
    """What else comes once the message is done with."""
    await backend.queue.delete(message.receipt)
    return await backend.queue.receive(10, wait=0.3, visibility=HOUR)


def test_a_surviving_worker_that_waits_receives_it_too(file: Path, backend: Backend) -> None:
    asyncio.run(backend.queue.send(["work"]))
    found: list[Received] = []
    with worker(file) as (child, _):
        survivor = threading.Thread(target=lambda: found.extend(take(backend)))
        survivor.start()
        kill(child)
        survivor.join()
    assert [(message.body, message.count) for message in found] == [("work", 2)]


def test_a_stopped_worker_keeps_what_it_holds(file: Path, backend: Backend) -> None:
    asyncio.run(backend.queue.send(["work"]))
    with worker(file) as (child, token):
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        assert not backend.is_dead(token)
        assert take(backend, wait=0.5) == []
        kill(child)
        assert len(take(backend)) == 1


def test_a_forked_child_does_not_keep_its_dead_parent_alive(file: Path, backend: Backend) -> None:
    asyncio.run(backend.queue.send(["work"]))
    with worker(file, forks=True) as (child, token):
        assert not backend.is_dead(token)
        kill(child)
        until(lambda: backend.is_dead(token))
        assert len(take(backend)) == 1


def test_each_backend_of_a_process_has_a_lock_of_its_own_until_it_is_closed(file: Path, backend: Backend) -> None:
    first, second = sqlite_backend(file), sqlite_backend(file)
    with closing(second), closing(first):
        mine, tokens = backend.new_owner(), (first.new_owner(), second.new_owner())
        assert len({mine, *tokens, first.new_owner()}) == 4
        assert not any(backend.is_dead(token) for token in (mine, *tokens))
        asyncio.run(first.queue.send(["work"]))
        take(first)
        first.close()
        assert backend.is_dead(tokens[0])
        assert not backend.is_dead(tokens[1])
        assert len(take(second)) == 1


def test_a_worker_of_another_database_is_not_judged(file: Path, backend: Backend, tmp_path: Path) -> None:
    with closing(sqlite_backend(tmp_path / "other.db")) as other:
        token = other.new_owner()
    assert backend.new_owner()[:8] != token[:8]
    assert not backend.is_dead(token)


def test_a_token_that_names_no_lock_is_nobodys_death(backend: Backend) -> None:
    for token in ("", "A", backend.ids(), "é" * 32, "z" * 32, backend.new_owner()[:8] + "!" * 24):
        assert not backend.is_dead(token)


def test_where_no_lock_can_be_held_the_time_decides(file: Path) -> None:
    file.with_name("detent.db-alive").mkdir()
    with closing(sqlite_backend(file)) as one, closing(sqlite_backend(file)) as other:
        asyncio.run(one.queue.send(["work"]))
        token = one.new_owner()
        [message] = take(one)
        one.close()
        assert not other.is_dead(token)
        assert take(other, wait=0.3) == []
        asyncio.run(other.queue.extend(message.receipt, 0))
        assert len(take(other)) == 1


def test_a_message_that_somebody_else_received_since_is_not_taken_from_him(file: Path, backend: Backend) -> None:
    asyncio.run(backend.queue.send(["work"]))
    with worker(file) as (child, _):
        with closing(sqlite3.connect(file)) as early:  # a detent that says nothing of who holds a message
            early.execute("UPDATE messages SET count = count + 1")
            early.commit()
        kill(child)
        assert take(backend, wait=0.5) == []


def test_a_file_of_an_early_detent_is_extended(file: Path) -> None:
    with closing(sqlite_backend(file)) as backend:
        asyncio.run(backend.queue.send(["work"]))
    with closing(sqlite3.connect(file)) as early:
        for change in ("ALTER TABLE messages DROP COLUMN holder", "ALTER TABLE messages DROP COLUMN held"):
            early.execute(change)
        early.execute("DROP TABLE workers")
        early.commit()
    with closing(sqlite_backend(file)) as backend, worker(file) as (child, _):
        kill(child)
        assert len(take(backend)) == 1


def test_what_users_sent_to_a_queue_of_theirs_comes_back_when_its_time_is_over(file: Path, backend: Backend) -> None:
    with closing(sqlite_backend(file)) as other:
        source = other.source("inbox")
        asyncio.run(source.send("work"))
        assert len(asyncio.run(source.receive(1, wait=PATIENCE, visibility=HOUR))) == 1
    assert asyncio.run(backend.source("inbox").receive(1, wait=0.3, visibility=HOUR)) == []
