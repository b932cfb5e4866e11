"""What one durable conditional write costs on this disk, without detent: the unit that every other figure is put into.

Figures from two machines, or from two hours on a noisy one, are compared by their ratio to it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter


def raw_write(directory: Path, times: int = 300) -> float:
    """Seconds of one `BEGIN IMMEDIATE; UPDATE … WHERE; COMMIT` with `synchronous=FULL`, the median of `times`."""
    taken: list[float] = []
    with closing(sqlite3.connect(directory / "reference.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS steps (id INTEGER PRIMARY KEY, version INTEGER, status TEXT)")
        connection.execute("INSERT OR REPLACE INTO steps VALUES (1, 0, 'RUNNING')")
        for version in range(times):
            began = perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE steps SET version = ? WHERE id = 1 AND version = ? AND status = 'RUNNING'",
                (version + 1, version),
            )
            connection.execute("COMMIT")
            taken.append(perf_counter() - began)
    return median(taken)
