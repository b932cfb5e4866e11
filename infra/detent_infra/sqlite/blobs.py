"""The blob port on SQLite: bytes by their hash, in the same file."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from detent_state_machine.errors import CorruptRecord, PayloadTooLarge

from detent_infra.ports import MAX_BLOB, Clock
from detent_infra.sqlite.database import opened, translated
from detent_infra.sqlite.session import LOCK_LIMIT, SqliteSession

LARGE = 1024 * 1024
"""Bytes from which a blob is copied in a thread, on a connection of its own: the event loop has better things to do."""

_PUT = "INSERT INTO blobs (ref, fresh, data) VALUES (?, ?, ?) ON CONFLICT (ref) DO UPDATE SET fresh = excluded.fresh"
_SIZE = "SELECT length(data) FROM blobs WHERE ref = ?"
_GET = "SELECT data FROM blobs WHERE ref = ?"


class SqliteBlobs:
    def __init__(self, path: Path, session: Callable[[], SqliteSession], clock: Clock) -> None:
        self._path = path
        self._session = session
        self._clock = clock

    async def put(self, data: bytes) -> str:
        if len(data) > MAX_BLOB:
            raise PayloadTooLarge(
                f"A payload of {len(data):,} bytes is larger than the limit of {MAX_BLOB:,}.",
                advice="Store it elsewhere and hand over where it is.",
            )
        if len(data) > LARGE:
            return await asyncio.to_thread(self._put_large, data)
        ref = sha256(data).hexdigest()

        def run(connection: sqlite3.Connection) -> None:
            connection.execute(_PUT, (ref, self._clock(), data))

        await self._session().write(run)
        return ref

    async def get(self, ref: str) -> bytes:
        if re.fullmatch("[0-9a-f]{64}", ref) is None:
            raise CorruptRecord(f"{ref[:80]!r} is not a reference to a payload.")
        session = self._session()
        size = session.read(_SIZE, (ref,))
        if not size:
            raise CorruptRecord(f"No payload is stored under {ref}.", advice="It was deleted, or never stored here.")
        if size[0][0] > LARGE:
            return await asyncio.to_thread(self._get_large, ref)
        return _checked(ref, session.read(_GET, (ref,)))

    def _put_large(self, data: bytes) -> str:
        ref = sha256(data).hexdigest()
        try:
            with opened(self._path, timeout=LOCK_LIMIT) as connection:
                connection.execute(_PUT, (ref, self._clock(), data))
        except sqlite3.Error as error:
            raise translated(error, self._path, in_use=True) from error
        return ref

    def _get_large(self, ref: str) -> bytes:
        try:
            with opened(self._path, timeout=LOCK_LIMIT) as connection:
                return _checked(ref, connection.execute(_GET, (ref,)).fetchall())
        except sqlite3.Error as error:
            raise translated(error, self._path, in_use=True) from error


def _checked(ref: str, rows: list[tuple[bytes]]) -> bytes:
    data = rows[0][0] if rows else b""
    if sha256(data).hexdigest() != ref:
        raise CorruptRecord(
            f"Something else is stored under {ref}.", advice="The file was changed by hand, or damaged."
        )
    return data
