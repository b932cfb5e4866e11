"""The embedded backend: table, queue, blobs and logs in one SQLite file.

It survives `kill -9` and power cuts (a write is acknowledged once it is on disk), and any number of processes,
threads and event loops may share it.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from detent_state_machine.errors import ConfigurationError, Unavailable

from detent_infra import forks
from detent_infra.clock import wall_clock
from detent_infra.ids import new_id
from detent_infra.ports import Backend, Clock, Ids, Timing
from detent_infra.sources.embedded import EmbeddedSource, dead_name, queue_name
from detent_infra.sqlite.blobs import SqliteBlobs
from detent_infra.sqlite.database import prepare
from detent_infra.sqlite.liveness import Liveness
from detent_infra.sqlite.logs import SqliteLogs
from detent_infra.sqlite.queue import SqliteQueue, Wakes
from detent_infra.sqlite.retention import sweep
from detent_infra.sqlite.session import SqliteSession
from detent_infra.sqlite.table import SqliteTable

__all__ = ["SQLITE_TIMING", "sqlite_backend"]

SQLITE_TIMING = Timing(heartbeat=2.0, lease=10.0, visibility=10.0)
"""Writes are local and cheap, so a dead worker is noticed sooner than on AWS."""


def sqlite_backend(
    path: str | Path,
    *,
    url: str | None = None,
    clock: Clock = wall_clock,
    ids: Ids = new_id,
    timing: Timing | None = None,
    max_receives: int = 10,
) -> Backend:
    """The backend in this file, which is created with its directories if it does not exist.

    Raises `ConfigurationError` if it cannot be a database (not one, another program's, not writable), `NewerRecord`
    if a newer detent made it, `Unavailable` if it stays locked. A backend that is open when its process forks works in
    both: the child opens connections of its own.
    """
    file = Path(path).absolute().resolve()
    prepare(file)
    sessions = Sessions(file)
    session, wakes, liveness = sessions.current, Wakes.of(file), Liveness(file)

    def queue(name: str, dead: str | None = None, held_by: Liveness | None = None) -> SqliteQueue:
        return SqliteQueue(session, wakes, clock, held_by, name=name, dead=dead, max_receives=max_receives)

    def source(name: str) -> EmbeddedSource:
        dead = queue_name(dead_name(name))
        return EmbeddedSource(name, queue(queue_name(name), dead), queue(dead), clock, ids)

    def close() -> None:
        sessions.close()
        liveness.close()  # not before: whoever finds it free takes over what this one was at

    return Backend(
        url=url or f"sqlite:///{path}",
        table=SqliteTable(session),
        queue=queue("steps", "dead", liveness),
        dead_letters=queue("dead", held_by=liveness),
        blobs=SqliteBlobs(file, session, clock),
        logs=SqliteLogs(session),
        clock=clock,
        ids=ids,
        timing=timing or SQLITE_TIMING,
        source=source,
        close=close,
        new_owner=lambda: liveness.new_token(ids()),
        is_dead=liveness.is_dead,
        sweep=lambda: asyncio.to_thread(sweep, file, clock),
    )


class Sessions(forks.Forkable):
    """One session per event loop, opened when the loop first uses the backend. A child of a fork has none at first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_loop: dict[asyncio.AbstractEventLoop, SqliteSession] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._inherited = False
        self._frozen: list[SqliteSession] = []
        forks.follow_forks(self)

    def before_fork(self) -> None:
        self._lock.acquire()
        self._frozen = list(self._by_loop.values())
        for session in self._frozen:
            session.let_go()

    def in_parent(self) -> None:
        for session in self._frozen:
            session.go_on()
        self._frozen = []
        self._lock.release()

    def in_child(self) -> None:
        forks.abandon((self._by_loop, self._frozen))
        self._inherited |= any(session.is_open for session in self._by_loop.values())
        self._by_loop, self._frozen, self._lock = {}, [], threading.Lock()

    def current(self) -> SqliteSession:
        """The running loop's session. Raises `Unavailable` once the backend is closed."""
        forks.notice()
        if self._inherited:
            raise ConfigurationError(
                f"The database {self._path} was open when this process was forked past Python, by a library.",
                advice="Use the app for the first time after the fork, or fork with `os.fork` or multiprocessing.",
            )
        loop = asyncio.get_running_loop()
        session = self._by_loop.get(loop)
        return self._open(loop) if session is None else session

    def close(self) -> None:
        """Closes every loop's session, whichever thread it runs in."""
        with self._lock:
            self._closed = True
            sessions = list(self._by_loop.values())
            self._by_loop.clear()
        for session in sessions:
            session.close()

    def _open(self, loop: asyncio.AbstractEventLoop) -> SqliteSession:
        with self._lock:
            if self._closed:
                raise Unavailable(f"The backend of {self._path} was closed.", advice="Open a new one.")
            # A loop that was closed will not come back for its session.
            for other in [other for other in self._by_loop if other.is_closed()]:
                self._by_loop.pop(other).close()
            session = self._by_loop[loop] = SqliteSession(self._path, loop)
            return session
