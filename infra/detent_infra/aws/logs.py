"""The logs port on CloudWatch Logs, and lines on standard output where Lambda carries that to CloudWatch."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, TextIO, cast

from botocore.exceptions import ClientError

from detent_infra import forks
from detent_infra.aws.calls import Calls
from detent_infra.aws.errors import code_of
from detent_infra.aws.resources import Clients
from detent_infra.logs.lines import fit
from detent_infra.logs.step_output import SteadyStream
from detent_infra.ports import Clock, Ids, LogLine, LogPage, LogQuery

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import InputLogEventTypeDef

    from detent_infra.aws.log_search import GroupSearch

MAX_BATCH_EVENTS = 10_000
MAX_BATCH_BYTES = 1024 * 1024
MAX_BATCH_SPAN = 24 * 3600 * 1000
EVENT_OVERHEAD = 26
"""Bytes that CloudWatch counts for each event besides its text."""
SETTLES = 10.0
"""Seconds after which a line that was printed is found by a search, as a rule."""


class CloudWatchLogs:
    """Writes to a stream per day and process, and reads lines from every stream of the group."""

    settles = SETTLES

    def __init__(self, clients: Clients, calls: Calls, group: str, *, clock: Clock, ids: Ids) -> None:
        self._clients = clients
        self._calls = calls
        self._group = group
        self._clock = clock
        self._process = ids()
        self._streams: set[str] = set()

    async def append(self, lines: Sequence[LogLine]) -> None:
        events = sorted(((line.time, fit(line)) for line in lines), key=lambda event: event[0])
        for batch in batches(events):
            await self._calls(partial(self._put, batch))

    def _put(self, batch: Sequence[InputLogEventTypeDef]) -> None:
        day = datetime.fromtimestamp(self._clock() / 1000, UTC).date().isoformat()
        stream = f"detent/{day}/{self._process}"
        if stream not in self._streams:
            try:
                self._clients.logs.create_log_stream(logGroupName=self._group, logStreamName=stream)
            except ClientError as error:
                if code_of(error) != "ResourceAlreadyExistsException":
                    raise
            self._streams.add(stream)
        self._clients.logs.put_log_events(logGroupName=self._group, logStreamName=stream, logEvents=batch)

    async def read(self, query: LogQuery, *, limit: int = 1000, after: str | None = None) -> LogPage:
        """As the port says. Lines that become visible late are read as long as they are late by at most 15 s.

        One call makes at most `MAX_REQUESTS` requests, four a second after the first ten.
        """
        return await self._search.read(query, limit=limit, after=after)

    def follow(self, query: LogQuery, over: asyncio.Event) -> AsyncGenerator[LogPage, None]:
        """By Live Tail, and where that is refused or breaks off, by searching every few seconds."""
        from detent_infra.aws.live_tail import follow

        return follow(self._search, self._clients, self._group, query, over)

    @cached_property
    def _search(self) -> GroupSearch:
        # Imported here, as Live Tail is: a Lambda worker writes lines and reads none, and its cold start is paid for.
        from detent_infra.aws.log_search import GroupSearch

        return GroupSearch(self._clients, self._calls, self._group, clock=self._clock)


class StdoutLines(forks.Forkable):
    """In Lambda: prints each line as JSON when it is written, which Lambda carries to its log group.

    So a line costs no request, and what a worker wrote before it was killed is there. Best effort: a stream that is
    closed stops no step.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        forks.follow_forks(self)

    def in_child(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, line: LogLine) -> None:
        text = fit(line)
        stream: object = sys.stdout if self._stream is None else self._stream
        if not isinstance(stream, SteadyStream):
            stream = SteadyStream(cast("TextIO", stream))
        with self._lock:
            stream.write_line(text)


def batches(events: Sequence[tuple[int, str]]) -> Iterator[list[InputLogEventTypeDef]]:
    """Events, sorted by time, in groups that one PutLogEvents takes: by number, by size, and by span of time."""
    batch: list[InputLogEventTypeDef] = []
    size = first = 0
    for time, text in events:
        length = len(text.encode()) + EVENT_OVERHEAD
        full = len(batch) == MAX_BATCH_EVENTS or size + length > MAX_BATCH_BYTES
        if batch and (full or time - first >= MAX_BATCH_SPAN):
            yield batch
            batch, size = [], 0
        if not batch:
            first = time
        batch.append({"timestamp": time, "message": text})
        size += length
    if batch:
        yield batch
