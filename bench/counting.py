"""A table and a queue that count what is asked of them: the same figures on every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from detent_infra.ports import Backend, Page, Queue, Received, Table
from detent_state_machine.writes import Item, Key, Value, Write


@dataclass
class Counts:
    """Requests so far. A refused write is a write too: every cloud bills it."""

    written: list[Key] = field(default_factory=list[Key])
    """The key of each write, those in transactions included."""
    transactions: int = 0
    read: list[Key] = field(default_factory=list[Key])
    queries: int = 0
    sent: int = 0
    """Messages, not requests."""
    received: int = 0
    deleted: int = 0
    extended: int = 0
    item_bytes: dict[Key, int] = field(default_factory=dict[Key, int])
    """The largest size each item had, as DynamoDB counts it."""

    def clear(self) -> None:
        """Counts from nothing again."""
        self.__dict__.update(Counts().__dict__)

    def writes_of(self, sort_key: str) -> int:
        return sum(key.sk == sort_key for key in self.written)


def counted(backend: Backend) -> tuple[Backend, Counts]:
    """The backend with table and queue counted. Dead letters, blobs and logs are not."""
    counts = Counts()
    table, queue = CountingTable(backend.table, counts), CountingQueue(backend.queue, counts)
    return replace(backend, table=table, queue=queue), counts


class CountingTable:
    def __init__(self, table: Table, counts: Counts) -> None:
        self._table = table
        self._counts = counts

    async def get(self, key: Key) -> Item | None:
        self._counts.read.append(key)
        return await self._table.get(key)

    async def get_many(self, keys: Sequence[Key]) -> list[Item | None]:
        self._counts.read += keys
        return await self._table.get_many(keys)

    async def write(self, write: Write) -> Item | None:
        self._counts.written.append(write.key)
        item = await self._table.write(write)
        self._weigh(write.key, item)
        return item

    async def transact(self, writes: Sequence[Write]) -> None:
        self._counts.transactions += 1
        self._counts.written += [write.key for write in writes]
        await self._table.transact(writes)
        for write in writes:
            self._weigh(write.key, await self._table.get(write.key))

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
        self._counts.queries += 1
        return await self._table.query(pk, start=start, end=end, forward=forward, limit=limit, after=after)

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
        self._counts.queries += 1
        return await self._table.query_index(ipk, start=start, end=end, forward=forward, limit=limit, after=after)

    def _weigh(self, key: Key, item: Item | None) -> None:
        if item is not None:
            largest = self._counts.item_bytes
            largest[key] = max(largest.get(key, 0), size_of(key, item))


class CountingQueue:
    def __init__(self, queue: Queue, counts: Counts) -> None:
        self._queue = queue
        self._counts = counts
        self.max_delay = queue.max_delay

    async def send(self, bodies: Sequence[str], *, delay: float = 0.0) -> None:
        self._counts.sent += len(bodies)
        await self._queue.send(bodies, delay=delay)

    async def receive(self, limit: int, *, wait: float, visibility: float) -> list[Received]:
        received = await self._queue.receive(limit, wait=wait, visibility=visibility)
        self._counts.received += len(received)
        return received

    async def extend(self, receipt: str, visibility: float) -> None:
        self._counts.extended += 1
        await self._queue.extend(receipt, visibility)

    async def delete(self, receipt: str) -> None:
        self._counts.deleted += 1
        await self._queue.delete(receipt)


def size_of(key: Key, item: Item) -> int:
    """Bytes of the item as DynamoDB bills them: names and values as UTF-8, two digits of a number in a byte."""
    named: dict[str, Value] = {"pk": key.pk, "sk": key.sk, **item}
    return sum(len(name.encode()) + _bytes(value) for name, value in named.items())


def _bytes(value: Value) -> int:
    match value:
        case bool():
            return 1
        case int():
            return 1 + (len(str(abs(value))) + 1) // 2 + (value < 0)
        case str():
            return len(value.encode())
        case frozenset():
            return sum(map(_bytes, value))
        case _:
            assert_never(value)
