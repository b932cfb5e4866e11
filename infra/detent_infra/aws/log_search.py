"""Searching a log group with FilterLogEvents: page by page, within the quota that a whole account shares."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from detent_state_machine.backoff import Backoff
from detent_state_machine.errors import InputError, Unavailable

from detent_infra.aws.calls import Calls
from detent_infra.aws.errors import Throttled
from detent_infra.aws.resources import Clients
from detent_infra.logs.lines import from_json, line_of, names_below, selects
from detent_infra.ports import MAX_LINES, Clock, LogLine, LogPage, LogQuery

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import FilterLogEventsRequestTypeDef, FilterLogEventsResponseTypeDef

MAX_REQUESTS = 10
"""In one `read`: CloudWatch may answer a search of a large group with many empty pages."""
SLICE = 3_600_000
"""Milliseconds of log that are searched first, then the next: CloudWatch does not say how far a search is, so this is
how it is known. After a slice for which one request was enough comes one twice as long."""
LATE = 15_000
"""How many milliseconds later than its time a line may become visible and still be read."""
PRINTED = 60_000
"""How many milliseconds after its time a line may be printed or sent, and so be dated by CloudWatch."""
MAX_SEEN = 500
BURST, PER_SECOND = 10, 4.0
"""Requests of one process: some at once, then so many a second. An account has 25 in us-east-1, 10 or 5 elsewhere."""
TRIES = 6
PAUSES = Backoff(first=0.5, longest=8.0)
"""Between tries of a throttled request. One that did not arrive is tried again twice."""
MAX_SENT_PATTERN = 1024

_PLAIN = re.compile(r"[A-Za-z0-9]+")
_QUOTED = re.compile(r"[A-Za-z0-9._-]+")
"""Texts that are the same in JSON and in a pattern, there perhaps in quotes."""
_LAMBDA_NAMES = ("timestamp", "level", "message", "run_id", "path", "attempt", "request_id", "xray_trace_id")


class LogEvent(NamedTuple):
    """A log event as CloudWatch has it. Equal for the same event, whichever way it was read."""

    stream: str
    time: int
    text: str


class GroupSearch:
    """Reads a group's events that may be of a query (`page`), and the lines that are (`read`)."""

    def __init__(self, clients: Clients, calls: Calls, group: str, *, clock: Clock) -> None:
        self._clients = clients
        self._calls = calls
        self._group = group
        self._clock = clock
        self._allowance = float(BURST)
        self._counted = time.monotonic()

    async def read(self, query: LogQuery, *, limit: int, after: str | None) -> LogPage:
        """As the logs port says, in at most `MAX_REQUESTS` requests."""
        wanted = selects(query)
        cursor = LogCursor(query.since) if after is None else LogCursor.decode(after)
        found: list[LogLine] = []
        for _ in range(MAX_REQUESTS):
            events = await self.page(query, cursor, limit - len(found))
            lines = ((to_line(event), event.text) for event in events)
            found.extend(line for line, text in lines if line is not None and wanted(line, text))
            if cursor.done or len(found) >= limit:
                break
        reached = cursor.start - PRINTED
        return LogPage(
            in_order(found), cursor.encode(), more=not cursor.done, reached=reached if reached > query.since else 0
        )

    async def page(self, query: LogQuery, cursor: LogCursor, limit: int) -> list[LogEvent]:
        """The next events, at most `limit`, perhaps none though more follow. Moves the cursor on."""
        cursor.begin(self._clock(), query.until)
        # Asking for no more than is wanted means that no page is ever half used.
        request: FilterLogEventsRequestTypeDef = {
            "logGroupName": self._group,
            "filterPattern": narrowing(query),
            "startTime": cursor.start,
            "limit": min(MAX_LINES, max(1, limit)),
        }
        if cursor.end is not None:
            request["endTime"] = cursor.end
        elif query.until is not None:
            request["endTime"] = max(cursor.start, query.until + PRINTED)
        if cursor.token is not None:
            request["nextToken"] = cursor.token
        answer = await self._patiently(request)
        events = [
            (event.get("eventId", ""), LogEvent(event.get("logStreamName", ""), event.get("timestamp", 0), text))
            for event in answer.get("events", [])
            if (text := event.get("message", "").rstrip("\n"))
        ]
        new = [event for id, event in events if id not in cursor.seen]
        cursor.go_on({id: event.time for id, event in events}, answer.get("nextToken"))
        return new

    async def _patiently(self, request: FilterLogEventsRequestTypeDef) -> FilterLogEventsResponseTypeDef:
        for tries in range(1, TRIES):
            await self._turn()
            try:
                return await self._calls(partial(self._filter, request))
            except Unavailable as error:
                if tries > 2 and not isinstance(error, Throttled):
                    raise
                await asyncio.sleep(PAUSES.spread(tries, random.random()))  # noqa: S311  # spreads load, hides nothing
        return await self._calls(partial(self._filter, request))

    async def _turn(self) -> None:
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._counted) * PER_SECOND) - 1
        self._counted = now
        if self._allowance < 0:
            await asyncio.sleep(-self._allowance / PER_SECOND)

    def _filter(self, request: FilterLogEventsRequestTypeDef) -> FilterLogEventsResponseTypeDef:
        return self._clients.log_reader.filter_log_events(**request)


def narrowing(query: LogQuery) -> str:
    """The pattern that CloudWatch is asked to search with: matches every line of the query, and others.

    The user's own pattern is not in it. It is applied here, to what comes back, where its meaning is the same on
    every backend; and what CloudWatch is sent stays simple enough for every stand-in.
    """
    if query.level or len(query.runs) > 1:
        return _conditions(query)
    terms = [term for term in (query.path, query.workflow) if _PLAIN.fullmatch(term)]
    if not query.runs:
        return " ".join(["level", *terms])
    (run,) = query.runs
    if not _PLAIN.fullmatch(run):
        return f'"{run}"' if _QUOTED.fullmatch(run) else "run_id"
    return " ".join([run, *terms])


def _conditions(query: LogQuery) -> str:
    """What terms cannot say. A condition that cannot be written, or for which there is no room, is left out.

    Of the level it says what is too low, by name: one that nobody knows, or in small letters, is for us to judge.
    """
    wanted = (("run_id", query.runs), ("path", (query.path,)), ("workflow", (query.workflow,)))
    equal = [
        [f'$.{name} = "{text}"' for text in any_of]
        for name, any_of in wanted
        if any_of and all(_QUOTED.fullmatch(text) for text in any_of)
    ]
    conditions = [any_of[0] if len(any_of) == 1 else f"({' || '.join(any_of)})" for any_of in equal]
    conditions += [f'$.level != "{name}"' for name in (names_below(query.level) if query.level else ())]
    pattern = ""
    for condition in conditions:
        longer = f"{pattern} && {condition}" if pattern else condition
        pattern = longer if len(longer) + len("{  }") <= MAX_SENT_PATTERN else pattern
    return f"{{ {pattern} }}" if pattern else "run_id" if query.runs else "level"


@dataclass(slots=True)
class LogCursor:
    """Where a reader is: a search of the slice from `start` to `end`, or to the present, at `token`.

    Events become visible late and out of order, so the next search starts at `resume`, a little before this one
    began; `seen` keeps what was had from there on from being read twice.
    """

    start: int
    token: str | None = None
    resume: int = 0
    seen: dict[str, int] = field(default_factory=dict[str, int])
    end: int | None = None
    span: int = SLICE
    most: int | None = MAX_SEEN
    """Of them, or None if the cursor is not handed out."""

    @property
    def done(self) -> bool:
        """Whether the search has come to its end, after which it begins again at `resume`."""
        return self.token is None and self.end is None

    def begin(self, now: int, until: int | None) -> None:
        if self.token is None:
            self.resume = max(self.start, now - LATE)
            end = self.start + self.span - 1
            latest = now - LATE if until is None else min(now - LATE, until + PRINTED)
            self.end = end if self.start > 0 and end < latest else None

    def go_on(self, times: dict[str, int], token: str | None) -> None:
        self.seen.update((id, time) for id, time in times.items() if time >= self.resume)
        full = self.most is not None and len(self.seen) > self.most
        if self.most is not None and full:
            # It stays small: rather miss a line that comes very late than carry thousands of ids.
            self.resume = max(self.resume, sorted(self.seen.values())[-self.most])
        if token is None and self.end is not None:
            self.start = self.end + 1
            self.span *= 2 if self.token is None else 1
        elif token is None:
            self.start = self.resume
        self.token = token
        if full or token is None:
            self.seen = {id: time for id, time in self.seen.items() if time >= self.resume}

    def encode(self) -> str:
        parts = [self.start, self.token, self.resume, self.seen, self.end, self.span]
        return json.dumps(parts, separators=(",", ":"))

    @staticmethod
    def decode(text: str) -> LogCursor:
        try:
            parts = cast("tuple[int, str | None, int, dict[str, int], int | None, int]", json.loads(text))
            start, token, resume, seen, end, span = parts
            return LogCursor(int(start), token, int(resume), dict(seen), end, int(span))
        except (ValueError, TypeError):
            raise InputError(
                f"{text[:80]!r} is not the cursor of a log.", advice="Pass `LogPage.next` unchanged."
            ) from None


def to_line(event: LogEvent) -> LogLine | None:
    """The line in an event: one of detent's, or what Powertools or Lambda's own JSON logging prints.

    The latter spell their time in several ways, so the event's own is taken. None for what has no level and message:
    metrics, and what Lambda reports of invocations.
    """
    if (line := from_json(event.text)) is not None:
        return line
    try:
        parsed: object = json.loads(event.text)
    except (ValueError, RecursionError):
        return None
    match parsed:
        case {"level": str(level), "message": object()}:
            known = cast("dict[str, object]", parsed)
        case _:
            return None
    message, run_id, trace_id = known["message"], known.get("run_id"), known.get("xray_trace_id")
    return line_of(
        {**known, "trace_id": trace_id} if isinstance(trace_id, str) else known,
        event.time,
        level,
        message if isinstance(message, str) else json.dumps(message, ensure_ascii=False),
        run_id if isinstance(run_id, str) else "",
        (*_LAMBDA_NAMES, "trace_id"),
    )


def in_order(lines: Sequence[LogLine]) -> tuple[LogLine, ...]:
    return tuple(sorted(lines, key=lambda line: line.time))
