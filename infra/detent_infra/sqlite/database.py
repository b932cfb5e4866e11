"""The file: how it is opened, what is in it, and what SQLite's errors mean."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import ConfigurationError, CorruptRecord, DetentError, NewerRecord, Unavailable

from detent_infra import forks

SCHEMA_VERSION = 1
APPLICATION_ID = 0x64746E74  # "dtnt": tells a detent file from any other program's database

CHECKPOINT_PAGES = 4000
"""16 MB of log before it is copied into the file: SQLite's default of 4 MB does so too often."""
INCREMENTAL = 2
"""SQLite's number for files whose free pages can be given back some at a time."""
PREPARE_LIMIT = 10.0
"""Seconds to wait for another process that creates or recovers the file."""
REFUSED = Backoff(first=0.002, longest=0.02)
"""Pauses between tries meanwhile."""
RESTORE = "Stop all workers, then restore a backup or try `sqlite3 FILE .recover`."
"""What to do about a damaged file."""

_WORKERS = """
CREATE TABLE IF NOT EXISTS workers (queue TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (queue, name)) WITHOUT ROWID
"""
_SCHEMA = f"""
CREATE TABLE items (
    pk TEXT NOT NULL, sk TEXT NOT NULL, item TEXT NOT NULL, ipk TEXT, isk TEXT, expires INTEGER,
    PRIMARY KEY (pk, sk)
);
CREATE INDEX items_by_index ON items (ipk, isk, pk, sk) WHERE ipk IS NOT NULL;
CREATE INDEX items_by_expiry ON items (expires) WHERE expires IS NOT NULL;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, body TEXT NOT NULL,
    visible INTEGER NOT NULL, count INTEGER NOT NULL DEFAULT 0, holder TEXT, held INTEGER
);
{_WORKERS};
CREATE INDEX messages_by_visibility ON messages (queue, visible);
CREATE TABLE blobs (ref TEXT PRIMARY KEY, fresh INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX blobs_by_age ON blobs (fresh, ref);
CREATE TABLE logs (seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, time INTEGER NOT NULL, line TEXT NOT NULL);
CREATE INDEX logs_by_run ON logs (run_id, seq);
"""
# items: attributes are one JSON text; `ipk`, `isk` and `expires` repeat those of the item, to be searched.
# messages: AUTOINCREMENT because a receipt names the id, and an id that comes back would revive stale receipts.
# messages: `holder` names the worker that received it as its delivery number `held`; another number: somebody who did
# not say, as a worker of an early detent. workers: who may hold messages of a queue.
# blobs: `fresh` is when the blob was last put, or last found to be in use, in milliseconds.

_T = TypeVar("_T")


class _Guests(forks.Forkable):
    """Connections that are open for a moment. A fork waits for their end.

    SQLite knows in each process which locks it holds on a file, by its inode. A child that is forked while a connection
    is open inherits that knowledge and not the locks: a connection that it opens takes none of its own, and what it
    writes is lost when another process cleans up behind "the last one". So nothing is open while a process forks.
    """

    def __init__(self) -> None:
        self.in_child()

    def in_child(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._open = 0

    @contextmanager
    def one_more(self) -> Generator[None]:
        with self._condition:
            self._open += 1
        try:
            yield
        finally:
            with self._condition:
                self._open -= 1
                self._condition.notify_all()

    def before_fork(self) -> None:
        self._condition.acquire()  # held until the fork is done: nobody opens one meanwhile
        self._condition.wait_for(lambda: self._open == 0)

    def in_parent(self) -> None:
        self._condition.release()


_guests = _Guests()
forks.follow_forks(_guests)


@contextmanager
def opened(path: Path, *, timeout: float, create: bool = False) -> Generator[sqlite3.Connection]:
    """A connection for a moment, as `connect` makes it."""
    with _guests.one_more(), closing(patiently(lambda: connect(path, timeout=timeout, create=create))) as connection:
        yield connection


class Lender(forks.Forkable):
    """Lends one connection, a moment at a time, and keeps it open in between, but for forks."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        forks.follow_forks(self)

    @contextmanager
    def lend(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                self._connection = connect(self._path, timeout=self._timeout)
            yield self._connection

    def close(self) -> None:
        with self._lock:
            self._let_go()

    def before_fork(self) -> None:
        self._lock.acquire()
        self._let_go()

    def in_parent(self) -> None:
        self._lock.release()

    def in_child(self) -> None:
        forks.abandon(self._connection)
        self._lock, self._connection = threading.Lock(), None

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def guest(path: Path) -> Generator[sqlite3.Connection]:
    """A connection for a moment that only reads, and asks nothing of the file."""
    with _guests.one_more(), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        yield connection


def connect(path: Path, *, timeout: float, create: bool = False) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time. `timeout`: seconds SQLite itself waits for a lock.

    Whoever keeps it open must close it before a fork.
    """
    uri = f"{path.as_uri()}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")  # acknowledged means on disk, power cut included
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA cache_size = -16000")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def prepare(path: Path) -> None:
    """Creates the file, its directories and its tables where they are missing.

    Raises `ConfigurationError` if the file cannot be used, `NewerRecord` if a newer detent made it, `Unavailable` if
    it stays locked or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The directory of the database {path} cannot be created: {error.strerror}.",
            advice="Choose another path, or make the directory writable.",
        ) from error
    try:
        with opened(path, timeout=PREPARE_LIMIT, create=True) as connection:
            patiently(lambda: _initialise(connection, path))
    except sqlite3.Error as error:
        raise translated(error, path) from error


_OF_THE_FOLDER = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def translated(error: sqlite3.Error, path: Path, *, in_use: bool = False) -> DetentError:
    """What SQLite's error means to a caller. `in_use`: the file could be used before, so that it may be again."""
    said = f"The database {path} could not be used: {error}."
    code = _code(error)
    if in_use and code in _OF_THE_FOLDER:
        return Unavailable(said, advice="Its folder must be readable and writable; it is tried again.")
    match code:
        case sqlite3.SQLITE_NOTADB:
            return ConfigurationError(
                f"The file {path} is not a database.", advice="Choose another path; detent will not overwrite it."
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH if (
            not in_use
        ):
            return ConfigurationError(
                said,
                advice="It must be a file in an existing directory, and both must be writable by this user.",
            )
        case sqlite3.SQLITE_CORRUPT:
            return CorruptRecord(f"The database {path} is damaged: {error}.", advice=RESTORE)
        case sqlite3.SQLITE_FULL:
            return Unavailable(said, advice="Free some space on the disk; nothing of this write was stored.")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(said, advice="Another process holds its lock; try again, or end that process.")
        case _:
            return Unavailable(said, advice="Try again; if it stays, check the disk.")


def _initialise(connection: sqlite3.Connection, path: Path) -> None:
    """The version is checked before anything is written, so that a foreign file stays as it is."""
    version = _pragma(connection, "user_version")
    owner = _pragma(connection, "application_id")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (tables or version) and owner != APPLICATION_ID:
        raise ConfigurationError(
            f"The file {path} is the database of another program.", advice="Choose another path for detent's database."
        )
    if version > SCHEMA_VERSION:
        raise NewerRecord(
            f"The database {path} has schema {version}; this detent reads up to {SCHEMA_VERSION}.",
            advice="Upgrade detent.",
        )
    if not tables:
        connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")  # only where no table is yet
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise ConfigurationError(
            f"The database {path} cannot use a write-ahead log there.", advice="Choose a path on a local disk."
        )
    if version == SCHEMA_VERSION:
        if not connection.execute("SELECT 1 FROM pragma_table_info('messages') WHERE name = 'holder'").fetchone():
            _in_one(connection, _extend)
        return
    _in_one(connection, _create)


def _create(connection: sqlite3.Connection) -> None:
    if _pragma(connection, "user_version") == 0:  # nobody was faster
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _extend(connection: sqlite3.Connection) -> None:
    """Adds what files of early versions lack, and what those versions pass over."""
    columns = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('messages')")}
    for name, kind in (("holder", "TEXT"), ("held", "INTEGER")):
        if name not in columns:
            connection.execute(f"ALTER TABLE messages ADD COLUMN {name} {kind}")
    connection.execute(_WORKERS)


def _in_one(connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        change(connection)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def patiently(action: Callable[[], _T]) -> _T:
    """Some locks (changing the journal mode, recovery, the last one out cleaning up) are refused at once, whatever the
    connection's timeout. Raises the last refusal after `PREPARE_LIMIT` seconds.
    """
    until = time.monotonic() + PREPARE_LIMIT
    tries = 0
    while True:
        try:
            return action()
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() > until:
                raise
            tries += 1
            time.sleep(REFUSED.spread(tries, random.random()))  # noqa: S311  # jitter, not a secret


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _code(error: sqlite3.Error) -> int:
    code: int | None = getattr(error, "sqlite_errorcode", None)  # None: raised by Python's module itself
    return sqlite3.SQLITE_ERROR if code is None else code & 0xFF  # the low byte is the primary code
