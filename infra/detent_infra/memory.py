"""The ports in memory: deterministic, for tests and simulation. Passes the same conformance suite as DynamoDB.

One backend may be shared by several event loops and threads; a lock makes every operation atomic. Nothing here waits
except `receive`, and that on the event loop's own clock, so a virtual clock drives it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from detent_state_machine import item_limits
from detent_state_machine.errors import ConfigurationError, CorruptRecord, InputError, PayloadTooLarge
from detent_state_machine.records import INDEXED
from detent_state_machine.writes import Item, Key, Write, holds

from detent_infra import forks
from detent_infra.clock import wall_clock
from detent_infra.ids import new_id
from detent_infra.logs.lines import FOLLOW_EVERY, fit, polled, selects
from detent_infra.ports import (
    EMBEDDED_DELAY,
    MAX_BLOB,
    Backend,
    Clock,
    Conflict,
    Ids,
    LogLine,
    LogPage,
    LogQuery,
    Page,
    Received,
    Timing,
)
from detent_infra.sources.embedded import EmbeddedSource, dead_name


class _Lock(forks.Forkable):
    """A lock of a store. In a child of a fork it refuses: a copy of the store would take what nobody ever sees."""

    def __init__(self) -> None:
        self._lock: threading.RLock | None = threading.RLock()
        forks.follow_forks(self)

    def __enter__(self) -> None:
        forks.notice()
        if self._lock is None:
            raise ConfigurationError(
                "A memory:// backend was opened before this process was forked, and lives in the parent alone.",
                advice="Use sqlite:///<file>, which processes share, or open a memory:// of its own in the child.",
            )
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def in_child(self) -> None:
        self._lock = None


@dataclass
class Store:
    """Everything a memory backend holds."""

    items: dict[Key, Item] = field(default_factory=dict[Key, Item])
    sorted_keys: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    index: dict[str, list[tuple[str, Key]]] = field(default_factory=lambda: defaultdict(list))
    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    logs: list[LogLine] = field(default_factory=list[LogLine])
    lock: _Lock = field(default_factory=_Lock)


def _nobody_listens(_key: Key) -> None: ...


class MemoryTable:
    """`written` is told the key of every write that was applied."""

    def __init__(self, store: Store, written: Callable[[Key], None] = _nobody_listens) -> None:
        self._store = store
        self._written = written

    async def get(self, key: Key) -> Item | None:
        with self._store.lock:
            return self._store.items.get(key)

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        with self._store.lock:
            return [self._store.items.get(key) for key in keys]

    async def write(self, write: Write) -> Item | None:
        item_limits.check(write)
        with self._store.lock:
            current = self._store.items.get(write.key)
            if not holds(write.expect, current):
                raise Conflict(current)
            after = item_limits.applied(write, current)
            self._replace(write.key, current, after)
            return after

    async def transact(self, writes: Sequence[Write]) -> None:
        item_limits.check_transaction(writes)
        with self._store.lock:
            current = [self._store.items.get(write.key) for write in writes]
            for index, (write, item) in enumerate(zip(writes, current, strict=True)):
                if not holds(write.expect, item):
                    raise Conflict(item, index=index)
            after = item_limits.applied_together(writes, current)
            for write, old, new in zip(writes, current, after, strict=True):
                self._replace(write.key, old, new)

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
        with self._store.lock:
            names = self._store.sorted_keys.get(pk, [])
            low = bisect_left(names, start)
            high = len(names) if end is None else bisect_left(names, end)
            if after is not None:
                low, high = _go_on(names, after, low, high, forward=forward)
            chosen = names[low:high] if forward else names[low:high][::-1]
            found = tuple((Key(pk, sk), self._store.items[Key(pk, sk)]) for sk in chosen[:limit])
            return Page(found, found[-1][0].sk if len(chosen) > limit else None)

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
        with self._store.lock:
            entries = self._store.index.get(ipk, [])
            low = bisect_left(entries, start, key=_sort_key)
            high = len(entries) if end is None else bisect_left(entries, end, key=_sort_key)
            if after is not None:
                low, high = _go_on([isk for isk, _ in entries], after, low, high, forward=forward)
            low, high = (low, min(high, low + limit + 1)) if forward else (max(low, high - limit - 1), high)
            chosen = entries[low:high] if forward else entries[low:high][::-1]
            found = tuple((key, _indexed(self._store.items[key])) for _, key in chosen[:limit])
            return Page(found, chosen[limit - 1][0] if len(chosen) > limit else None)

    def _replace(self, key: Key, current: Item | None, after: Item | None) -> None:
        store = self._store
        if after is None:
            if current is not None:
                del store.items[key]
                store.sorted_keys[key.pk].remove(key.sk)
        else:
            store.items[key] = after
            if current is None:
                insort(store.sorted_keys[key.pk], key.sk)
        old, new = _index_entry(current), _index_entry(after)
        if old != new:
            if old:
                store.index[old[0]].remove((old[1], key))
            if new:
                insort(store.index[new[0]], (new[1], key))
        self._written(key)


def _sort_key(entry: tuple[str, Key]) -> str:
    return entry[0]


def _index_entry(item: Item | None) -> tuple[str, str] | None:
    if item is None or "ipk" not in item or "isk" not in item:
        return None
    return str(item["ipk"]), str(item["isk"])


def _indexed(item: Item) -> Item:
    return {name: item[name] for name in INDEXED if name in item}


def _go_on(names: Sequence[str], after: str, low: int, high: int, *, forward: bool) -> tuple[int, int]:
    """The range that is left after the entry `after`, which may have been deleted since."""
    position = bisect_left(names, after)
    if not forward:
        return low, min(high, position)
    if position < len(names) and names[position] == after:
        position += 1
    return max(low, position), high


@dataclass
class _Message:
    id: int
    body: str
    visible: float
    count: int = 0
    receipt: str = ""


class MemoryQueue:
    """A queue with delays, visibility and, if `dead` is given, a dead-letter queue."""

    max_delay = EMBEDDED_DELAY

    def __init__(self, clock: Clock, *, dead: MemoryQueue | None = None, max_receives: int = 10) -> None:
        self._clock = clock
        self._dead = dead
        self._max_receives = max_receives
        self._messages: dict[int, _Message] = {}
        self._due: list[tuple[float, int]] = []
        self._numbers = itertools.count(1)
        self._lock = _Lock()
        # In order of arrival, not of hash: under a virtual clock the same program does the same every time.
        self._waiters: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def __len__(self) -> int:
        """Messages stored: waiting, delayed or in flight."""
        return len(self._messages)

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        if delay > self.max_delay:
            raise InputError(f"The queue delays a message by at most {self.max_delay:g} s, not {delay:g} s.")
        visible = self._clock() + delay * 1000
        with self._lock:
            for body in bodies:
                self._store(_Message(next(self._numbers), body, visible))
            self._wake()

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Received]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        woken = asyncio.Event()
        with self._lock:
            self._waiters[woken] = loop
        try:
            while True:
                woken.clear()
                found = self._take(limit, visibility)
                left = until - loop.time()
                if found or left <= 0:
                    return found
                with self._lock:
                    due = self._due[0][0] / 1000 - self._clock() / 1000 if self._due else left
                pause = max(0.0, min(left, due))
                try:
                    async with asyncio.timeout(pause if math.isfinite(pause) else None):
                        await woken.wait()
                except TimeoutError:
                    continue
        finally:
            with self._lock:
                del self._waiters[woken]

    async def extend(self, receipt: str, visibility: float) -> None:
        with self._lock:
            if (message := self._held(receipt)) is not None:
                message.visible = self._clock() + visibility * 1000
                heapq.heappush(self._due, (message.visible, message.id))
                self._wake()

    async def extend_many(self, receipts: Sequence[str], visibility: float) -> None:
        for receipt in receipts:
            await self.extend(receipt, visibility)

    async def delete(self, receipt: str) -> None:
        with self._lock:
            if (message := self._held(receipt)) is not None:
                del self._messages[message.id]

    def _store(self, message: _Message) -> None:
        self._messages[message.id] = message
        heapq.heappush(self._due, (message.visible, message.id))

    def _held(self, receipt: str) -> _Message | None:
        message = self._messages.get(int(receipt.split("/")[0]))
        return message if message is not None and message.receipt == receipt else None

    def _take(self, limit: int, visibility: float) -> list[Received]:
        now = self._clock()
        taken: list[Received] = []
        with self._lock:
            while self._due and self._due[0][0] <= now and len(taken) < limit:
                visible, number = heapq.heappop(self._due)
                message = self._messages.get(number)
                if message is None or message.visible != visible:
                    continue
                if self._dead is not None and message.count >= self._max_receives:
                    del self._messages[number]
                    with self._dead._lock:
                        self._dead._store(replace(message, id=next(self._dead._numbers), visible=now, count=0))
                        self._dead._wake()
                    continue
                message.count += 1
                message.visible = now + visibility * 1000
                message.receipt = f"{number}/{message.count}"
                heapq.heappush(self._due, (message.visible, number))
                taken.append(Received(message.body, message.receipt, message.count))
        return taken

    def _wake(self) -> None:
        for event, loop in self._waiters.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)


class MemoryBlobs:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, data: bytes) -> str:
        if len(data) > MAX_BLOB:
            raise PayloadTooLarge(f"A payload of {len(data):,} bytes is over the limit of {MAX_BLOB:,}.")
        ref = sha256(data).hexdigest()
        with self._store.lock:
            self._store.blobs[ref] = data
        return ref

    async def get(self, ref: str) -> bytes:
        with self._store.lock:
            data = self._store.blobs.get(ref)
        if data is None:
            raise CorruptRecord(f"The payload {ref[:80]!r} is missing from the blob store.")
        return data


class MemoryLogs:
    settles = 0.5

    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, lines: Sequence[LogLine]) -> None:
        with self._store.lock:
            self._store.logs += lines

    async def read(self, query: LogQuery, *, limit: int = 1000, after: str | None = None) -> LogPage:
        wanted = selects(query)
        with self._store.lock:
            lines = self._store.logs
            position = int(after or 0)
            found: list[LogLine] = []
            while position < len(lines) and len(found) < limit:
                line = lines[position]
                position += 1
                if wanted(line, fit(line)):
                    found.append(line)
            more = position < len(lines)
        return LogPage(tuple(sorted(found, key=lambda line: line.time)), str(position), more)

    def follow(self, query: LogQuery, over: asyncio.Event) -> AsyncGenerator[LogPage, None]:
        return polled(self, query, FOLLOW_EVERY, over)


def memory_backend(
    *,
    clock: Clock = wall_clock,
    ids: Ids = new_id,
    timing: Timing | None = None,
    max_receives: int = 10,
    written: Callable[[Key], None] = _nobody_listens,
) -> Backend:
    """A backend in this process's memory; gone with it. `written` is told the key of every write to its table."""
    store = Store()
    table = MemoryTable(store, written)
    dead = MemoryQueue(clock)
    users: dict[str, MemoryQueue] = {}

    def user_queue(name: str, dead: MemoryQueue | None = None) -> MemoryQueue:
        with store.lock:
            return users.setdefault(name, MemoryQueue(clock, dead=dead, max_receives=max_receives))

    def source(name: str) -> EmbeddedSource:
        dead = user_queue(dead_name(name))
        return EmbeddedSource(name, user_queue(name, dead), dead, clock, ids)

    async def sweep() -> None:
        now = clock() // 1000
        with store.lock:
            for key, item in list(store.items.items()):
                expires = item.get("expires")
                if isinstance(expires, int) and expires < now:
                    table._replace(key, item, None)

    return Backend(
        url="memory://",
        table=table,
        queue=MemoryQueue(clock, dead=dead, max_receives=max_receives),
        dead_letters=dead,
        blobs=MemoryBlobs(store),
        logs=MemoryLogs(store),
        clock=clock,
        ids=ids,
        new_owner=ids,
        timing=timing or Timing(),
        source=source,
        sweep=sweep,
    )
