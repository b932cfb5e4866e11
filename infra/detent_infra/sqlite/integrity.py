"""Whether the file is whole: what is read off damaged pages may be too little, or nothing, without any error."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from detent_state_machine.errors import CorruptRecord

from detent_infra.sqlite.database import RESTORE, guest, patiently, translated

READ_THROUGH = 1_000_000_000
"""Bytes up to which a file is read through unasked: some seconds, off a local disk."""


def check(path: Path) -> bool:
    """Reads the file through, unless it is larger than `READ_THROUGH`: then False is returned.

    Raises `CorruptRecord` with the first damage that SQLite finds, `Unavailable` if the file cannot be read now.
    """
    if path.stat().st_size > READ_THROUGH:
        return False
    try:
        said = patiently(lambda: _first_damage(path))
    except sqlite3.Error as error:
        raise translated(error, path) from error
    if said != "ok":
        found = " ".join(said.removeprefix("*** in database main ***").split())
        raise CorruptRecord(f"The database {path} is damaged: {found}.", advice=RESTORE)
    return True


def _first_damage(path: Path) -> str:
    with guest(path) as connection:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        return str(said)
