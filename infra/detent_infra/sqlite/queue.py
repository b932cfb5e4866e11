"""The queue port on SQLite: a table of messages, and a way to wake who waits for one.

Within a process a send wakes receivers at once, on whichever loop or thread they wait. Another process's sends are
noticed by looking at `PRAGMA data_version`, which costs microseconds, often after activity and less often when idle.

Only a send waits for the disk. A power cut may undo a claim, an extension or an acknowledgement (a killed process
does not): the message is then delivered again, as at-least-once delivery allows.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

from detent_state_machine.errors import InputError

from detent_infra import forks
from detent_infra.ports import EMBEDDED_DELAY, Clock, Received
from detent_infra.sqlite.liveness import Liveness
from detent_infra.sqlite.session import SqliteSession

QUICK_LOOK = 0.002
SLOW_LOOK = 0.025
"""Seconds between two looks for other processes' messages: a tenth of the idle time, between these two."""
LIVENESS_LOOK = 0.1
"""Seconds between two looks at who has died."""
HIDDEN_AT_MOST = 3_600_000
"""Milliseconds. A worker hides a message for its lease; what is hidden for longer waits for its time."""

_SEND = "INSERT INTO messages (queue, body, visible) VALUES (?, ?, ?)"
_NEXT = "SELECT min(visible) FROM messages WHERE queue = ?"
_VISIBLE = (
    "SELECT id, body, count, holder, held FROM messages WHERE queue = ? AND visible <= ? ORDER BY visible LIMIT ?"
)
_CLAIM = "UPDATE messages SET count = count + 1, visible = ?, holder = ?, held = count + 1 WHERE id = ?"
_SIGN_IN = "INSERT OR IGNORE INTO workers (queue, name) VALUES (?, ?)"
_WORKERS = "SELECT name FROM workers WHERE queue = ?"
_FREE = """
UPDATE messages SET visible = ? WHERE queue = ? AND visible > ? AND visible <= ? AND holder = ? AND held = count
"""
_SIGN_OUT = "DELETE FROM workers WHERE queue = ? AND name = ?"
_EXTEND = "UPDATE messages SET visible = ? WHERE id = ? AND count = ?"
_DELETE = "DELETE FROM messages WHERE id = ? AND count = ?"
_BURY = "INSERT INTO messages (queue, body, visible) SELECT ?, body, ? FROM messages WHERE id = ?"
_REMOVE = "DELETE FROM messages WHERE id = ?"
_GIVE_BACK = "UPDATE messages SET count = count - 1, visible = ? WHERE id = ? AND count = ?"


class Wakes(forks.Forkable):
    """Who waits for messages of one file in this process."""

    _by_file: ClassVar[WeakValueDictionary[Path, Wakes]] = WeakValueDictionary()
    _guard: ClassVar = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        forks.follow_forks(self)

    def in_child(self) -> None:
        # Whoever waited has stayed with the parent: to wake a loop here would write to the parent's.
        forks.abandon(self._waiting)
        self._lock, self._waiting, Wakes._guard = threading.Lock(), {}, threading.Lock()

    @classmethod
    def of(cls, path: Path) -> Wakes:
        """The same object for every backend of this process on this file."""
        with cls._guard:
            wakes = cls._by_file.get(path)
            if wakes is None:
                wakes = cls._by_file[path] = Wakes()
            return wakes

    def wake(self) -> None:
        here = asyncio.get_running_loop()
        with self._lock:
            for event, loop in self._waiting.items():
                if loop is here:
                    event.set()
                elif not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)

    @contextmanager
    def waiting(self) -> Generator[asyncio.Event]:
        event = asyncio.Event()
        with self._lock:
            self._waiting[event] = asyncio.get_running_loop()
        try:
            yield event
        finally:
            with self._lock:
                del self._waiting[event]


class SqliteQueue:
    """Messages of one name. `dead`: the name of the queue that takes what was received `max_receives` times.

    With `liveness`, what a dead worker held is delivered again at once. Without, as for queues of users, when its time
    is over: workers that die quickly one after the other, whoever is to blame, would use up its deliveries.
    """

    max_delay = EMBEDDED_DELAY

    def __init__(
        self,
        session: Callable[[], SqliteSession],
        wakes: Wakes,
        clock: Clock,
        liveness: Liveness | None,
        *,
        name: str,
        dead: str | None = None,
        max_receives: int = 10,
    ) -> None:
        self._session = session
        self._wakes = wakes
        self._clock = clock
        self._liveness = liveness
        self._signed_in: str | None = None
        self._next_look = 0.0
        self._name = name
        self._dead = dead
        self._max_receives = max_receives

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        if delay > self.max_delay:
            raise InputError(f"The queue delays a message by at most {self.max_delay:g} s, not {delay:g} s.")
        visible = self._clock() + _milliseconds(delay)
        rows = [(self._name, body, visible) for body in bodies]

        def run(connection: sqlite3.Connection) -> None:
            connection.executemany(_SEND, rows)

        await self._session().write(run)
        self._wakes.wake()

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Received]:
        if limit < 1:
            return []
        session, loop = self._session(), asyncio.get_running_loop()
        active = loop.time()
        until = active + wait
        with self._wakes.waiting() as woken:
            while True:
                woken.clear()
                if loop.time() >= self._next_look:
                    await self._free_messages_of_the_dead(session)
                    self._next_look = loop.time() + LIVENESS_LOOK
                version = _version(session)  # before the look, so that no commit falls between the two
                due: int | None = session.read(_NEXT, (self._name,))[0][0]
                now = self._clock()
                if due is not None and due <= now:
                    if found := await self._take(session, limit, visibility):
                        return found
                    active = loop.time()
                if loop.time() >= until:
                    return []
                if due is None or due > now:
                    ready = min(until, self._next_look)
                    if due is not None:
                        ready = min(ready, loop.time() + (due - now) / 1000)
                    if await _news(session, version, woken, active, ready):
                        active = loop.time()

    async def extend(self, receipt: str, visibility: float) -> None:
        await self.extend_many([receipt], visibility)

    async def extend_many(self, receipts: Sequence[str], visibility: float) -> None:
        visible = self._clock() + _milliseconds(visibility)
        rows = [(visible, *held) for receipt in receipts if (held := _parse(receipt)) is not None]
        if not rows:
            return

        def run(connection: sqlite3.Connection) -> None:
            connection.executemany(_EXTEND, rows)

        await self._session().write(run, durable=False)
        self._wakes.wake()

    async def delete(self, receipt: str) -> None:
        if (held := _parse(receipt)) is None:
            return

        def run(connection: sqlite3.Connection) -> None:
            connection.execute(_DELETE, held)

        await self._session().write(run, durable=False)

    async def _free_messages_of_the_dead(self, session: SqliteSession) -> None:
        """What a dead worker had received is visible at once, as it would be when its visibility ends."""
        if self._liveness is None:
            return
        workers = session.read(_WORKERS, (self._name,))
        dead = [name for (name,) in workers if self._liveness.is_dead(name)]
        if not dead:
            return

        def run(connection: sqlite3.Connection) -> None:
            now = self._clock()
            for name in dead:
                connection.execute(_FREE, (now, self._name, now, now + HIDDEN_AT_MOST, name))
                connection.execute(_SIGN_OUT, (self._name, name))

        await session.write(run, durable=False)

    def _is_dead(self, worker: str) -> bool:
        return self._liveness is not None and self._liveness.is_dead(worker)

    async def _take(self, session: SqliteSession, limit: int, visibility: float) -> list[Received]:
        taken: list[Received] = []

        def run(connection: sqlite3.Connection) -> None:
            taken[:] = self._claim(connection, limit, visibility)

        def give_back(connection: sqlite3.Connection) -> None:
            now = self._clock()
            rows = [(now, *held) for message in taken if (held := _parse(message.receipt))]
            connection.executemany(_GIVE_BACK, rows)

        try:
            await session.write(run, durable=False)
            self._signed_in = None if self._liveness is None else self._liveness.name
        except asyncio.CancelledError:
            # Whoever asked is gone and will work on nothing: the messages need not wait for their visibility to end.
            session.post(give_back)
            raise
        return taken

    def _claim(self, connection: sqlite3.Connection, limit: int, visibility: float) -> list[Received]:
        """Takes visible messages. Two receivers cannot take the same one: this runs inside a write transaction."""
        worker = None if self._liveness is None else self._liveness.name
        if worker is not None and worker != self._signed_in:
            connection.execute(_SIGN_IN, (self._name, worker))
        now = self._clock()
        hidden = now + _milliseconds(visibility)
        taken: list[Received] = []
        while len(taken) < limit:
            rows = connection.execute(_VISIBLE, (self._name, now, limit - len(taken))).fetchall()
            buried = 0
            for id, body, count, holder, held in rows:
                if self._dead is not None and count >= self._max_receives:
                    # A new row, so that no receipt of the old one holds the dead letter.
                    connection.execute(_BURY, (self._dead, now, id))
                    connection.execute(_REMOVE, (id,))
                    buried += 1
                else:
                    connection.execute(_CLAIM, (hidden, worker, id))
                    orphaned = holder is not None and held == count and self._is_dead(holder)
                    taken.append(Received(body, f"{id}/{count + 1}", count + 1, orphaned))
            if not buried:
                break
        return taken


async def _news(
    session: SqliteSession, version: tuple[int, int], woken: asyncio.Event, active: float, until: float
) -> bool:
    """Waits until something may have become visible: woken, a commit of somebody else (True), or the time (False)."""
    loop = asyncio.get_running_loop()
    while (left := until - loop.time()) > 0:
        look = min(SLOW_LOOK, max(QUICK_LOOK, (loop.time() - active) / 10))
        try:
            async with asyncio.timeout(min(left, look)):
                await woken.wait()
        except TimeoutError:
            if _version(session) != version:
                return True
        else:
            return True
    return False


def _version(session: SqliteSession) -> tuple[int, int]:
    """What changes whenever another connection, of any process, has committed."""
    number = int(session.read("PRAGMA data_version")[0][0])
    return session.opened, number  # each connection counts for itself


def _milliseconds(seconds: float) -> int:
    return int(max(0.0, seconds) * 1000)


def _parse(receipt: str) -> tuple[int, int] | None:
    """A receipt is the message's id and which delivery it was: the next delivery makes it stale."""
    id, _, count = receipt.partition("/")
    return (int(id), int(count)) if id.isdecimal() and count.isdecimal() else None
