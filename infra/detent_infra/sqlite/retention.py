"""Forgets what is past its retention: items, the logs of runs, and payloads that nothing refers to."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from detent_state_machine import keys

from detent_infra.ports import Clock
from detent_infra.sqlite.database import connect, translated
from detent_infra.sqlite.session import LOCK_LIMIT

BLOB_AGE = 86_400_000
"""Milliseconds for which a payload is kept, used or not: it is put before the record that refers to it is written."""
_CHUNK = 500
"""Rows in one transaction; others write between two."""
_REFERENCE = re.compile(r"[0-9a-f]{64}")


def sweep(path: Path, clock: Clock) -> None:
    """Blocks while it works; call it in a thread. Raises `Unavailable` if the file stays locked."""
    try:
        with closing(connect(path, timeout=LOCK_LIMIT)) as connection:
            # Payloads first: those of the records dropped below stay until the next sweep, for who reads them now.
            _sweep_blobs(connection, clock() - BLOB_AGE, clock())
            while _sweep_items(connection, clock() // 1000):
                pass
    except sqlite3.Error as error:
        raise translated(error, path) from error


def _sweep_items(connection: sqlite3.Connection, now: int) -> bool:
    """Drops some expired items, and with a run's record its logs. Says whether there may be more."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or rolls back
        expired = "SELECT rowid, pk, sk FROM items WHERE expires < ? ORDER BY expires LIMIT ?"
        rows: list[tuple[int, str, str]] = connection.execute(expired, (now, _CHUNK)).fetchall()
        connection.executemany("DELETE FROM items WHERE rowid = ?", [(row,) for row, _, _ in rows])
        runs = [(run_id,) for _, pk, sk in rows if sk == keys.RUN and (run_id := keys.run_id_of(pk))]
        # The newest line only loses what it says: if its number were given again, who reads on from it would miss the
        # line that has it then.
        newest = "(SELECT max(seq) FROM logs)"
        connection.executemany(f"UPDATE logs SET run_id = '', line = '' WHERE seq = {newest} AND run_id = ?", runs)  # noqa: S608
        connection.executemany("DELETE FROM logs WHERE run_id = ?", runs)
        connection.execute(f"DELETE FROM logs WHERE run_id = '' AND line = '' AND seq < {newest}")  # noqa: S608
    return len(rows) == _CHUNK


def _sweep_blobs(connection: sqlite3.Connection, before: int, now: int) -> None:
    """Drops payloads that are old and that no item mentions.

    The race it wins: a blob is judged unused, and put again before it is dropped. A put makes it fresh, and the
    statement that drops it looks at that again.
    """
    old: set[str] = {ref for (ref,) in connection.execute("SELECT ref FROM blobs WHERE fresh < ?", (before,))}
    if not old:
        return
    used = old & _mentioned(connection)
    # Looked at again a day from now, so that reading every item is a daily affair.
    _in_chunks(connection, "UPDATE blobs SET fresh = ? WHERE ref = ?", [(now, ref) for ref in used])
    _in_chunks(connection, "DELETE FROM blobs WHERE fresh < ? AND ref = ?", [(before, ref) for ref in old - used])


def _mentioned(connection: sqlite3.Connection) -> set[str]:
    """Whatever looks like a reference, in any attribute of any item: rather one too many."""
    texts: Iterable[tuple[str]] = connection.execute("SELECT item FROM items")
    return {ref for (text,) in texts for ref in _REFERENCE.findall(text)}


def _in_chunks(connection: sqlite3.Connection, sql: str, rows: list[tuple[int, str]]) -> None:
    for first in range(0, len(rows), _CHUNK):
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            connection.executemany(sql, rows[first : first + _CHUNK])
