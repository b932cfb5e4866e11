"""Group commit: everything one event loop wants to write at a moment goes to disk in one transaction.

    task A ── write ─┐                        ┌─ BEGIN IMMEDIATE, A's, B's and C's operations   microseconds each
    task B ── write ─┼─ collected for one ────┤  COMMIT in a thread                             one fsync for all
    task C ── write ─┘  turn of the loop      └─ A, B and C are told                            the next turn collects

An operation is acknowledged only after COMMIT has returned. An operation that is refused (a `Conflict`) has changed
nothing and refuses nobody else. Reads use a second connection: it sees what has been committed, hence everything
acknowledged, and never what may still be rolled back.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar, cast

from detent_state_machine.errors import ConfigurationError, DetentError, InputError, Unavailable

from detent_infra.sqlite.database import CHECKPOINT_PAGES, connect, is_busy, patiently, translated

LOCK_LIMIT = 10.0
"""Seconds a batch waits for another process's lock before its operations are `Unavailable`."""
READ_LIMIT = 5.0
"""Seconds a read waits for one; only recovery after a crash ever makes it wait."""
MAX_BATCH = 500
"""Operations in one transaction; bounds how long the loop, and other processes, wait for it."""
RETRY = (0.0005, 0.0015)
"""Seconds between two tries for a lock that somebody else holds, with jitter."""
TURN = 0.005
GAP = 0.002
"""SQLite's lock is not fair: who writes without a pause keeps others out for seconds. So when others have been
writing within the last `SHARED` seconds, a session pauses for a gap after each turn of its own."""
SHARED = 1.0

_T = TypeVar("_T")
Parameters: TypeAlias = Sequence[str | int | bytes | None]
Row: TypeAlias = tuple[Any, ...]
"""Columns as SQLite has them; each query says which types to expect."""
Operation: TypeAlias = Callable[[sqlite3.Connection], _T]
"""Runs inside the transaction. If it raises a `DetentError` it has changed nothing. It may be run more than once."""


@dataclass(slots=True)
class _Pending:
    operation: Operation[object]
    future: asyncio.Future[object]
    durable: bool = True
    result: object = None
    refusal: DetentError | None = None

    def acknowledge(self) -> None:
        if self.future.done():  # its task was cancelled meanwhile; the batch does not care
            return
        if self.refusal is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.refusal)

    def refuse(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Connections:
    writer: sqlite3.Connection
    reader: sqlite3.Connection

    @staticmethod
    def open(path: Path) -> _Connections:
        writer = patiently(lambda: connect(path, timeout=0))
        try:
            return _Connections(writer, patiently(lambda: connect(path, timeout=READ_LIMIT)))
        except sqlite3.Error:
            writer.close()
            raise

    def version(self) -> object:
        """Changes whenever another connection has committed."""
        return self.writer.execute("PRAGMA data_version").fetchone()

    def close(self) -> None:
        self.writer.close()
        self.reader.close()


class SqliteSession:
    """One event loop's connections to the file, and its batch. Not for another loop; `close` is for any thread.

    It lets go of its connections while the process forks, and opens them again when it next needs them.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._lock = threading.RLock()  # only `close` from another thread, and a fork, ever contend for it
        self._committing = threading.Lock()  # held while the thread is at COMMIT
        self._closed = False
        try:
            self._connections: _Connections | None = _Connections.open(path)
            self._version = self._connections.version()
            self._file = _identity(path)
        except sqlite3.Error as error:
            raise translated(error, path) from error
        self._pending: deque[_Pending] = deque()
        self._busy = False  # a flush is scheduled, waits for a lock, or is being committed
        self._locked_since: float | None = None
        self._turn_began = self._last_commit = self._shared_until = 0.0
        self._durable = True  # what the writer is set to
        self.opened = 1
        """How often it has opened its connections."""
        self._commits: SimpleQueue[tuple[sqlite3.Connection, list[_Pending]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def read(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """The rows as of the last acknowledged write of any process. Does not wait for writers."""
        with self._lock:
            if self._closed:
                raise self._was_closed()
            try:
                return self._connected().reader.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise translated(error, self._path, in_use=True) from error
            except UnicodeEncodeError as error:
                raise _not_text(error) from error

    async def write(self, operation: Operation[_T], *, durable: bool = True) -> _T:
        """Runs the operation in the next batch and returns its result once that is on disk.

        Without `durable`, once the operating system has it: it outlives this process, and a power cut may undo it.
        Raises what the operation raised, or `Unavailable` if the batch could not be stored.
        """
        if self._closed:
            raise self._was_closed()
        future: asyncio.Future[_T] = self._loop.create_future()
        self._pending.append(_Pending(operation, cast("asyncio.Future[object]", future), durable))
        self._schedule()
        return await future

    def post(self, operation: Operation[object]) -> None:
        """Runs the operation in the next batch, if there is one: best effort, nobody waits for it."""
        if not self._closed:
            future: asyncio.Future[object] = self._loop.create_future()
            future.add_done_callback(lambda done: done.exception())  # or asyncio complains that nobody looked
            self._pending.append(_Pending(operation, future, durable=False))
            self._schedule()

    def close(self) -> None:
        """Ends the commit under way, then lets go of the file. What had not begun is `Unavailable`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._thread is not None:
            self._commits.put(None)
            self._thread.join()
        with self._lock:
            if self._connections is not None:
                self._connections.close()
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._refuse_all, self._was_closed())

    def let_go(self) -> None:
        """Before a fork: ends the commit under way, and closes the connections. Until `go_on`, nobody opens them."""
        self._lock.acquire()
        self._committing.acquire()
        if self._connections is not None:
            self._connections.close()
            self._connections = None

    def go_on(self) -> None:
        """In the parent, after `let_go`."""
        self._committing.release()
        self._lock.release()

    @property
    def is_open(self) -> bool:
        return self._connections is not None and not self._closed

    def _connected(self) -> _Connections:
        """The connections, under the lock."""
        if self._connections is None:
            self._connections = _Connections.open(self._path)
            self._durable, self._version = True, self._connections.version()
            self.opened += 1
        return self._connections

    # ---- the batch ------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        # Not at once: the tasks that this turn of the loop resumes add their writes to the same transaction.
        if not self._busy:
            self._busy = True
            if self._owes_a_gap():
                self._loop.call_later(GAP, self._flush)
            else:
                self._loop.call_soon(self._flush)

    def _owes_a_gap(self) -> bool:
        """Whether this session has written for a turn while others want to."""
        now = self._loop.time()
        if now - self._last_commit > GAP:  # it has just paused
            self._turn_began = now
        if now - self._turn_began < TURN:
            return False
        self._turn_began = now
        with self._lock, suppress(sqlite3.Error):  # a broken or closed file is the next flush's trouble
            version = self._connected().version()
            if version != self._version:  # another connection has committed
                self._version = version
                self._shared_until = now + SHARED
        return now < self._shared_until

    def _flush(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self._begin()
            except DetentError as error:
                self._busy = False
                self._refuse_all(error)
                return
            if self._locked_since is not None:
                return
            batch = [self._pending.popleft() for _ in range(min(MAX_BATCH, len(self._pending)))]
            writer = self._connected().writer
            try:
                ran = self._run(writer, batch)
            except sqlite3.Error as error:
                self._roll_back()
                self._finish(batch, translated(error, self._path, in_use=True))
                return
            if ran is None:
                self._loop.call_soon(self._flush)
                return
            if not self._durable:  # nothing waits for the disk, so the thread has nothing to gain
                self._finish(ran, self._commit())
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_commit_loop,
                    args=(self._commits, self._committing, self._loop, self._committed),
                    daemon=True,
                )
                self._thread.start()
            self._committing.acquire()
            self._commits.put((writer, ran))

    def _begin(self) -> None:
        """Opens the transaction, or, if another connection is writing, comes back in a moment."""
        if _identity(self._path) != self._file:
            raise ConfigurationError(
                f"The database {self._path} was deleted or replaced while it was in use.",
                advice="Restart this process; what it had stored went with the old file.",
            )
        try:
            writer = self._connected().writer
            self._synchronise(writer, any(pending.durable for pending in self._pending))
            writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            now = self._loop.time()
            since = self._locked_since = self._locked_since or now
            if not is_busy(error) or now - since > LOCK_LIMIT:
                self._locked_since = None
                raise translated(error, self._path, in_use=True) from error
            self._loop.call_later(random.uniform(*RETRY), self._flush)  # noqa: S311  # jitter, not a secret
            return
        self._locked_since = None

    def _synchronise(self, writer: sqlite3.Connection, durable: bool) -> None:
        """Whether the next transaction waits for the disk. One that does not leaves checkpoints to the others too."""
        if durable != self._durable:
            writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            writer.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES if durable else 0}")
            self._durable = durable

    def _run(self, writer: sqlite3.Connection, batch: list[_Pending]) -> list[_Pending] | None:
        """Runs the operations; None if one of them broke, and the others must be run again without it."""
        ran: list[_Pending] = []
        for pending in batch:
            if pending.future.done():  # cancelled before it began
                continue
            try:
                pending.result, pending.refusal = pending.operation(writer), None
            except DetentError as refusal:
                pending.refusal = refusal
            except Exception as error:
                if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
                    raise  # the file's trouble, and so everybody's
                self._roll_back()
                pending.refuse(_not_text(error) if isinstance(error, UnicodeEncodeError) else error)
                self._pending.extendleft(reversed(batch))
                return None
            ran.append(pending)
        return ran

    def _commit(self) -> DetentError | None:
        try:
            self._connected().writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return translated(error, self._path, in_use=True)
        return None

    def _committed(self, batch: list[_Pending], error: sqlite3.Error | None) -> None:
        """On the loop, after the thread's COMMIT."""
        if error is not None:
            with self._lock:
                self._roll_back()
        self._finish(batch, None if error is None else translated(error, self._path, in_use=True))

    def _finish(self, batch: list[_Pending], error: DetentError | None) -> None:
        for pending in batch:
            if error is None:
                pending.acknowledge()
            else:
                pending.refuse(error)
        # The resumed tasks run before the next flush and join its batch; between the two, other processes get in.
        self._busy = False
        self._last_commit = self._loop.time()
        if self._pending:
            self._schedule()

    def _refuse_all(self, error: DetentError) -> None:
        while self._pending:
            self._pending.popleft().refuse(error)

    def _roll_back(self) -> None:
        if self.is_open and (writer := self._connected().writer).in_transaction:
            with suppress(sqlite3.Error):  # SQLite rolled back by itself
                writer.execute("ROLLBACK")

    def _was_closed(self) -> Unavailable:
        return Unavailable(f"The backend of {self._path} was closed.", advice="Open a new one.")


def _commit_loop(
    commits: SimpleQueue[tuple[sqlite3.Connection, list[_Pending]] | None],
    committing: threading.Lock,
    loop: asyncio.AbstractEventLoop,
    committed: Callable[[list[_Pending], sqlite3.Error | None], None],
) -> None:
    """The thread. SQLite lets go of the interpreter during fsync, so the loop goes on meanwhile."""
    while (work := commits.get()) is not None:
        writer, batch = work
        failure: sqlite3.Error | None = None
        try:
            writer.execute("COMMIT")
        except sqlite3.Error as error:
            failure = error
        committing.release()
        try:
            loop.call_soon_threadsafe(committed, batch, failure)
        except RuntimeError:  # the loop was closed: nobody waits any more
            return


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is; None if it is gone. Raises `Unavailable` if that cannot be told now."""
    try:
        stat = os.stat(path)  # noqa: PTH116  # once per transaction: Path.stat costs three times as much
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unavailable(
            f"The database {path} cannot be reached: {error.strerror}.",
            advice="Its folder must be readable and writable; it is tried again.",
        ) from error
    return stat.st_dev, stat.st_ino


def _not_text(error: UnicodeEncodeError) -> InputError:
    return InputError(
        f"A text cannot be stored: it holds {error.object[error.start : error.end]!r}, half a surrogate pair.",
        advice="Decode the text properly, or replace what is not Unicode before you hand it over.",
    )
