"""The logs port on CloudWatch Logs, and on standard output where Lambda carries that to CloudWatch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TextIO, cast

from botocore.exceptions import ClientError
from detent_state_machine.errors import InputError

from detent_infra.aws.calls import Calls
from detent_infra.aws.errors import code_of
from detent_infra.aws.resources import Clients
from detent_infra.log_lines import from_json, to_json
from detent_infra.ports import Clock, Ids, LogLine, LogPage, Logs

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import (
        FilteredLogEventTypeDef,
        FilterLogEventsRequestTypeDef,
        FilterLogEventsResponseTypeDef,
        InputLogEventTypeDef,
    )

MAX_EVENT = 256 * 1024
MAX_BATCH_EVENTS = 10_000
MAX_BATCH_BYTES = 1024 * 1024
MAX_BATCH_SPAN = 24 * 3600 * 1000
EVENT_OVERHEAD = 26
"""Bytes that CloudWatch counts for each event besides its text."""
MAX_PAGE = 10_000
MAX_REQUESTS = 20
"""In one `read`: CloudWatch may answer a search of a large group with many empty pages."""
LATE = 15_000
"""How many milliseconds later than its time a line may become visible and still be read."""
MAX_SEEN = 500

_CUT = 32 * 1024  # characters: with six bytes for each, the worst that JSON can make of one, an event still fits
_LAMBDA_NAMES = ("timestamp", "level", "message", "run_id", "path", "attempt")


class CloudWatchLogs:
    """Writes to a stream per day and process, and reads a run's lines from every stream of the group."""

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

    async def read(
        self, run_id: str, *, pattern: str = "", since: int = 0, limit: int = 1000, after: str | None = None
    ) -> LogPage:
        """One call searches for a bounded time: an empty page does not mean that nothing follows, so read on.

        Lines that become visible late are read as long as they are late by at most 15 s. CloudWatch takes 10 to 25
        such searches a second from a whole account: pause between two.
        """
        # Imported here: a Lambda worker writes lines and reads none, and its cold start is paid for.
        from detent_state_machine import filter_pattern

        matches = filter_pattern.parse(pattern)
        cursor = _Cursor(since) if after is None else _Cursor.decode(after)
        found: list[LogLine] = []
        for _ in range(MAX_REQUESTS):
            cursor.begin(self._clock())
            request = self._search(run_id, cursor, limit - len(found))
            answer = await self._calls(partial(self._filter, request))
            events = answer.get("events", [])
            found.extend(_lines(events, run_id, cursor, matches))
            cursor.go_on(events, answer.get("nextToken"))
            if cursor.token is None or len(found) >= limit:
                break
        return LogPage(tuple(found), cursor.encode())

    def _search(self, run_id: str, cursor: _Cursor, limit: int) -> FilterLogEventsRequestTypeDef:
        # CloudWatch only narrows the search down to the run. The user's pattern is applied here, where its meaning is
        # the same on every backend. Asking for no more than is wanted means that no page is ever half used.
        term = run_id.replace("\\", "\\\\").replace('"', '\\"')
        request: FilterLogEventsRequestTypeDef = {
            "logGroupName": self._group,
            "filterPattern": f'"{term}"',
            "startTime": cursor.start,
            "limit": min(MAX_PAGE, max(1, limit)),
            "interleaved": True,
        }
        if cursor.token is not None:
            request["nextToken"] = cursor.token
        return request

    def _filter(self, request: FilterLogEventsRequestTypeDef) -> FilterLogEventsResponseTypeDef:
        return self._clients.logs.filter_log_events(**request)


class StdoutLogs:
    """In Lambda: prints each line as JSON, which Lambda carries to its log group, and reads through `reader`."""

    def __init__(self, reader: Logs, stream: TextIO | None = None) -> None:
        self._reader = reader
        self._stream = stream

    async def append(self, lines: Sequence[LogLine]) -> None:
        stream = sys.stdout if self._stream is None else self._stream
        for line in lines:
            stream.write(fit(line) + "\n")
        stream.flush()

    async def read(
        self, run_id: str, *, pattern: str = "", since: int = 0, limit: int = 1000, after: str | None = None
    ) -> LogPage:
        return await self._reader.read(run_id, pattern=pattern, since=since, limit=limit, after=after)


@dataclass(slots=True)
class _Cursor:
    """Where a reader is: a search from `start` on, at `token`.

    Events become visible late and out of order, so the next search starts at `resume`, a little before this one
    began; `seen` keeps what was had from there on from being read twice.
    """

    start: int
    token: str | None = None
    resume: int = 0
    seen: dict[str, int] = field(default_factory=dict[str, int])

    def begin(self, now: int) -> None:
        if self.token is None:
            self.resume = max(self.start, now - LATE)

    def go_on(self, events: Sequence[FilteredLogEventTypeDef], token: str | None) -> None:
        times = {event.get("eventId", ""): event.get("timestamp", 0) for event in events}
        self.seen.update((id, time) for id, time in times.items() if time >= self.resume)
        full = len(self.seen) > MAX_SEEN
        if full:
            # A cursor stays small: rather miss a line that comes very late than carry thousands of ids.
            self.resume = max(self.resume, sorted(self.seen.values())[-MAX_SEEN])
        self.token = token
        if token is None:
            self.start = self.resume
        if full or token is None:
            self.seen = {id: time for id, time in self.seen.items() if time >= self.resume}

    def encode(self) -> str:
        return json.dumps([self.start, self.token, self.resume, self.seen], separators=(",", ":"))

    @staticmethod
    def decode(text: str) -> _Cursor:
        try:
            start, token, resume, seen = cast("tuple[int, str | None, int, dict[str, int]]", json.loads(text))
            return _Cursor(int(start), token, int(resume), dict(seen))
        except (ValueError, TypeError):
            raise InputError(f"{text[:80]!r} is no cursor of a log.", advice="Pass `LogPage.next` unchanged.") from None


def fit(line: LogLine) -> str:
    """The line as JSON, shortened if CloudWatch would refuse it: the message first, then the fields."""
    text = to_json(line)
    if len(text.encode()) <= MAX_EVENT - EVENT_OVERHEAD:
        return text
    if len(line.message) > _CUT:
        return fit(replace(line, message=line.message[: _CUT - 1] + "…"))
    return to_json(replace(line, fields='{"fields_dropped": true}'))


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


def to_line(text: str, time: int) -> LogLine | None:
    """The line in an event: one of detent's, or what Powertools or Lambda's own JSON logging prints with a `run_id`.

    The latter spell their time in several ways, so the event's own is taken.
    """
    if (line := from_json(text)) is not None:
        return line
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match parsed:
        case {"run_id": str(run_id)}:
            known = cast("dict[str, object]", parsed)
        case _:
            return None
    level, message, path, attempt = (known.get(name) for name in ("level", "message", "path", "attempt"))
    return LogLine(
        time=time,
        level=level if isinstance(level, str) else "INFO",
        message=message if isinstance(message, str) else json.dumps(message, ensure_ascii=False),
        run_id=run_id,
        path=path if isinstance(path, str) else "",
        attempt=attempt if isinstance(attempt, int) else 0,
        fields=json.dumps({k: v for k, v in known.items() if k not in _LAMBDA_NAMES}, ensure_ascii=False),
    )


def _lines(
    events: Sequence[FilteredLogEventTypeDef], run_id: str, cursor: _Cursor, matches: Callable[[str], bool]
) -> Iterator[LogLine]:
    for event in events:
        if event.get("eventId", "") in cursor.seen:
            continue
        text = event.get("message", "").rstrip("\n")
        line = to_line(text, event.get("timestamp", 0))
        if line is not None and line.run_id == run_id and matches(text):
            yield line
