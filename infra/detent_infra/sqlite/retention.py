"""Forgets what is past its retention: items, the logs of runs, and payloads that nothing refers to."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from detent_state_machine import keys

from detent_infra.ports import Clock
from detent_infra.sqlite.database import INCREMENTAL, Lender, translated
from detent_infra.sqlite.session import LOCK_LIMIT

BLOB_AGE = 86_400_000
"""Milliseconds for which a payload is kept, used or not: it is put before the record that refers to it is written."""
_ROWS = 100
"""In one transaction, so that nobody waits for it longer than a few milliseconds."""
_LOOK = 2_000
"""Items that are read through at a time."""
_PAGES = 64
"""Pages given back in one transaction."""
KEEP_PAGES = 1_000
"""Free pages (4 KB) that stay in the file for what is written next."""
_REST = 3
"""After each turn it sleeps so many times as long as the turn took: SQLite's lock is not fair."""
_REFERENCE = re.compile(r"[0-9a-f]{64}")

_T = TypeVar("_T")


def sweep(path: Path, clock: Clock) -> None:
    """Works in small turns, between which others write; call it in a thread, for it blocks and may take minutes.

    Raises `Unavailable` if the file stays locked.
    """

    lender = Lender(path, timeout=LOCK_LIMIT)

    def turn(act: Callable[[sqlite3.Connection], _T]) -> _T:
        began = time.monotonic()
        with lender.lend() as connection:
            connection.execute("PRAGMA synchronous = NORMAL")  # what a power cut undoes is swept again
            done = act(connection)
        time.sleep(_REST * (time.monotonic() - began))
        return done

    try:
        # Payloads first: those of the records dropped below stay until the next sweep, for who reads them now.
        _sweep_blobs(turn, clock() - BLOB_AGE, clock())
        while turn(lambda connection: _sweep_items(connection, clock() // 1000)):
            pass
        while turn(_give_back):
            pass
    except sqlite3.Error as error:
        raise translated(error, path, in_use=True) from error
    finally:
        lender.close()


_Turn: TypeAlias = Callable[[Callable[[sqlite3.Connection], Any]], Any]


def _give_back(connection: sqlite3.Connection) -> bool:
    """Makes the file smaller by some pages. Says whether there is more to do.

    A file that an early detent made keeps its free pages, and uses them again: only a VACUUM would make it give.
    """
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if mode != INCREMENTAL or free <= KEEP_PAGES:
        return False
    connection.execute(f"PRAGMA incremental_vacuum({min(_PAGES, free - KEEP_PAGES)})").fetchall()
    return True


def _sweep_items(connection: sqlite3.Connection, now: int) -> bool:
    """Drops some expired items, and with a run's record its logs. Says whether there may be more."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or rolls back
        expired = "SELECT rowid, pk, sk FROM items WHERE expires < ? ORDER BY expires LIMIT ?"
        rows: list[tuple[int, str, str]] = connection.execute(expired, (now, _ROWS)).fetchall()
        connection.executemany("DELETE FROM items WHERE rowid = ?", [(row,) for row, _, _ in rows])
        runs = [(run_id,) for _, pk, sk in rows if sk == keys.RUN and (run_id := keys.run_id_of(pk))]
        # The newest line only loses what it says: if its number were given again, who reads on from it would miss the
        # line that has it then.
        newest = "(SELECT max(seq) FROM logs)"
        connection.executemany(f"UPDATE logs SET run_id = '', line = '' WHERE seq = {newest} AND run_id = ?", runs)  # noqa: S608
        connection.executemany("DELETE FROM logs WHERE run_id = ?", runs)
        connection.execute(f"DELETE FROM logs WHERE run_id = '' AND line = '' AND seq < {newest}")  # noqa: S608
    return len(rows) == _ROWS


def _sweep_blobs(turn: _Turn, before: int, now: int) -> None:
    """Drops payloads that are old and that no item mentions.

    The race it wins: a blob is judged unused, and put again before it is dropped. A put makes it fresh, and the
    statement that drops it looks at that again.
    """
    old: set[str] = turn(
        lambda connection: {ref for (ref,) in connection.execute("SELECT ref FROM blobs WHERE fresh < ?", (before,))}
    )
    if not old:
        return
    used = old & _mentioned(turn)
    # Looked at again a day from now, so that reading every item is a daily affair.
    _in_turns(turn, "UPDATE blobs SET fresh = ? WHERE ref = ?", [(now, ref) for ref in used])
    _in_turns(turn, "DELETE FROM blobs WHERE fresh < ? AND ref = ?", [(before, ref) for ref in old - used])


def _mentioned(turn: _Turn) -> set[str]:
    """Whatever looks like a reference, in any attribute of any item: rather one too many.

    Items are read in the order in which they were first written: what is written meanwhile comes behind.
    """
    found: set[str] = set()
    seen = 0
    while rows := turn(partial(_some_items, seen)):
        for seen, text in rows:  # noqa: B007 - where the next look goes on
            found.update(_REFERENCE.findall(text))
    return found


def _some_items(after: int, connection: sqlite3.Connection) -> list[tuple[int, str]]:
    sql = "SELECT rowid, item FROM items WHERE rowid > ? ORDER BY rowid LIMIT ?"
    return connection.execute(sql, (after, _LOOK)).fetchall()


def _in_turns(turn: _Turn, sql: str, rows: list[tuple[int, str]]) -> None:
    for first in range(0, len(rows), _ROWS):
        turn(partial(_run_for_each, sql, rows[first : first + _ROWS]))


def _run_for_each(sql: str, rows: list[tuple[int, str]], connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        connection.executemany(sql, rows)
