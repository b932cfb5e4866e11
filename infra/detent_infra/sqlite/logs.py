"""The logs port on SQLite: lines as they arrive, read by run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence

from detent_state_machine.errors import InputError

from detent_infra.logs.lines import FOLLOW_EVERY, fit, from_json, polled, selects
from detent_infra.ports import LogLine, LogPage, LogQuery
from detent_infra.sqlite.session import SqliteSession

_APPEND = "INSERT INTO logs (run_id, time, line) VALUES (?, ?, ?)"
_READ = "SELECT seq, line FROM logs WHERE {} seq > ? AND time BETWEEN ? AND ? ORDER BY seq LIMIT ?"
_CHUNK = 1000
_DISORDER = 900_000
"""Milliseconds by which a line may arrive later than its time, or by which clocks may differ."""
_FOREVER = 2**62


class SqliteLogs:
    """Pages follow the order of arrival, so that who reads on misses no line that came late.

    The lines of a page are in order of time.
    """

    settles = 0.5

    def __init__(self, session: Callable[[], SqliteSession]) -> None:
        self._session = session

    async def append(self, lines: Sequence[LogLine]) -> None:
        if not lines:
            return
        rows = [(line.run_id, line.time, fit(line)) for line in lines]

        def run(connection: sqlite3.Connection) -> None:
            connection.executemany(_APPEND, rows)

        await self._session().write(run, durable=False)

    async def read(self, query: LogQuery, *, limit: int = 1000, after: str | None = None) -> LogPage:
        wanted = selects(query)
        statement = _READ.format(f"run_id IN ({', '.join('?' * len(query.runs))}) AND" if query.runs else "")
        until = _FOREVER if query.until is None else query.until
        seen = self._before(query.since) if after is None and not query.runs else _position(after)
        found: list[LogLine] = []
        while True:
            rows = self._session().read(statement, (*query.runs, seen, query.since, until, _CHUNK))
            for seq, text in rows:
                if len(found) == limit:
                    return _page(found, seen, more=True)
                seen = seq
                if (line := from_json(text)) is not None and wanted(line, text):
                    found.append(line)
            if len(rows) < _CHUNK:
                return _page(found, seen, more=False)
            await asyncio.sleep(0)  # a pattern that matches little reads much; others may go on in between

    def _before(self, since: int) -> int:
        """A place in the order of arrival with no line of that time or later before it, found by halving."""
        session = self._session()
        bounds: list[tuple[int, int]] = session.read(
            "SELECT coalesce(min(seq), 1) - 1, coalesce(max(seq), 1) FROM logs"
        )
        [(low, high)] = bounds
        while high - low > _CHUNK:
            middle = (low + high) // 2
            rows = session.read("SELECT seq, time FROM logs WHERE seq > ? ORDER BY seq LIMIT 1", (middle,))
            old = [seq for seq, time in rows if time < since - _DISORDER]
            low, high = (old[0], high) if old else (low, middle)
        return low

    def follow(self, query: LogQuery, over: asyncio.Event) -> AsyncGenerator[LogPage, None]:
        return polled(self, query, FOLLOW_EVERY, over)


def _page(found: list[LogLine], seen: int, *, more: bool) -> LogPage:
    return LogPage(tuple(sorted(found, key=lambda line: line.time)), str(seen), more)


def _position(after: str | None) -> int:
    if after is None:
        return 0
    if not after.isdecimal():
        raise InputError(f"{after[:80]!r} is not the cursor of a log.", advice="Pass `LogPage.next` unchanged.")
    return int(after)
