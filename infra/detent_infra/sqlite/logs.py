"""The logs port on SQLite: lines as they arrive, read by run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence

from detent_state_machine import filter_pattern
from detent_state_machine.errors import InputError

from detent_infra.log_lines import from_json, to_json
from detent_infra.ports import LogLine, LogPage
from detent_infra.sqlite.session import Session

_APPEND = "INSERT INTO logs (run_id, time, line) VALUES (?, ?, ?)"
_READ = "SELECT seq, time, line FROM logs WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?"
_CHUNK = 1000


class SqliteLogs:
    """Pages follow the order of arrival, so that who reads on misses no line that came late.

    The lines of a page are in order of time.
    """

    def __init__(self, session: Callable[[], Session]) -> None:
        self._session = session

    async def append(self, lines: Sequence[LogLine]) -> None:
        if not lines:
            return
        rows = [(line.run_id, line.time, to_json(line)) for line in lines]

        def run(connection: sqlite3.Connection) -> None:
            connection.executemany(_APPEND, rows)

        await self._session().write(run, durable=False)

    async def read(
        self, run_id: str, *, pattern: str = "", since: int = 0, limit: int = 1000, after: str | None = None
    ) -> LogPage:
        matches = filter_pattern.parse(pattern)
        seen = _position(after)
        found: list[LogLine] = []
        while True:
            rows = self._session().read(_READ, (run_id, seen, _CHUNK))
            for seq, time, text in rows:
                if len(found) == limit:
                    break
                seen = seq
                if time >= since and matches(text) and (line := from_json(text)) is not None:
                    found.append(line)
            if len(found) == limit or len(rows) < _CHUNK:
                return LogPage(tuple(sorted(found, key=lambda line: line.time)), str(seen))
            await asyncio.sleep(0)  # a pattern that matches little reads much; others may go on in between


def _position(after: str | None) -> int:
    if after is None:
        return 0
    if not after.isdecimal():
        raise InputError(f"{after[:80]!r} is no cursor of a log.", advice="Pass `LogPage.next` unchanged.")
    return int(after)
