"""The table port on SQLite. Items are JSON texts; sets are JSON arrays, which no other value is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import cast

from detent_state_machine import item_limits
from detent_state_machine.errors import CorruptRecord, InputError
from detent_state_machine.records import INDEXED
from detent_state_machine.writes import Item, Key, Value, Write, holds

from detent_infra.ports import Conflict, Page
from detent_infra.sqlite.session import SqliteSession

_GET = "SELECT item FROM items WHERE pk = ? AND sk = ?"
_STORE = """
INSERT INTO items (pk, sk, item, ipk, isk, expires) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (pk, sk) DO UPDATE
SET item = excluded.item, ipk = excluded.ipk, isk = excluded.isk, expires = excluded.expires
"""
_DELETE = "DELETE FROM items WHERE pk = ? AND sk = ?"

_FROM = "SELECT pk, sk, item FROM items WHERE pk = ? AND sk >= ? AND sk < ? ORDER BY sk LIMIT ?"
_BEYOND = "SELECT pk, sk, item FROM items WHERE pk = ? AND sk > ? AND sk < ? ORDER BY sk LIMIT ?"
_BACK = "SELECT pk, sk, item FROM items WHERE pk = ? AND sk >= ? AND sk < ? ORDER BY sk DESC LIMIT ?"
# One condition for each edge: of two for the same edge SQLite takes the first for its search, reads on from there, and
# so reads all pages before this one again.
_INDEX = """
SELECT pk, sk, item, isk FROM items WHERE ipk = ? AND (isk, pk, sk) > (?, ?, ?) AND isk < ?
ORDER BY isk, pk, sk LIMIT ?
"""
_INDEX_BACK = """
SELECT pk, sk, item, isk FROM items WHERE ipk = ? AND (isk, pk, sk) < (?, ?, ?) AND isk >= ?
ORDER BY isk DESC, pk DESC, sk DESC LIMIT ?
"""
_LAST = b""
"""In SQLite every text sorts before every blob, so this is greater than any key."""


class SqliteTable:
    def __init__(self, session: Callable[[], SqliteSession]) -> None:
        self._session = session

    async def get(self, key: Key) -> Item | None:
        rows = self._session().read(_GET, key)
        return _decode(key, rows[0][0]) if rows else None

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        # One by one: a statement for many keys scans the table, and a statement costs ten microseconds.
        return [await self.get(key) for key in keys]

    async def write(self, write: Write) -> Item | None:
        item_limits.check(write)

        def run(connection: sqlite3.Connection) -> Item | None:
            current = _current(connection, write.key)
            if not holds(write.expect, current):
                raise Conflict(current)
            after = item_limits.applied(write, current)
            _store(connection, write.key, current, after)
            return after

        return await self._session().write(run)

    async def transact(self, writes: Sequence[Write]) -> None:
        item_limits.check_transaction(writes)

        def run(connection: sqlite3.Connection) -> None:
            current = [_current(connection, write.key) for write in writes]
            for index, (write, item) in enumerate(zip(writes, current, strict=True)):
                if not holds(write.expect, item):
                    raise Conflict(item, index=index)
            after = item_limits.applied_together(writes, current)
            for write, old, new in zip(writes, current, after, strict=True):
                _store(connection, write.key, old, new)

        await self._session().write(run)

    async def query(
        self,
        pk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        if limit < 1:
            return Page(())
        high: str | bytes = _LAST if end is None else end
        if not forward:
            if after is not None:
                high = after if end is None else min(after, end)
            rows = self._session().read(_BACK, (pk, start, high, limit + 1))
        elif after is None or after < start:
            rows = self._session().read(_FROM, (pk, start, high, limit + 1))
        else:
            rows = self._session().read(_BEYOND, (pk, after, high, limit + 1))
        found = tuple((Key(pk, sk), _decode(Key(pk, sk), text)) for _, sk, text in rows[:limit])
        return Page(found, found[-1][0].sk if len(rows) > limit else None)

    async def query_index(
        self,
        ipk: str,
        *,
        start: str = "",
        end: str | None = None,
        forward: bool = True,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        if limit < 1:
            return Page(())
        cursor = None if after is None else _edge(after)
        if forward:
            low = (start, "", "") if cursor is None else max(cursor, (start, "", ""))
            rows = self._session().read(_INDEX, (ipk, *low, _LAST if end is None else end, limit + 1))
        else:
            edges = [edge for edge in (cursor, None if end is None else (end, "", "")) if edge is not None]
            rows = self._session().read(_INDEX_BACK, (ipk, *min(edges, default=(_LAST, "", "")), start, limit + 1))
        found = tuple((Key(pk, sk), _indexed(_decode(Key(pk, sk), text))) for pk, sk, text, _ in rows[:limit])
        if len(rows) <= limit:
            return Page(found)
        pk, sk, _, isk = rows[limit - 1]
        return Page(found, json.dumps([isk, pk, sk]))


def _current(connection: sqlite3.Connection, key: Key) -> Item | None:
    row = connection.execute(_GET, key).fetchone()
    return None if row is None else _decode(key, row[0])


def _store(connection: sqlite3.Connection, key: Key, current: Item | None, after: Item | None) -> None:
    if after is not None:
        ipk, isk, expires = after.get("ipk"), after.get("isk"), after.get("expires")
        indexed = (ipk, isk) if isinstance(ipk, str) and isinstance(isk, str) else (None, None)
        expiry = expires if isinstance(expires, int) and not isinstance(expires, bool) else None
        connection.execute(_STORE, (*key, _encode(after), *indexed, expiry))
    elif current is not None:
        connection.execute(_DELETE, key)


def _as_list(value: object) -> list[int] | list[str]:
    if isinstance(value, frozenset):
        return sorted(cast("frozenset[int]", value))
    raise TypeError(f"A {type(value).__name__} is not a value of an item.")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False, default=_as_list).encode


def _decode(key: Key, text: str) -> Item:
    try:
        item = cast("dict[str, Value | list[int]]", json.loads(text))
        for name, value in item.items():
            if type(value) is list:
                item[name] = frozenset(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptRecord(
            f"The item {key.pk!r} / {key.sk!r} cannot be read: {error}.", advice="The file was changed by hand."
        ) from error
    return cast("Item", item)


def _indexed(item: Item) -> Item:
    return {name: item[name] for name in INDEXED if name in item}


def _edge(after: str) -> tuple[str, str, str]:
    try:
        isk, pk, sk = cast("list[str]", json.loads(after))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{after[:80]!r} is not the cursor of this query.", advice="Pass `Page.next` unchanged."
        ) from error
    return isk, pk, sk
