"""Following a log group: what was written before by FilterLogEvents, what is written now by Live Tail.

Live Tail is fast but promises little: it samples above 500 events a second, ends after three hours, and an account has
15 sessions. So it never has the last word. A search each half minute, when a session has started, whenever one was
sampled or broke off, and at the end, finds what it missed; an event that comes both ways is given once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from botocore.exceptions import ClientError
from detent_state_machine.errors import ConfigurationError

from detent_infra.aws.errors import VENDOR_ERRORS, code_of, translate
from detent_infra.aws.log_search import GroupSearch, LogCursor, LogEvent, in_order, narrowing, to_line
from detent_infra.aws.logs import SETTLES
from detent_infra.aws.resources import Clients
from detent_infra.logs.lines import selects
from detent_infra.ports import LogPage, LogQuery

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import StartLiveTailResponseStreamTypeDef

CATCH_UP_EVERY = 30.0
POLL_EVERY = 3.0
"""Seconds between two searches, with Live Tail and without."""
TICK = 1.0
"""Seconds after which an empty page is given, so that who follows can look whether the run has ended."""
SHORT = 30.0
"""Seconds that a session must have lasted to be worth another; after `MAX_SHORT` in a row that did not, no more."""
MAX_SHORT = 3
MAX_WAITING = 200
"""Updates, of up to 500 events each, that wait for a reader who is slow to print them."""
MAX_MET = 20_000
PAGE = 1_000


@dataclass(frozen=True, slots=True)
class TailUpdate:
    """What a session sends when it starts, and then each second. `partial`: there was, or may have been, more."""

    events: tuple[LogEvent, ...]
    partial: bool


@dataclass(frozen=True, slots=True)
class Over:
    """The session has ended. `refused` says why no other one will do better."""

    refused: str = ""
    expired: bool = False
    """It had its three hours."""


Heard: TypeAlias = TailUpdate | Over


class TailSession:
    """One Live Tail session, read by a thread of its own, because botocore blocks. `stop` does not wait for it."""

    def __init__(self, clients: Clients, group: str, pattern: str) -> None:
        self._clients = clients
        self._group = group
        self._pattern = pattern
        self._loop = asyncio.get_running_loop()
        self._heard: deque[Heard] = deque()
        self._arrived = asyncio.Event()
        self._stopped = False
        self.began = time.monotonic()
        """When it was asked for, then when it said that it has started: what is printed from then on, it shows."""
        # A daemon: the interpreter does not wait for the second until the next update, or for a lost connection.
        threading.Thread(target=self._listen, name="detent-live-tail", daemon=True).start()

    async def next(self, timeout: float) -> Heard | None:
        """What was heard next; None if that is nothing for `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        if not self._heard:
            return None
        first = self._heard.popleft()
        if not self._heard:
            self._arrived.clear()
        return first

    def stop(self) -> None:
        self._stopped = True

    def _listen(self) -> None:
        resource = f"the log group {self._group!r}"
        try:
            for each in self._stream():
                if self._stopped:
                    return
                if "sessionStart" in each:
                    self.began = time.monotonic()
                    self._tell(TailUpdate((), partial=True))
                elif (update := _update(each)) is not None:
                    self._tell(update)
            self._tell(Over())
        except VENDOR_ERRORS as error:
            self._tell(_over(error, resource))
        except Exception as error:  # noqa: BLE001 - a connection breaks in many ways, and a stand-in may know no Live Tail
            self._tell(Over(refused=f"{type(error).__name__}.") if isinstance(error, NotImplementedError) else Over())

    def _stream(self) -> Iterable[StartLiveTailResponseStreamTypeDef]:
        client = self._clients.log_reader
        found = client.describe_log_groups(logGroupNamePrefix=self._group)["logGroups"]
        arns = [each.get("arn", "") for each in found if each.get("logGroupName") == self._group]
        if not arns:
            raise ConfigurationError(f"DescribeLogGroups does not list {self._group!r}.")
        stream = client.start_live_tail(
            logGroupIdentifiers=[arns[0].removesuffix(":*")], logEventFilterPattern=self._pattern
        )["responseStream"]
        try:
            yield from stream
        finally:
            stream.close()

    def _tell(self, heard: Heard) -> None:
        with suppress(RuntimeError):  # The loop is closed: nobody follows any more.
            self._loop.call_soon_threadsafe(self._take, heard)

    def _take(self, heard: Heard) -> None:
        if len(self._heard) >= MAX_WAITING:
            # The reader is slow. What it misses, a search finds.
            self._heard.clear()
            self._heard.append(TailUpdate((), partial=True))
        self._heard.append(heard)
        self._arrived.set()


def _update(sent: StartLiveTailResponseStreamTypeDef) -> TailUpdate | None:
    update = sent.get("sessionUpdate")
    if update is None:
        return None
    events = tuple(
        LogEvent(each.get("logStreamName", ""), each.get("timestamp", 0), each.get("message", "").rstrip("\n"))
        for each in update.get("sessionResults", ())
    )
    return TailUpdate(events, update.get("sessionMetadata", {}).get("sampled", False))


def _over(error: Exception, resource: str) -> Over:
    """Why a session is over: refused as it began, or ended later, which is told in the stream."""
    if isinstance(error, ClientError):
        if code_of(error) == "SessionTimeoutException":
            return Over(expired=True)
        if code_of(error) == "SessionStreamingException":
            return Over()
        return Over(refused=translate(error, resource).message)
    return Over()


class Met:
    """Events that were had already. Searches are one source of them, each session is another.

    The same event may come from each; and one that was written twice comes twice from one.
    """

    def __init__(self) -> None:
        self._shown: dict[LogEvent, int] = {}

    def new(self, events: Iterable[LogEvent], source: Counter[LogEvent]) -> list[LogEvent]:
        """Those of the events that no source has given before. `source` counts what this one has given."""
        found: list[LogEvent] = []
        for event in events:
            source[event] += 1
            if source[event] > self._shown.get(event, 0):
                self._shown[event] = source[event]
                found.append(event)
        for counts in (self._shown, source):
            while len(counts) > MAX_MET:
                del counts[next(iter(counts))]
        return found


async def follow(
    search: GroupSearch, clients: Clients, group: str, query: LogQuery, over: asyncio.Event
) -> AsyncGenerator[LogPage, None]:
    """As `Logs.follow` promises. Events that come late by more than 15 s may be missed if Live Tail missed them."""
    wanted = selects(query)
    cursor, met, short = LogCursor(query.since, most=None), Met(), 0
    searched, heard_live = Counter[LogEvent](), Counter[LogEvent]()

    def page(events: Iterable[LogEvent], source: Counter[LogEvent], *, more: bool = False, note: str = "") -> LogPage:
        lines = ((to_line(event), event.text) for event in met.new(events, source))
        return LogPage(in_order([line for line, text in lines if line and wanted(line, text)]), "", more, note)

    session: TailSession | None = TailSession(clients, group, narrowing(query))
    try:
        while True:
            last = over.is_set()
            while True:
                events = await search.page(query, cursor, PAGE)
                yield page(events, searched, more=not cursor.done)
                if cursor.done:
                    break
            if last:
                return
            if session is None:
                await asyncio.sleep(POLL_EVERY)
                continue
            until = time.monotonic() + CATCH_UP_EVERY
            while time.monotonic() < until and not over.is_set():
                heard = await session.next(TICK)
                if isinstance(heard, Over):
                    lasted = time.monotonic() - session.began >= SHORT
                    short = 0 if lasted or heard.expired else short + 1
                    note = _given_up(heard, short)
                    session = None if note else TailSession(clients, group, narrowing(query))
                    heard_live = Counter[LogEvent]()
                    yield page((), heard_live, note=note)
                    break
                yield page(heard.events if heard else (), heard_live)
                if heard and heard.partial:
                    break
            if session is not None and over.is_set():
                # What was printed before the session began is for the search to find, and not found at once.
                await asyncio.sleep(max(0.0, session.began + SETTLES - time.monotonic()))
    finally:
        if session is not None:
            session.stop()


def _given_up(over: Over, short: int) -> str:
    """What to say if there will be no further session; nothing if there will."""
    if over.refused:
        return f"No Live Tail: {over.refused} Looking every {POLL_EVERY:g} s instead."
    if short >= MAX_SHORT:
        return f"Live Tail broke off {short} times. Looking every {POLL_EVERY:g} s instead."
    return ""
